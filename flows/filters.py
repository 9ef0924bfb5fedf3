"""The variables of a flow, and the filters that are computed of them.

Variables live in the current scope of variables. Filters are computed once a step in training,
and once when a model is loaded.
"""
from typing import Any, List, NamedTuple

import tensorflow.compat.v1 as tf

import ops
from params import HParams


class Layer(NamedTuple):
    """Filters of a layer as the network applies them, with weight norm computed."""
    dilated: Any         # [kernel_size, in, 2 * residual]: in is residual, in layer 0 c + 1
    cond: Any            # [condition channels, cond_terms * 2 * residual]
    bias: Any            # [2 * residual]
    res_skip: Any        # [residual, residual + 2 * c], in the last layer [residual, 2 * c]
    residual_bias: Any   # [residual]; () in the last layer: nothing, to tf.nest too


class Coupling(NamedTuple):
    """Filters of an affine coupling's network, for halves of c channels."""
    start: Any             # [c + 1, residual], the last row its bias
    layers: List[Layer]
    bias: Any              # [2 * c]


class Flow(NamedTuple):
    """A 1x1 convolution x w, then an affine coupling of halves of c = channels / 2.

    tf.nest maps and flattens Flows, of tensors or of arrays.
    """
    w: Any                 # [channels, channels]
    coupling: Coupling


class LayerVariables(NamedTuple):
    """The variables that a Layer is computed of. Filters are pairs (v, g) of weight norm."""
    dilated: Any           # [kernel_size, residual, 2 * residual]
    dilated_bias: Any      # [2 * residual]
    res_skip: Any          # [1, residual, residual + skip], in the last layer [1, residual, skip]
    res_skip_bias: Any     # [residual + skip], in the last layer [skip]


class CouplingVariables(NamedTuple):
    """The variables that a Coupling, for halves of c channels, is computed of."""
    start: Any             # [1, c, residual]
    start_bias: Any        # [residual]
    cond: Any              # [1, condition channels, n_layers * 2 * residual]
    cond_bias: Any         # [n_layers * 2 * residual]
    cond_terms: Any        # [1, condition channels, (cond_terms - 1) * n_layers * 2 * residual];
                           # () for one term
    end: Any               # [1, skip, 2 * c], without weight norm
    end_bias: Any          # [2 * c]
    layers: List[LayerVariables]


class FlowVariables(NamedTuple):
    """The variables that a Flow is computed of."""
    w: Any                 # [channels, channels]
    coupling: CouplingVariables


def build_flows(hp: HParams, dtype: tf.DType = tf.float32) -> List[Flow]:
    """The Flows of the current scope's variables."""
    compute = ops.built_once(lambda variables: compute_flow(variables, hp), hp.widths())
    return [compute[hp.flow_channels(k)](flow_variables(k, hp, dtype)) for k in range(hp.n_flows)]


def flow_variables(k: int, hp: HParams, dtype: tf.DType = tf.float32) -> FlowVariables:
    """The variables of the k-th flow in the current scope."""
    with tf.variable_scope('flow_%d' % k):
        return FlowVariables(ops.invertible_1x1_weight(hp.flow_channels(k), dtype),
                             coupling_variables(hp.flow_channels(k) // 2, hp, dtype))


def coupling_variables(c: int, hp: HParams, dtype: tf.DType = tf.float32) -> CouplingVariables:
    """The CouplingVariables of the current scope, for halves of c channels, of type `dtype`."""
    units, skips = hp.residual_channels, hp.skip_channels

    def filters(name, *shape, **options):
        return ops.filter_variables(name, shape, dtype, **options)

    def layer(i):
        outputs = units + skips if i < hp.n_layers - 1 else skips
        with tf.variable_scope('layer_%d' % i):
            return LayerVariables(
                filters('dilated', hp.kernel_size, units, 2 * units),
                ops.bias('dilated/bias', 2 * units, dtype),
                filters('res_skip', 1, units, outputs), ops.bias('res_skip/bias', outputs, dtype))

    conds = 2 * units * hp.n_layers
    return CouplingVariables(
        start=filters('start', 1, c, units), start_bias=ops.bias('start/bias', units, dtype),
        cond=filters('cond', 1, hp.condition_channels, conds),
        cond_bias=ops.bias('cond/bias', conds, dtype),
        # zero at first: the condition starts as constant within a frame
        cond_terms=filters('cond_terms', 1, hp.condition_channels, (hp.cond_terms - 1) * conds,
                           zero=True) if hp.cond_terms > 1 else (),
        # zero at first: every coupling starts as the identity
        end=ops.variable('end/filter', [1, skips, 2 * c], tf.zeros_initializer(), dtype),
        end_bias=ops.bias('end/bias', 2 * c, dtype),
        layers=[layer(i) for i in range(hp.n_layers)])


def compute_flow(variables: FlowVariables, hp: HParams) -> Flow:
    """The Flow of its variables."""
    return Flow(variables.w, compute_coupling(variables.coupling, hp))


def compute_coupling(variables: CouplingVariables, hp: HParams) -> Coupling:
    """The Coupling of its variables.

    Two products of filters are computed here and not sample by sample. The paper's network starts
    with a 1x1 convolution of `a`, which is the only input of the first dilated convolution: on `a`
    with a channel of ones, for the bias, the two are one convolution. It ends with a 1x1
    convolution of the sum of the layers' skip outputs: each layer gives its share of log_s and t.
    """
    units, skips, last = hp.residual_channels, hp.skip_channels, hp.n_layers - 1
    # tf.squeeze: the gradient of filters[0] writes zeros first
    start = tf.concat([tf.squeeze(ops.weight_norm(*variables.start), 0),
                       variables.start_bias[None]], axis=0)
    conds = _split_layers(variables.cond, hp)
    if hp.cond_terms > 1:
        conds = [tf.concat(pair, axis=-1)
                 for pair in zip(conds, _split_layers(variables.cond_terms, hp))]
    cond_biases = tf.split(variables.cond_bias, hp.n_layers)
    end = tf.squeeze(variables.end, 0)
    layers, skip_bias = [], 0.0
    for i, layer in enumerate(variables.layers):
        dilated = ops.weight_norm(*layer.dilated)
        if i == 0:
            dilated = tf.stack([tf.matmul(start, tap) for tap in tf.unstack(dilated)])
        filters = tf.squeeze(ops.weight_norm(*layer.res_skip), 0)
        if i < last:
            residual, skip = tf.split(filters, [units, skips], axis=-1)
            res_skip = tf.concat([residual, tf.matmul(skip, end)], axis=-1)
            residual_bias, more = tf.split(layer.res_skip_bias, [units, skips])
        else:
            res_skip, residual_bias, more = tf.matmul(filters, end), (), layer.res_skip_bias
        skip_bias += more
        layers.append(Layer(dilated, conds[i], cond_biases[i] + layer.dilated_bias, res_skip,
                            residual_bias))
    end_bias = variables.end_bias + tf.linalg.matvec(end, skip_bias, transpose_a=True)
    return Coupling(start, layers, end_bias)


def _split_layers(filters, hp):
    """The 1x1 convolution of each layer of one of them all, given as (v, g) of weight norm."""
    return tf.split(tf.squeeze(ops.weight_norm(*filters), 0), hp.n_layers, axis=-1)


def invert_1x1(flow: Flow) -> Flow:
    """The Flow with the inverse of its w, as `inverse` takes it."""
    return flow._replace(w=ops.inverse_matrix(flow.w))


def cast_coupling(flow: Flow, dtype: tf.DType) -> Flow:
    """The Flow with a coupling network that computes in `dtype`, up to log_s and t."""
    net = tf.nest.map_structure(lambda x: tf.cast(x, dtype), flow.coupling)
    return flow._replace(coupling=net._replace(bias=flow.coupling.bias))
