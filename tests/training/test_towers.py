"""Towers: two of half the batch do what one does with the whole."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import TINY, random_weights, speechlike

import devices
from datasets.clips import Clips
from errors import UserError
from training import objective, towers, weights
from training.checkpoints import StoredVariables
from training.weights import Buffers


def gradients_of(count, hp=TINY):
    """([loss, gradient, ...] of each weight, the devices of products and of buffers)."""
    rng = np.random.RandomState(0)
    audio = speechlike(rng, hp.batch_size, hp.clip_frames * hp.hop_length).astype(np.float32)
    mel = rng.randn(hp.batch_size, hp.clip_frames, hp.n_mels).astype(np.float32)
    with tf.Graph().as_default() as graph, tf.Session(
            config=devices.session_config(count)) as session:
        clips, names = (Clips(tf.constant(audio), tf.constant(mel), None, None),
                        devices.tower_devices(count))
        with tf.device(names[0]):
            buffers = Buffers(objective.weights(hp))
        loss, gradients = towers.loss_and_gradients(clips, hp, names, buffers)
        session.run(tf.global_variables_initializer())
        StoredVariables(buffers).assign(session, random_weights(hp))
        placed = {op.device for op in graph.get_operations() if op.type == 'PartitionedCall'}
        placed |= {node.device for function in graph.as_graph_def().library.function
                   for node in function.node_def if node.op == 'MatMul'} - {''}     # as the call
        loss, gradients = session.run([loss.total, gradients])
        found = buffers.unpack(gradients)
        assert list(found) == [weight.name for weight in buffers.weights]
        return [loss] + list(found.values()), placed, {v.device for v in buffers.variables}


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('elements', [1, 500, weights.BUFFER_ELEMENTS])
def test_two_towers_give_the_gradients_of_one(monkeypatch, elements):
    """A buffer for each weight, one for some, and one for all."""
    monkeypatch.setattr(weights, 'BUFFER_ELEMENTS', elements)
    one, placed_one, _ = gradients_of(1)
    two, placed_two, buffers = gradients_of(2)
    assert len(placed_one) == 1 and len(placed_two) == 2 and len(buffers) == 1
    assert abs(one[0] - two[0]) < 1e-5 * abs(one[0])
    for a, b in zip(one[1:], two[1:]):
        assert np.abs(a).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(UserError, match='3 equal towers; take batch_size=6'):
        towers.require_equal_parts(TINY, 3, 'towers')
