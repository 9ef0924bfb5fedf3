"""Weights in buffers: what a model sees of them, what is stored of them, how many operations."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import TINY, random_weights, run_model

import devices
import glow
import ops
import utils
from datasets.clip_files import Clips
from errors import UserError
from training import checkpoints as checkpoints_module
from training import objective, optimizer, weights
from training.checkpoints import Checkpoints, StoredVariables
from training.graph import build_training_graph
from training.weights import Buffers

SHAPES = {'a/x': (2, 3), 'a/y': (4,), 'b': (), 'c': (1, 5, 2)}


def build():
    """The variables of SHAPES; each starts as normal numbers of its own, or as ones."""
    with tf.variable_scope('', reuse=tf.AUTO_REUSE):
        return {name: ops.variable(name, shape, tf.random_normal_initializer(seed=len(shape))
                                   if len(shape) > 1 else tf.ones_initializer())
                for name, shape in SHAPES.items()}


def test_what_a_model_asks_for_is_listed_once_and_not_made():
    with tf.Graph().as_default() as graph:
        found = ops.list_weights(lambda: (build(), build()))
        assert not graph.get_operations()
    assert {weight.name: weight.shape for weight in found} == SHAPES
    assert [weight.size for weight in found] == [6, 4, 1, 10]


@pytest.mark.parametrize('elements, parts', [(1, 4), (7, 2), (100, 1)])
def test_buffers_read_as_the_weights_and_start_as_they_do(monkeypatch, elements, parts):
    monkeypatch.setattr(weights, 'BUFFER_ELEMENTS', elements)
    values = []
    for packed in (False, True):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(3)
            if packed:
                buffers = Buffers(ops.list_weights(build))
                assert len(buffers.variables) == len(tf.trainable_variables()) == parts
                with buffers.read_from(buffers.variables):
                    read = build()
                    again = build()
                    with pytest.raises(AssertionError, match='other is no weight'):
                        ops.variable('other', [2], tf.zeros_initializer())
                assert all(read[name] is again[name] for name in SHAPES)
            else:
                read = build()
            session.run(tf.global_variables_initializer())
            values.append(session.run(read))
            if packed:
                arrays = session.run(buffers.variables)
                unpacked = buffers.unpack(arrays)
                assert {name: value.shape for name, value in unpacked.items()} == SHAPES
                for a, b in zip(buffers.pack(unpacked), arrays):
                    np.testing.assert_array_equal(a, b)
    for name in SHAPES:
        np.testing.assert_array_equal(values[0][name], values[1][name])
    assert np.abs(values[0]['a/x']).max() > 0.1 and values[0]['b'] == 1


def test_checkpoints_name_each_weight_and_what_is_kept_of_it(tmp_path, monkeypatch):
    """With buffers of another length they are read again; what is absent of them is refused."""
    hp = TINY.replace(ema_decay=0.9)
    stored = []
    for elements in (7, 100):
        monkeypatch.setattr(weights, 'BUFFER_ELEMENTS', elements)
        with tf.Graph().as_default(), tf.Session() as session:
            step = ops.variable('global_step', [], tf.zeros_initializer(), tf.int64,
                                trainable=False)
            buffers = Buffers(ops.list_weights(build))
            op = optimizer.optimize(hp, [(tf.cos(v), v) for v in buffers.variables], 0.1, step)[0]
            session.run(tf.global_variables_initializer())
            variables = StoredVariables(buffers)
            checkpoints = Checkpoints(str(tmp_path), 3, variables)
            monkeypatch.setattr(checkpoints_module, 'RUN_BYTES', 40)    # a few variables a run
            if stored:
                assert checkpoints.restore(session) == str(tmp_path / 'model.ckpt-2')
            else:
                for _ in range(2):
                    session.run(op)
                checkpoints.save(session, 2)
            stored.append(variables.read(session))
    names = ['%s%s' % (name, kind) for name in SHAPES
             for kind in ('', '/Adam', '/Adam_1', utils.AVERAGE)]
    assert sorted(stored[0]) == sorted(names + ['beta1_power', 'beta2_power', 'global_step'])
    reader = tf.train.load_checkpoint(str(tmp_path / 'model.ckpt-2'))
    for name, value in stored[0].items():
        assert reader.get_tensor(name).shape == value.shape == SHAPES.get(
            name.replace(utils.AVERAGE, '').split('/Adam')[0], ())
        for other in (reader.get_tensor(name), stored[1][name]):
            np.testing.assert_array_equal(value, other)
    assert stored[0]['global_step'] == 2
    assert np.abs(stored[0]['a/x'] - stored[0]['a/x' + utils.AVERAGE]).max() > 1e-3
    with tf.Graph().as_default(), tf.Session() as session:
        ops.variable('a/x', [3, 2], tf.zeros_initializer())
        with pytest.raises(UserError, match='none of the 1 checkpoints'):
            Checkpoints(str(tmp_path), 3).restore(session)


def test_the_newest_few_are_kept_and_named(tmp_path, monkeypatch):
    """In a directory that is relative, as logdir/waveglow is; another training keeps fewer."""
    monkeypatch.chdir(str(tmp_path))
    with tf.Graph().as_default(), tf.Session() as session:
        ops.variable('v', [], tf.ones_initializer())
        session.run(tf.global_variables_initializer())
        for keep, steps, left in ((3, (1, 2, 3, 4), [2, 3, 4]), (2, (5,), [4, 5])):
            checkpoints = Checkpoints('run', keep)
            checkpoints.restore(session)
            for step in steps:
                checkpoints.save(session, step)
            assert [os.path.basename(path) for path in utils.complete_checkpoints('run')] == [
                'model.ckpt-%d' % step for step in left]
            assert sorted(os.listdir('run')) == ['checkpoint'] + [
                'model.ckpt-%d.%s' % (step, end) for step in left
                for end in ('data-00000-of-00001', 'index')]
            assert tf.train.latest_checkpoint('run') == os.path.join(
                'run', 'model.ckpt-%d' % left[-1])


def test_a_kill_between_two_files_leaves_no_checkpoint_that_cannot_be_read(tmp_path, monkeypatch):
    removed = []
    monkeypatch.setattr(os, 'unlink', removed.append)
    with tf.Graph().as_default(), tf.Session() as session:
        ops.variable('v', [], tf.ones_initializer())
        session.run(tf.global_variables_initializer())
        checkpoints = Checkpoints(str(tmp_path), 2)
        for step in (1, 2, 3):
            checkpoints.save(session, step)
    assert [os.path.basename(path) for path in removed if 'ckpt-1' in path] == [
        'model.ckpt-1.index', 'model.ckpt-1.data-00000-of-00001']


def test_variables_that_start_as_the_same_tensor_are_set_each(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        v = ops.variable('v', [], tf.ones_initializer())
        tf.Variable(v.initial_value, name='w', use_resource=True)
        variables = StoredVariables()
        variables.assign(session, {'v': np.float32(2), 'w': np.float32(3)})
        assert variables.read(session) == {'v': 2, 'w': 3}


@pytest.mark.slow
def test_held_out_losses_are_those_of_the_averages():
    hp = TINY.replace(ema_decay=0.9, lr=1e-2, warmup_steps=0)
    rng = np.random.RandomState(0)
    audio = 0.1 * rng.randn(hp.batch_size, 2048).astype(np.float32)
    mel = hp.mel_mean + rng.randn(hp.batch_size, 8, 80).astype(np.float32)

    def clips(count):
        return tf.data.Dataset.from_tensors(Clips(
            audio[:count], mel[:count], np.array(['name'] * count), np.zeros([count], np.int64))
        ).repeat()

    with tf.Graph().as_default(), tf.Session(config=devices.session_config()) as session:
        graph = build_training_graph(hp, lambda *start: clips(hp.batch_size), lambda: clips(1),
                                     devices.tower_devices(1))
        heldout = graph.build_evaluation().heldout
        session.run(tf.global_variables_initializer())
        session.run([graph.clips_iterator.initializer, heldout.iterator.initializer])
        for _ in range(5):
            session.run(graph.step)
        found = session.run(heldout.loss.total)
        stored = StoredVariables(graph.buffers).read(session)
    averages, weights = (
        run_model(hp, {w.name: stored[w.name + kind] for w in glow.weights(hp)},
                  lambda flows, _: glow.loss(tf.constant(audio[:1]), tf.constant(mel[:1]), hp,
                                             flows=flows).total)
        for kind in (utils.AVERAGE, ''))
    assert abs(found - averages) < 1e-4 < 1e-3 < abs(found - weights)


def test_some_of_the_weights_are_set_and_the_others_stay(monkeypatch):
    monkeypatch.setattr(weights, 'BUFFER_ELEMENTS', 7)
    with tf.Graph().as_default(), tf.Session() as session:
        buffers = Buffers(ops.list_weights(build))
        session.run(tf.global_variables_initializer())
        variables = StoredVariables(buffers)
        before = variables.read(session)
        variables.assign(session, {'a/y': np.arange(4, dtype=np.float32)})
        after = variables.read(session)
    assert after['a/y'].tolist() == [0, 1, 2, 3] != before['a/y'].tolist()
    for name in set(SHAPES) - {'a/y'}:
        np.testing.assert_array_equal(before[name], after[name])


def test_the_weights_of_an_objective_are_those_of_its_model():
    hp = TINY.replace(stft_weight=1.0, adversarial_weight=0.5, encoder='conv', encoder_channels=7)
    names = [weight.name for weight in objective.weights(hp)]
    model = random_weights(hp)
    assert [name for name in names if name.startswith(utils.SCOPE)] == list(model)
    assert len(names) == len(model) + 36        # of the discriminators


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('reversible', [False, True])
def test_flows_of_one_width_are_built_once(monkeypatch, reversible):
    """Two of the three flows of TINY. The gradients are those of flows that are built apart."""
    rng = np.random.RandomState(0)
    audio = 0.1 * rng.randn(2, 2048).astype(np.float32)
    mel = TINY.mel_mean + rng.randn(2, 8, 80).astype(np.float32)
    counts = []

    def build(_, tensors):
        loss = glow.loss(tf.constant(audio), tf.constant(mel), TINY,
                         glow.Compute(reversible=reversible)).total
        gradients = tf.gradients(loss, tensors)
        counts.append(len(tf.get_default_graph().get_operations()))
        return [loss] + gradients

    shared = run_model(TINY, random_weights(TINY), build)
    monkeypatch.setattr(ops, 'built_once', lambda function, calls: dict.fromkeys(calls, function))
    apart = run_model(TINY, random_weights(TINY), build)
    assert counts[0] < 0.7 * counts[1]
    for a, b in zip(shared, apart):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())
