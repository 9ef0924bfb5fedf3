"""Samples in groups: the positions of the flow in time."""
import tensorflow.compat.v1 as tf

import ops
from params import HParams


def whole_groups(x: tf.Tensor, hp: HParams) -> tf.Tensor:
    """x [batch, samples, ...] of whole frames without the last samples, too few for a group.

    Where n_group divides hop_length there are none, and x is returned as it is.
    """
    if hp.cycle_frames == 1:
        return x
    return x[:, :ops.shape_of(x)[1] // hp.n_group * hp.n_group]


def fill_frames(audio: tf.Tensor, mel: tf.Tensor, hp: HParams) -> tf.Tensor:
    """Audio [batch, frames * hop_length] of audio [batch, samples] and mel [batch, frames, n_mels].

    Zeros follow, fewer than n_group, in place of what `whole_groups` takes away. Where n_group
    divides hop_length there are none, and the audio is returned as it is.
    """
    if hp.cycle_frames == 1:
        return audio
    samples = ops.shape_of(mel)[1] * hp.hop_length
    return tf.pad(audio, [[0, 0], [0, samples - ops.shape_of(audio)[1]]])


def squeeze(x: tf.Tensor, hp: HParams) -> tf.Tensor:
    """[batch, samples, c] -> [batch, groups, n_group * c]: groups of n_group samples."""
    batch, samples, channels = ops.shape_of(x)
    return tf.reshape(x, [batch, samples // hp.n_group, hp.n_group * channels])
