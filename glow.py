"""WaveGlow: the coupling network, the flow in both directions, and the loss.

Prenger, Valle, Catanzaro 2018, arXiv 1811.00002, on Glow (Kingma & Dhariwal 2018, arXiv
1807.03039) and WaveNet (van den Oord et al. 2016, arXiv 1609.03499).

Every function builds a part of the default graph from its arguments alone. Variables live in the
scope `waveglow` under the caller's scope and are shared by all that is built there. Noise is an
input: nothing here is random but the variables' initial values.
"""
import collections
import math

import tensorflow.compat.v1 as tf

import ops

Loss = collections.namedtuple('Loss', 'total z log_s log_det')


def loss(audio, mel, hp):
    """The negative log-likelihood in nats a sample, and the three terms that it is the sum of.

    total = sum(z^2) / (2 sigma^2) - sum(log_s) - steps * sum_k log|det W_k|, over batch * samples.
    The constant log(sigma) + log(2 pi) / 2 is left out. The density is that of audio in -1..1,
    whatever `hp.audio_scale`: its logarithm is part of the log_det term.

    Args:
      audio: [batch, frames * hop_length] in -1..1.
      mel: [batch, frames, n_mels].

    Returns: a Loss of scalars.
    """
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        z, log_s, log_det = forward(audio, condition(mel, hp), hp)
    samples = tf.cast(tf.size(audio), audio.dtype)
    z_term = tf.reduce_sum(tf.square(z)) / (2 * hp.sigma ** 2) / samples
    log_s_term = -log_s / samples
    log_det_term = -log_det / samples
    return Loss(z_term + log_s_term + log_det_term, z_term, log_s_term, log_det_term)


def encode(audio, mel, hp):
    """z [batch, steps, n_group] of audio [batch, frames * hop_length] under its mel."""
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        return forward(audio, condition(mel, hp), hp)[0]


def infer(z, mel, hp, lengths=None):
    """Audio [batch, frames * hop_length] from noise: the inverse of `encode`.

    Args:
      z: [batch, steps, n_group], drawn from N(0, sigma^2) by the caller.
      mel: [batch, frames, n_mels].
      lengths: [batch] frames of each utterance, where they differ: each then sounds as it would
        alone, and what lies beyond its end is to be cut off.
    """
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        return backward(z, condition(mel, hp, lengths), hp, lengths)


# --- The condition --------------------------------------------------------------------------------

def condition(mel, hp, lengths=None):
    """What every coupling network hears of the mel.

    Upsampling by repetition stays at the frame rate, [batch, frames, c]: the groups of a frame
    hear the same, so that a 1x1 convolution of the condition is worked out once a frame.
    Transposed convolutions give [batch, steps, n_group * c], channel = sample * c + channel.
    """
    x = (mel - hp.mel_mean) / hp.mel_std
    x.set_shape([None, None, hp.n_mels])
    frames = ops.shape_of(x)[1]
    if hp.encoder == 'conv':
        with tf.variable_scope('encoder'):
            x = ops.conv_encoder(x, hp.encoder_layers, hp.encoder_width, hp.encoder_channels,
                                 hp.causal, ops.sequence_mask(lengths, frames, x.dtype))
    elif hp.encoder == 'blstm':
        with tf.variable_scope('encoder'):
            x = ops.blstm_encoder(x, hp.encoder_layers, hp.encoder_channels, lengths)
    if hp.upsampling == 'repeat':
        return x
    with tf.variable_scope('upsampling'):
        if hp.upsampling == 'transposed':
            x = ops.transposed_upsampling(x, hp.upsample_width, hp.upsample_stride)
        else:
            x = ops.two_transposed_upsampling(x, hp.upsample_width, hp.upsample_stride,
                                              hp.upsample_channels, lengths)
    return squeeze(x, hp)


def squeeze(x, hp):
    """[batch, samples, c] -> [batch, steps, n_group * c]: groups of n_group samples."""
    batch, samples, channels = ops.shape_of(x)
    return tf.reshape(x, [batch, samples // hp.n_group, hp.n_group * channels])


# --- The coupling network -------------------------------------------------------------------------

def wavenet(a, cond, hp, lengths=None):
    """(log_s, t), each [batch, steps, c], of an affine coupling from its other half a.

    Args:
      a: [batch, steps, c].
      cond: `condition`'s result.
      lengths: [batch] frames, see `infer`.
    """
    c, dtype = ops.static_channels(a), a.dtype
    steps, units = ops.shape_of(a)[1], hp.residual_channels
    mask = ops.sequence_mask(None if lengths is None else lengths * hp.groups_per_frame,
                             steps, dtype)
    conds = tf.split(_biased_1x1(cond, 2 * units * hp.n_layers, 'cond'), hp.n_layers, axis=-1)
    h = ops.masked(_biased_1x1(a, units, 'start'), mask)
    output = 0.0
    for i in range(hp.n_layers):
        with tf.variable_scope('layer_%d' % i):
            filters = ops.weight_norm('dilated', [hp.kernel_size, units, 2 * units], dtype)
            y = ops.dilated_conv(h, filters, 2 ** i, hp.causal, hp.conv_form)
            # its bias joins the condition, which may have fewer rows than y
            y = _add_condition(y, conds[i] + ops.bias('dilated/bias', 2 * units, dtype), hp)
            # tf.split, here and below: the gradient of y[..., :units] is several times as slow
            y_tanh, y_sigmoid = tf.split(y, 2, axis=-1)
            y = tf.tanh(y_tanh) * tf.sigmoid(y_sigmoid)
            if i < hp.n_layers - 1:
                residual, skip = tf.split(
                    _biased_1x1(y, units + hp.skip_channels, 'res_skip'),
                    [units, hp.skip_channels], axis=-1)
                h = ops.masked(h + residual, mask)
                output += skip
            else:
                output += _biased_1x1(y, hp.skip_channels, 'res_skip')
    with tf.variable_scope('end'):  # zero at first: every coupling starts as the identity
        filters = ops.variable('filter', [1, hp.skip_channels, 2 * c], tf.zeros_initializer(),
                               dtype)
        output = tf.nn.bias_add(ops.conv_1x1(output, filters), ops.bias('bias', 2 * c, dtype))
    log_s, t = tf.split(output, 2, axis=-1)
    return log_s, t


def _biased_1x1(x, channels, name):
    filters = ops.weight_norm(name, [1, ops.static_channels(x), channels], x.dtype)
    return tf.nn.bias_add(ops.conv_1x1(x, filters), ops.bias(name + '/bias', channels, x.dtype))


def _add_condition(y, cond, hp):
    """y [batch, steps, c] plus cond, which has a row a step, or (repetition) a row a frame."""
    if hp.upsampling != 'repeat':
        return y + cond
    batch, steps, channels = ops.shape_of(y)
    y = tf.reshape(y, [batch, steps // hp.groups_per_frame, hp.groups_per_frame, channels])
    return tf.reshape(y + cond[:, :, None], [batch, steps, channels])


# --- The flow, forward and inverse side by side ---------------------------------------------------

def forward(audio, cond, hp):
    """audio [batch, samples] -> z [batch, steps, n_group], sum of log_s, sum of log|det|."""
    x = squeeze(audio[:, :, None] * hp.audio_scale, hp)
    batch, steps, _ = ops.shape_of(x)
    columns = tf.cast(batch * steps, x.dtype)
    early, log_s_sum = [], 0.0
    log_det_sum = columns * hp.n_group * math.log(hp.audio_scale)
    for k in range(hp.n_flows):
        if hp.early_output_before(k):
            out, x = tf.split(x, [hp.n_early_size, hp.flow_channels(k)], axis=-1)
            early.append(out)
        with tf.variable_scope('flow_%d' % k):
            w = ops.invertible_1x1_weight(hp.flow_channels(k), x.dtype)
            log_det_sum += columns * ops.log_abs_det(w)
            x = ops.conv_1x1(x, w[None])

            a, b = tf.split(x, 2, axis=-1)
            log_s, t = wavenet(a, cond, hp)
            log_s_sum += tf.reduce_sum(log_s)
            x = tf.concat([a, b * tf.exp(log_s) + t], axis=-1)
    return tf.concat(early + [x], axis=-1), log_s_sum, log_det_sum


def backward(z, cond, hp, lengths=None):
    """z [batch, steps, n_group] -> audio [batch, samples]: `forward`, undone step by step."""
    n_early = hp.n_group - hp.flow_channels(hp.n_flows - 1)
    early, x = z[..., :n_early], z[..., n_early:]
    x.set_shape([None, None, hp.n_group - n_early])
    for k in reversed(range(hp.n_flows)):
        with tf.variable_scope('flow_%d' % k):
            a, b = tf.split(x, 2, axis=-1)
            log_s, t = wavenet(a, cond, hp, lengths)
            x = tf.concat([a, (b - t) * tf.exp(-log_s)], axis=-1)

            w = ops.invertible_1x1_weight(hp.flow_channels(k), x.dtype)
            x = ops.conv_1x1(x, ops.inverse(w)[None])
        if hp.early_output_before(k):
            n_early -= hp.n_early_size
            x = tf.concat([early[..., n_early:n_early + hp.n_early_size], x], axis=-1)
    batch, steps, _ = ops.shape_of(x)
    return tf.reshape(x, [batch, steps * hp.n_group]) / hp.audio_scale
