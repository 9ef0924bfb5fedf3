"""What lies before and after the groups that a graph sees: zeros, or the rest of a stream.

The model's functions are written against `Boundary`, which has two implementations.
`WholeUtterances` has zeros beyond both ends. `StreamBlock` has the groups before it from the block
before, as states, and none after it: a convolution that looks ahead gives its last results only
with the next block. Block by block the results are those of the whole utterance, of any length, and
nothing is computed twice.

A convolution of 3 taps and dilation 2 has a receptive field of 2 groups behind and 2 ahead. On
blocks of 6 groups:

    group            -2 -1  0  1  2  3  4  5  6  7  8  9 10 11
    block 1  state    0  0                                       zeros before the utterance
             input          0  1  2  3  4  5
             output         0  1  2  3                           4 and 5 look ahead: they wait
    block 2  state                2  3  4  5                     the last 2 + 2 groups of the input
             input                            6  7  8  9 10 11
             output                     4  5  6  7  8  9         delay 2
    block 3  state                            8  9 10 11
    (empty,  zeros                                        0  0   after the utterance
     last)   output                                10 11

The delays of all convolutions add up. What does not go through a convolution and meets its result
later (the other half of a coupling, early outputs, the sum of skip outputs) is delayed as much.

Every function returns its results and a `Carry`: how late they are, and the states of all
operations so far. It goes from function to function as an argument.
"""
import abc
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from params import HParams


class State(NamedTuple):
    """What an operation of a StreamBlock needs of the block before: [groups, c], as many as are."""
    fed: tf.Tensor       # placeholder: what the block before has kept
    first: np.ndarray    # what the first block is fed
    kept: tf.Tensor      # what to feed the next block


class Carry(NamedTuple):
    """How far a computation has come."""
    delay: int = 0                      # groups that its results are late
    states: Tuple[State, ...] = ()      # of all operations so far


class Boundary(abc.ABC):
    """How to compute what depends on the groups before and after, and on the place in time."""

    @abc.abstractmethod
    def apply_mask(self, h: tf.Tensor) -> tf.Tensor:
        """h [..., groups, c] with zeros beyond the end of each utterance."""

    @abc.abstractmethod
    def dilated_conv(self, h: tf.Tensor, filters: tf.Tensor, dilation: int, carry: Carry
                     ) -> Tuple[tf.Tensor, tf.Tensor, Carry]:
        """(h, y, carry): h [..., groups, in] and y [..., groups, out], its convolution.

        Both are of the same groups: h is as late as the convolution looks ahead.
        """

    @abc.abstractmethod
    def delay(self, x: tf.Tensor, groups: int, carry: Carry) -> Tuple[tf.Tensor, Carry]:
        """(x, carry): x [..., groups, c], late by as many groups as a convolution looks ahead.

        carry.delay stays: it is that of the convolution, which x now keeps pace with.
        """

    @abc.abstractmethod
    def gate(self, y: tf.Tensor, cond: tf.Tensor, filters: tf.Tensor, bias: tf.Tensor, delay: int
             ) -> tf.Tensor:
        """ops.gated_activation [..., groups, c] of y and a 1x1 convolution of the condition.

        Args:
          y: [..., groups, 2 * c].
          cond: [..., frames or groups, condition channels], see flows.conditions.condition.
          filters, bias: of the 1x1 convolution, [condition channels, cond_terms * 2 * c] and
            [2 * c].
          delay: groups that y is late.
        """

    @abc.abstractmethod
    def res_skip(self, y: tf.Tensor, h: tf.Tensor, output: tf.Tensor, bias: tf.Tensor
                 ) -> Tuple[tf.Tensor, tf.Tensor]:
        """ops.res_skip."""

    def run_flow(self, run: Callable[..., Tuple[Any, Carry]], x: tf.Tensor, cond: tf.Tensor,
                 flow: Any, carry: Carry) -> Tuple[Any, Carry]:
        """run(x, cond, flow, boundary, carry) -> (result, carry), of one flow of several.

        What `run` builds may be built once, for all flows of the same number of channels.
        """
        return run(x, cond, flow, self, carry)


class WholeUtterances(Boundary):
    """Whole utterances, [batch, groups, c], with zeros beyond both ends: no delay, no states.

    Args:
      hp: hyperparameters.
      mask: `utterance_mask`, for a batch of several lengths.
      activation: ops.gated_activation, or a function of its values and another gradient.
      shared: whether flows of the same number of channels are calls of one function, see
        `ops.built_once`.
    """

    def __init__(self, hp: HParams, mask: Optional[tf.Tensor] = None,
                 activation: Callable[..., tf.Tensor] = ops.gated_activation,
                 shared: bool = False):
        self._hp, self._mask, self._activation, self._shared = hp, mask, activation, shared
        self._functions: Dict[Callable[..., Any], Dict[int, Callable[..., Any]]] = {}

    def run_flow(self, run, x, cond, flow, carry):
        if not self._shared:
            return run(x, cond, flow, self, carry)
        if run not in self._functions:
            self._functions[run] = ops.built_once(
                lambda x, cond, flow: run(x, cond, flow, self, Carry())[0], self._hp.widths())
        return self._functions[run][ops.static_channels(x)](x, cond, flow), carry

    def apply_mask(self, h):
        return ops.apply_mask(h, self._mask)

    def dilated_conv(self, h, filters, dilation, carry):
        hp = self._hp
        return h, ops.dilated_conv(h, filters, dilation, hp.causal, hp.conv_form), carry

    def delay(self, x, groups, carry):
        return x, carry

    def gate(self, y, cond, filters, bias, delay):
        hp = self._hp
        if hp.upsampling == 'repeat' and hp.cycle_frames > 1:
            return self._gate_across_frames(y, cond, filters, bias)
        if hp.cond_terms > 1:
            return self._gate_along_curves(y, cond, filters, bias)
        with ops.computed_after(y):  # else the conditions of all layers are in memory at once
            cond = ops.matmul(tf.cast(cond, filters.dtype), filters, bias)
        if hp.upsampling != 'repeat':
            return self._activation(y, cond)
        batch, groups, channels = ops.shape_of(y)
        per_frame = hp.groups(1)
        y = tf.reshape(y, [batch, groups // per_frame, per_frame, channels])
        y = self._activation(y, tf.expand_dims(cond, 2))
        return tf.reshape(y, [batch, groups, channels // 2])

    def _gate_along_curves(self, y, cond, filters, bias):
        hp = self._hp
        batch, groups, channels = ops.shape_of(y)
        bias = tf.concat([bias, tf.zeros([(hp.cond_terms - 1) * channels], bias.dtype)], axis=0)
        with ops.computed_after(y):
            cond = ops.matmul(tf.cast(cond, filters.dtype), filters, bias)
        frames = groups // hp.groups(1)
        cond = tf.reshape(cond, [batch, frames, hp.cond_terms, channels])
        y = tf.reshape(y, [batch, frames, hp.groups(1), channels])
        y = self._activation(y, cond, _cond_curves(hp, y.dtype))
        return tf.reshape(y, [batch, groups, channels // 2])

    def _gate_across_frames(self, y, cond, filters, bias):
        """`gate` where groups may end in another frame than the one that they begin in."""
        hp, groups = self._hp, tf.range(ops.shape_of(y)[1])
        with ops.computed_after(y):
            rows = ops.matmul(tf.cast(cond, filters.dtype), filters)
            cond = tf.gather(rows, hp.frame_of_group(groups), axis=1)
            if hp.cond_terms > 1:
                cond = _combined(cond, _curves_of_groups(hp, groups, cond.dtype))
            cond += tf.cast(bias, cond.dtype)
        return self._activation(y, cond)

    def res_skip(self, y, h, output, bias):
        return ops.res_skip(y, h, output, bias)


def utterance_mask(lengths: Optional[tf.Tensor], z: tf.Tensor, hp: HParams) -> Optional[tf.Tensor]:
    """[batch, groups, 1] of z [batch, groups, n_group], 1 within each utterance and 0 beyond.

    lengths: [batch] frames of each utterance; None for all that z has, which takes no mask.
    """
    if lengths is None:
        return None
    return ops.sequence_mask(hp.groups(lengths), ops.shape_of(z)[1], z.dtype)


class Places(NamedTuple):
    """Where in an utterance the groups of a StreamBlock are: scalars, and a row for each group."""
    position: tf.Tensor     # of the first, counted from the first row of the condition
    end: tf.Tensor          # position + groups
    last: tf.Tensor         # 1 if the utterance ends with this block, else 0
    late: tf.Tensor         # groups that they are late before the first function
    group: tf.Tensor        # [end], number of each group from the first row of the condition on
    frame: tf.Tensor        # [end], and its frame

    @classmethod
    def of_block(cls, hp: HParams, groups: tf.Tensor, position: tf.Tensor, last: tf.Tensor
                 ) -> 'Places':
        """Those of the block of so many groups, a scalar. The other arguments: see the fields."""
        group = tf.range(position + groups)
        return cls(position, position + groups, last, tf.zeros_like(last), group,
                   hp.frame_of_group(group))


class StreamBlock(Boundary):
    """The next groups of one stream, [groups, c]: without a batch axis, cutting copies nothing.

    A first block has fewer results than groups come in: a function waits for what lies ahead in the
    next block. In the last block it has all that are left. So the first block has more groups than
    `delay`, if it is not the last as well.

    Args:
      hp: hyperparameters.
      places: of its groups.
      flow_delay: groups that the results of one flow are later than its inputs.
      conv_form: a key of ops.CONV_FORMS.
      fused_groups: a number of groups; a layer that has as many computes its element by element
        operations as one loop that XLA compiles, and not as six. 0 for never. It is one number
        only, since XLA compiles each length anew.
    """

    def __init__(self, hp: HParams, places: Places, flow_delay: int, conv_form: str,
                 fused_groups: int = 0):
        self._hp, self._places, self._flow_delay = hp, places, flow_delay
        self._conv_form, self._fused_groups = conv_form, fused_groups
        self._gate, self._res_skip = (_fused(f, fused_groups) for f in (_gate, ops.res_skip))
        delays = places.late + tf.range(flow_delay + 1)
        self._starts = tf.split(tf.maximum(places.position - delays, 0), flow_delay + 1)
        self._ends = tf.split(places.end - delays * (1 - places.last), flow_delay + 1)
        self._zeros: Dict[Tuple[int, int, tf.DType], tf.Tensor] = {}
        self._flows: Dict[int, _BuiltFlow] = {}     # by channels

    def run_flow(self, run, x, cond, flow, carry):
        channels = ops.static_channels(x)
        inputs = x, cond, flow, self._places._replace(late=tf.constant(carry.delay))
        if channels not in self._flows:
            def build(x, cond, flow, places):
                block = StreamBlock(self._hp, places, self._flow_delay, self._conv_form,
                                    self._fused_groups)
                return run(x, cond, flow, block, Carry())
            self._flows[channels] = _BuiltFlow(build, inputs)
        x, late, states = self._flows[channels].copy(inputs)
        return x, Carry(carry.delay + late, carry.states + states)

    def apply_mask(self, h):
        return h

    def dilated_conv(self, h, filters, dilation, carry):
        behind, ahead = ops.receptive_field(ops.shape_of(filters)[0], dilation, self._hp.causal)
        h, carry = self._extended(h, behind, ahead, carry)
        y = ops.CONV_FORMS[self._conv_form](tf.expand_dims(h, 0), filters, dilation, [0, 0])
        return (h[behind:-ahead or None], tf.squeeze(y, 0),
                carry._replace(delay=carry.delay + ahead))

    def delay(self, x, groups, carry):
        if groups == 0:
            return x, carry
        x, carry = self._extended(x, 0, groups, carry)
        return x[:-groups], carry

    def gate(self, y, cond, filters, bias, delay):
        cond = tf.cast(cond, filters.dtype)
        if self._hp.upsampling != 'repeat':
            with ops.computed_after(y):
                return self._gate(y, ops.matmul(self._delayed(cond, delay), filters), bias)
        frames, curves = self._delayed(self._places.frame, delay), []
        if self._hp.cond_terms > 1:
            curves = [_curves_of_groups(self._hp, self._delayed(self._places.group, delay))]
        with ops.computed_after(y):
            return self._gate(y, ops.matmul(cond, filters), bias, frames, *curves)

    def res_skip(self, y, h, output, bias):
        return self._res_skip(y, h, output, bias)

    def _delayed(self, rows, delay):
        """Of rows, one a group from the first row of the condition on, those of late groups."""
        return tf.strided_slice(rows, self._starts[delay], self._ends[delay], [1])

    def _extended(self, x, behind, ahead, carry):
        """(x [groups, c] with what lies behind and ahead of it, carry).

        Behind are `behind + ahead` groups of the block before, in the first block `behind` zeros.
        Ahead are `ahead` zeros in the last block.
        """
        kept, channels = behind + ahead, ops.static_channels(x)
        if not kept:
            return x, carry
        key = ahead, channels, x.dtype
        if key not in self._zeros:      # one for all layers of this dilation
            self._zeros[key] = tf.zeros([ahead * self._places.last, channels], x.dtype)
        fed = tf.placeholder(x.dtype, [None, channels])
        first = np.zeros([behind, channels], x.dtype.as_numpy_dtype)
        x = tf.concat([fed, x, self._zeros[key]], axis=0)
        # a copy: a cut of a tensor holds all of the tensor until the block is done
        state = State(fed, first, tf.raw_ops.DeepCopy(x=x[-kept:]))
        return x, carry._replace(states=carry.states + (state,))


class _BuiltFlow:
    """What one flow of a StreamBlock builds, once, to be copied by TensorFlow itself.

    To build an operation takes Python half a millisecond; a flow has some 400.

    Args:
      build: makes (x, Carry) of `inputs`, a structure of tensors.
    """

    def __init__(self, build: Callable[..., Tuple[tf.Tensor, Carry]], inputs: Any):
        with tf.Graph().as_default() as graph:
            fed = tf.nest.map_structure(lambda x: tf.placeholder(x.dtype, x.shape), inputs)
            x, carry = build(*fed)
        self._x, self._carry = x.name, carry
        # what is fed is not copied, and TensorFlow takes no input that nothing needs
        self._inputs = [x.op.name for x in tf.nest.flatten(fed)]
        self._definition = graph.as_graph_def()
        nodes = [node for node in self._definition.node if node.name not in self._inputs]
        self._needed = {name.lstrip('^').split(':')[0] for node in nodes for name in node.input}
        del self._definition.node[:]
        self._definition.node.extend(nodes)

    def copy(self, inputs: Any) -> Tuple[tf.Tensor, int, Tuple[State, ...]]:
        """(x, groups that it is later than the inputs, states) in the default graph."""
        states = self._carry.states
        given = zip(self._inputs, tf.nest.flatten(inputs))
        x, *found = tf.import_graph_def(
            self._definition, {name + ':0': x for name, x in given if name in self._needed},
            [self._x] + [name for s in states for name in (s.fed.name, s.kept.name)], 'flow')
        return x, self._carry.delay, tuple(
            State(fed, state.first, kept)
            for state, fed, kept in zip(states, found[::2], found[1::2]))


class FixedBlock(Boundary):
    """The next groups of one stream, [groups, c], in tensors whose shapes are all static.

    For runtimes that compute those faster, or no others. Results are always of as many groups as
    came in, late by the delay so far. Groups before the utterance and beyond its end come out too,
    as numbers without a meaning: none of them goes into a convolution.

    Args:
      hp: hyperparameters, with encoder=none.
      groups: of a block, whole frames, which begin and end with a group.
      position: scalar, groups of the utterance before this block: a multiple of `groups`.
      total: scalar, groups of the utterance; any large number until its end is known.
      state: [size], what the block before has kept: the states of all operations, one after the
        other. Zeros before the first block.
      frames_before: frames of the condition before those of this block, which begin with a group.
    """

    def __init__(self, hp: HParams, groups: int, position: tf.Tensor, total: tf.Tensor,
                 state: tf.Tensor, frames_before: int):
        self._hp, self._groups, self._frames_before = hp, groups, frames_before
        self._position, self._total, self._state = position, total, state

    def within(self, delay: int) -> tf.Tensor:
        """[groups, 1]: whether groups that are so late are of the utterance."""
        places = self._position - delay + tf.range(self._groups)[:, None]
        return tf.logical_and(places >= 0, places < self._total)

    def keep(self, x: tf.Tensor, groups: int, carry: Carry) -> Tuple[tf.Tensor, Carry]:
        """(so many groups of before and x [groups, c], carry): the last groups are kept."""
        channels = ops.static_channels(x)
        first = np.zeros([groups, channels], np.float32)
        start = sum(state.first.size for state in carry.states)
        before = tf.reshape(self._state[start:start + first.size], first.shape)
        x = tf.concat([before, x], axis=0)
        state = State(before, first, x[-groups:])
        return x, carry._replace(states=carry.states + (state,))

    def apply_mask(self, h):
        return h

    def dilated_conv(self, h, filters, dilation, carry):
        behind, ahead = ops.receptive_field(ops.shape_of(filters)[0], dilation, self._hp.causal)
        h = tf.where_v2(self.within(carry.delay), h, tf.zeros([], h.dtype))
        h, carry = self.keep(h, behind + ahead, carry)
        y = ops.CONV_FORMS['conv2d_nhwc'](h[None], filters, dilation, [0, 0])
        return (h[behind:behind + self._groups], tf.reshape(y, [self._groups, -1]),
                carry._replace(delay=carry.delay + ahead))

    def delay(self, x, groups, carry):
        if groups == 0:
            return x, carry
        x, carry = self.keep(x, groups, carry)
        return x[:self._groups], carry

    def gate(self, y, cond, filters, bias, delay):
        hp = self._hp
        groups = hp.groups(self._frames_before) - delay + np.arange(self._groups)
        if hp.upsampling != 'repeat':
            rows = ops.matmul(cond[groups[0]:groups[-1] + 1], filters, bias)
            return ops.gated_activation(y, rows)
        frames = hp.frame_of_group(groups)
        curves = [_curves_of_groups(hp, groups)] if hp.cond_terms > 1 else []
        return _gate(y, ops.matmul(cond[frames[0]:frames[-1] + 1], filters), bias,
                     tf.constant(frames - frames[0]), *curves)

    def res_skip(self, y, h, output, bias):
        return ops.res_skip(y, h, output, bias)


def _cond_curves(hp, dtype=tf.float32):
    """[groups, cond_terms]: how the terms of a frame's condition make up its groups'.

    Of the groups of cycle_frames frames, after which all repeats; a group stands where its middle
    does in the frame that it begins in.
    """
    dtype = ops.at_least_float32(dtype)
    group = np.arange(hp.groups(hp.cycle_frames))
    first = group * hp.n_group - hp.frame_of_group(group) * hp.hop_length   # sample of the frame
    middles = (first / hp.n_group + 0.5) / (hp.hop_length / hp.n_group)
    return tf.constant(ops.cosines(middles, hp.cond_terms), dtype)


def _curves_of_groups(hp, groups, dtype=tf.float32):
    """[n, cond_terms]: the rows of `_cond_curves` for groups [n], numbers of an utterance."""
    return tf.gather(_cond_curves(hp, dtype), groups % hp.groups(hp.cycle_frames))


def _combined(rows, curves):
    """The condition [..., n, c] of its terms, rows [..., n, terms * c], with curves [n, terms]."""
    terms = tf.split(tf.cast(rows, curves.dtype), curves.shape[1], axis=-1)
    return tf.add_n([curve * term for curve, term in zip(tf.split(curves, curves.shape[1], 1),
                                                         terms)])


def _gate(y, rows, bias, frames=None, curves=None):
    """ops.gated_activation of y [groups, 2 c] and a condition: rows [frames, 2 c], a bias [2 c].

    frames: [groups], the row of each group; None where each group has its own.
    curves: [groups, terms], where rows are [frames, terms * 2 c], see `_cond_curves`.
    """
    if curves is not None:
        cond = _combined(tf.gather(rows, frames), curves)
        return ops.gated_activation(y, cond + tf.cast(bias, tf.float32))
    cond = tf.cast(rows, tf.float32) + tf.cast(bias, tf.float32)
    return ops.gated_activation(y, cond if frames is None else tf.gather(cond, frames))


def _fused(f, groups):
    """f(y, ...), element by element, which XLA makes one loop of where y has so many groups."""
    if not groups:
        return f
    compiled = tf.function(f, autograph=False, jit_compile=True)

    def either(y, *others):
        plain, full = tf.raw_ops.Switch(data=y, pred=tf.equal(tf.shape(y)[0], groups))
        return tf.nest.map_structure(lambda a, b: tf.raw_ops.Merge(inputs=[a, b]).output,
                                     f(plain, *others), compiled(full, *others))
    return either
