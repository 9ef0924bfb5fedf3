"""How a step is computed: on which devices, in towers and parts, what XLA compiles of it."""

import tensorflow.compat.v1 as tf

import glow
from errors import UserError
from training import objective, packing

XLA = {
    'off': 'nothing',
    'gates': 'the activations of the coupling networks and their gradients',
}


def compute(precision='float32', reversible=False, xla=None):
    """The glow.Compute asked for; with `xla` None what is fastest here: docs/training.md tells why.

    Raises UserError if this TensorFlow cannot compute so.
    """
    old, gpus = tf.__version__.startswith('1.'), tf.config.experimental.list_physical_devices('GPU')
    if precision != 'float32' and old:
        raise UserError('--precision=%s takes TensorFlow 2, and this is %s; take float32'
                        % (precision, tf.__version__))
    if xla == 'gates' and old:
        raise UserError('--xla=gates takes TensorFlow 2, and this is %s; take off' % tf.__version__)
    return glow.Compute(precision, reversible, xla or ('off' if old or gpus else 'gates'))


def loss_and_gradients(clips, hp, devices, compute=glow.Compute()):
    """The mean loss over towers and its gradients, as the whole batch in one tower would give.

    Each tower works on an equal share of the batch, on its own device; variables live on the
    first, where the optimizer is: weights go to the others, and gradients come back, once a step.

    Args:
      clips: dataset.Clips of a batch that splits into as many towers.
      devices: device names.
      compute: a glow.Compute.

    Returns: (objective.Objective, [(gradient, variable)]).
    """
    tensors = [clips.audio, clips.mel] + ([clips.noise] if hp.stft_weight else [])
    shares = zip(*(tf.split(tensor, len(devices)) for tensor in tensors))
    losses, gradients = [], []
    for i, (device, share) in enumerate(zip(devices, shares)):
        with tf.device(device), tf.name_scope('tower_%d' % i), variables_on(devices[0]):
            share = dict(zip(('audio', 'mel', 'noise'), share))
            losses.append(objective.objective(clips._replace(**share), hp, compute))
            variables = tf.trainable_variables()
            gradients.append(tf.gradients(losses[-1].total, variables))
    loss = objective.Objective(*(tf.add_n(terms) / len(devices) for terms in zip(*losses)))
    return loss, list(zip(mean(gradients, devices), variables))


def require_equal_parts(hp, count, what):
    """Raises UserError, naming `what` they are, if hp.batch_size is not `count` equal parts."""
    if hp.batch_size % count:
        raise UserError('batch_size=%d does not split into %d equal %s; take batch_size=%d'
                        % (hp.batch_size, count, what, -(-hp.batch_size // count) * count))


def mean(tensors, devices):
    """The mean of lists of float32 tensors, one list a device, on the first device.

    They travel and are added in packs, not one by one.
    """
    if len(devices) == 1:
        return tensors[0]
    means = []
    for pack in packing.packs(tensors[0]):
        packed = []
        for device, of_device in zip(devices, tensors):
            with tf.device(device):
                packed.append(packing.join([of_device[i] for i in pack]))
        with tf.device(devices[0]):
            means += packing.cut(tf.add_n(packed) / len(devices), [tensors[0][i].shape for i in pack])
    return means


def accumulated(values, parts):
    """Means of float32 tensors over `parts` runs of a session, one after the other.

    Returns: (the means, for the last run alone; the operation of each run before it; a function
    that makes the one to end the last run with, once the means are used). Sums are local variables:
    no checkpoint keeps them.
    """
    if parts == 1:
        return values, tf.no_op(), tf.no_op
    sums = [tf.get_variable('sum_%d' % i, value.shape, value.dtype, tf.zeros_initializer(),
                            trainable=False, use_resource=True,
                            collections=[tf.GraphKeys.LOCAL_VARIABLES])
            for i, value in enumerate(values)]
    means = [(total + value) / parts for total, value in zip(sums, values)]
    add = tf.group([total.assign_add(value) for total, value in zip(sums, values)])
    return means, add, lambda: tf.group([total.assign(tf.zeros_like(value))
                                         for total, value in zip(sums, values)])


def variables_on(device):
    """A variable scope that makes variables on `device`, whatever device reads them."""
    def get(getter, *args, **kwargs):
        with tf.device(device):
            return getter(*args, **kwargs)
    return tf.variable_scope(tf.get_variable_scope(), custom_getter=get)


def averages_of(ema):
    """A variable scope in which variables read as their averages under `ema`; None changes nothing."""
    def get(getter, *args, **kwargs):
        variable = getter(*args, **kwargs)
        return variable if ema is None else ema.average(variable)
    return tf.variable_scope(tf.get_variable_scope(), custom_getter=get)
