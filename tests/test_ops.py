"""ops.py against plain NumPy."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import assign, session, trainable

import ops
from flows import conditions
from training import convolution_check


def numpy_dilated_conv(x, filters, dilation, causal):
    """The definition, a sum over taps, with zeros beyond both ends."""
    width = len(filters)
    shift = width - 1 if causal else (width - 1) // 2
    steps = x.shape[1]
    y = np.zeros(x.shape[:2] + filters.shape[2:])
    for t in range(steps):
        for j in range(width):
            source = t + (j - shift) * dilation
            if 0 <= source < steps:
                y[:, t] += x[:, source] @ filters[j]
    return y


def numpy_gradients(x, filters, dilation, causal, dy):
    """The gradients of sum(y * dy) by the definition's transpose, tap by tap."""
    width = len(filters)
    shift = width - 1 if causal else (width - 1) // 2
    dx, df = np.zeros_like(x), np.zeros_like(filters)
    for t in range(x.shape[1]):
        for j in range(width):
            source = t + (j - shift) * dilation
            if 0 <= source < x.shape[1]:
                dx[:, source] += dy[:, t] @ filters[j].T
                df[j] += x[:, source].T @ dy[:, t]
    return dx, df


def runs_here(form):
    """Whether TensorFlow computes `form` on this CPU, gradients and all: from its own operations.

    The kernels that know dilated gradients and NCHW on a CPU are oneDNN's: TensorFlow 2 takes them
    on newer processors, TensorFlow 1.15 on none.
    """
    if not form.startswith('conv2d'):
        return True
    nchw = form == 'conv2d_nchw'
    with session() as sess:
        x, filters = tf.ones([1, 1, 1, 9] if nchw else [1, 1, 9, 1]), tf.ones([1, 2, 1, 1])
        y = tf.nn.conv2d(x, filters, strides=[1, 1, 1, 1], padding='VALID',
                         data_format='NCHW' if nchw else 'NHWC',
                         dilations=[1, 1, 1, 2] if nchw else [1, 1, 2, 1])
        try:
            sess.run(tf.gradients(y, [x, filters]))
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


@pytest.mark.parametrize('causal,width', [
    (False, 3)] + [pytest.param(causal, width, marks=pytest.mark.slow)
                   for causal, width in ((False, 2), (False, 5), (True, 2), (True, 3), (True, 5))])
@pytest.mark.parametrize('form', sorted(ops.CONV_FORMS))
def test_dilated_conv_and_gradients(form, causal, width):
    if not runs_here(form):
        pytest.skip('conv_form=%s: TensorFlow does not compute it on this CPU' % form)
    if width % 2 == 0 and not causal:
        width = 1
    rng = np.random.RandomState(0)
    with session() as sess:
        found, expected, feeds = [], [], {}
        for dilation in (1, 2, 8, 32, 128):
            for steps in (1, 3, 37, 130, 261):
                x = rng.randn(2, steps, 3).astype(np.float32)
                filters = rng.randn(width, 3, 4).astype(np.float32)
                dy = rng.randn(2, steps, 4).astype(np.float32)
                # steps unknown to the graph on every other case
                sizes = [2, steps] if steps % 4 == 1 else [None, None]
                x_in, dy_in = (tf.placeholder(tf.float32, sizes + [c]) for c in (3, 4))
                f_in = tf.constant(filters)
                feeds.update({x_in: x, dy_in: dy})
                y = ops.dilated_conv(x_in, f_in, dilation, causal, form)
                found.append([y] + tf.gradients(y, [x_in, f_in], dy_in))
                expected.append((numpy_dilated_conv(x, filters, dilation, causal),)
                                + numpy_gradients(x, filters, dilation, causal, dy))
        for results, references in zip(sess.run(found, feeds), expected):
            for a, b in zip(results, references):
                np.testing.assert_allclose(a, b, atol=2e-5 * (1 + np.abs(b).max()))


@pytest.mark.parametrize('form', sorted(ops.CONV_FORMS))
def test_impulse_check_passes_what_runs_and_names_what_does_not(form):
    def conv(x, filters, dilation, causal=False):
        return ops.dilated_conv(x, filters, dilation, causal, form)
    fault = convolution_check.find_fault(conv, '/cpu:0', None, (1, 2, 64), 3)
    causal_fault = convolution_check.find_fault(conv, '/cpu:0', None, (1, 8), 2, causal=True)
    for found in (fault, causal_fault):
        if runs_here(form):
            assert found == ''
        else:
            assert found.startswith('it fails there (')


def test_impulse_check_finds_a_gradient_of_another_function():
    """Values and input's gradient with different dilations, either way round."""
    def fault(of_values, of_input_gradient):
        @tf.custom_gradient
        def conv(x, filters):
            y = ops.dilated_conv(x, filters, of_values)
            other = ops.dilated_conv(x, filters, of_input_gradient)
            return y, lambda dy: (tf.gradients(other, x, dy)[0], tf.gradients(y, filters, dy)[0])
        return convolution_check.find_fault(
            lambda x, filters, dilation, causal: conv(x, filters), '/cpu:0', dilations=[4])

    assert fault(4, 4) == ''
    assert fault(1, 4) == "wrong: its values for dilation 4, its filters' gradient for dilation 4"
    assert fault(4, 1) == "wrong: its input's gradient for dilation 4"


def test_weight_norm():
    """w = g v / ||v|| an output channel, whatever the length of v."""
    rng = np.random.RandomState(0)
    with session() as sess:
        w = ops.weight_norm(*ops.filter_variables('conv', [3, 5, 7]))
        sess.run(tf.global_variables_initializer())
        norms = np.sqrt((sess.run(w) ** 2).sum(axis=(0, 1)))
        np.testing.assert_allclose(norms, 1, rtol=1e-5)
        v_value, g_value = rng.randn(3, 5, 7), rng.randn(7)
        assign(sess, {trainable('conv/v'): v_value, trainable('conv/g'): g_value})
        expected = g_value * v_value / np.sqrt((v_value ** 2).sum(axis=(0, 1)))
        np.testing.assert_allclose(sess.run(w), expected, rtol=1e-4, atol=1e-6)


def test_initial_values_depend_on_name_and_seed_only():
    values = []
    for seed, unrelated in ((1, 0), (1, 3), (2, 0)):
        with session() as sess:
            tf.set_random_seed(seed)
            for i in range(unrelated):
                tf.random.normal([i + 1])
            with tf.variable_scope('a'):
                w, _ = ops.filter_variables('conv', [1, 2, 3])
            with tf.variable_scope('b'):
                other, _ = ops.filter_variables('conv', [1, 2, 3])
            sess.run(tf.global_variables_initializer())
            values.append(sess.run(w))
            assert np.abs(sess.run(other) - values[-1]).max() > 0.1
    np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(values[0] - values[2]).max() > 0.1


def test_invertible_1x1():
    rng = np.random.RandomState(0)
    with session() as sess:
        w = ops.invertible_1x1_weight(8)
        sess.run(tf.global_variables_initializer())
        start = sess.run(w)
        np.testing.assert_allclose(start @ start.T, np.eye(8), atol=1e-5)
        with tf.variable_scope('flow', reuse=tf.AUTO_REUSE):
            several = []
            for name in 'abcdef':
                with tf.variable_scope(name):
                    several.append(tf.linalg.det(ops.invertible_1x1_weight(4)))
        sess.run(tf.global_variables_initializer())
        np.testing.assert_allclose(sess.run(several), np.ones(6), atol=1e-5)  # no reflection
        value = rng.randn(8, 8)
        assign(sess, {w: value})
        log_det = ops.log_abs_det(w)
        gradient = tf.gradients(log_det, w)[0]
        found = sess.run([log_det, ops.inverse_matrix(w), gradient])
    np.testing.assert_allclose(found[0], np.log(abs(np.linalg.det(value))), rtol=1e-5)
    np.testing.assert_allclose(found[1] @ value, np.eye(8), atol=1e-4)
    np.testing.assert_allclose(found[2], np.linalg.inv(value).T, rtol=1e-3, atol=1e-4)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x, kernel, bias):
    """x [frames, in] -> [frames, cells]; gates i, j, f, o with a forget bias of 1."""
    cells = kernel.shape[1] // 4
    c, h, out = np.zeros(cells), np.zeros(cells), []
    for row in x:
        i, j, f, o = np.split(np.concatenate([row, h]) @ kernel + bias, 4)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


def test_blstm_encoder_and_its_gradient():
    """Values against NumPy, utterance by utterance; a gradient against finite differences."""
    rng = np.random.RandomState(0)
    x, lengths = rng.randn(2, 9, 4).astype(np.float32), [9, 6]
    with session() as sess:
        x_in = tf.placeholder(tf.float32, [None, None, 4])
        y = conditions.blstm_encoder(x_in, 1, 5, tf.constant(lengths))
        kernel = trainable('bw/kernel')
        objective = tf.reduce_sum(tf.sin(y[:, :6]))
        gradients = tf.gradients(objective, [x_in, kernel])
        sess.run(tf.global_variables_initializer())
        assign(sess, {v: 0.5 * rng.randn(*v.shape.as_list()) for v in tf.trainable_variables()})
        values = {v.op.name: sess.run(v) for v in tf.trainable_variables()}
        found = sess.run(y, {x_in: x})
        assert found.shape == (2, 9, 10)
        for row, length in enumerate(lengths):
            for name, half, step in (('fw', slice(0, 5), 1), ('bw', slice(5, 10), -1)):
                expected = numpy_lstm(x[row, :length][::step], values['layer_0/%s/kernel' % name],
                                      values['layer_0/%s/bias' % name])[::step]
                np.testing.assert_allclose(found[row, :length, half], expected, atol=1e-5)
        dx, dkernel = sess.run(gradients, {x_in: x})
        step = 1e-2
        for index in ((0, 3, 2), (1, 5, 0)):
            up, down = x.copy(), x.copy()
            up[index] += step
            down[index] -= step
            slope = (sess.run(objective, {x_in: up}) - sess.run(objective, {x_in: down})) / 2 / step
            np.testing.assert_allclose(dx[index], slope, rtol=2e-2, atol=2e-3)
        ends = []
        for sign in (1, -1):
            moved = values['layer_0/bw/kernel'].copy()
            moved[1, 7] += sign * step
            assign(sess, {kernel: moved})
            ends.append(sess.run(objective, {x_in: x}))
        np.testing.assert_allclose(dkernel[1, 7], (ends[0] - ends[1]) / 2 / step, rtol=2e-2,
                                   atol=2e-3)


def numpy_transposed(x, filters, stride):
    """[frames, in] with [width, out, in] -> [(frames - 1) * stride + width, out]."""
    y = np.zeros([(len(x) - 1) * stride + len(filters), filters.shape[1]])
    for f, row in enumerate(x):
        y[f * stride:f * stride + len(filters)] += filters @ row
    return y


def test_transposed_upsampling_is_nvidias():
    rng = np.random.RandomState(0)
    x = rng.randn(2, 5, 3).astype(np.float32)
    with session() as sess:
        y = conditions.transposed_upsampling(tf.constant(x), 16, 4)
        sess.run(tf.global_variables_initializer())
        assign(sess, {v: rng.randn(*v.shape.as_list()) for v in tf.trainable_variables()})
        found, filters, bias = sess.run([y, trainable('filter'), trainable('bias')])
    for row in range(2):
        expected = numpy_transposed(x[row], filters, 4)[:20] + bias
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


@pytest.mark.parametrize('width', [7, 8])
@pytest.mark.parametrize('strides', [(4, 4), (3, 5)])
def test_two_transposed_upsampling_is_weixsongs(width, strides):
    """SAME padding cuts (width - stride) samples, the larger half at the end; ReLU after each."""
    rng = np.random.RandomState(0)
    x, lengths = rng.randn(2, 5, 3).astype(np.float32), [5, 3]
    with session() as sess:
        y = conditions.two_transposed_upsampling(tf.constant(x), width, strides, 6,
                                                 tf.constant(lengths))
        sess.run(tf.global_variables_initializer())
        found, layer1, layer2 = sess.run([y, trainable('layer1'), trainable('layer2')])
    for row, length in enumerate(lengths):
        expected = x[row, :length]
        for filters, stride in zip((layer1, layer2), strides):
            samples, cut = stride * len(expected), (width - stride) // 2
            expected = np.maximum(numpy_transposed(expected, filters, stride)[cut:cut + samples], 0)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found[row, :len(expected)], expected, atol=1e-4)
