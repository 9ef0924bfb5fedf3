"""Digital silence: runs of samples that are exactly zero, as noise gates leave them.

Knows no TensorFlow.
"""
from typing import List, Tuple

import numpy as np

ZERO_RUN = 64   # so many zeros in a row are no speech that crosses zero
_DITHER = np.random.RandomState(0).uniform(-1, 1, 2 ** 17).astype(np.float32)


def zero_runs(pcm: np.ndarray, shortest: int = ZERO_RUN) -> List[Tuple[int, int]]:
    """(first, last + 1) of each run of `shortest` zeros or more in int16 [samples]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], pcm == 0, [False]])))
    return [(first, end) for first, end in zip(edges[::2], edges[1::2]) if end - first >= shortest]


def to_float(pcm: np.ndarray, start: int, dither: float) -> np.ndarray:
    """float32 in -1..1 of int16 [samples], with dither where they are digital silence.

    A density over real numbers grows without bound on samples that are exactly equal: a training on
    a noise-gated corpus diverges. Dither is uniform in +-dither steps of PCM16 and a function of
    the position alone, so that a training that is resumed sees the same.

    Args:
      start: position of the first sample in its utterance.
      dither: in steps of PCM16; 0 for none.
    """
    audio = pcm.astype(np.float32) / 32768
    if dither and np.count_nonzero(pcm) < len(pcm):
        for first, end in zero_runs(pcm):
            positions = np.arange(start + first, start + end) % len(_DITHER)
            audio[first:end] = np.float32(dither / 32768) * _DITHER[positions]
    return audio
