"""The training graph."""
import collections

import numpy as np
import tensorflow.compat.v1 as tf

import glow
import ops
from datasets import clip_files
from training import collectives, objective, optimizer, towers
from training.hosts import SINGLE_HOST

# clips, heldout: iterators; parts: fetches of each part of a training step but the last; step: of
# the last, which ends it; told_to_stop: whether this host is, for `step` to tell all; roll_call: the
# words of all hosts; share: the operation that gives them the chief's variables; heldout_clip, heldout_loss, heldout_samples: of the next held-out
# utterance; vocode: see `vocoding`; best: the held-out loss of the best checkpoint and a number for
# the utterances it was measured on, with placeholders for both and the operation that sets them.
Model = collections.namedtuple('Model', 'clips parts step told_to_stop roll_call share heldout '
                                        'heldout_clip heldout_loss heldout_samples vocode best new_best '
                                        'new_best_set set_best')
ROLL_CALL, PLACES, GRADIENTS, VARIABLES = 1, 2, 10 ** 6, 2 * 10 ** 6   # keys of collective operations


def build_training_graph(hp, clips, heldout, devices, compute=glow.Compute(), accumulate=1, hosts=SINGLE_HOST,
          words=(), placed=False):
    """The training graph. Averaged weights serve the held-out loss and vocoding.

    Args:
      clips: makes a dataset of dataset.Clips of hp.batch_size / (accumulate * hosts.num_hosts) clips,
        from two tensors: the steps already done and, if it has places, the place of the last clip.
      heldout: a dataset of single utterances, or None.
      devices: of the towers, as parallel.tower_devices names them.
      compute: how the training loss is computed; held-out losses are float32's.
      accumulate: parts that a step is computed in, one after the other.
      hosts: that compute a step together, each its share of it.
      words: whole numbers that say what this host computes, for the roll call.
      placed: whether clips have places; the places of all hosts are stored with the weights then.
    """
    global_step = ops.variable('global_step', [], tf.zeros_initializer(), tf.int64,
                               trainable=False)
    tf.add_to_collection(tf.GraphKeys.GLOBAL_STEP, global_step)
    best = ops.variable('best_heldout_loss', [], tf.constant_initializer(np.inf), trainable=False)
    best_set = ops.variable('best_heldout_set', [], tf.zeros_initializer(), tf.int64,
                            trainable=False)
    new_best, new_best_set = tf.placeholder(tf.float32, []), tf.placeholder(tf.int64, [])
    places = ops.variable('places', [hosts.num_hosts, 3], tf.zeros_initializer(), tf.int64,
                          trainable=False) if placed else None
    iterator, batch = iterate(clips(global_step.read_value(), places[hosts.task_index] if placed else None))
    loss, gradients = towers.loss_and_gradients(batch, hp, devices, compute)
    gradients, variables = zip(*gradients)
    with tf.device(devices[0]), tf.variable_scope('accumulated'):
        means, add, clear = towers.accumulate(list(loss) + list(gradients), accumulate)
    told_to_stop = tf.placeholder_with_default(False, [], 'told_to_stop')
    with tf.device(devices[0]), tf.name_scope('hosts'):
        *means, stopped = collectives.all_reduce_mean(list(means) + [tf.cast(told_to_stop, tf.float32)], hosts,
                                          GRADIENTS)
    loss, gradients = objective.Objective(*means[:len(loss)]), means[len(loss):]
    learning_rate = optimizer.schedule(hp, tf.cast(global_step, tf.float32))
    train_op, gradient_norm, ema = optimizer.optimize(hp, zip(gradients, variables), learning_rate,
                                                      global_step)
    with tf.control_dependencies([train_op] + means):
        train_op = clear()
    if placed:      # those of all hosts are kept, by the chief as by the others
        train_op = tf.group(train_op, places.assign(
            collectives.all_gather(batch.place[-1], hosts, PLACES)))
    part = dict(name=batch.name, start_frame=batch.start_frame, op=add)
    step = dict(loss=loss, learning_rate=learning_rate, gradient_norm=gradient_norm,
                name=batch.name, start_frame=batch.start_frame, stopped=stopped > 0, op=train_op)
    held = held_clip = held_loss = held_samples = None
    with tf.device(devices[0]), towers.averaged_variables(ema):
        if heldout is not None:
            held, held_clip = iterate(heldout)
            held_loss = glow.loss(held_clip.audio, held_clip.mel, hp)
            held_samples = tf.size(held_clip.audio)
        vocode = build_vocoding(hp)
    if len(tf.trainable_variables()) != len(gradients):
        raise AssertionError('evaluation has weights of its own')
    with tf.device(devices[0]):
        share = collectives.broadcast(tf.global_variables(), hosts, VARIABLES)
    roll_call = collectives.all_gather(tf.constant(words, tf.int64), hosts, ROLL_CALL)
    return Model(iterator, [part] * (accumulate - 1), step, told_to_stop, roll_call, share, held,
                 held_clip, held_loss, held_samples, vocode, (best.read_value(), best_set.read_value()),
                 new_best, new_best_set,
                 tf.group(best.assign(new_best), best_set.assign(new_best_set)))


def build_vocoding(hp):
    """(z [1, steps, n_group], mel [1, frames, n_mels], audio): placeholders and `glow.infer`."""
    z = tf.placeholder(tf.float32, [1, None, hp.n_group], 'z')
    mel = tf.placeholder(tf.float32, [1, None, hp.n_mels], 'mel')
    return z, mel, glow.infer(z, mel, hp)


def iterate(clips):
    """(iterator, its next dataset.Clips) of a dataset, on the CPU, where datasets live."""
    with tf.device('/cpu:0'):
        iterator = tf.data.make_initializable_iterator(clips)
        return iterator, clip_files.Clips(*iterator.get_next())
