"""Takes a vocoder's own sound out of what it vocodes: the denoiser of NVIDIA's WaveGlow.

A model's bias spectrum, the magnitudes of what it makes of a zero mel without noise, is subtracted
from the magnitudes of its audio; phases stay.
"""
import itertools

import numpy as np
import scipy.fft
import scipy.signal

SIZE = 1024             # samples a frame
HOP = SIZE // 4
BIAS_FRAMES = 88        # of the zero mel, as NVIDIA takes
WINDOW = scipy.signal.get_window('hann', SIZE).astype(np.float32)
OVERLAP = 1.5           # the sum of WINDOW^2 over frames a HOP apart


class Denoiser:
    """Denoises audio [samples], whole or as it comes.

    Args:
      bias: magnitudes [1 + SIZE // 2] of a Hann-windowed frame: see `of`.
      strength: how many times it is subtracted; 0 changes nothing.
    """

    def __init__(self, bias, strength):
        self._less = np.float32(strength) * np.asarray(bias, np.float32)

    @classmethod
    def of(cls, vocoder, strength):
        """With the bias of a `vocoder.Vocoder`: a mean over frames that no edge touches."""
        hp = vocoder.hp
        frames = max(BIAS_FRAMES, 3 * SIZE // hp.hop_length)
        sound = vocoder.vocode(np.zeros([frames, hp.n_mels], np.float32), sigma=0)
        inner = sound[len(sound) // 4:-(len(sound) // 4)]
        starts = range(0, len(inner) - SIZE + 1, HOP)
        return cls(np.mean([np.abs(scipy.fft.rfft(inner[i:i + SIZE] * WINDOW)) for i in starts],
                           axis=0), strength)

    def __call__(self, audio):
        """audio [samples], denoised."""
        return np.concatenate(list(self.stream([audio])) or [np.zeros(0, np.float32)])

    def stream(self, blocks):
        """Yields denoised audio, block by block, SIZE - HOP samples behind what comes in.

        Together they are what all blocks in one give.
        """
        edge = SIZE - HOP                           # so many zeros stand before the first sample
        waiting = np.zeros(edge, np.float32)        # samples from the next frame on
        sums = np.zeros(edge, np.float32)           # of the frames that overlap with it
        came, gone = 0, -edge
        for block in itertools.chain(blocks, [None]):
            ended = block is None
            block = np.zeros(SIZE, np.float32) if ended else np.asarray(block, np.float32)
            came += 0 if ended else len(block)
            waiting = np.concatenate([waiting, block])
            count = max(0, 1 + (len(waiting) - SIZE) // HOP)
            sums = np.concatenate([sums, np.zeros(count * HOP, np.float32)])
            for start in range(0, count * HOP, HOP):
                sums[start:start + SIZE] += self._frame(waiting[start:start + SIZE])
            done, sums, waiting = sums[:count * HOP], sums[count * HOP:], waiting[count * HOP:]
            piece = done[max(0, -gone):max(0, came - gone)]
            gone += len(done)
            if len(piece):
                yield piece

    def _frame(self, samples):
        spectrum = scipy.fft.rfft(samples * WINDOW)
        size = np.abs(spectrum)
        spectrum *= np.maximum(size - self._less, 0) / np.maximum(size, 1e-12)
        return scipy.fft.irfft(spectrum) * WINDOW / OVERLAP
