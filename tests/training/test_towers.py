"""Towers: two of half the batch do what one does with the whole."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import TINY, randomize, speechlike

import devices
from datasets.clips import Clips
from errors import UserError
from training import packing, towers


def gradients_of(count, hp=TINY):
    rng = np.random.RandomState(0)
    audio = speechlike(rng, hp.batch_size, hp.clip_frames * hp.hop_length).astype(np.float32)
    mel = rng.randn(hp.batch_size, hp.clip_frames, hp.n_mels).astype(np.float32)
    with tf.Graph().as_default(), tf.Session(config=devices.session_config(count)) as session:
        clips = Clips(tf.constant(audio), tf.constant(mel), None, None)
        loss, gradients = towers.loss_and_gradients(clips, hp, devices.tower_devices(count))
        assert len({v.op.name for _, v in gradients}) == len(gradients)
        randomize(session, rng)
        placed = {op.device for op in tf.get_default_graph().get_operations()
                  if op.type == 'MatMul'}
        values = session.run([loss.total] + [g for g, _ in gradients])
        return values, placed, {v.device for _, v in gradients}


@pytest.mark.slow
@pytest.mark.parametrize('bucket', [1, 500, packing.BUCKET_ELEMENTS])
def test_two_towers_give_the_gradients_of_one(monkeypatch, bucket):
    """Packed one variable at a time, some at a time, and all in one."""
    monkeypatch.setattr(packing, 'BUCKET_ELEMENTS', bucket)
    one, placed_one, _ = gradients_of(1)
    two, placed_two, variables = gradients_of(2)
    assert len(placed_one) == 1 and len(placed_two) == 2 and len(variables) == 1
    assert abs(one[0] - two[0]) < 1e-5 * abs(one[0])
    for a, b in zip(one[1:], two[1:]):
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(UserError, match='3 equal towers; take batch_size=6'):
        towers.require_equal_parts(TINY, 3, 'towers')


def test_averages_are_read_where_asked_for():
    with tf.Graph().as_default(), tf.Session() as session:
        def weight():
            with tf.variable_scope('scope', reuse=tf.AUTO_REUSE):
                return tf.get_variable('w', [2], initializer=tf.ones_initializer(),
                                       use_resource=True)
        ema = tf.train.ExponentialMovingAverage(0.75)
        w = weight()
        update = ema.apply([w])
        with towers.averaged_variables(ema):
            averaged = weight() * 1.0
        with towers.averaged_variables(None):
            plain = weight() * 1.0
        session.run(tf.global_variables_initializer())
        session.run(w.assign([2.0, 5.0]))
        session.run(update)
        np.testing.assert_allclose(session.run(averaged), [1.25, 2.0])
        np.testing.assert_allclose(session.run(plain), [2.0, 5.0])
