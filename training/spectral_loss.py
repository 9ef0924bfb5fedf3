"""How far audio sounds from a reference: distances of magnitude spectra, with gradients.

Multi-resolution STFT loss: Yamamoto et al. 2019, arXiv 1910.11480; on samples drawn through the
inverse of a flow: Hsu & Lee 2020, arXiv 2005.07412. A DFT is a product with a matrix here: as fast
as a fast transform on short frames, and the same on every device and version of TensorFlow.
"""
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf

import params
from datasets import mel_transform
from datasets.mel_definition import MelDefinition
from params import HParams

POWER_FLOOR = 1e-9                  # added to |X|^2: keeps logarithms and roots smooth
MEL_SIZES = 256, 512, 1024, 2048    # samples a frame, of stft_distance=mels
MEL_WIDTH = 12.8                    # samples a frame and band: the 80 bands of 1024
# Without the L1 of log magnitudes the lines at multiples of sample_rate / n_group are louder.
LOG_WEIGHT, MEL_WEIGHT = 0.25, 4.0
LOG_FLOOR = 1e-8                    # smallest number under a logarithm


def distance(drawn: tf.Tensor, reference: tf.Tensor, hp: HParams) -> tf.Tensor:
    """hp.stft_distance of drawn audio from the reference; frames lie within the clips.

    - 'magnitudes': spectral convergence + L1 of log magnitudes, a mean over resolutions, + L1 of
      log mels. Resolutions are params.STFT_SIZES; mels have the frames and the basis of hp.mel.
    - 'mels': spectral convergence + L1 of log magnitudes * LOG_WEIGHT + L1 of log mels *
      MEL_WEIGHT, a mean over the resolutions MEL_SIZES, with a band for every MEL_WIDTH samples.

    A hop is a quarter of a resolution. All are means of clips. Logarithms are natural.

    Args:
      drawn, reference: float32 [batch, samples], samples at least the largest of params.STFT_SIZES.

    Returns: a scalar.
    """
    if hp.stft_distance == 'mels':
        return tf.add_n([_mel_distance(drawn, reference, size, hp)
                         for size in MEL_SIZES]) / len(MEL_SIZES)
    total = 0.0
    for size in params.STFT_SIZES:
        ours, theirs = (magnitudes(x, size, size // 4) for x in (drawn, reference))
        total += (_convergence(ours, theirs) + _log_l1(ours, theirs)) / len(params.STFT_SIZES)
    return total + _log_l1(*(mel(x, hp) for x in (drawn, reference)))


def _mel_distance(drawn, reference, size, hp):
    ours, theirs = (magnitudes(x, size, size // 4) for x in (drawn, reference))
    basis = mel_transform.mel_basis(MelDefinition(
        sample_rate=hp.sample_rate, n_fft=size, n_mels=int(size / MEL_WIDTH)))
    mels = [tf.einsum('bfk,km->bfm', x, tf.constant(basis, x.dtype)) for x in (ours, theirs)]
    return (_convergence(ours, theirs) + LOG_WEIGHT * _log_l1(ours, theirs)
            + MEL_WEIGHT * _log_l1(*mels))


def magnitudes(x: tf.Tensor, size: int, hop: int, n_fft: Optional[int] = None,
               symmetric: bool = False) -> tf.Tensor:
    """|STFT| [batch, frames, 1 + n_fft // 2] of x [batch, samples] under a Hann window of `size`.

    Frames are those that lie within x. As many samples as needed of zeros fill up n_fft. The window
    is periodic, or symmetric.
    """
    window = mel_transform.hann_window(size, periodic=not symmetric)
    # phases do not count, so zeros may all stand at the end
    waves = np.exp(-2j * np.pi / (n_fft or size)
                   * np.outer(np.arange(size), np.arange((n_fft or size) // 2 + 1)))
    waves *= window[:, None]
    basis = tf.constant(np.concatenate([waves.real, waves.imag], 1), x.dtype)
    frames = tf.signal.frame(x, size, hop)
    real, imaginary = tf.split(tf.einsum('bfs,sk->bfk', frames, basis), 2, axis=-1)
    return tf.sqrt(tf.square(real) + tf.square(imaginary) + POWER_FLOOR)


def mel(x: tf.Tensor, hp: HParams) -> tf.Tensor:
    """Mel magnitudes [batch, frames, n_mels] of x [batch, samples], of frames that lie within x.

    With power=2 they are roots of energies, so that a decibel weighs the same.
    """
    definition = hp.mel
    if definition.preemphasis:
        x -= definition.preemphasis * tf.pad(x[:, :-1], [[0, 0], [1, 0]])
    spectrum = magnitudes(x, definition.win_length, definition.hop_length, definition.n_fft,
                          definition.window == 'hann_symmetric')
    basis = tf.constant(mel_transform.mel_basis(definition), x.dtype)
    if definition.power == 1:
        return tf.einsum('bfk,km->bfm', spectrum, basis)
    # the square of what `_log_l1` takes for zero keeps the root smooth
    return tf.sqrt(tf.einsum('bfk,km->bfm', tf.square(spectrum), basis) + LOG_FLOOR ** 2)


def _convergence(ours, theirs):
    difference = tf.sqrt(tf.reduce_sum(tf.square(theirs - ours), [1, 2]))
    return tf.reduce_mean(difference / tf.sqrt(tf.reduce_sum(tf.square(theirs), [1, 2])))


def _log_l1(a, b):
    # an empty band of a mel basis is zero in both
    a, b = (tf.log(tf.maximum(x, LOG_FLOOR)) for x in (a, b))
    return tf.reduce_mean(tf.abs(a - b))
