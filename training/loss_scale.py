"""Loss scaling, for gradients that float16 can hold.

The loss is multiplied by a power of two, so that small gradients do not become zero on their way
through the networks. The gradients of the weights, float32, are divided by it again. A step in
which they are not finite changes no weight, and halves the scale. Micikevicius et al. 2017, arXiv
1710.03740.
"""
from typing import Callable, NamedTuple, Optional

import tensorflow.compat.v1 as tf

import ops

FIRST = 2.0 ** 15       # the scale of a new training
GROWTH_STEPS = 2000     # steps in a row, all of them finite, after which the scale doubles
SMALLEST = 1.0          # scale: gradients that are not finite then are not for want of range
SCOPE = 'loss_scale'    # of the variables, which only checkpoints of float16 trainings have


class LossScale(NamedTuple):
    """A scale that adapts from step to step."""
    now: tf.Tensor              # of this step, a power of two, float32
    variable: tf.Variable       # it after this step
    finite_steps: tf.Variable   # int64: in a row, since it last changed

    @classmethod
    def build(cls) -> 'LossScale':
        """With new variables in the default graph."""
        with tf.variable_scope(SCOPE):
            variable = ops.variable('value', [], tf.constant_initializer(FIRST), trainable=False)
            finite_steps = ops.variable('finite_steps', [], tf.zeros_initializer(), tf.int64,
                                        trainable=False)
        return cls(variable.read_value(), variable, finite_steps)

    def apply_if_finite(self, norm: tf.Tensor, apply: Callable[[], tf.Operation]) -> tf.Operation:
        """Runs what `apply()` builds if the norm of the gradients is finite; adapts the scale."""
        finite = tf.is_finite(norm)
        steps = tf.where(finite, self.finite_steps + 1, tf.zeros([], tf.int64))
        grows = steps >= GROWTH_STEPS
        scale = tf.where(finite, tf.where(grows, self.now * 2, self.now),
                         tf.maximum(self.now / 2, SMALLEST))
        with tf.control_dependencies([tf.cond(finite, lambda: tf.group(apply()), tf.no_op)]):
            return tf.group(self.variable.assign(scale),
                            self.finite_steps.assign(tf.where(grows, tf.zeros_like(steps), steps)))


def of_precision(precision: str) -> Optional[LossScale]:
    """The scale that gradients of a precision, a key of glow.PRECISIONS, need; None for none."""
    return LossScale.build() if precision == 'float16' else None
