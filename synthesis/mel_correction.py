"""Brings vocoded audio nearer to the mel spectrogram it was vocoded from.

Rounds of what Griffin and Lim (1984) do, but a frame's magnitudes are not replaced: they are
scaled, band by band, to the mel that was asked for, so that what lies between the bands' centres,
harmonics and noise, stays the vocoder's.
"""
import math

import numpy as np

from datasets import mel_transform

MOST_GAIN = 10.0        # of a band in a round, up or down
BLOCK_FRAMES = 2000     # corrected at a time, which bounds memory


class MelCorrection:
    """Corrects audio towards its mel.

    Args:
      hp: the hyperparameters of the audio and its mel.
      rounds: how often magnitudes are scaled; 0 changes nothing.
    """

    def __init__(self, hp, rounds):
        self._profile, self._rounds = hp.mel, rounds
        basis = mel_transform.mel_basis(hp.sample_rate, hp.mel)            # [bins, n_mels]
        # bins that no band has keep their magnitude
        self._spread = (basis / np.maximum(basis.sum(axis=1, keepdims=True), 1e-12)).T
        waves = np.exp(-2j * np.pi * np.arange(len(basis)) / hp.mel.n_fft)
        self._basis = basis * np.abs(1 - hp.mel.preemphasis * waves)[:, None]

    def __call__(self, sound, mel):
        """float32 [frames * hop_length] of `sound`, as long, and its mel [frames, n_mels]."""
        if not self._rounds:
            return sound
        hop = self._profile.hop_length
        # a sample depends on those less than a window away, in every round
        edge = math.ceil(self._rounds * self._profile.win_length / hop)
        wanted = np.pad(mel_transform.mel_magnitudes(mel, self._profile), ((0, 1), (0, 0)),
                        mode='edge')
        blocks = []
        for start in range(0, len(mel), BLOCK_FRAMES):
            first, end = max(0, start - edge), min(len(mel), start + BLOCK_FRAMES + edge)
            block = self._correct(sound[first * hop:end * hop], wanted[first:end + 1])
            blocks.append(block[(start - first) * hop:][:BLOCK_FRAMES * hop])
        return np.concatenate(blocks)

    def _correct(self, sound, wanted):
        import librosa
        frames = dict(hop_length=self._profile.hop_length, win_length=self._profile.win_length,
                      window='hann', center=True)
        # reflection takes more samples than half a transform
        padded = np.pad(sound, (0, max(0, self._profile.n_fft - len(sound))))
        missing = 1 + len(padded) // frames['hop_length'] - len(wanted)
        wanted = np.pad(wanted, ((0, missing), (0, 0)), mode='edge')
        for _ in range(self._rounds):
            spectrum = librosa.stft(padded, n_fft=self._profile.n_fft, pad_mode='reflect', **frames)
            found = np.abs(spectrum).T @ self._basis
            gain = np.clip(wanted / np.maximum(found, 1e-8), 1 / MOST_GAIN, MOST_GAIN)
            spectrum *= np.exp(np.log(gain) @ self._spread).T
            padded = librosa.istft(spectrum, length=len(padded), **frames)
        return padded[:len(sound)].astype(np.float32)
