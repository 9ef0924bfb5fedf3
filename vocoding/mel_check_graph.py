"""Checks of a mel as a TensorFlow graph, for what is served: each fails with a sentence.

A server hands on what a client sent. The graph itself tells what is wrong with it, as
datasets/mel_files.py tells it of files.
"""
import tensorflow.compat.v1 as tf

from datasets import mel_definition
from datasets.mel_files import value_range
from params import HParams


def checked_mel(mel: tf.Tensor, hp: HParams) -> tf.Tensor:
    """`mel` [batch, frames, n_mels], of which nothing is known before, as a tensor of that shape.

    Running it fails with tf.errors.InvalidArgumentError and a sentence if the mel has another rank
    or number of bands, is empty, or holds values that are NaN, infinite, or beyond what the mel
    definition can have (`mel_files.value_range`).
    """
    mel = _after(mel, [_require(tf.equal(tf.rank(mel), 3), tf.strings.format(
        'mel is batch x frames x %d, and has no shape {}; put the mels of one utterance into a '
        'batch of 1' % hp.n_mels, tf.shape(mel)))])
    mel = _after(mel, [_require(tf.equal(tf.shape(mel)[2], hp.n_mels), tf.strings.format(
        'mel is batch x frames x %d bands, and has no shape {}; turn it, or compute it by mel '
        'profile %s' % (hp.n_mels, mel_definition.name_of(hp.mel)), tf.shape(mel)))])
    # A reshape, through which TensorFlow's graph optimizer does not look. Of tf.ensure_shape, or of
    # a convolution, it concludes that the rank is right, and takes the first check out.
    mel = tf.reshape(mel, [tf.shape(mel)[0], tf.shape(mel)[1], hp.n_mels])
    mel = _after(mel, [_require(tf.size(mel) > 0, tf.strings.format(
        'mel of shape {} holds nothing; it has one frame at least', tf.shape(mel)))])
    mel = _after(mel, [_require(tf.reduce_all(tf.is_finite(mel)), tf.constant(
        'mel holds values that are NaN or infinite; compute it anew'))])
    low, high = value_range(hp.mel)
    found = [tf.as_string(x, precision=4, shortest=True)
             for x in (tf.reduce_min(mel), tf.reduce_max(mel))]
    return _after(mel, [_require(
        tf.logical_and(tf.reduce_min(mel) >= low, tf.reduce_max(mel) <= high),
        tf.strings.join(['mel holds values from ', found[0], ' to ', found[1],
                         ', and those of mel profile %s lie between %.4g and %.4g; compute it anew'
                         % (mel_definition.name_of(hp.mel), low, high)]))])


def checked_noise(noise: tf.Tensor, mel: tf.Tensor, hp: HParams) -> tf.Tensor:
    """`noise` [batch, groups, n_group] for mel [batch, frames, n_mels]; fails as `checked_mel`."""
    batch, frames = tf.shape(mel)[0], tf.shape(mel)[1]
    wanted = tf.stack([batch, hp.groups(frames), hp.n_group])
    said = tf.strings.format('noise for this mel is batch x groups x %d, {}, and has no shape {}'
                             % hp.n_group, [wanted, tf.shape(noise)])
    same_rank = _require(tf.equal(tf.rank(noise), 3), said)
    with tf.control_dependencies([same_rank]):
        same = _require(tf.reduce_all(tf.equal(tf.shape(noise), wanted)), said)
    return tf.reshape(_after(noise, [same]), [batch, hp.groups(frames), hp.n_group])


def _require(condition, sentence):
    """An operation that fails with `sentence`, a string tensor, unless `condition` holds."""
    return tf.raw_ops.Assert(condition=condition, data=[sentence], summarize=1)


def _after(tensor, operations):
    with tf.control_dependencies(operations):
        return tf.identity(tensor)
