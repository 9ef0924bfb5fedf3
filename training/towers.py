"""How a step is computed: on which devices, in towers and parts, what XLA compiles of it."""
from typing import Callable, List, Optional, Sequence, Tuple

import tensorflow.compat.v1 as tf

import devices
import glow
from datasets.clip_files import Clips
from errors import UserError
from params import HParams
from training import objective
from training.loss_scale import LossScale
from training.weights import Buffers

# What XLA may compile of a training step, and what that means.
XLA_CHOICES = {
    'off': 'nothing',
    'gates': 'the activations of the coupling networks and their gradients',
}


def compute_options(precision: str = 'float32', reversible: bool = False,
                    xla: Optional[str] = None) -> glow.Compute:
    """The glow.Compute of train.py's flags; docs/training.md tells what each choice brings.

    Args:
      precision: a key of glow.PRECISIONS.
      reversible: whether activations are computed again from the outputs, not kept.
      xla: a key of XLA_CHOICES; None for what is fastest on this device.

    Raises UserError if this TensorFlow cannot compute so.
    """
    old = devices.is_tensorflow_1()
    glow.require_precision(precision)
    if xla == 'gates' and old:
        raise UserError('--xla=gates takes TensorFlow 2, and this is %s; take off' % tf.__version__)
    fastest = 'off' if old or devices.has_gpu() else 'gates'
    return glow.Compute(precision, reversible, xla or fastest)


def loss_and_gradients(clips: Clips, hp: HParams, device_names: Sequence[str], buffers: Buffers,
                       compute: glow.Compute = glow.Compute(),
                       loss_scale: Optional[LossScale] = None) -> Tuple[
                           objective.Objective, List[tf.Tensor]]:
    """The mean loss over towers and its gradients, as the whole batch in one tower would give.

    Each tower works on an equal part of the batch, on its own device; buffers of weights live on
    the first, where the optimizer is: they go to the others, and gradients come back, once a step.

    Args:
      clips: of a batch that splits into as many towers.
      buffers: of `objective.weights`.
      device_names: names of a device for each tower, as devices.tower_devices gives them.
      compute: how the loss is computed.
      loss_scale: by which the gradients are multiplied.

    Returns: (the objective, the gradient of each buffer).
    """
    tensors = [clips.audio, clips.mel] + ([clips.noise] if hp.stft_weight else [])
    parts = zip(*(tf.split(tensor, len(device_names)) for tensor in tensors))
    losses, gradients = [], []
    for i, (device, part) in enumerate(zip(device_names, parts)):
        with tf.device(device), tf.name_scope('tower_%d' % i):
            part_clips = clips._replace(**dict(zip(('audio', 'mel', 'noise'), part)))
            weights = [tf.identity(variable) for variable in buffers.variables]
            with buffers.read_from(weights):
                losses.append(objective.objective(part_clips, hp, compute))
            total = losses[-1].total
            gradients.append(tf.gradients(total * loss_scale.now if loss_scale else total,
                                          weights))
    loss = objective.Objective(*(tf.add_n(terms) / len(device_names) for terms in zip(*losses)))
    with tf.device(device_names[0]):
        return loss, [tf.add_n(same) / len(device_names) if len(same) > 1 else same[0]
                      for same in zip(*gradients)]


def require_equal_parts(hp: HParams, count: int, what: str) -> None:
    """Raises UserError if hp.batch_size does not split into `count` equal parts.

    `what` names the parts in the message: 'towers'.
    """
    if hp.batch_size % count:
        raise UserError('batch_size=%d does not split into %d equal %s; take batch_size=%d'
                        % (hp.batch_size, count, what, -(-hp.batch_size // count) * count))


def accumulate(values: Sequence[tf.Tensor], parts: int
               ) -> Tuple[List[tf.Tensor], tf.Operation, Callable[[], tf.Operation]]:
    """Means of float32 tensors over `parts` runs of a session, one after the other.

    Returns: (means, add, make_clear). The means hold in the last run alone; `add` is the operation
    of each run before it. make_clear() makes the operation that ends the last run, once the means
    are used. Sums are local variables: no checkpoint keeps them.
    """
    if parts == 1:
        return list(values), tf.no_op(), tf.no_op
    sums = [tf.get_variable('sum_%d' % i, value.shape, value.dtype, tf.zeros_initializer(),
                            trainable=False, use_resource=True,
                            collections=[tf.GraphKeys.LOCAL_VARIABLES])
            for i, value in enumerate(values)]
    means = [(total + value) / parts for total, value in zip(sums, values)]
    add = tf.group([total.assign_add(value) for total, value in zip(sums, values)])
    return means, add, lambda: tf.group([total.assign(tf.zeros_like(value))
                                         for total, value in zip(sums, values)])
