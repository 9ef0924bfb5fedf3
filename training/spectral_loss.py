"""How far audio sounds from a reference: distances of magnitude spectra, with gradients.

Multi-resolution STFT loss: Yamamoto et al. 2019, arXiv 1910.11480; on samples drawn through the
inverse of a flow: Hsu & Lee 2020, arXiv 2005.07412. A DFT is a product with a matrix here: as fast
as a fast transform on short frames, and the same on every device and version of TensorFlow.
"""
from typing import Dict, List, Optional, Sequence

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


class Spectra:
    """Magnitude spectra of drawn audio and of its reference, each resolution computed once.

    Args:
      drawn, reference: float32 [batch, samples], samples at least the largest resolution.
    """

    def __init__(self, drawn: tf.Tensor, reference: tf.Tensor):
        self.drawn, self.reference = drawn, reference
        self._found: Dict[int, List[tf.Tensor]] = {}

    def magnitudes(self, size: int) -> List[tf.Tensor]:
        """`magnitudes` of both, of frames of `size` samples, a quarter of it apart."""
        if size not in self._found:
            self._found[size] = magnitudes([self.drawn, self.reference], size, size // 4)
        return self._found[size]


def distance(spectra: Spectra, hp: HParams) -> tf.Tensor:
    """hp.stft_distance, a scalar, of drawn audio from the reference; frames lie within the clips.

    - 'magnitudes': spectral convergence + L1 of log magnitudes, a mean over resolutions, + L1 of
      log mels. Resolutions are params.STFT_SIZES; mels have the frames and the basis of hp.mel.
    - 'mels': spectral convergence + L1 of log magnitudes * LOG_WEIGHT + L1 of log mels *
      MEL_WEIGHT, a mean over the resolutions MEL_SIZES, with a band for every MEL_WIDTH samples.

    A hop is a quarter of a resolution. All are means of clips. Logarithms are natural.
    """
    if hp.stft_distance == 'mels':
        return tf.add_n([_mel_distance(spectra, size, hp) for size in MEL_SIZES]) / len(MEL_SIZES)
    total = 0.0
    for size in params.STFT_SIZES:
        ours, theirs = spectra.magnitudes(size)
        total += (_convergence(ours, theirs) + _log_l1(ours, theirs)) / len(params.STFT_SIZES)
    return total + _log_l1(*mels([spectra.drawn, spectra.reference], hp))


def _mel_distance(spectra, size, hp):
    ours, theirs = spectra.magnitudes(size)
    basis = mel_transform.mel_basis(MelDefinition(
        sample_rate=hp.sample_rate, n_fft=size, n_mels=int(size / MEL_WIDTH)))
    basis = tf.constant(basis, ours.dtype)
    bands = [tf.einsum('bfk,km->bfm', x, basis) for x in (ours, theirs)]
    return (_convergence(ours, theirs) + LOG_WEIGHT * _log_l1(ours, theirs)
            + MEL_WEIGHT * _log_l1(*bands))


def magnitudes(audio: Sequence[tf.Tensor], size: int, hop: int, n_fft: Optional[int] = None,
               symmetric: bool = False) -> List[tf.Tensor]:
    """|STFT| [batch, frames, 1 + n_fft // 2] of each [batch, samples], under Hann windows.

    Frames of `size` samples are those that lie within; zeros fill up n_fft. The window is
    periodic, or symmetric.
    """
    window = mel_transform.hann_window(size, periodic=not symmetric)
    # phases do not count, so zeros may all stand at the end
    waves = np.exp(-2j * np.pi / (n_fft or size)
                   * np.outer(np.arange(size), np.arange((n_fft or size) // 2 + 1)))
    waves *= window[:, None]
    basis = tf.constant(np.concatenate([waves.real, waves.imag], 1), audio[0].dtype)

    def magnitudes_of(x):
        frames = tf.signal.frame(x, size, hop)
        real, imaginary = tf.split(tf.einsum('bfs,sk->bfk', frames, basis), 2, axis=-1)
        return tf.sqrt(tf.square(real) + tf.square(imaginary) + POWER_FLOOR)
    return [magnitudes_of(x) for x in audio]


def mels(audio: Sequence[tf.Tensor], hp: HParams) -> List[tf.Tensor]:
    """Mel magnitudes [batch, frames, n_mels] of each [batch, samples], of frames that lie within.

    With power=2 they are roots of energies, so that a decibel weighs the same.
    """
    definition = hp.mel
    if definition.preemphasis:
        audio = [x - definition.preemphasis * tf.pad(x[:, :-1], [[0, 0], [1, 0]]) for x in audio]
    spectra = magnitudes(audio, definition.win_length, definition.hop_length, definition.n_fft,
                         definition.window == 'hann_symmetric')
    basis = tf.constant(mel_transform.mel_basis(definition), audio[0].dtype)
    if definition.power == 1:
        return [tf.einsum('bfk,km->bfm', x, basis) for x in spectra]
    # the square of what `_log_l1` takes for zero keeps the root smooth
    return [tf.sqrt(tf.einsum('bfk,km->bfm', tf.square(x), basis) + LOG_FLOOR ** 2)
            for x in spectra]


def _convergence(ours, theirs):
    difference = tf.sqrt(tf.reduce_sum(tf.square(theirs - ours), [1, 2]))
    return tf.reduce_mean(difference / tf.sqrt(tf.reduce_sum(tf.square(theirs), [1, 2])))


def _log_l1(a, b):
    # an empty band of a mel basis is zero in both
    a, b = (tf.log(tf.maximum(x, LOG_FLOOR)) for x in (a, b))
    return tf.reduce_mean(tf.abs(a - b))
