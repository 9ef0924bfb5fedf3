"""The ways to compute a step: each gives the gradients that the plain one gives."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import CONDITIONS, TWO_FLOWS, randomize, session, speechlike

import devices
import glow
import ops
from bench import bench_training
from errors import UserError
from training import towers

TF1 = tf.__version__.startswith('1.')
XLA = ['off'] if TF1 else sorted(towers.XLA_CHOICES)


def losses_and_gradients(hp, computes, scale=0.1, loss_scale=1.0):
    """[[loss, gradient, ...]] of the same weights, audio and mel, computed in each of the ways."""
    rng = np.random.RandomState(0)
    audio = speechlike(rng, hp.batch_size, hp.clip_frames * hp.hop_length).astype(np.float32)
    mel = (hp.mel_mean + hp.mel_std * rng.randn(hp.batch_size, hp.clip_frames, hp.n_mels))
    found = []
    for compute in computes:
        with tf.Graph().as_default(), tf.Session(
                config=devices.session_config()) as sess:
            tf.set_random_seed(1)
            loss = glow.loss(tf.constant(audio), tf.constant(mel.astype(np.float32)), hp, compute)
            gradients = [g / loss_scale for g in
                         tf.gradients(loss.total * loss_scale, tf.trainable_variables())]
            randomize(sess, np.random.RandomState(1), scale)
            found.append(sess.run([loss.total] + gradients))
    return found


def distance(a, b):
    """The largest distance between two gradients of a variable, relative to its norm."""
    return max(np.linalg.norm(x - y) / np.linalg.norm(x) for x, y in zip(a, b))


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('changes', [CONDITIONS[name] for name in sorted(CONDITIONS)]
                         + [dict(n_layers=1)], ids=sorted(CONDITIONS) + ['one layer'])
def test_reversible_gradients_are_the_gradients(changes):
    hp = TWO_FLOWS.replace(**changes)
    plain, reversible = losses_and_gradients(
        hp, [glow.Compute(), glow.Compute(reversible=True)])
    assert abs(plain[0] - reversible[0]) < 1e-6 * abs(plain[0])
    assert distance(plain[1:], reversible[1:]) < 1e-4


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('xla', XLA)
@pytest.mark.parametrize('reversible', [False, True])
def test_what_xla_compiles_has_the_same_gradients(xla, reversible):
    plain, compiled = losses_and_gradients(
        TWO_FLOWS, [glow.Compute(), glow.Compute(xla=xla, reversible=reversible)])
    assert abs(plain[0] - compiled[0]) < 1e-5 * abs(plain[0])
    assert distance(plain[1:], compiled[1:]) < 1e-4


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('reversible', [False, True])
def test_scaled_float16_gradients_are_the_gradients(reversible):
    """11 bits of mantissa: losses within 0.1%, gradients within 1% in all."""
    plain, low = losses_and_gradients(
        TWO_FLOWS, [glow.Compute(), glow.Compute('float16', reversible)], loss_scale=2.0 ** 10)
    assert 0 < abs(plain[0] - low[0]) < 1e-3 * abs(plain[0])
    a, b = (np.concatenate([g.ravel() for g in found[1:]]) for found in (plain, low))
    assert a.dtype == b.dtype == np.float32
    assert 0 < np.linalg.norm(a - b) < 0.01 * np.linalg.norm(a)


@pytest.mark.slow
@pytest.mark.parametrize('reversible', [False, True])
def test_bfloat16_gradients_point_the_same_way(reversible):
    """8 bits of mantissa: losses within 1%, gradients within 5% in all. 1.15 has none on a CPU."""
    if TF1:
        with pytest.raises(UserError, match='takes TensorFlow 2'):
            towers.compute_options('bfloat16', reversible)
        return
    plain, low = losses_and_gradients(
        TWO_FLOWS, [glow.Compute(), glow.Compute('bfloat16', reversible, 'gates')])
    assert 0 < abs(plain[0] - low[0]) < 0.01 * abs(plain[0])
    a, b = (np.concatenate([g.ravel() for g in found[1:]]) for found in (plain, low))
    assert a.dtype == b.dtype == np.float32
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)


@pytest.mark.parametrize('compiled', [False] if TF1 else [False, True])
@pytest.mark.parametrize('rows, terms', [(1, 0), (5, 0), (3, 3)])
def test_the_gates_gradient(compiled, rows, terms):
    """Against TensorFlow's own: one row of the condition for all of y, one for each, terms."""
    rng = np.random.RandomState(0)
    y, cond, dz = rng.randn(2, 3, 5, 8), rng.randn(2, 3, rows, 8), rng.randn(2, 3, 5, 4)
    with session() as sess:
        y, cond = tf.constant(y), tf.constant(cond)
        curves = [tf.constant(rng.randn(5, terms))] if terms else []
        results = [[gate(y, cond, *curves)]
                   + tf.gradients(gate(y, cond, *curves), [y, cond], dz)
                   for gate in (ops.gated_activation, ops.trainable_gated_activation(compiled))]
        for a, b in zip(*sess.run(results)):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_memory_is_that_of_one_flow():
    """What the peak of memory rises by over clips of one frame, in processes of their own."""
    plain, reversible = (
        bench_training.measure_apart('small', 'n_flows=6,n_layers=2,clip_samples=20480', 'float32',
                                     'off', flag, repeats=1)
        for flag in (False, True))
    assert plain['activations_mb'] > 120
    # of 6 flows: 0.4 is measured; TensorFlow 1.15 frees later, 0.57 to 0.64
    assert reversible['activations_mb'] < (0.8 if TF1 else 0.6) * plain['activations_mb']


@pytest.mark.slow
def test_tf32_is_float32_on_a_cpu():
    plain, low = losses_and_gradients(TWO_FLOWS, [glow.Compute(), glow.Compute('tf32')])
    for a, b in zip(plain, low):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(TF1, reason='TensorFlow 1.15 has no such switch')
def test_tf32_is_a_switch():
    try:
        for allowed in (False, True):
            devices.allow_tf32(allowed)
            assert tf.config.experimental.tensor_float_32_execution_enabled() == allowed
    finally:
        devices.allow_tf32(True)


def test_defaults_and_refusals():
    assert towers.compute_options() == glow.Compute('float32', False, 'off' if TF1 else 'gates')
    assert towers.compute_options(xla='off').xla == 'off'
    if TF1:
        with pytest.raises(UserError, match='takes TensorFlow 2'):
            towers.compute_options(xla='gates')


def test_parts_of_a_step_add_up_and_leave_nothing():
    """Means over three runs, twice: the second three are not mixed with the first."""
    with session() as sess:
        value = tf.placeholder(tf.float32, [2])
        means, add, clear = towers.accumulate([value * 1.0], 3)
        with tf.control_dependencies(means):
            end = clear()
        sess.run(tf.local_variables_initializer())
        for offset in (0, 10):
            for part in (1, 2):
                sess.run(add, {value: [offset + part, 0]})
            found = sess.run([means, end], {value: [offset + 6, 3]})[0]
            np.testing.assert_allclose(found, [[offset + 3, 1]])
    assert not tf.global_variables()
