"""The limit that benches compare with: products of large matrices on the same machine."""
import time

import tensorflow.compat.v1 as tf

import devices
from params import HParams

SIDE = 2048  # of the matrices


def flops(hp: HParams) -> float:
    """Floating-point operations of one pass through the flow, for each group.

    They are those of the convolutions in the published definition. The conditioning's count once a
    frame where the mel is upsampled by repetition.
    """
    condition_share = (hp.cond_terms * hp.n_group / hp.hop_length
                       if hp.upsampling == 'repeat' else 1.0)
    units, skips = hp.residual_channels, hp.skip_channels
    products = 0.0
    for k in range(hp.n_flows):
        channels = hp.flow_channels(k)
        layer = (2 * hp.kernel_size * units ** 2 + units * (units + skips)
                 + 2 * units * hp.condition_channels * condition_share)
        products += (channels ** 2 + channels // 2 * units + hp.n_layers * layer - units ** 2
                     + skips * channels)
    return 2 * products


class MatrixProduct:
    """The product of two large matrices of a type, to be timed beside something else."""

    def __init__(self, dtype: tf.DType):
        with tf.Graph().as_default() as graph:
            matrix = tf.Variable(tf.cast(tf.random_normal([SIDE, SIDE]), dtype), use_resource=True)
            self._product = tf.matmul(matrix, matrix).op
            self._session = tf.Session(graph=graph, config=devices.session_config())
            self._session.run(tf.global_variables_initializer())
        self.seconds_per_flop(0.1)

    def seconds_per_flop(self, at_least: float) -> float:
        """Seconds of a floating-point operation, over at least min(at_least, 2) seconds."""
        started, products = time.time(), 0
        while not products or time.time() - started < min(at_least, 2.0):
            self._session.run(self._product)
            products += 1
        return (time.time() - started) / products / (2.0 * SIDE ** 3)
