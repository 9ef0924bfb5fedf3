"""Text to mels, by hibari-tts: a front end for a vocoder. Needs requirements-tts.txt.

It needs no network: the weights of hibari-tts, an American English voice, lie in its package. Of
them come the magnitudes and F0 that its own signal processing would start from, and no audio.
"""
import hibari
import numpy as np
from hibari import dsp

import errors
from datasets.mel_definition import MelDefinition
from datasets.mel_transform import mel_basis, mel_values
from errors import UserError

# The phases of neighbouring frames do not fit together. So the audio that comes nearest has powers
# that are a mean of these frames', and lower ones: by 3.6 dB, over five sentences.
NEIGHBOURS = 0.25
LEVEL = 0.66


class FrontEnd:
    """Text to mels, by hibari-tts.

    Args:
      bands: a definition whose bands the mels have. Their rate, hop and windows are hibari's.

    Attributes:
      definition: that of the mels.
    """

    def __init__(self, bands: MelDefinition):
        self._tts = hibari.Hibari()
        self.definition = MelDefinition(
            sample_rate=dsp.SR, n_fft=dsp.N_FFT, win_length=dsp.N_FFT, hop_length=dsp.HOP,
            drop_last_frame=True, n_mels=bands.n_mels, fmin=bands.fmin,
            fmax=min(bands.top, dsp.SR / 2), mel_scale=bands.mel_scale, mel_norm=bands.mel_norm)

    def mel(self, text: str, speed: float = 1.0) -> np.ndarray:
        """float32 [frames, n_mels]; UserError if the text has nothing to say."""
        sentences = self._tts.phonemize(text)
        if not (sentences and any(character.isalnum() for character in text)):
            raise UserError('%s has nothing that can be said; give a sentence in English'
                            % errors.shown(text))
        mels = [self._mel(self._tts.ids(phonemes), speed) for phonemes in sentences]
        return np.concatenate(mels)

    def _mel(self, ids, speed):
        """Of one sentence: the network's harmonics of F0, noise, and a part of free phases."""
        harmonics, _, noise, free, _, f0 = (
            of_batch[0] for of_batch in self._tts.sess.run(
                None, {'ids': np.array([ids], np.int64), 'speed': np.array([speed], np.float32)}))
        pulses = np.abs(dsp.stft(dsp.pulses(f0), harmonics.shape[1]))
        power = (np.square(pulses * dsp.ex(harmonics)) + np.square(dsp.ex(noise))
                 + np.square(dsp.ex(free))).T
        padded = np.pad(power, ((1, 1), (0, 0)), mode='edge')
        power += NEIGHBOURS * (padded[:-2] - 2 * power + padded[2:])
        magnitudes = LEVEL * np.sqrt(power) @ mel_basis(self.definition)
        return mel_values(magnitudes, self.definition)
