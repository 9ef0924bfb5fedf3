"""The training graph: one step of gradient descent, and what is measured and heard in between."""
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import glow
import ops
from datasets.clip_files import Clips
from flows import grouping
from params import HParams
from training import collectives, loss_scale, objective, optimizer, towers
from training.hosts import SINGLE_HOST, Hosts
from training.weights import Buffers

# Keys of collective operations; gradients and variables take many, from these on.
FINGERPRINTS_KEY, POSITIONS_KEY, GRADIENTS_KEY, VARIABLES_KEY = 1, 2, 10 ** 6, 2 * 10 ** 6


class PartFetches(NamedTuple):
    """What is fetched of a part of a step that is not its last."""
    clip_names: tf.Tensor           # string [batch]
    start_frames: tf.Tensor         # of the clips in their utterances, int32 [batch]
    audio: Any                      # of the clips [batch, samples] if it may hold runs of zeros, ()
    op: tf.Operation                # adds the gradients of the part


class StepFetches(NamedTuple):
    """What is fetched of the last part of a step, which ends it."""
    loss: objective.Objective       # means over the step
    learning_rate: tf.Tensor
    gradient_norm: tf.Tensor        # before clipping
    loss_scale: Any                 # of this step's gradients, () if they are not scaled
    clip_names: tf.Tensor           # of this part, string [batch]
    start_frames: tf.Tensor         # of the clips in their utterances, int32 [batch]
    audio: Any                      # as of a part
    stopping: tf.Tensor             # whether any host is asked to stop, the same on all
    op: tf.Operation                # updates the weights


class HeldoutGraph(NamedTuple):
    """The loss of held-out utterances, one after the other, with the averaged weights."""
    iterator: tf.data.Iterator      # initialized for every pass over the utterances
    clip: Clips                     # the next utterance
    loss: glow.Loss                 # of that utterance, in float32
    samples: tf.Tensor              # of it that the loss is a mean over


class VocodingGraph(NamedTuple):
    """Noise and mel in, audio out, with the averaged weights."""
    z: tf.Tensor                    # placeholder [1, groups, n_group]
    mel: tf.Tensor                  # placeholder [1, frames, n_mels]
    audio: tf.Tensor                # [1, samples]


class EvaluationGraph(NamedTuple):
    """What is done with held-out utterances between steps."""
    heldout: HeldoutGraph
    vocoding: Optional[VocodingGraph]   # None if hp.gen_utterances is 0


class BestLoss(NamedTuple):
    """The held-out loss of the best checkpoint, as checkpoints store it."""
    loss: tf.Tensor                 # infinite before the first
    utterances: tf.Tensor           # fingerprint of the utterances that it was measured on
    new_loss: tf.Tensor             # placeholder of the next best
    new_utterances: tf.Tensor       # placeholder of its fingerprint
    assign: tf.Operation            # stores these two


class TrainingGraph(NamedTuple):
    """What the training loop runs."""
    buffers: Buffers                    # of the weights
    clips_iterator: tf.data.Iterator    # initialized once the weights are restored
    parts: List[PartFetches]            # of each part of a step but the last, in order
    step: StepFetches                   # of the last part
    stop_requested: tf.Tensor           # placeholder: whether a signal asks this host to stop
    fingerprints: tf.Tensor             # of all hosts' settings, int64 [num_hosts, settings]
    reset_averages: tf.Operation        # sets the averages of the weights to the weights
    broadcast: tf.Operation             # gives all hosts the chief's variables
    # Adds the EvaluationGraph to this graph, once: the first step need not wait for it. None
    # without held-out utterances.
    build_evaluation: Optional[Callable[[], EvaluationGraph]]
    best: BestLoss


def build_training_graph(hp: HParams, training_clips: Callable[..., tf.data.Dataset],
                         heldout_clips: Optional[Callable[[], tf.data.Dataset]],
                         device_names: Sequence[str],
                         compute: glow.Compute = glow.Compute(), accumulate: int = 1,
                         hosts: Hosts = SINGLE_HOST, fingerprints: Sequence[int] = (),
                         has_positions: bool = False) -> TrainingGraph:
    """Builds all of a training in the default graph.

    Args:
      training_clips: makes a dataset of clips.Clips, each of hp.batch_size / (accumulate *
        num_hosts) clips, from two tensors: the steps already done and, if clips have positions,
        the position of the last one.
      heldout_clips: makes a dataset of single utterances; or None.
      device_names: of the towers, as devices.tower_devices gives them.
      compute: how the training loss is computed; held-out losses are float32's.
      accumulate: parts that a step is computed in, one after the other.
      hosts: that compute a step together, each its part of the batch.
      fingerprints: of this host's settings, for hosts to compare.
      has_positions: whether clips have a shard_position; those of all hosts are then stored with
        the weights.
    """
    global_step = ops.variable('global_step', [], tf.zeros_initializer(), tf.int64,
                               trainable=False)
    tf.add_to_collection(tf.GraphKeys.GLOBAL_STEP, global_step)
    best = _build_best_loss()
    positions = ops.variable('places', [hosts.num_hosts, 3], tf.zeros_initializer(), tf.int64,
                             trainable=False) if has_positions else None
    iterator, batch = iterate(training_clips(
        global_step.read_value(), None if positions is None else positions[hosts.task_index]))

    scale = loss_scale.of_precision(compute.precision)
    with tf.device(device_names[0]):
        buffers = Buffers(objective.weights(hp))
    found = _build_gradients(hp, batch, device_names, buffers, compute, accumulate, hosts, scale)
    learning_rate = optimizer.schedule(hp, tf.cast(global_step, tf.float32))
    train_op, gradient_norm, averages = optimizer.optimize(
        hp, zip(found.gradients, buffers.variables), learning_rate, global_step, scale)
    with tf.control_dependencies([train_op] + list(found.loss) + list(found.gradients)):
        train_op = found.make_clear()
    if positions is not None:       # the chief stores those of all hosts, and so do the others
        train_op = tf.group(train_op, positions.assign(
            collectives.all_gather(batch.shard_position[-1], hosts, POSITIONS_KEY)))

    def build_evaluation():
        assert heldout_clips is not None
        clips = heldout_clips()     # on no device of a tower
        read = [averages.average(v) if averages else v for v in buffers.variables]
        with tf.device(device_names[0]), buffers.read_from(read):
            return EvaluationGraph(_build_heldout(hp, clips),
                                   build_vocoding(hp) if hp.gen_utterances else None)

    with tf.device(device_names[0]):
        broadcast = collectives.broadcast(tf.global_variables(), hosts, VARIABLES_KEY)
    audio = batch.audio if not hp.dither else ()
    return TrainingGraph(
        buffers=buffers, clips_iterator=iterator,
        parts=[PartFetches(batch.name, batch.start_frame, audio, found.add)] * (accumulate - 1),
        step=StepFetches(
            loss=found.loss, learning_rate=learning_rate, gradient_norm=gradient_norm,
            loss_scale=scale.now if scale else (), clip_names=batch.name,
            start_frames=batch.start_frame, audio=audio, stopping=found.stopping > 0,
            op=train_op),
        stop_requested=found.stop_requested,
        fingerprints=collectives.all_gather(tf.constant(fingerprints, tf.int64), hosts,
                                            FINGERPRINTS_KEY),
        reset_averages=averages.reset() if averages else tf.no_op(),
        broadcast=broadcast, build_evaluation=build_evaluation if heldout_clips else None,
        best=best)


class _Gradients(NamedTuple):
    """What one step finds: means over towers, parts and hosts."""
    loss: objective.Objective
    gradients: Sequence[tf.Tensor]          # of each buffer of weights
    stop_requested: tf.Tensor               # placeholder: whether a signal asks this host to
    stopping: tf.Tensor                     # the share of the hosts that are asked to
    add: tf.Operation                       # see `towers.accumulate`
    make_clear: Callable[[], tf.Operation]


def _build_gradients(hp, batch, device_names, buffers, compute, accumulate, hosts, scale):
    loss, gradients = towers.loss_and_gradients(batch, hp, device_names, buffers, compute, scale)
    with tf.device(device_names[0]), tf.variable_scope('accumulated'):
        means, add, make_clear = towers.accumulate([tf.stack(loss)] + gradients, accumulate)
    stop_requested = tf.placeholder_with_default(False, [], 'stop_requested')
    with tf.device(device_names[0]), tf.name_scope('hosts'):
        scalars = tf.concat([means[0], [tf.cast(stop_requested, tf.float32)]], axis=0)
        scalars, *gradients = collectives.all_reduce_mean([scalars] + means[1:], hosts,
                                                          GRADIENTS_KEY)
        *loss, stopping = tf.unstack(scalars)
    return _Gradients(loss=objective.Objective(*loss),
                      gradients=[mean / scale.now if scale else mean for mean in gradients],
                      stop_requested=stop_requested, stopping=stopping,
                      add=add, make_clear=make_clear)


def _build_best_loss():
    loss = ops.variable('best_heldout_loss', [], tf.constant_initializer(np.inf), trainable=False)
    utterances = ops.variable('best_heldout_set', [], tf.zeros_initializer(), tf.int64,
                              trainable=False)
    new_loss, new_utterances = tf.placeholder(tf.float32, []), tf.placeholder(tf.int64, [])
    return BestLoss(
        loss=loss.read_value(), utterances=utterances.read_value(), new_loss=new_loss,
        new_utterances=new_utterances,
        assign=tf.group(loss.assign(new_loss), utterances.assign(new_utterances)))


def _build_heldout(hp, heldout_clips):
    iterator, clip = iterate(heldout_clips)
    loss = glow.loss(clip.audio, clip.mel, hp)
    return HeldoutGraph(iterator=iterator, clip=clip, loss=loss,
                        samples=tf.size(grouping.whole_groups(clip.audio, hp)))


def build_vocoding(hp: HParams) -> VocodingGraph:
    """Placeholders, and what `glow.infer` makes of them."""
    z = tf.placeholder(tf.float32, [1, None, hp.n_group], 'z')
    mel = tf.placeholder(tf.float32, [1, None, hp.n_mels], 'mel')
    return VocodingGraph(z, mel, glow.infer(z, mel, hp))


def iterate(clips: tf.data.Dataset) -> Tuple[tf.data.Iterator, Clips]:
    """An iterator over a dataset and its next Clips, on the CPU, where datasets live."""
    with tf.device('/cpu:0'):
        iterator = tf.data.make_initializable_iterator(clips)
        return iterator, Clips(*iterator.get_next())
