"""How far audio sounds from a reference: distances of magnitude spectra, with gradients.

Multi-resolution STFT loss: Yamamoto et al. 2019, arXiv 1910.11480; on samples drawn through the
inverse of a flow: Hsu & Lee 2020, arXiv 2005.07412. A DFT is a product with a matrix here: as fast
as a fast transform on short frames, and the same on every device and version of TensorFlow.
"""
from typing import Optional

import numpy as np
import scipy.signal
import tensorflow.compat.v1 as tf

import params
from datasets import mel_transform
from params import HParams

POWER_FLOOR = 1e-9                  # added to |X|^2: keeps logarithms and roots smooth


def distance(drawn: tf.Tensor, reference: tf.Tensor, hp: HParams) -> tf.Tensor:
    """Spectral convergence + L1 of log magnitudes, a mean over resolutions, + L1 of log mels.

    Resolutions are params.STFT_SIZES, a hop is a quarter of them; mels have the frames and the
    basis of hp.mel. All are means of clips, and frames lie within them. Logarithms are natural.

    Args:
      drawn, reference: float32 [batch, samples], samples at least the largest of params.STFT_SIZES.

    Returns: a scalar.
    """
    total = 0.0
    for size in params.STFT_SIZES:
        ours, theirs = (magnitudes(x, size, size // 4) for x in (drawn, reference))
        difference = tf.sqrt(tf.reduce_sum(tf.square(theirs - ours), [1, 2]))
        convergence = difference / tf.sqrt(tf.reduce_sum(tf.square(theirs), [1, 2]))
        total += (tf.reduce_mean(convergence) + _log_l1(ours, theirs)) / len(params.STFT_SIZES)
    return total + _log_l1(*(mel(x, hp) for x in (drawn, reference)))


def magnitudes(x: tf.Tensor, size: int, hop: int, n_fft: Optional[int] = None) -> tf.Tensor:
    """|STFT| [batch, frames, 1 + n_fft // 2] of x [batch, samples] under a Hann window of `size`.

    Frames are those that lie within x. As many samples as needed of zeros fill up n_fft.
    """
    window = scipy.signal.get_window('hann', size)
    # phases do not count, so zeros may all stand at the end
    waves = np.exp(-2j * np.pi / (n_fft or size)
                   * np.outer(np.arange(size), np.arange((n_fft or size) // 2 + 1)))
    waves *= window[:, None]
    basis = tf.constant(np.concatenate([waves.real, waves.imag], 1), x.dtype)
    frames = tf.signal.frame(x, size, hop)
    real, imaginary = tf.split(tf.einsum('bfs,sk->bfk', frames, basis), 2, axis=-1)
    return tf.sqrt(tf.square(real) + tf.square(imaginary) + POWER_FLOOR)


def mel(x: tf.Tensor, hp: HParams) -> tf.Tensor:
    """Mel magnitudes [batch, frames, n_mels] of x [batch, samples], of frames that lie within x."""
    profile = hp.mel
    if profile.preemphasis:
        x -= profile.preemphasis * tf.pad(x[:, :-1], [[0, 0], [1, 0]])
    basis = mel_transform.mel_basis(profile)
    return tf.einsum('bfk,km->bfm',
                     magnitudes(x, profile.win_length, profile.hop_length, profile.n_fft),
                     tf.constant(basis, x.dtype))


def _log_l1(a, b):
    # an empty band of a mel basis is zero in both
    a, b = (tf.log(tf.maximum(x, 1e-8)) for x in (a, b))
    return tf.reduce_mean(tf.abs(a - b))
