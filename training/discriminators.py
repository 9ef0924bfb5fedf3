"""Networks that learn what tells samples from recordings, for samples to lose it.

Least squares: Mao et al. 2017, arXiv 1611.04076; on spectrograms of several resolutions: Jang et
al. 2021, arXiv 2106.07889; matching of features: Kumar et al. 2019, arXiv 1910.06711.
"""
from typing import List, NamedTuple, Tuple

import tensorflow.compat.v1 as tf

import ops
import params
from training import spectral_loss

# Of each convolution: taps in time and frequency, stride in frequency, channels.
LAYERS = ((3, 9, 1, 16), (3, 9, 2, 16), (3, 9, 2, 32), (3, 9, 2, 32), (3, 3, 1, 32), (3, 3, 1, 1))
MAGNITUDE_FLOOR = 1e-2      # added to magnitudes of audio in -1..1 before their logarithm
SLOPE = 0.1                 # of the leaky ReLUs for what is below zero


Filters = List[Tuple[tf.Tensor, tf.Tensor]]     # (taps, bias) of each of LAYERS


class Losses(NamedTuple):
    """Scalars, means over discriminators and their results."""
    own: tf.Tensor          # what discriminators minimize: scores are 1 for clips, 0 for samples
    samples: tf.Tensor      # what the flow minimizes: scores are 1 for samples
    features: tf.Tensor     # L1 of the layers' results for samples from those for clips, over the
                            # latter's mean magnitude


def losses(spectra: spectral_loss.Spectra, dtype: tf.DType = tf.float32) -> Losses:
    """The Losses of drawn audio beside the reference, one discriminator for each STFT_SIZES.

    `own` has gradients to the discriminators' weights alone, the other two to `drawn` alone.

    Args:
      spectra: of the drawn audio and of the reference.
      dtype: what the convolutions compute in.
    """
    own, samples, features = [], [], []
    for size, filters in zip(params.STFT_SIZES, build_filters()):
        ours, theirs = (tf.log(x + MAGNITUDE_FLOOR)[..., None] for x in spectra.magnitudes(size))
        real = _layers(theirs, filters, dtype)
        fake = _layers(tf.stop_gradient(ours), filters, dtype)
        own.append(tf.reduce_mean(tf.square(real[-1] - 1)) + tf.reduce_mean(tf.square(fake[-1])))
        judged = _layers(ours, tf.nest.map_structure(tf.stop_gradient, filters), dtype)
        samples.append(tf.reduce_mean(tf.square(judged[-1] - 1)))
        features += [tf.reduce_mean(tf.abs(a - tf.stop_gradient(b)))
                     / tf.stop_gradient(tf.reduce_mean(tf.abs(b)))
                     for a, b in zip(judged[:-1], real[:-1])]
    return Losses(*(tf.add_n(values) / len(values) for values in (own, samples, features)))


def build_filters() -> List[Filters]:
    """The Filters of each of params.STFT_SIZES, variables."""
    found = []
    for size in params.STFT_SIZES:
        with tf.variable_scope('discriminator_%d' % size, reuse=tf.AUTO_REUSE):
            found.append(_build_filters())
    return found


def _build_filters():
    built, before = [], 1
    for i, (time, frequency, _, channels) in enumerate(LAYERS):
        name = 'layer_%d' % i
        built.append((ops.variable(name, [time, frequency, before, channels],
                                   tf.glorot_uniform_initializer(seed=ops.variable_seed(name))),
                      ops.bias(name + '/bias', channels)))
        before = channels
    return built


def _layers(x, filters, dtype) -> List[tf.Tensor]:
    """The result of each layer for x [batch, frames, bins, 1]; the last is the scores."""
    found, x = [], tf.cast(x, dtype)
    for i, (layer, (taps, bias)) in enumerate(zip(LAYERS, filters)):
        x = tf.nn.conv2d(x, tf.cast(taps, dtype), strides=[1, 1, layer[2], 1], padding='SAME')
        x = tf.nn.bias_add(x, tf.cast(bias, dtype))
        if i < len(LAYERS) - 1:
            x = tf.nn.leaky_relu(x, SLOPE)
        found.append(tf.cast(x, tf.float32))
    return found
