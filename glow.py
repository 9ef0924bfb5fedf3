"""WaveGlow: the coupling network, the flow in both directions, and the loss.

Prenger, Valle, Catanzaro 2018, arXiv 1811.00002, on Glow (Kingma & Dhariwal 2018, arXiv
1807.03039) and WaveNet (van den Oord et al. 2016, arXiv 1609.03499).

Every function builds a part of the default graph from its arguments alone. Variables live in the
scope `waveglow` under the caller's scope, and all that is built there shares them. Noise is an
input: only the initial values of the variables are random.

Shapes: `batch` utterances, `frames` mel frames, `hop_length` samples a frame, `n_group` samples a
group, `groups` positions of the flow in time.
"""
import math
from typing import Any, List, NamedTuple, Optional, Tuple

import tensorflow.compat.v1 as tf

import ops
import streaming
from errors import UserError
from flows import conditions, filters, grouping
from flows.filters import Coupling, Flow
from params import HParams

# What coupling networks compute in. tf32 is float32 on a device that `devices.allow_tf32` lets
# multiply with fewer bits.
PRECISIONS = {'float32': tf.float32, 'tf32': tf.float32, 'bfloat16': tf.bfloat16,
              'float16': tf.float16}


def require_precision(precision: str) -> None:
    """Raises UserError if this TensorFlow cannot compute in a precision, a key of PRECISIONS."""
    if precision == 'bfloat16' and tf.__version__.startswith('1.'):
        raise UserError('precision %s takes TensorFlow 2, and this is %s; take float32 or float16'
                        % (precision, tf.__version__))


class Loss(NamedTuple):
    """The negative log-likelihood of audio, in nats a sample: scalars, total = z + log_s + log_det.

    total = (sum(z^2) / (2 sigma^2) - sum(log_s) - groups * sum_k log|det W_k|) / (batch * samples),
    where `groups` counts all of the batch. The constant log(sigma) + log(2 pi) / 2 is left out. The
    density is that of audio in -1..1, whatever hp.audio_scale: its logarithm is part of log_det.
    """
    total: Any
    z: Any           # sum(z^2) / (2 sigma^2)
    log_s: Any       # of the couplings
    log_det: Any     # of the 1x1 convolutions, and of audio_scale


class Compute(NamedTuple):
    """How a loss and its gradient are computed. The results are the same, up to rounding."""
    precision: str = 'float32'   # a key of PRECISIONS: of the coupling networks, up to log_s and t
    reversible: bool = False     # whether in the memory of one flow, see `reversible_flows`
    xla: str = 'off'             # a key of towers.XLA_CHOICES: what XLA compiles


def loss(audio: tf.Tensor, mel: tf.Tensor, hp: HParams, compute: Compute = Compute(),
         flows: Optional[List[Flow]] = None) -> Loss:
    """The Loss of audio [batch, frames * hop_length] in -1..1, and mel [batch, frames, n_mels].

    It is that of `grouping.whole_groups` of the audio.

    flows: the result of `model_flows`, to share it with `infer`; built here by default.
    """
    audio = grouping.whole_groups(audio, hp)
    activation = ops.trainable_gated_activation(compute.xla == 'gates')
    boundary = streaming.WholeUtterances(hp, activation=activation, shared=True)
    flows = _cast_couplings(flows or model_flows(hp, audio.dtype), compute)
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        z, log_s, log_det = forward(audio, conditions.condition(mel, hp), flows, hp, boundary,
                                    compute.reversible)
    samples = tf.cast(tf.size(audio), audio.dtype)
    z_term = tf.reduce_sum(tf.square(z)) / (2 * hp.sigma ** 2) / samples
    log_s_term = -log_s / samples
    log_det_term = -log_det / samples
    return Loss(z_term + log_s_term + log_det_term, z_term, log_s_term, log_det_term)


def encode(audio: tf.Tensor, mel: tf.Tensor, hp: HParams, flows: Optional[List[Flow]] = None
           ) -> tf.Tensor:
    """z [batch, groups, n_group] of audio [batch, frames * hop_length] and its mel.

    It is that of `grouping.whole_groups` of the audio.

    flows: the result of `model_flows`, to share it with `infer`; built here by default.
    """
    audio = grouping.whole_groups(audio, hp)
    flows = flows or model_flows(hp, audio.dtype)
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        return forward(audio, conditions.condition(mel, hp), flows, hp,
                       streaming.WholeUtterances(hp, shared=True))[0]


def infer(z: tf.Tensor, mel: tf.Tensor, hp: HParams, lengths: Optional[tf.Tensor] = None,
          compute: Optional[Compute] = None, flows: Optional[List[Flow]] = None) -> tf.Tensor:
    """Audio [batch, frames * hop_length] from noise: the inverse of `encode`.

    Where frames * hop_length is no multiple of n_group, it ends with silence: see
    `grouping.fill_frames`.

    Args:
      z: [batch, groups, n_group], drawn from N(0, sigma^2) by the caller.
      mel: [batch, frames, n_mels].
      lengths: [batch] frames of each utterance, where they differ. The audio of each is then what
        it would be alone, and the caller cuts off what lies beyond its end.
      compute: how, where gradients of the audio are wanted; all that they need is kept in memory.
      flows: the result of `model_flows`, to share it with `loss`; built here by default.
    """
    activation = (ops.trainable_gated_activation(compute.xla == 'gates') if compute
                  else ops.gated_activation)
    flows = _cast_couplings(flows or model_flows(hp, z.dtype), compute or Compute())
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        cond = conditions.condition(mel, hp, lengths)
        boundary = streaming.WholeUtterances(hp, streaming.utterance_mask(lengths, z, hp),
                                             activation, shared=True)
        audio = inverse(z, cond, [filters.invert_1x1(flow) for flow in flows], hp, boundary)[0]
        return grouping.fill_frames(audio, mel, hp)


def receptive_field(hp: HParams) -> List[int]:
    """[groups behind, groups ahead] of z and condition that a group of audio depends on."""
    layers = [ops.receptive_field(hp.kernel_size, 2 ** i, hp.causal) for i in range(hp.n_layers)]
    return [hp.n_flows * sum(side) for side in zip(*layers)]


def weights(hp: HParams) -> List[ops.Weight]:
    """The weights of the model, in the order in which a computation of z meets them."""
    def build():
        with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
            conditions.condition(tf.placeholder(tf.float32, [None, None, hp.n_mels]), hp)
            for k in range(hp.n_flows):
                filters.flow_variables(k, hp)
    return ops.list_weights(build)


def model_flows(hp: HParams, dtype: tf.DType = tf.float32) -> List[Flow]:
    """`filters.build_flows` of the model's variables: what `loss` and `infer` may share."""
    with tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
        return filters.build_flows(hp, dtype)


def _cast_couplings(flows, compute):
    dtype = PRECISIONS[compute.precision]
    if dtype == tf.float32:     # no operations at all
        return flows
    return [filters.cast_coupling(flow, dtype) for flow in flows]


# --- The coupling network -------------------------------------------------------------------------

def wavenet(a: tf.Tensor, cond: tf.Tensor, net: Coupling, hp: HParams,
            boundary: Optional[streaming.Boundary] = None,
            carry: streaming.Carry = streaming.Carry()
            ) -> Tuple[tf.Tensor, tf.Tensor, streaming.Carry]:
    """(log_s, t, carry) of an affine coupling: log_s and t [batch, groups, c] from its half a.

    Args:
      a: [batch, groups, c].
      cond: `conditions.condition`'s result.
      net: the Coupling; the type of its filters is what the network computes in.
      boundary: what lies before and after the groups: streaming.WholeUtterances by default, or a
        streaming.StreamBlock, which has tensors without a batch axis.
      carry: of what was computed before; the one returned tells how late log_s and t are.
    """
    boundary = boundary or streaming.WholeUtterances(hp)
    h = tf.cast(tf.concat([a, tf.ones_like(a[..., :1])], axis=-1), net.start.dtype)
    h, output = boundary.apply_mask(h), net.bias
    for i, layer in enumerate(net.layers):
        delay_before = carry.delay
        h, y, carry = boundary.dilated_conv(h, layer.dilated, 2 ** i, carry)
        y = boundary.gate(y, cond, layer.cond, layer.bias, carry.delay)
        y = ops.matmul(y, layer.res_skip)
        if i == 0:
            h = ops.matmul(h, net.start)
        else:
            output, carry = boundary.delay(output, carry.delay - delay_before, carry)
        if i < len(net.layers) - 1:
            h, output = boundary.res_skip(y, h, output, layer.residual_bias)
            h = boundary.apply_mask(h)
        else:
            output += tf.cast(y, output.dtype)
    log_s, t = tf.split(output, 2, axis=-1)
    return log_s, t, carry


# --- The flow, forward and inverse side by side ---------------------------------------------------
#
# Of one Flow, x [batch, groups, channels] -> y of the same shape. The coupling leaves the half a as
# it is, so that log_s and t are the same in both directions:
#
#     forward   (a, b) = x w                      inverse   (a, d) = y
#               log_s, t = wavenet(a, cond)                 log_s, t = wavenet(a, cond)
#               y = (a, b * exp(log_s) + t)                 x = (a, (d - t) * exp(-log_s)) w^-1
#
#     log|det dy/dx| =   batch * groups * log|det w| + sum(log_s)
#     log|det dx/dy| = -(batch * groups * log|det w| + sum(log_s))

def forward(audio: tf.Tensor, cond: tf.Tensor, flows: List[Flow], hp: HParams,
            boundary: Optional[streaming.Boundary] = None, reversible: bool = False
            ) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(z, log_s, log_det): z of audio, and the two terms of the log-determinant of dz/daudio.

    Args:
      audio: [batch, samples] in -1..1.
      cond: `conditions.condition`'s result.
      flows: `filters.build_flows`.
      boundary: streaming.WholeUtterances.
      reversible: whether gradients take the memory of one flow, see `reversible_flows`.

    Returns:
      z: [batch, groups, n_group], all early outputs in order, then what remains.
      log_s: scalar, the sum of all log_s of the couplings.
      log_det: scalar, the sum over groups of log|det w| of all flows, and of log(audio_scale).
    """
    x = grouping.squeeze(audio[:, :, None] * hp.audio_scale, hp)
    batch, groups, _ = ops.shape_of(x)
    log_det = hp.n_group * math.log(hp.audio_scale) + sum(ops.log_abs_det(f.w) for f in flows)
    run = reversible_flows if reversible else forward_flows
    z, log_s_sum = run(x, cond, flows, hp, boundary or streaming.WholeUtterances(hp))
    return z, log_s_sum, tf.cast(batch * groups, x.dtype) * log_det


def forward_flows(x, cond, flows, hp, boundary):
    """(z, the sum of all log_s) of x, both [batch, groups, n_group]."""
    early, log_s_sum = [], 0.0

    def run(x, cond, flow, boundary, carry):
        a, b = tf.split(ops.matmul(x, flow.w), 2, axis=-1)
        log_s, t, carry = wavenet(a, cond, flow.coupling, hp, boundary, carry)
        return (tf.concat([a, b * tf.exp(log_s) + t], axis=-1), tf.reduce_sum(log_s)), carry

    for k, flow in enumerate(flows):
        if hp.early_output_before(k):
            out, x = tf.split(x, [hp.n_early_size, hp.flow_channels(k)], axis=-1)
            early.append(out)
        (x, log_s), _ = boundary.run_flow(run, x, cond, flow, streaming.Carry())
        log_s_sum += log_s
    return tf.concat(early + [x], axis=-1), log_s_sum


def inverse(z: tf.Tensor, cond: tf.Tensor, flows: List[Flow], hp: HParams,
            boundary: Optional[streaming.Boundary] = None) -> Tuple[tf.Tensor, streaming.Carry]:
    """(audio, carry): the audio [batch, samples] of z [batch, groups, n_group], flow by flow.

    Its log-determinant is that of `forward`, negated.

    Args:
      z: in the layout of `forward`'s.
      cond: `conditions.condition`'s result.
      flows: `filters.invert_1x1` of each of `filters.build_flows`.
      boundary: see `wavenet`.

    Returns: audio, and the streaming.Carry that tells how late it is and what to keep of a stream.
    """
    boundary, carry = boundary or streaming.WholeUtterances(hp), streaming.Carry()
    n_early = hp.n_group - hp.flow_channels(hp.n_flows - 1)
    early, x = z[..., :n_early], z[..., n_early:]

    def run(x, cond, flow, boundary, carry):
        delay_before = carry.delay
        a = tf.split(x, 2, axis=-1)[0]
        log_s, t, carry = wavenet(a, cond, flow.coupling, hp, boundary, carry)
        x, carry = boundary.delay(x, carry.delay - delay_before, carry)
        a, b = tf.split(x, 2, axis=-1)
        x = tf.concat([a, (b - t) * tf.exp(-log_s)], axis=-1)
        return ops.matmul(x, flow.w), carry

    for k in reversed(range(hp.n_flows)):
        x, carry = boundary.run_flow(run, x, cond, flows[k], carry)
        if hp.early_output_before(k):
            n_early -= hp.n_early_size
            out = early[..., n_early:n_early + hp.n_early_size]
            out, carry = boundary.delay(out, carry.delay, carry)
            x = tf.concat([out, x], axis=-1)
    sizes = ops.shape_of(x)
    return tf.reshape(x, sizes[:-2] + [sizes[-2] * hp.n_group]) / hp.audio_scale, carry


# --- Gradients in the memory of one flow ----------------------------------------------------------

def reversible_flows(x, cond, flows, hp, boundary):
    """`forward_flows` that keeps only z for its gradients, no activations of coupling networks.

    On the way back the input of each flow is computed from its output, by the inverse, and its
    network runs once more: a third more work. Gomez et al. 2017, arXiv 1707.04585.
    """
    @tf.custom_gradient
    def run(x, cond, *tensors):
        own = tf.nest.pack_sequence_as(flows, tensors)
        z, log_s_sum = forward_flows(x, cond, own, hp, boundary)
        flow_gradients = ops.built_once(
            lambda *tensors: _flow_gradients(hp, boundary, *tensors), hp.widths())

        def gradients(dz, dlog_s_sum):
            n_early = hp.n_group - hp.flow_channels(hp.n_flows - 1)
            x, dx, dcond, dflows = z[..., n_early:], dz[..., n_early:], [], []
            for k in reversed(range(hp.n_flows)):
                x, dx, more, dflow = flow_gradients[hp.flow_channels(k)](
                    x, dx, dlog_s_sum, cond, own[k])
                dcond = [tf.add_n(dcond + [more])]
                dflows = dflow + dflows
                if hp.early_output_before(k):
                    n_early -= hp.n_early_size
                    x, dx = (tf.concat([whole[..., n_early:n_early + hp.n_early_size], part], -1)
                             for whole, part in ((z, x), (dz, dx)))
            return [dx] + dcond + dflows
        return (z, log_s_sum), gradients
    return run(x, cond, *tf.nest.flatten(flows))


def _flow_gradients(hp, boundary, y, dy, dlog_s_sum, cond, flow):
    """(x, dx, dcond, [the gradient of each of the flow's tensors]) of one flow, from its output y.

    dy and dlog_s_sum are the gradients with respect to y and to the sum of log_s.
    """
    with ops.computed_after(dy):    # the memory is still that of the flow behind it
        a, b = tf.split(tf.identity(y), 2, axis=-1)
    log_s, t, _ = wavenet(a, cond, flow.coupling, hp, boundary)
    da, db = tf.split(dy, 2, axis=-1)
    inputs = [a, cond] + tf.nest.flatten(flow.coupling)
    # in a network of one layer `start` has no effect: it leads to layers after the first
    found = tf.gradients([log_s, t], inputs, [db * (b - t) + dlog_s_sum, db], stop_gradients=inputs,
                         unconnected_gradients=tf.UnconnectedGradients.ZERO)

    x = tf.concat([a, (b - t) * tf.exp(-log_s)], axis=-1)
    dx = tf.concat([da + found[0], db * tf.exp(log_s)], axis=-1)
    x = ops.matmul(x, ops.inverse_matrix(flow.w))
    dw = tf.matmul(ops.as_matrix(x), ops.as_matrix(dx), transpose_a=True)
    dx = ops.matmul(dx, tf.transpose(flow.w))
    with tf.control_dependencies([dw, x] + found[1:]):
        return tf.identity(x), tf.identity(dx), found[1], [dw] + found[2:]
