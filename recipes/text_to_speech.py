"""Speaks a text: hibari-tts makes a mel of it, and WaveGlow the audio of the mel.

    pip install -r requirements-tts.txt
    python -m recipes.text_to_speech "Any sentence." --out hello.wav

It needs no network: the weights of hibari-tts, an American English voice, lie in its package. Of
them come the magnitudes and F0 that its own signal processing would start from, and no audio. The
voice has another sample rate and hop, so the mel is converted, as that of any other front end
(docs/mels.md).
"""
import argparse
import os
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np

import command_line
import errors
import utils
from datasets import audio_files
from datasets.mel_definition import MelDefinition
from datasets.mel_transform import mel_basis, mel_values
from errors import UserError
from vocoder import Vocoder

try:
    import hibari
    from hibari import dsp
except ImportError as error:
    sys.exit('text_to_speech.py: %s is not installed; run pip install -r requirements-tts.txt'
             % error.name)

# The phases of neighbouring frames do not fit together. So the audio that comes nearest has powers
# that are a mean of these frames', and lower ones: by 3.6 dB, over five sentences.
NEIGHBOURS = 0.25
LEVEL = 0.66


def main():
    args = parse_arguments()
    vocoder = Vocoder.load(args.restore_from)
    front_end = FrontEnd(vocoder.hp.mel)
    began = time.time()
    mel = front_end.mel(args.text, args.speed)
    audio = vocoder.vocode(mel, seed=args.seed, profile=front_end.definition)
    with errors.as_user_error('cannot write ' + args.out, 'give another --out', OSError):
        audio_files.write_wav(args.out, audio, vocoder.hp.sample_rate)
    print('%s: %.1f s of speech, in %.1f s'
          % (args.out, len(audio) / vocoder.hp.sample_rate, time.time() - began))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('text', help='what to say, in English')
    parser.add_argument('--out', type=command_line.local_path, default='hello.wav',
                        metavar='FILE.wav', help='the wav to write (default: %(default)s)')
    parser.add_argument('--restore_from', type=command_line.local_path,
                        default=utils.BUNDLED_MODEL, metavar='RUN_OR_CHECKPOINT',
                        help='the model: a run of train.py, its best/, or one of its checkpoints '
                             '(default: the bundled model)')
    parser.add_argument('--speed', type=float, default=1.0,
                        help='0.5 for half as fast, up to 2 (default: %(default)s)')
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='random seed of the noise; the same seed gives the same audio '
                             '(default: %(default)s)')
    args = parser.parse_args()
    if not 0.5 <= args.speed <= 2:
        parser.error('--speed is from 0.5 to 2, not %g' % args.speed)
    return args


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


if __name__ == '__main__':
    command_line.run_script(main)
