"""optimizer.py by hand."""
import numpy as np
import tensorflow.compat.v1 as tf

import ops
import params
from training import optimizer


def test_schedules():
    """Warm-up and decay at the steps where they can be told by hand."""
    hp = params.preset('weixsong').replace(warmup_steps=10)
    cosine = hp.replace(lr_schedule='cosine', lr_decay_rate=0.1, lr_decay_steps=1000)
    with tf.Graph().as_default(), tf.Session() as session:
        def rate(hp, step):
            return session.run(optimizer.schedule(hp, tf.constant(float(step))))
        for step, expected in ((0, 1e-4), (9, 1e-3), (49999, 1e-3), (50000, 0.95e-3),
                               (149999, 0.95 ** 2 * 1e-3)):
            np.testing.assert_allclose(rate(hp, step), expected, rtol=1e-5)
        for step, expected in ((500, 0.55e-3), (1000, 1e-4), (5000, 1e-4)):
            np.testing.assert_allclose(rate(cosine, step), expected, rtol=1e-5)


def test_clipping_and_averages():
    """One Adam step by hand: the norm before clipping, the update, the average."""
    hp = params.preset('weixsong').replace(clip_norm=1.0, ema_decay=0.9)
    with tf.Graph().as_default(), tf.Session() as session:
        w = ops.variable('w', [2], tf.constant_initializer([1.0, 2.0]))
        step = ops.variable('global_step', [], tf.zeros_initializer(), tf.int64, trainable=False)
        op, norm, ema = optimizer.optimize(hp, [(tf.constant([3.0, -4.0]), w)], 0.1, step)
        session.run(tf.global_variables_initializer())
        assert session.run([norm, op])[0] == 5.0
        np.testing.assert_allclose(session.run(w), [0.9, 2.1], rtol=1e-5)  # Adam's first: +-lr
        # num_updates = 1: a decay of min(0.9, 2 / 11)
        np.testing.assert_allclose(session.run(ema.average(w)),
                                   np.array([1, 2]) * 2 / 11 + np.array([.9, 2.1]) * 9 / 11,
                                   rtol=1e-5)
