"""What lies before and after the steps that a graph sees: nothing, or the rest of a stream.

The model's functions are written against these two. `Whole` has zeros beyond both ends. `Block` has
the steps before it from the block before, and no steps after it: a convolution that looks ahead
gives its results later, `delay` steps behind what came in. Block by block the results are those of
the whole utterance, of any length, and nothing is worked out twice.
"""
import numpy as np
import tensorflow.compat.v1 as tf

import ops


class WholeUtterances:
    """Whole utterances, in a batch of several `lengths` (frames) if given.

    activation: ops.gated_activation, or what has its values and another gradient.
    """

    delay = 0

    def __init__(self, hp, lengths=None, activation=ops.gated_activation):
        self._hp, self._lengths, self._mask = hp, lengths, None
        self._activation = activation

    def masked(self, h):
        """h with zeros beyond the end of each utterance."""
        if self._lengths is None:
            return h
        if self._mask is None:
            self._mask = ops.sequence_mask(self._lengths * self._hp.groups_per_frame,
                                           ops.shape_of(h)[1], h.dtype)
        return h * self._mask

    def dilated_conv(self, h, filters, dilation):
        """(h, its convolution): both stand over the same steps."""
        hp = self._hp
        return h, ops.dilated_conv(h, filters, dilation, hp.causal, hp.conv_form)

    def delayed(self, x, steps):
        """x, as many steps late as convolutions of `steps` look ahead: not at all."""
        return x

    def gate(self, y, cond, filters, bias):
        """ops.gated_activation of y [batch, steps, c] and a 1x1 convolution of a condition with a
        row a step or frame."""
        hp = self._hp
        with ops.computed_after(y):  # else the conditions of all layers are at once
            cond = ops.matmul(tf.cast(cond, filters.dtype), filters, bias)
        if hp.upsampling != 'repeat':
            return self._activation(y, cond)
        batch, steps, channels = ops.shape_of(y)
        y = tf.reshape(y, [batch, steps // hp.groups_per_frame, hp.groups_per_frame, channels])
        y = self._activation(y, tf.expand_dims(cond, 2))
        return tf.reshape(y, [batch, steps, channels // 2])

    res_skip = staticmethod(ops.res_skip)


class StreamBlock:
    """The next steps of one stream. Its tensors are [steps, c]: to cut such a one costs nothing.

    What it needs of the block before are tensors to feed, what the next one needs are results:

      states: [(placeholder, array for the first block, tensor that feeds the next block)]

    Args:
      hp: HParams.
      position: scalar, steps of the utterance before this block.
      first_frame: scalar, the frame of the condition's first row.
      last: scalar, 1 if the utterance ends with this block, else 0.
      conv_form: see ops.CONV_FORMS.
      fused_steps: where a layer has as many, what it does element by element is one loop that XLA
        compiles, and not six; 0 for never. One length only: others would be compiled too.

    What looks further ahead than the blocks so far reach has no results yet, and gives none.
    """

    def __init__(self, hp, position, first_frame, last, conv_form, fused_steps=0):
        self._hp, self._last, self._conv_form = hp, last, conv_form
        self._position, self._first_frame = position, first_frame
        self.delay, self.states = 0, []
        self._fused_steps, self._fused = fused_steps, {}

    def masked(self, h):
        return h

    def dilated_conv(self, h, filters, dilation):
        """(h, its convolution), both as late as the convolution looks ahead."""
        behind, ahead = ops.receptive_field(ops.shape_of(filters)[0], dilation, self._hp.causal)
        span, channels = behind + ahead, ops.static_channels(h)
        before = self._before(h, behind)
        steps = tf.shape(before)[0] + tf.shape(h)[0] + ahead * self._last
        ready = tf.maximum(steps - span, 0)
        # one step at least: oneDNN's convolution to none gives its input back
        beyond = ahead * self._last + tf.maximum(span + 1 - steps, 0)
        h = tf.concat([before, h, tf.zeros([beyond, channels], h.dtype)], axis=0)
        self._keep(h[ready:steps])
        self.delay += ahead
        y = ops.CONV_FORMS[self._conv_form](h[None], filters, dilation, [0, 0])
        return h[behind:behind + ready], tf.squeeze(y, 0)[:ready]

    def delayed(self, x, steps):
        """x, `steps` steps late, or up to the end in the last block."""
        if steps == 0:
            return x
        x = tf.concat([self._before(x, 0), x], axis=0)
        ready = tf.maximum(tf.shape(x)[0] - steps * (1 - self._last), 0)
        self._keep(x[ready:])
        return x[:ready]

    def gate(self, y, cond, filters, bias):
        cond = tf.cast(cond, filters.dtype)
        steps, per_frame = tf.shape(y)[0], self._hp.groups_per_frame
        start = tf.maximum(self._position - self.delay, 0) - self._first_frame * per_frame
        if self._hp.upsampling != 'repeat':
            with ops.computed_after(y):
                return self._loop(_gate, y, ops.matmul(cond[start:start + steps], filters), bias)
        first = start // per_frame
        rows = ops.matmul(cond[first:(start + steps - 1) // per_frame + 1], filters)
        frames = (start + tf.range(steps)) // per_frame - first
        with ops.computed_after(y):
            return self._loop(_gate, y, rows, bias, frames)

    def res_skip(self, y, h, output, bias):
        return self._loop(ops.res_skip, y, h, output, bias)

    def _loop(self, f, y, *others):
        """f(y, *others), where f is of single elements, as one loop where that can be had."""
        if not self._fused_steps:
            return f(y, *others)
        if f not in self._fused:
            self._fused[f] = tf.function(f, jit_compile=True)
        plain, fused = tf.raw_ops.Switch(data=y, pred=tf.equal(tf.shape(y)[0], self._fused_steps))
        return tf.nest.map_structure(lambda a, b: tf.raw_ops.Merge(inputs=[a, b]).output,
                                     f(plain, *others), self._fused[f](fused, *others))

    def _before(self, x, steps):
        """The last steps of x in the block before; at first, `steps` of zeros."""
        channels = ops.static_channels(x)
        before = tf.placeholder(x.dtype, [None, channels])
        self._initial = np.zeros([steps, channels], x.dtype.as_numpy_dtype)
        self._fed = before
        return before

    def _keep(self, x):
        # a copy: a cut of a tensor holds the memory of all of it until the block is done
        self.states.append((self._fed, self._initial, tf.raw_ops.DeepCopy(x=x)))


def _gate(y, rows, bias, frames=None):
    """ops.gated_activation of y [steps, 2 c] and a condition: rows [frames, 2 c], a bias [2 c].

    frames: [steps], the row that each step hears; its own if there is none.
    """
    cond = tf.cast(rows, tf.float32) + tf.cast(bias, tf.float32)
    return ops.gated_activation(y, cond if frames is None else tf.gather(cond, frames))
