"""The condition of every coupling network: a mel, encoded and upsampled."""
from typing import List, Optional, Sequence

import tensorflow.compat.v1 as tf

import ops
from flows import grouping
from params import HParams


def condition(mel: tf.Tensor, hp: HParams, lengths: Optional[tf.Tensor] = None) -> tf.Tensor:
    """The condition of every coupling network, from mel [batch, frames, n_mels].

    With upsampling by repetition it stays at the frame rate, [batch, frames, c]: it is the same for
    all groups of a frame, so that a 1x1 convolution of it is computed once a frame. Transposed
    convolutions give [batch, groups, n_group * c], channel = sample * c + channel.

    lengths: [batch] frames of each utterance, where they differ.
    """
    x = (mel - hp.mel_mean) / hp.mel_std
    x.set_shape([None, None, hp.n_mels])
    frames = ops.shape_of(x)[1]
    if hp.encoder == 'conv':
        with tf.variable_scope('encoder'):
            x = conv_encoder(x, hp.encoder_layers, hp.encoder_width, hp.encoder_channels,
                             hp.causal, ops.sequence_mask(lengths, frames, x.dtype))
    elif hp.encoder == 'blstm':
        with tf.variable_scope('encoder'):
            x = blstm_encoder(x, hp.encoder_layers, hp.encoder_channels, lengths)
    if hp.upsampling == 'repeat':
        return x
    with tf.variable_scope('upsampling'):
        if hp.upsampling == 'transposed':
            x = transposed_upsampling(x, hp.upsample_width, *hp.upsample_strides)
        else:
            x = two_transposed_upsampling(x, hp.upsample_width, hp.upsample_strides,
                                          hp.upsample_channels, lengths)
    return grouping.squeeze(grouping.whole_groups(x, hp), hp)


def condition_receptive_field(hp: HParams) -> Optional[List[int]]:
    """[frames behind, frames ahead] that a frame's condition depends on; None for all (blstm)."""
    if hp.encoder == 'blstm':
        return None
    behind = ahead = 0
    if hp.encoder == 'conv':
        behind, ahead = (hp.encoder_layers * n for n in
                         ops.receptive_field(hp.encoder_width, 1, hp.causal))
    if hp.upsampling == 'transposed':
        behind += (hp.upsample_width - 1) // hp.hop_length
    elif hp.upsampling == 'two_transposed':
        first, second = (transposed_receptive_field(hp.upsample_width, stride)
                         for stride in hp.upsample_strides)
        # the second layer's is in rows of the first's result, strides[0] of which are a frame
        behind, ahead = (n + a + -(-b // hp.upsample_strides[0])
                         for n, a, b in zip((behind, ahead), first, second))
    return [behind, ahead]


# --- Encoders and upsampling ----------------------------------------------------------------------

def conv_encoder(x: tf.Tensor, layers: int, width: int, channels: int, causal: bool = False,
                 mask: Optional[tf.Tensor] = None) -> tf.Tensor:
    """`layers` convolutions of `width` taps with ReLU: [batch, frames, in] -> [.., channels].

    mask: [batch, frames, 1], 0 beyond the end of an utterance in a batch of several lengths.
    """
    for i in range(layers):
        with tf.variable_scope('layer_%d' % i):
            filters = ops.variable('filter', [width, ops.static_channels(x), channels],
                                   tf.glorot_uniform_initializer(seed=ops.variable_seed('filter')),
                                   x.dtype)
            x = tf.nn.relu(ops.dilated_conv(ops.apply_mask(x, mask), filters, 1, causal)
                           + ops.bias('bias', channels, x.dtype))
    return x


def blstm_encoder(x: tf.Tensor, layers: int, channels: int, lengths: Optional[tf.Tensor] = None
                  ) -> tf.Tensor:
    """Bidirectional LSTMs: [batch, frames, in] -> [batch, frames, 2 * channels], float32.

    lengths: [batch] frames of each utterance, where they differ.
    """
    if lengths is None:
        batch, frames, _ = ops.shape_of(x)
        lengths = tf.fill([batch], frames)
    for i in range(layers):
        with tf.variable_scope('layer_%d' % i):
            forward = _lstm(x, channels, 'fw')
            backward = _lstm(tf.reverse_sequence(x, lengths, seq_axis=1), channels, 'bw')
            x = tf.concat([forward, tf.reverse_sequence(backward, lengths, seq_axis=1)], axis=-1)
    return x


def _lstm(x, channels, name):
    """A forward LSTM (Hochreiter & Schmidhuber 1997), gates in the order i, j, f, o; forget bias 1.

    BlockLSTM is a kernel of every TensorFlow from 1.0 on, on CPU and GPU, with a gradient.
    """
    with tf.variable_scope(name):
        kernel = ops.variable('kernel', [ops.static_channels(x) + channels, 4 * channels],
                              tf.glorot_uniform_initializer(seed=ops.variable_seed('kernel')),
                              x.dtype)
        b = ops.bias('bias', 4 * channels, x.dtype)
    batch, frames, _ = ops.shape_of(x)
    zeros = tf.zeros(tf.stack([batch, channels]), x.dtype)
    peephole = tf.zeros([channels], x.dtype)
    h = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.cast(frames, tf.int64), x=tf.transpose(x, [1, 0, 2]), cs_prev=zeros,
        h_prev=zeros, w=kernel, wci=peephole, wcf=peephole, wco=peephole, b=b, forget_bias=1.0,
        cell_clip=-1.0, use_peephole=False).h
    h.set_shape([None, None, channels])
    return tf.transpose(h, [1, 0, 2])


def transposed_upsampling(x: tf.Tensor, width: int, stride: int) -> tf.Tensor:
    """One transposed convolution: [batch, frames, c] -> [batch, frames * stride, c].

    NVIDIA's form: row t depends on the frames f with f * stride <= t < f * stride + width.
    """
    batch, frames, _ = ops.shape_of(x)
    channels = ops.static_channels(x)
    filters = ops.variable('filter', [width, channels, channels], tf.random_normal_initializer(
        stddev=(channels * width / stride) ** -0.5, seed=ops.variable_seed('filter')), x.dtype)
    shape = tf.stack([batch, (frames - 1) * stride + width, channels])
    y = tf.nn.conv1d_transpose(x, filters, shape, strides=stride, padding='VALID')
    y = y[:, :frames * stride] + ops.bias('bias', channels, x.dtype)
    y.set_shape([None, None, channels])
    return y


def two_transposed_upsampling(x: tf.Tensor, width: int, strides: Sequence[int], channels: int,
                              lengths: Optional[tf.Tensor] = None) -> tf.Tensor:
    """Two transposed convolutions with ReLU, no bias: [batch, frames * s * t, channels].

    weixsong/WaveGlow's form; strides are (s, t). lengths: [batch] frames of each utterance, where
    they differ.
    """
    for name, stride in zip(('layer1', 'layer2'), strides):
        batch, length, _ = ops.shape_of(x)
        in_channels = ops.static_channels(x)
        filters = ops.variable(name, [width, channels, in_channels], tf.random_normal_initializer(
            stddev=(2.0 * stride / (in_channels * width)) ** 0.5,
            seed=ops.variable_seed(name)), x.dtype)
        shape = tf.stack([batch, length * stride, channels])
        x = ops.apply_mask(x, ops.sequence_mask(lengths, length, x.dtype))
        x = tf.nn.relu(tf.nn.conv1d_transpose(x, filters, shape, strides=stride, padding='SAME'))
        x.set_shape([None, None, channels])
        lengths = None if lengths is None else lengths * stride
    return x


def transposed_receptive_field(width: int, stride: int) -> List[int]:
    """[rows behind, rows ahead] of x that the results of a row depend on, `stride` of them.

    Of a SAME transposed convolution.
    """
    pad = (width - stride) // 2
    return [(width - 1 - pad) // stride, (stride - 1 + pad) // stride]
