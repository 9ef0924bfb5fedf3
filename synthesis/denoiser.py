"""Takes a vocoder's own noise out of what it vocodes: the denoiser of NVIDIA's WaveGlow.

A model's bias spectrum, the magnitudes of what it makes of silence without noise, is subtracted
from the magnitudes of its audio; phases stay.
"""
import itertools
from typing import Iterable, Iterator

import numpy as np
import scipy.fft

from datasets import mel_transform
from synthesis.stft import overlap_add, stft, window

SIZE = 1024             # samples a frame
HOP = SIZE // 4
BIAS_FRAMES = 88        # of silence, as many as NVIDIA takes
OVERLAP = 1.5           # the sum of squared windows over frames a HOP apart


class Denoiser:
    """Denoises audio [samples], whole or as it comes.

    Args:
      bias: magnitudes [1 + SIZE // 2] of a Hann-windowed frame: see `from_vocoder`.
      strength: how many times it is subtracted; 0 changes nothing.
    """

    def __init__(self, bias: np.ndarray, strength: float):
        self._subtracted = np.float32(strength) * np.asarray(bias, np.float32)

    @classmethod
    def from_vocoder(cls, vocoder, strength: float) -> 'Denoiser':
        """With the bias of a `vocoder.Vocoder`: a mean over frames that no edge touches."""
        hp = vocoder.hp
        frames = max(BIAS_FRAMES, 3 * SIZE // hp.hop_length)
        audio = vocoder.vocode(mel_transform.silence(frames, hp.mel), sigma=0, mel_correction=0)
        inner = audio[len(audio) // 4:-(len(audio) // 4)]
        return cls(np.abs(stft(inner, SIZE, HOP, center=False)).mean(axis=0), strength)

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        """float32 audio [samples], denoised."""
        return np.concatenate(list(self.stream([audio])) or [np.zeros(0, np.float32)])

    def stream(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields denoised audio, block by block, SIZE - HOP samples behind what comes in.

        Together they are what all blocks in one give.
        """
        edge = SIZE - HOP                           # so many zeros stand before the first sample
        waiting = np.zeros(edge, np.float32)        # samples from the next frame on
        sums = np.zeros(edge, np.float32)           # of the frames that overlap with it
        received, returned = 0, -edge               # samples
        for block in itertools.chain(blocks, [None]):
            ended = block is None
            block = np.zeros(SIZE, np.float32) if ended else np.asarray(block, np.float32)
            received += 0 if ended else len(block)
            waiting = np.concatenate([waiting, block])
            spectrum = stft(waiting, SIZE, HOP, center=False)
            if not len(spectrum):
                continue
            done = len(spectrum) * HOP
            sums = overlap_add(self._denoised_frames(spectrum), HOP, sums)
            audio, sums, waiting = sums[:done], sums[done:], waiting[done:]
            piece = audio[max(0, -returned):max(0, received - returned)]
            returned += done
            if len(piece):
                yield piece

    def _denoised_frames(self, spectrum):
        """[frames, SIZE]: what every frame adds to the audio."""
        magnitudes = np.abs(spectrum)
        spectrum *= (np.maximum(magnitudes - self._subtracted, 0)
                     / np.maximum(magnitudes, np.float32(1e-12)))
        return scipy.fft.irfft(spectrum) * (window(SIZE) / np.float32(OVERLAP))
