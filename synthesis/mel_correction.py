"""Brings vocoded audio nearer to the mel spectrogram it was vocoded from.

Rounds of Griffin and Lim's algorithm (1984) that scale the magnitudes of a frame, band by band, to
the given mel, and do not replace them. What lies between the centres of bands, harmonics and noise,
stays as the vocoder made it.
"""
import math

import numpy as np
import scipy.sparse

from datasets import mel_transform
from params import HParams
from synthesis.stft import istft, stft

MOST_GAIN = 10.0        # of a band in a round, up or down
BLOCK_FRAMES = 2000     # corrected at a time, which bounds memory


class MelCorrection:
    """Corrects audio towards its mel.

    Args:
      hp: the hyperparameters of the audio and its mel.
      rounds: how often magnitudes are scaled; 0 changes nothing.
    """

    def __init__(self, hp: HParams, rounds: int):
        self._profile, self._rounds = hp.mel, rounds
        basis = mel_transform.mel_basis(hp.mel)            # [bins, n_mels]
        # Sparse, for a bin lies in two bands at most. A dense product runs in threads, which wait
        # for each other ten times as long as they compute where other programs use the processor.
        # Bins that no band has keep their magnitude.
        self._spread = scipy.sparse.csr_matrix(
            (basis / np.maximum(basis.sum(axis=1, keepdims=True), 1e-12)).T)
        delay = np.exp(-2j * np.pi * np.arange(len(basis)) / hp.mel.n_fft)      # of a sample
        preemphasis = np.abs(1 - hp.mel.preemphasis * delay).astype(np.float32)
        self._basis = scipy.sparse.csr_matrix(basis * preemphasis[:, None])

    def __call__(self, audio: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """float32 audio [frames * hop_length], corrected, of such and mel [frames, n_mels]."""
        if not self._rounds:
            return audio
        hop = self._profile.hop_length
        # a sample depends on those less than a window away, in every round
        edge = math.ceil(self._rounds * self._profile.win_length / hop)
        wanted = np.pad(mel_transform.mel_magnitudes(mel, self._profile), ((0, 1), (0, 0)),
                        mode='edge')
        blocks = []
        for start in range(0, len(mel), BLOCK_FRAMES):
            first, end = max(0, start - edge), min(len(mel), start + BLOCK_FRAMES + edge)
            block = self._correct(audio[first * hop:end * hop], wanted[first:end + 1])
            blocks.append(block[(start - first) * hop:][:BLOCK_FRAMES * hop])
        return np.concatenate(blocks)

    def _correct(self, audio, wanted):
        n_fft, hop, win = (self._profile.n_fft, self._profile.hop_length, self._profile.win_length)
        # reflection takes more samples than half a transform
        corrected = np.pad(np.asarray(audio, np.float32), (0, max(0, n_fft - len(audio))),
                           mode='constant')
        length = len(corrected)
        wanted = np.pad(wanted, ((0, 1 + length // hop - len(wanted)), (0, 0)), mode='edge')
        for _ in range(self._rounds):
            spectrum = stft(corrected, n_fft, hop, win)
            found = np.abs(spectrum) @ self._basis
            gain = np.clip(wanted / np.maximum(found, 1e-8), 1 / MOST_GAIN, MOST_GAIN)
            spectrum *= np.exp(np.log(gain) @ self._spread)
            corrected = istft(spectrum, hop, win, length)
        return corrected[:len(audio)]
