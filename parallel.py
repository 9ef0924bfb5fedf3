"""Towers: one copy of the model a device, shared variables, averaged gradients."""
import os

import tensorflow.compat.v1 as tf

import glow
from params import UserError


def tower_devices(count):
    """Names of `count` devices to train on: GPUs where there are any, else CPU devices.

    A machine without GPUs trains the same on as many virtual CPU devices: `session_config`.
    Raises UserError if there are GPUs, but fewer.
    """
    gpus = tf.config.experimental.list_physical_devices('GPU')
    if not gpus and tf.test.is_built_with_cuda() and not os.environ.get('CUDA_VISIBLE_DEVICES'):
        print('this TensorFlow is built for GPUs and sees none; training on the CPU')
    if gpus and count > len(gpus):
        raise UserError('--ngpu %d, but TensorFlow sees %d here' % (count, len(gpus)))
    return ['/device:%s:%d' % ('GPU' if gpus else 'CPU', i) for i in range(count)]


def session_config(count=1):
    """The tf.ConfigProto with which `tower_devices(count)` exist.

    Without a GPU the graph optimizer is off: for preset `small` it takes 4 to 7 seconds at every
    new kind of session.run, against 1.5, and makes a step no faster (measured on two cores).
    """
    config = tf.ConfigProto(allow_soft_placement=True, device_count={'CPU': count})
    config.gpu_options.allow_growth = True
    if not tf.config.experimental.list_physical_devices('GPU'):
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def loss_and_gradients(clips, hp, devices):
    """The mean loss over towers and its gradients, as the whole batch in one tower would give.

    Each tower works on an equal share of the batch, on its own device; variables live on the
    first.

    Args:
      clips: dataset.Clips of hp.batch_size clips.
      devices: device names; their number divides the batch.

    Returns: (glow.Loss, [(gradient, variable)]).
    """
    if hp.batch_size % len(devices):
        raise UserError('batch_size=%d does not split into %d equal towers; take batch_size=%d'
                        % (hp.batch_size, len(devices),
                           -(-hp.batch_size // len(devices)) * len(devices)))
    shares = zip(tf.split(clips.audio, len(devices)), tf.split(clips.mel, len(devices)))
    losses, gradients = [], []
    for i, (device, (audio, mel)) in enumerate(zip(devices, shares)):
        with tf.device(device), tf.name_scope('tower_%d' % i), variables_on(devices[0]):
            losses.append(glow.loss(audio, mel, hp))
            variables = tf.trainable_variables()
            gradients.append(tf.gradients(losses[-1].total, variables))
    with tf.device(devices[0]), tf.name_scope('average'):
        loss = glow.Loss(*(_mean(terms) for terms in zip(*losses)))
        return loss, [(_mean(g), v) for g, v in zip(zip(*gradients), variables)]


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


def _mean(tensors):
    return tensors[0] if len(tensors) == 1 else tf.add_n(list(tensors)) / len(tensors)
