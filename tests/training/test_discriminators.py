import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import TWO_FLOWS, session
from speech import speech

import glow
from datasets.clips import Clips
from training import discriminators, objective, spectral_loss

SPEECH = speech(1.2)[None, -8192:].reshape(2, 4096)
# as loud, with none of its order
SHUFFLED = np.random.RandomState(0).permutation(SPEECH.ravel()).reshape(SPEECH.shape)


def losses(drawn, reference, *dtype):
    return discriminators.losses(
        spectral_loss.Spectra(tf.convert_to_tensor(drawn), tf.constant(reference)), *dtype)


def norms(sess, gradients):
    """The length of each gradient; -1 where there is none."""
    present = [g for g in gradients if g is not None]
    found = iter(sess.run([tf.norm(g) for g in present]) if present else [])
    return [-1.0 if g is None else next(found) for g in gradients]


def test_each_loss_has_gradients_to_those_that_minimize_it():
    with session() as sess:
        drawn = tf.constant(SHUFFLED)
        found = losses(drawn, SPEECH)
        own = tf.gradients(found.own, [drawn] + tf.trainable_variables())
        samples, features = ([tf.gradients(loss, [drawn] + tf.trainable_variables())]
                             for loss in (found.samples, found.features))
        sess.run(tf.global_variables_initializer())
        to_drawn, *to_weights = norms(sess, own)
        # of each discriminator, six layers' filters and biases
        assert to_drawn == -1 and len(to_weights) == 36 and min(to_weights) > 0
        for gradients in samples + features:
            to_drawn, *to_weights = norms(sess, gradients)
            assert to_drawn > 0 and set(to_weights) == {-1.0}


@pytest.mark.slow
def test_they_learn_to_tell_noise_from_speech():
    """And the loss of the noise rises with it; to what is the same, they have no answer."""
    with session() as sess:
        found = losses(SHUFFLED, SPEECH)
        same = losses(SPEECH, SPEECH)
        train = tf.train.AdamOptimizer(2e-3).minimize(found.own)
        sess.run(tf.global_variables_initializer())
        before = sess.run(found)
        for _ in range(40):
            sess.run(train)
        after, same = sess.run([found, same])
    assert before.own > 0.5 and after.own < 0.25
    assert after.samples > 0.6
    # scores s in (s - 1)^2 + s^2, which is never less than a half
    assert same.own > 0.499 and same.features < 1e-5 < 0.1 < after.features


@pytest.mark.slow
def test_the_objective_is_the_sum_of_its_parts():
    hp = TWO_FLOWS.replace(stft_weight=0.7, nll_weight=0.3, adversarial_weight=0.2, batch_size=2,
                      clip_samples=4096)
    rng = np.random.RandomState(1)
    with session() as sess:
        clips = Clips(
            tf.constant(SPEECH), tf.constant(hp.mel_mean + rng.randn(2, 16, 80), tf.float32), None,
            None, tf.constant(rng.randn(2, hp.groups(16), hp.n_group), tf.float32))
        found = objective.objective(clips, hp)
        more = objective.objective(clips, hp.replace(adversarial_weight=0.0))
        weights = [v for v in tf.trainable_variables() if v.op.name.startswith('waveglow/')]
        gradients = [tf.global_norm(tf.gradients(x.total, weights)) for x in (found, more)]
        sess.run(tf.global_variables_initializer())
        found, more, gradients = sess.run([found, more, gradients])
    assert found.stft == more.stft and found.nll == more.nll and more.discriminators == 0
    np.testing.assert_allclose(found.total - more.total,
                               0.2 * found.adversarial + found.discriminators, rtol=1e-3)
    assert found.adversarial > 0 and abs(gradients[0] / gradients[1] - 1) > 1e-3


@pytest.mark.slow
def test_sixteen_bits_give_nearly_the_same_losses():
    with session() as sess:
        found = [losses(SHUFFLED, SPEECH, dtype)
                 for dtype in (tf.float32, glow.PRECISIONS['bfloat16'])]
        sess.run(tf.global_variables_initializer())
        exact, near = sess.run(found)
    np.testing.assert_allclose(near, exact, rtol=0.03)
