"""Adam: its learning rate over time, clipping, and the averages of the weights."""
import math
from typing import Iterable, Optional, Tuple

import tensorflow.compat.v1 as tf

from params import HParams
from training.loss_scale import LossScale


def schedule(hp: HParams, step: tf.Tensor) -> tf.Tensor:
    """The learning rate after `step` steps (both float32 scalars): warm-up, then decay."""
    if hp.lr_schedule == 'cosine':
        progress = tf.minimum(step / hp.lr_decay_steps, 1.0)
        rate = hp.lr_decay_rate + (1 - hp.lr_decay_rate) * 0.5 * (1 + tf.cos(math.pi * progress))
    else:
        rate = tf.pow(hp.lr_decay_rate, tf.floor(step / hp.lr_decay_steps))
    if hp.warmup_steps:
        rate *= tf.minimum((step + 1) / hp.warmup_steps, 1.0)
    return hp.lr * rate


def optimize(hp: HParams, gradients: Iterable[Tuple[tf.Tensor, tf.Variable]],
             learning_rate: tf.Tensor, global_step: tf.Variable,
             loss_scale: Optional[LossScale] = None) -> Tuple[
                 tf.Operation, tf.Tensor, Optional[tf.train.ExponentialMovingAverage]]:
    """A step of Adam on [(gradient, variable)]; Kingma & Ba 2014, arXiv 1412.6980.

    loss_scale: of a loss whose gradients may not be finite: such a step only counts.

    Returns: (the training operation, the global norm of the gradients before clipping, the averages
    of the weights or None).
    """
    gradients, variables = zip(*gradients)
    norm = tf.global_norm(gradients)
    if hp.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, hp.clip_norm, use_norm=norm)
    adam = tf.train.AdamOptimizer(learning_rate, hp.adam_beta1, hp.adam_beta2, hp.adam_epsilon)
    # num_updates: young averages follow the weights more closely
    ema = (tf.train.ExponentialMovingAverage(hp.ema_decay, num_updates=global_step)
           if hp.ema_decay else None)

    def update(*step):
        updated = adam.apply_gradients(zip(gradients, variables), *step)
        if not ema:
            return updated
        with tf.control_dependencies([updated]):
            return ema.apply(variables)

    if loss_scale is None:
        return update(global_step), norm, ema
    with tf.control_dependencies([loss_scale.apply_if_finite(norm, update)]):
        return global_step.assign_add(1).op, norm, ema
