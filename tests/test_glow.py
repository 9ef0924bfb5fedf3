"""The flow: its inverse, its log-determinant, its conditioning, its loss."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import CONDITIONS, TINY, assign, randomize, session, speechlike, trainable

import glow
import params
import streaming
from flows import filters


def inputs(hp, rng, batch=2, frames=3, dtype=np.float32):
    audio = speechlike(rng, batch, frames * hp.hop_length).astype(dtype)
    mel = (hp.mel_mean + hp.mel_std * rng.randn(batch, frames, hp.n_mels)).astype(dtype)
    return audio, mel


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(params.PRESETS))
@pytest.mark.parametrize('dtype,bound', [(np.float32, 1e-3), (np.float64, 1e-9)])
def test_infer_undoes_encode_for_every_preset(name, dtype, bound):
    """The flow layout is the preset's; the coupling networks are small, for the test's time."""
    hp = params.preset(name).replace(residual_channels=16, skip_channels=16, n_layers=1)
    rng = np.random.RandomState(0)
    audio, mel = inputs(hp, rng, dtype=dtype)
    with session() as sess:
        flows = glow.model_flows(hp, tf.as_dtype(dtype))
        z = glow.encode(tf.constant(audio), tf.constant(mel), hp, flows)
        back = glow.infer(z, tf.constant(mel), hp, flows=flows)
        randomize(sess, rng)
        z, back = sess.run([z, back])
    assert z.shape == (2, hp.groups(3), hp.n_group)
    assert np.abs(z.reshape(2, -1) - audio * hp.audio_scale).max() > 0.1
    assert np.abs(back - audio).max() < bound


@pytest.mark.tensorflow1
@pytest.mark.parametrize('name', ['repeat'] + [
    pytest.param(name, marks=pytest.mark.slow) for name in sorted(CONDITIONS) if name != 'repeat'])
def test_infer_undoes_encode_for_every_condition(name):
    """And the loss reaches every trainable variable."""
    hp = TINY.replace(**CONDITIONS[name])
    rng = np.random.RandomState(0)
    audio, mel = inputs(hp, rng)
    with session() as sess:
        flows = glow.model_flows(hp)
        z = glow.encode(tf.constant(audio), tf.constant(mel), hp, flows)
        back = glow.infer(z, tf.constant(mel), hp, flows=flows)
        variables = tf.trainable_variables()
        loss = glow.loss(tf.constant(audio), tf.constant(mel), hp).total
        gradients = tf.gradients(loss, variables)
        assert len(tf.trainable_variables()) == len(variables)
        randomize(sess, rng)
        assert np.abs(sess.run(back) - audio).max() < 1e-3
        for v, g in zip(variables, sess.run(gradients)):
            assert np.isfinite(g).all() and np.abs(g).max() > 0, v.op.name


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(CONDITIONS))
def test_batch_of_several_lengths_is_each_alone(name):
    hp = TINY.replace(**CONDITIONS[name])
    rng = np.random.RandomState(0)
    lengths, frames = [5, 2, 4], 5
    mel = inputs(hp, rng, batch=3, frames=frames)[1]
    z = rng.randn(3, hp.groups(frames), hp.n_group).astype(np.float32)
    with session() as sess:
        z_in, mel_in = tf.placeholder(tf.float32), tf.placeholder(tf.float32)
        z_in.set_shape([None, None, hp.n_group])
        mel_in.set_shape([None, None, hp.n_mels])
        together = glow.infer(z_in, mel_in, hp, tf.constant(lengths))
        alone = glow.infer(z_in, mel_in, hp)
        randomize(sess, rng)
        found = sess.run(together, {z_in: z, mel_in: mel})
        for row, n in enumerate(lengths):
            expected = sess.run(alone, {z_in: z[row:row + 1, :hp.groups(n)],
                                        mel_in: mel[row:row + 1, :n]})[0]
            np.testing.assert_allclose(found[row, :n * hp.hop_length], expected,
                                       atol=2e-5 * np.abs(expected).max())


def test_log_determinant_is_that_of_the_jacobian():
    """One frame of 256 samples: all 256 columns of the Jacobian, by central differences."""
    hp = TINY.replace(n_group=32, n_early_size=8, audio_scale=3.0)
    rng = np.random.RandomState(0)
    audio, mel = inputs(hp, rng, batch=1, frames=1, dtype=np.float64)
    samples = audio.size
    with session() as sess:
        audio_in = tf.placeholder(tf.float64, [None, samples])
        rows = tf.shape(audio_in)[0]
        z = glow.encode(audio_in, tf.tile(tf.constant(mel), tf.stack([rows, 1, 1])), hp)
        loss = glow.loss(audio_in, tf.constant(mel), hp)
        randomize(sess, rng)
        step = 1e-5 * np.eye(samples)
        up, down = (sess.run(z, {audio_in: audio + s}).reshape(samples, samples)
                    for s in (step, -step))
        terms, z_value = sess.run([loss, z], {audio_in: audio})
    # z is in the flow's own order; a permutation does not change |det|
    log_det = np.linalg.slogdet((up - down) / 2e-5)[1]
    assert abs(log_det - samples * np.log(3.0)) > 1  # the couplings and W count
    assert abs(-samples * (terms.log_s + terms.log_det) - log_det) < 1e-6 * abs(log_det)
    expected = (np.sum(z_value ** 2) / (2 * hp.sigma ** 2) - log_det) / samples
    assert abs(terms.total - expected) < 1e-6


def test_early_outputs_come_first():
    """With identity couplings and W = identity, z is the groups themselves, channel for channel."""
    hp = TINY.replace(audio_scale=1.0)
    audio = speechlike(np.random.RandomState(0), 1, 512).astype(np.float32)
    mel = np.zeros([1, 2, hp.n_mels], np.float32)
    with session() as sess:
        z = glow.encode(tf.constant(audio), tf.constant(mel), hp)
        sess.run(tf.global_variables_initializer())
        assign(sess, {v: np.eye(*v.shape.as_list()) for v in tf.trainable_variables()
                      if v.op.name.endswith('/W')})
        np.testing.assert_allclose(sess.run(z), audio.reshape(1, -1, 8), atol=1e-6)
        # a W that moves channel 7 to place 0 in flow 0 puts it among the early outputs of flow 2
        assign(sess, {trainable('flow_0/W'): np.roll(np.eye(8), 1, axis=1)})
        np.testing.assert_allclose(sess.run(z)[0, :, 0], audio.reshape(-1, 8)[:, 7], atol=1e-6)


def test_frame_rate_conditioning_equals_the_full_convolution():
    """One 1x1 convolution a frame against that of the repeated mels, grouped to 8 * C channels."""
    hp = TINY
    rng = np.random.RandomState(0)
    frames, units = 4, 2 * hp.residual_channels
    cond = rng.randn(2, frames, 5).astype(np.float32)
    y = rng.randn(2, hp.groups(frames), units).astype(np.float32)
    full = rng.randn(hp.n_group * 5, units).astype(np.float32)  # channel = sample * C + c
    folded = full.reshape(hp.n_group, 5, units).sum(axis=0)
    repeated = np.repeat(cond, hp.hop_length, axis=1).reshape(2, -1, hp.n_group * 5)
    with session() as sess:
        found = sess.run(streaming.WholeUtterances(hp).gate(
            tf.constant(y), tf.constant(cond), tf.constant(folded), tf.zeros([units]), 0))
    y_tanh, y_sigmoid = np.split(y + repeated @ full, 2, axis=-1)
    np.testing.assert_allclose(found, np.tanh(y_tanh) / (1 + np.exp(-y_sigmoid)), atol=1e-5)


def test_condition_follows_a_series_of_cosines_within_a_frame():
    """Group p of P: the constant term, and the k-th times cos(pi k (p + 1/2) / P)."""
    hp = TINY.replace(cond_terms=3)
    rng = np.random.RandomState(0)
    frames, per_frame, units = 4, hp.groups(1), 2 * hp.residual_channels
    cond = rng.randn(2, frames, 5).astype(np.float32)
    y = rng.randn(2, frames * per_frame, units).astype(np.float32)
    filters, bias = rng.randn(5, 3 * units).astype(np.float32), rng.randn(units).astype(np.float32)
    with session() as sess:
        found = sess.run(streaming.WholeUtterances(hp).gate(
            tf.constant(y), tf.constant(cond), tf.constant(filters), tf.constant(bias), 0))
    for group in (0, 1, per_frame - 1, per_frame, 3 * per_frame + 5):
        terms = np.split(cond[:, group // per_frame] @ filters, 3, axis=-1)
        place = np.pi * (group % per_frame + 0.5) / per_frame
        row = y[:, group] + bias + sum(np.cos(k * place) * term for k, term in enumerate(terms))
        y_tanh, y_sigmoid = np.split(row, 2, axis=-1)
        np.testing.assert_allclose(found[:, group], np.tanh(y_tanh) / (1 + np.exp(-y_sigmoid)),
                                   atol=1e-5)


@pytest.mark.slow
def test_terms_of_the_condition_start_at_zero():
    """A model with more of them starts as the one with a condition constant within a frame."""
    audio, mel = inputs(TINY, np.random.RandomState(0))
    z = []
    for terms in (1, 3):
        with session() as sess:
            hp = TINY.replace(cond_terms=terms)
            encoded = glow.encode(tf.constant(audio), tf.constant(mel), hp)
            sess.run(tf.global_variables_initializer())
            assign(sess, {v: np.full(v.shape.as_list(), 0.1, np.float32)
                          for v in tf.trainable_variables() if v.op.name.endswith('end/filter')})
            z.append(sess.run(encoded))
    np.testing.assert_allclose(*z, atol=1e-5)
    assert np.abs(z[0] - audio.reshape(z[0].shape) * TINY.audio_scale).max() > 0.01


def test_coupling_has_the_stated_receptive_field():
    """Centred: 2^n - 1 groups to each side, for a kernel of 3; causal: none ahead."""
    rng = np.random.RandomState(0)
    steps, middle = 64, 32
    for causal, ahead, behind in ((False, 7, 7), (True, 0, 14)):
        hp = TINY.replace(causal=causal, n_layers=3)
        with session() as sess:
            a = tf.placeholder(tf.float32, [1, steps, 3])
            cond = tf.constant(rng.randn(1, 2, hp.n_mels).astype(np.float32))
            net = filters.compute_coupling(filters.coupling_variables(3, hp), hp)
            log_s, t, _ = glow.wavenet(a, cond, net, hp)
            randomize(sess, rng)
            gradient = tf.gradients(log_s[0, middle] + t[0, middle], a)[0]
            value = sess.run(gradient, {a: rng.randn(1, steps, 3)})
        reached = np.flatnonzero(np.abs(value[0]).max(axis=1))
        assert (reached.min(), reached.max()) == (middle - behind, middle + ahead)


@pytest.mark.slow
def test_two_models_in_one_graph():
    """The same scope twice shares its weights; another scope holds another model."""
    rng = np.random.RandomState(0)
    audio, mel = inputs(TINY, rng)
    other = TINY.replace(n_flows=2, n_group=16, residual_channels=8)
    with session() as sess:
        first, again = (glow.loss(tf.constant(audio), tf.constant(mel), TINY).total
                        for _ in range(2))
        count = len(tf.trainable_variables())
        with tf.variable_scope('other'):
            third = glow.loss(tf.constant(audio), tf.constant(mel), other).total
        assert len(tf.trainable_variables()) > count
        randomize(sess, rng)
        values = sess.run([first, again, third])
    assert abs(values[0] - values[1]) < 1e-5 < abs(values[0] - values[2])


def test_gradients_against_finite_differences():
    """The whole loss in float64: one entry of each of the variables."""
    hp = TINY.replace(n_flows=3, n_layers=2)
    rng = np.random.RandomState(0)
    audio, mel = inputs(hp, rng, batch=1, frames=2, dtype=np.float64)
    with session() as sess:
        loss = glow.loss(tf.constant(audio), tf.constant(mel), hp).total
        variables = tf.trainable_variables()
        gradients = tf.gradients(loss, variables)
        randomize(sess, rng)
        analytic, values, step = sess.run(gradients), sess.run(variables), 1e-5
        for v, g, value in zip(variables, analytic, values):
            index = tuple(rng.randint(n) for n in value.shape)
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                assign(sess, {v: moved})
                ends.append(sess.run(loss))
            assign(sess, {v: value})
            slope = (ends[0] - ends[1]) / (2 * step)
            assert abs(g[index] - slope) < 1e-6 * (1 + abs(slope)), v.op.name
