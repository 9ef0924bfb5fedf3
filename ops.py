"""What the model is made of: weight norm, dilated convolutions, 1x1 convolutions.

Channels last. `length` is the size of an axis in time: of frames, groups or samples. Functions
build parts of the default graph from their arguments alone. Variables come from `tf.get_variable`
in the scope that the caller has opened. An initial value depends on the random seed of the graph
and the name of the variable, not on what was built before it.
"""
import contextlib
import zlib
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError

Size = Union[int, tf.Tensor]    # of an axis: a number where the graph knows it, else a scalar


def variable(name: str, shape: Sequence[int], initializer: Any, dtype: tf.DType = tf.float32,
             trainable: bool = True) -> tf.Variable:
    """A resource variable, on TensorFlow 1.15 too."""
    return tf.get_variable(name, shape, dtype, initializer, trainable=trainable, use_resource=True)


def variable_seed(name: str) -> int:
    """The random seed of the initial value of variable `name` of the current scope."""
    return zlib.crc32((tf.get_variable_scope().name + '/' + name).encode()) & 0x7fffffff


class Weight(NamedTuple):
    """A float32 variable that a model asks for."""
    name: str
    shape: Tuple[int, ...]
    initializer: Callable[..., tf.Tensor]       # of a shape and a type

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def initial_value(self) -> tf.Tensor:
        """What it starts as, float32 of its shape, in the default graph."""
        return self.initializer(list(self.shape), tf.float32)


def list_weights(build: Callable[[], Any]) -> List[Weight]:
    """The variables that build() makes, in order; each once. None is made in the default graph."""
    found: Dict[str, Tuple[Weight, tf.Tensor]] = {}

    def record(getter, name, shape=None, dtype=tf.float32, initializer=None, **options):
        if name not in found:
            found[name] = Weight(name, tuple(shape), initializer), tf.placeholder(dtype, shape)
        return found[name][1]

    with tf.Graph().as_default(), tf.variable_scope(tf.get_variable_scope(), custom_getter=record):
        build()
    return [weight for weight, _ in found.values()]


def weight_of(weights: Dict[str, Any], name: str, shape: Sequence[int]) -> Any:
    """weights[name], an array or a tensor; UserError if there is none of this shape."""
    if name not in weights or list(weights[name].shape) != list(shape):
        raise UserError('there is no %s of shape %s among the weights; params.json is not that '
                        'of its model' % (name, list(shape)))
    return weights[name]


@contextlib.contextmanager
def frozen(weights: Dict[str, Union[np.ndarray, tf.Tensor]]) -> Iterator[None]:
    """A block in which variables are constants, the arrays of weights {name: array}, or tensors.

    Raises UserError for a variable that weights lack, or have in another shape.
    """
    def constant(getter, name, shape=None, dtype=tf.float32, **options):
        return tf.convert_to_tensor(weight_of(weights, name, shape), dtype)

    with tf.variable_scope(tf.get_variable_scope(), custom_getter=constant):
        yield


def bias(name: str, size: int, dtype: tf.DType = tf.float32) -> tf.Variable:
    """A variable [size] that starts at zero."""
    return variable(name, [size], tf.zeros_initializer(), dtype)


def filter_variables(name: str, shape: Sequence[int], dtype: tf.DType = tf.float32,
                     zero: bool = False) -> Tuple[tf.Variable, tf.Variable]:
    """The variables (v, g) of filters of shape [width, in, out], for `weight_norm`.

    Filters start with norm 1, or 0 if they start as `zero`, and v with about 1: the length of v
    sets how far a step of Adam turns a filter.
    """
    with tf.variable_scope(name):
        v = variable('v', shape, tf.random_normal_initializer(
            stddev=(shape[0] * shape[1]) ** -0.5, seed=variable_seed('v')), dtype)
        initial = tf.zeros_initializer() if zero else tf.ones_initializer()
        return v, variable('g', shape[-1:], initial, dtype)


def weight_norm(v: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
    """Filters [width, in, out] as g v / ||v||, with one g an output channel: g is [out].

    Salimans & Kingma 2016, arXiv 1602.07868.
    """
    return v * (g * tf.rsqrt(tf.reduce_sum(tf.square(v), axis=[0, 1])))


def matmul(x: tf.Tensor, filters: tf.Tensor, bias: Optional[tf.Tensor] = None) -> tf.Tensor:
    """A 1x1 convolution: x [..., in] with filters [in, out] and bias [out] -> [..., out]."""
    sizes = shape_of(x)
    y = tf.matmul(x if len(sizes) == 2 else tf.reshape(x, [-1, sizes[-1]]), filters)
    if bias is not None:
        y = tf.nn.bias_add(y, bias)
    return y if len(sizes) == 2 else tf.reshape(y, sizes[:-1] + [static_channels(y)])


def gated_activation(y: tf.Tensor, cond: tf.Tensor, curves: Optional[tf.Tensor] = None
                     ) -> tf.Tensor:
    """WaveNet's activation [..., c]: tanh times sigmoid of the halves of y + cond, each [..., 2 c].

    It is computed in the type of cond, but for 16 bits in float32, whose tanh and sigmoid are
    faster. The result has the type of y. van den Oord et al. 2016, arXiv 1609.03499.

    curves: [n, terms], where the n rows of cond are `combine`d of `terms` rows that are given.
    """
    y_tanh, y_sigmoid = _gate_halves(y, cond, curves)
    return tf.cast(tf.tanh(y_tanh) * tf.sigmoid(y_sigmoid), y.dtype)


def cosines(middles: np.ndarray, terms: int) -> np.ndarray:
    """float32 [n, terms]: the first `terms` cosines of a type 2 DCT, the first of them 1.

    middles: [n], where the n positions are in a period from 0 to 1.
    """
    return np.cos(np.pi * middles[:, None] * np.arange(terms)).astype(np.float32)


def at_least_float32(dtype: tf.DType) -> tf.DType:
    """The type itself, or float32 for one of 16 bits."""
    return dtype if dtype.size > 2 else tf.float32


def combine(rows: tf.Tensor, curves: tf.Tensor) -> tf.Tensor:
    """sum_k curves[:, k] rows[..., k, :]: rows [..., terms, c], curves [n, terms] -> [..., n, c].

    It is written element by element, which XLA makes a part of what reads it.
    """
    return tf.add_n([curve * row for curve, row in zip(tf.split(curves, curves.shape[1], 1),
                                                      tf.split(rows, curves.shape[1], -2))])


def trainable_gated_activation(compiled: bool = False
                               ) -> Callable[..., tf.Tensor]:
    """`gated_activation` with a gradient that keeps only y and cond in memory.

    The gradient computes tanh and sigmoid again. That takes less time than to write and read them,
    and half the memory. cond may have one row, in its last axis but one, for many of y.

    compiled: whether XLA makes one loop of each direction; on TensorFlow 2, for y of a known shape.
    """
    forward, backward = gated_activation, _gate_gradients
    if compiled:
        forward, backward = (tf.function(f, autograph=False, jit_compile=True)
                             for f in (forward, backward))

    def activation(y, cond, *curves):
        @tf.custom_gradient
        def of_tensors(y, cond):
            def gradients(dz):
                with computed_after(dz):
                    return backward(y, cond, dz, *curves)
            return forward(y, cond, *curves), gradients
        return of_tensors(y, cond)
    return activation


def _gate_gradients(y, cond, dz, curves=None):
    """The gradients to y and cond of the sum of gated_activation(y, cond, curves) * dz."""
    halves = _gate_halves(y, cond, curves)
    y_tanh, y_sigmoid = (f(half) for f, half in zip((tf.tanh, tf.sigmoid), halves))
    dz = tf.cast(dz, y_tanh.dtype)
    dy = tf.concat([dz * y_sigmoid * (1 - tf.square(y_tanh)),
                    dz * y_tanh * y_sigmoid * (1 - y_sigmoid)], axis=-1)
    dcond = dy
    if curves is not None:
        dcond = tf.concat([tf.reduce_sum(dy * curve, axis=-2, keepdims=True)
                           for curve in tf.split(curves, curves.shape[1], 1)], axis=-2)
    elif cond.shape.as_list()[-2] == 1:
        dcond = tf.reduce_sum(dy, axis=-2, keepdims=True)
    return tf.cast(dy, y.dtype), tf.cast(dcond, cond.dtype)


def _gate_halves(y, cond, curves):
    dtype = at_least_float32(cond.dtype)
    y, cond = tf.cast(y, dtype), tf.cast(cond, dtype)
    # tf.split: the gradient of y[..., :units] is several times as slow
    return tf.split(y + (cond if curves is None else combine(cond, curves)), 2, axis=-1)


def res_skip(y: tf.Tensor, h: tf.Tensor, output: tf.Tensor, bias: tf.Tensor
             ) -> Tuple[tf.Tensor, tf.Tensor]:
    """(h, output), each with its channels of y [..., c + skips] added, and to h the bias.

    h is [..., c], bias [c], output [..., skips] or [skips]; each keeps its type.
    """
    residual, skip = tf.split(y, [static_channels(h), -1], axis=-1)
    return h + tf.nn.bias_add(residual, bias), output + tf.cast(skip, output.dtype)


# --- Dilated convolution: one function, four forms ------------------------------------------------

def dilated_conv(x: tf.Tensor, filters: tf.Tensor, dilation: int, causal: bool = False,
                 form: str = 'per_direction') -> tf.Tensor:
    """Dilated 1-D convolution with zeros beyond both ends.

    y[t] = sum_j x[t + (j - shift) * dilation] filters[j], with shift = width - 1 if causal (back
    only), else (width - 1) // 2 (centred, as in the paper; of an even width nearly).

    Args:
      x: [batch, length, in].
      filters: [width, in, out].
      dilation: positions from one tap to the next.
      form: a key of CONV_FORMS. All compute the same values and gradients. docs/nhwc.md tells why
        there are three, docs/training.md why there is a fourth.

    Returns: [batch, length, out].
    """
    return CONV_FORMS[form](x, filters, dilation,
                            receptive_field(filters.shape.as_list()[0], dilation, causal))


def receptive_field(width: int, dilation: int, causal: bool = False) -> List[int]:
    """[positions behind, positions ahead] that a result of a dilated convolution depends on."""
    span = (width - 1) * dilation
    return [span, 0] if causal else [span // 2, span - span // 2]


def _time_to_batch(x, filters, dilation, padding):
    """The form of tensorflow-wavenet: every dilation-th position goes to the same batch row.

    It needs only an undilated convolution. For this and the other forms:

    Args:
      x: [batch, length, in].
      filters: [width, in, out].
      padding: [before, after], positions of zeros. Nothing else is beyond the ends.

    Returns: [batch, length + before + after - (width - 1) * dilation, out].
    """
    x = _padded(x, padding)
    if dilation == 1:
        return tf.nn.conv1d(x, filters, stride=1, padding='VALID')
    batch, length, channels = shape_of(x)
    width, _, out_channels = shape_of(filters)
    rows = -(-length // dilation)
    x = tf.pad(x, [[0, 0], [0, rows * dilation - length], [0, 0]])
    x = tf.transpose(tf.reshape(x, [batch, rows, dilation, channels]), [0, 2, 1, 3])
    y = tf.nn.conv1d(tf.reshape(x, [batch * dilation, rows, channels]), filters, stride=1,
                     padding='VALID')
    y = tf.reshape(y, [batch, dilation, rows - width + 1, out_channels])
    y = tf.reshape(tf.transpose(y, [0, 2, 1, 3]),
                   [batch, (rows - width + 1) * dilation, out_channels])
    if isinstance(length, int) and length % dilation == 0:
        return y
    y = tf.slice(y, [0, 0, 0], tf.stack([-1, length - (width - 1) * dilation, -1]))
    y.set_shape([None, None, out_channels])
    return y


def _conv2d_nhwc(x, filters, dilation, padding):
    # VALID: a lost dilation then changes the length; and ONNX Runtime has no dilation with SAME
    y = tf.nn.conv2d(tf.expand_dims(_padded(x, padding), 1), tf.expand_dims(filters, 0),
                     strides=[1, 1, 1, 1], padding='VALID', data_format='NHWC',
                     dilations=[1, 1, dilation, 1])
    return tf.squeeze(y, 1)


def _conv2d_nchw(x, filters, dilation, padding):
    x = tf.transpose(_padded(x, padding), [0, 2, 1])
    y = tf.nn.conv2d(tf.expand_dims(x, 2), tf.expand_dims(filters, 0), strides=[1, 1, 1, 1],
                     padding='VALID', data_format='NCHW', dilations=[1, 1, 1, dilation])
    return tf.transpose(tf.squeeze(y, 2), [0, 2, 1])


def _per_direction(x, filters, dilation, padding):
    """The fastest in each direction: TensorFlow's gradient of a convolution is not used.

    The gradient to x is a convolution again, of dy with the filters mirrored. The gradient to a tap
    of the filters is one product of matrices, over all positions.
    """
    width = filters.shape.as_list()[0]
    span = (width - 1) * dilation

    @tf.custom_gradient
    def conv(x, filters):
        def gradients(dy):
            with computed_after(dy):
                mirrored = tf.transpose(tf.reverse(filters, [0]), [0, 2, 1])
                taps = [_tap_gradient(x, dy, tap * dilation - padding[0],
                                      padding[1] + tap * dilation - span) for tap in range(width)]
            dx = _conv2d_nhwc(dy, mirrored, dilation, [span - side for side in padding])
            return dx, tf.stack(taps)
        return _conv2d_nhwc(x, filters, dilation, padding), gradients
    return conv(x, filters)


def _tap_gradient(x, dy, offset, beyond):
    """[in, out] of the tap that takes x[t + offset] to y[t]; the last `beyond` t are out of x."""
    x = x[:, max(0, offset):min(0, beyond) or None]
    dy = dy[:, max(0, -offset):-max(0, beyond) or None]
    return tf.matmul(as_matrix(x), as_matrix(dy), transpose_a=True)


def _padded(x, padding):
    return tf.pad(x, [[0, 0], padding, [0, 0]]) if any(padding) else x


def as_matrix(x: tf.Tensor) -> tf.Tensor:
    """x [..., c] as a matrix [rows, c]."""
    return tf.reshape(x, [-1, static_channels(x)])


CONV_FORMS = {
    'time_to_batch': _time_to_batch,
    'conv2d_nhwc': _conv2d_nhwc,
    'conv2d_nchw': _conv2d_nchw,
    'per_direction': _per_direction,
}


# --- Invertible 1x1 convolution -------------------------------------------------------------------

def invertible_1x1_weight(channels: int, dtype: tf.DType = tf.float32) -> tf.Variable:
    """W [channels, channels] of y = x W, which starts as a random rotation.

    It starts as no reflection: training keeps the sign of the determinant, and other programs take
    its logarithm.
    """
    orthogonal = tf.orthogonal_initializer(seed=variable_seed('W'))

    def rotation(shape, dtype=None, partition_info=None):
        w = orthogonal(shape, dtype)
        first, others = tf.split(w, [1, channels - 1], axis=1)
        return tf.concat([first * tf.sign(tf.linalg.det(w)), others], axis=1)

    return variable('W', [channels, channels], rotation, dtype)


def log_abs_det(w: tf.Tensor) -> tf.Tensor:
    """log|det w|, a scalar of w's type, from an LU decomposition in float64."""
    return tf.cast(tf.linalg.slogdet(tf.cast(w, tf.float64)).log_abs_determinant, w.dtype)


def inverse_matrix(w: tf.Tensor) -> tf.Tensor:
    """The inverse of matrix w, computed in float64, in w's type."""
    return tf.cast(tf.linalg.inv(tf.cast(w, tf.float64)), w.dtype)


# --- Shapes, masks, functions, and the order of computation ---------------------------------------

def built_once(function: Callable[..., Any], calls: Dict[int, int]
               ) -> Dict[int, Callable[..., Any]]:
    """{key: a function that gives what `function` gives}, for {key: how often it is called}.

    Where there are several calls of a key, the operations are built once, and so are those of the
    gradients. To build an operation takes Python half a millisecond, to build a call takes ten. The
    inputs and results are structures of tensors, and all calls of a key have inputs of the same
    shapes.
    """
    def called(compute):
        return lambda *inputs: compute(*tf.nest.map_structure(tf.convert_to_tensor, inputs))

    return {key: called(tf.function(function, autograph=False)) if count > 1 else function
            for key, count in calls.items()}


def computed_after(x: tf.Tensor):
    """A block; operations that are built in it are computed after x.

    Without it, what does not depend on x is computed as soon as possible and stays in memory until
    it is needed: in a gradient, all that depends only on the forward pass.
    """
    return tf.control_dependencies([x])


def shape_of(x: tf.Tensor) -> List[Size]:
    """The sizes of x: numbers where the graph knows them, scalar tensors where it does not."""
    sizes = x.shape.as_list()
    if None not in sizes:
        return sizes
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(sizes)]


def static_channels(x: tf.Tensor) -> int:
    """The size of the last axis of x, which the graph knows."""
    return x.shape.as_list()[-1]


def sequence_mask(lengths: Optional[tf.Tensor], max_length: Size, dtype: tf.DType
                  ) -> Optional[tf.Tensor]:
    """[batch, max_length, 1]: 1 before each of lengths [batch], 0 after; None without lengths."""
    if lengths is None:
        return None
    return tf.sequence_mask(lengths, max_length, dtype)[:, :, None]


def apply_mask(x: tf.Tensor, mask: Optional[tf.Tensor]) -> tf.Tensor:
    """x [batch, length, c] with zeros where mask [batch, length, 1] is 0; without a mask, x."""
    return x if mask is None else x * mask
