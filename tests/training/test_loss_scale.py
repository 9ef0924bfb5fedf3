"""loss_scale.py by hand, and a training that starts without one."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import ops
import params
from training import loss_scale, optimizer
from training.checkpoints import Checkpoints

GRADIENT, START = [3.0, -4.0], [1.0, 2.0]


def test_no_other_precision_has_a_scale():
    with tf.Graph().as_default():
        assert not any(map(loss_scale.of_precision, ('float32', 'bfloat16')))
        assert not tf.global_variables()


def test_steps_by_hand(monkeypatch):
    """Finite, infinite, two finite ones, NaN: what becomes of weight, average, moments, scale."""
    monkeypatch.setattr(loss_scale, 'GROWTH_STEPS', 2)
    hp = params.preset('weixsong').replace(clip_norm=1.0, ema_decay=0.9)
    with tf.Graph().as_default(), tf.Session() as session:
        w = ops.variable('w', [2], tf.constant_initializer(START))
        gradient = tf.placeholder(tf.float32, [2])
        step = ops.variable('global_step', [], tf.zeros_initializer(), tf.int64, trainable=False)
        scale = loss_scale.of_precision('float16')
        op, norm, ema = optimizer.optimize(hp, [(gradient, w)], 0.1, step, scale)
        session.run(tf.global_variables_initializer())
        assert {v.op.name for v in tf.global_variables(loss_scale.SCOPE)} == {
            'loss_scale/value', 'loss_scale/finite_steps'}
        state = [v for v in tf.global_variables()
                 if not v.op.name.startswith((loss_scale.SCOPE, 'global_step'))]
        assert len(state) == 6      # w, its average, two moments, two powers of betas
        scales, changed = [], []
        for value in (GRADIENT, [np.inf, 1.0], GRADIENT, GRADIENT, [np.nan, 0.0]):
            before = session.run(state)
            found = session.run([scale.now, norm, op], {gradient: value})
            scales.append(found[0])
            changed.append(any((a != b).any() for a, b in zip(before, session.run(state))))
            assert np.isfinite(found[1]) == changed[-1]
        assert np.divide(scales, loss_scale.FIRST).tolist() == [1, 1, 0.5, 0.5, 1]
        assert session.run([scale.variable, scale.finite_steps, step]) == [
            loss_scale.FIRST / 2, 0, 5]
        assert changed == [True, False, True, True, False]
        # three steps of Adam with the same gradient: each of lr
        np.testing.assert_allclose(session.run(w), [0.7, 2.3], rtol=1e-5)


def test_it_is_1_at_least():
    with tf.Graph().as_default(), tf.Session() as session:
        scale = loss_scale.of_precision('float16')
        op = scale.apply_if_finite(tf.constant(np.inf), tf.no_op)
        session.run(tf.global_variables_initializer())
        for _ in range(20):
            session.run(op)
        assert session.run(scale.now) == loss_scale.SMALLEST == 1


@pytest.mark.parametrize('has_scale', [False, True])
def test_a_checkpoint_of_a_float32_training_is_continued(tmp_path, has_scale):
    def session_with(has_scale, weight, scale):
        with tf.Graph().as_default():
            ops.variable('weight', [], tf.constant_initializer(weight))
            if has_scale:
                loss_scale.of_precision('float16')
            session = tf.Session()
            session.run(tf.global_variables_initializer())
            if has_scale:
                session.run(tf.global_variables(loss_scale.SCOPE)[0].assign(scale))
            checkpoints = Checkpoints(str(tmp_path), 3,
                                      optional=tf.global_variables(loss_scale.SCOPE))
            return session, checkpoints, tf.global_variables()

    with session_with(has_scale, 3, 64)[0] as session, session.graph.as_default():
        Checkpoints(str(tmp_path), 3).save(session, 1)
    session, checkpoints, variables = session_with(True, 5, 16)
    with session, session.graph.as_default():
        assert checkpoints.restore(session)
        assert session.run(variables) == [3, 64 if has_scale else 16, 0]
