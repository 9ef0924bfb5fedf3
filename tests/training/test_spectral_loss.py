"""The STFT distance of samples, what it is made of, and a training step with it."""
import numpy as np
import pytest
import scipy.signal
import tensorflow.compat.v1 as tf
from graphs import TWO_FLOWS, operations, randomize, session, speechlike

import devices
import glow
import params
from datasets import mel_transform
from datasets.clips import Clips
from errors import UserError
from training import objective, spectral_loss, towers
from training.weights import Buffers

pytestmark = pytest.mark.slow

RNG = np.random.RandomState(0)
AUDIO = speechlike(RNG, 2, 6000)


def run(tensor):
    with tf.Session(graph=tensor.graph, config=devices.session_config()) as sess:
        return sess.run(tensor)


def distance(drawn, reference, hp):
    return spectral_loss.distance(spectral_loss.Spectra(drawn, reference), hp)


def stft(audio, size):
    """|STFT| [frames, bins] by its definition, of the frames within the audio."""
    frames = np.stack([audio[i:i + size] for i in range(0, len(audio) - size + 1, size // 4)])
    return np.abs(np.fft.rfft(frames * scipy.signal.get_window('hann', size)))


@pytest.mark.parametrize('size', params.STFT_SIZES)
def test_magnitudes_are_those_of_an_stft(size):
    with tf.Graph().as_default():
        found = run(spectral_loss.magnitudes([tf.constant(AUDIO)], size, size // 4)[0])
    for row, audio in zip(found, AUDIO):
        np.testing.assert_allclose(
            row, np.sqrt(stft(audio, size) ** 2 + spectral_loss.POWER_FLOOR), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('text', [
    '', 'mel_profile=weixsong', 'mel_profile=hifigan', 'mel_profile=vocos', 'mel_profile=nemo',
    'mel_profile=rayhane,hop_length=200,n_group=8', 'mel_profile=whisper'])
def test_mels_are_those_of_preprocessing(text):
    hp, audio = params.override(params.preset('small'), text), AUDIO[0].astype(np.float32)
    with tf.Graph().as_default():
        found = run(spectral_loss.mels([tf.constant(audio[None])], hp)[0])[0]
    plain = hp.mel.replace(clip_min=0.0, clip_max=0.0, dynamic_range=0.0, padding='center',
                           drop_last_frame=False)
    reference = mel_transform.mel_magnitudes(mel_transform.mel_spectrogram(audio, plain), plain)
    if plain.power == 2:
        reference = np.sqrt(reference)
    # without edges: of n_fft / 2 samples with preprocessing, of the window here
    first = (plain.win_length // 2) // hp.hop_length
    if plain.win_length // 2 % hp.hop_length:       # no frame has the same middle
        audio = audio[hp.hop_length * (first + 1) - plain.win_length // 2:]
        first += 1
        with tf.Graph().as_default():
            found = run(spectral_loss.mels([tf.constant(audio[None])], hp)[0])[0]
    reference = reference[first:first + len(found)]
    audible = reference > 1e-3
    assert audible.mean() > 0.5
    np.testing.assert_allclose(found[audible], reference[audible], rtol=2e-3)


def test_distance_of_audio_to_itself_and_to_audio_twice_as_loud():
    hp = params.preset('small')
    with tf.Graph().as_default():
        audio = tf.constant(AUDIO)
        same, louder = run(tf.stack([distance(audio, audio, hp), distance(2 * audio, audio, hp)]))
    assert same == 0
    # spectral convergence is 1, and both log distances ln 2, but for what the floor hides
    assert abs(louder - (1 + 2 * np.log(2))) < 0.05


def test_distance_of_mels_of_several_windows():
    """It is the sum of its parts, of which the mels weigh most."""
    hp = params.preset('small').replace(stft_distance='mels')
    ours, theirs = AUDIO
    with tf.Graph().as_default():
        found = run(distance(tf.constant(ours[None]), tf.constant(theirs[None]), hp))
    expected = 0
    for size, bands in ((256, 20), (512, 40), (1024, 80), (2048, 160)):
        a, b = (np.sqrt(stft(x, size) ** 2 + spectral_loss.POWER_FLOOR) for x in (ours, theirs))
        basis = mel_transform.mel_basis(hp.mel.replace(n_fft=size, n_mels=bands))
        expected += np.linalg.norm(a - b) / np.linalg.norm(b) / 4
        expected += 0.25 * np.abs(np.log(a) - np.log(b)).mean() / 4
        expected += 4 * np.abs(np.log(a @ basis) - np.log(b @ basis)).mean() / 4
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize('kind', params.CHOICES['stft_distance'])
def test_distance_is_a_mean_over_clips(kind):
    hp, other = params.preset('small').replace(stft_distance=kind), AUDIO[::-1]
    with tf.Graph().as_default():
        whole = distance(tf.constant(AUDIO), tf.constant(other), hp)
        parts = [distance(tf.constant(AUDIO[i:i + 1]), tf.constant(other[i:i + 1]), hp)
                 for i in range(2)]
        whole, first, second = run(tf.stack([whole] + parts))
    np.testing.assert_allclose(whole, (first + second) / 2, rtol=1e-12)


def clips_of(hp):
    rng = np.random.RandomState(1)
    shape = [hp.batch_size, hp.clip_frames]
    return Clips(
        tf.constant(speechlike(rng, hp.batch_size, hp.clip_frames * hp.hop_length)),
        tf.constant(hp.mel_mean + hp.mel_std * rng.randn(*shape, hp.n_mels)), None, None,
        tf.constant(rng.randn(shape[0], hp.groups(shape[1]), hp.n_group)))


@pytest.mark.parametrize('compute', [glow.Compute(), glow.Compute(reversible=True)])
def test_gradients_through_the_inverse_against_finite_differences(compute):
    """In float64, along a random direction of all weights."""
    hp = TWO_FLOWS.replace(stft_weight=0.7, nll_weight=0.3, batch_size=2)
    with session() as sess:
        clips = clips_of(hp)
        found = objective.objective(clips, hp, compute)
        variables = tf.trainable_variables()
        gradients = tf.gradients(found.total, variables)
        randomize(sess, np.random.RandomState(2), 0.02)
        start, gradients, terms = sess.run([variables, gradients, found])
        np.testing.assert_allclose(terms.total, 0.7 * terms.stft + 0.3 * terms.nll, rtol=1e-12)
        assert terms.stft > 0.1
        rng = np.random.RandomState(3)
        # a way on which the loss changes, or its kinks count
        ways = [g + np.linalg.norm(g) / g.size ** 0.5 * rng.randn(*g.shape) for g in gradients]
        step = 1e-6
        moved = []
        for sign in (1, -1):
            sess.run([v.initializer for v in variables],
                     {v.initializer.inputs[1]: x + sign * step * way
                      for v, x, way in zip(variables, start, ways)})
            moved.append(sess.run(found.total))
        expected = sum(np.sum(g * way) for g, way in zip(gradients, ways))
        assert abs(expected) > 1e-2
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), expected, rtol=1e-4)


def test_share_of_the_clips_whose_likelihood_is_computed():
    hp = TWO_FLOWS.replace(stft_weight=1.0, nll_weight=0.5, batch_size=4, nll_share=0.25)
    with session() as sess:
        clips = clips_of(hp)
        first = glow.loss(clips.audio[:1], clips.mel[:1], hp)
        found = [objective.objective(clips, hp.replace(nll_share=share)) for share in (0.25, 1)]
        randomize(sess, np.random.RandomState(2), 0.02)
        first, (part, whole) = sess.run([first, found])
    np.testing.assert_allclose(part.nll, first.total, rtol=1e-12)
    np.testing.assert_allclose(part.total, 0.5 * first.total + part.stft, rtol=1e-12)
    assert part.stft == whole.stft and abs(part.nll - whole.nll) > 1e-3


def test_likelihood_and_samples_share_their_filters():
    """Each filter is normalized once a step, whichever losses take it."""
    for weight in (0.0, 1.0):
        hp = TWO_FLOWS.replace(stft_weight=weight, batch_size=4)
        with tf.Graph().as_default() as graph:
            objective.objective(clips_of(hp), hp)
            counts = operations(graph, 'Rsqrt')
        # and start, and cond
        assert counts == hp.n_flows * (2 * hp.n_layers + 2)


def test_towers_share_clips_and_their_noise():
    hp = TWO_FLOWS.replace(stft_weight=1.0, batch_size=4)
    values = []
    for count in (1, 2):
        with tf.Graph().as_default(), tf.Session(config=devices.session_config(count)) as sess:
            clips = Clips(*(x if x is None else tf.cast(x, tf.float32)
                                    for x in clips_of(hp)))
            loss, gradients = towers.loss_and_gradients(clips, hp, devices.tower_devices(count),
                                                        Buffers(objective.weights(hp)))
            randomize(sess, np.random.RandomState(2), 0.02)
            values.append(sess.run([loss.stft] + gradients))
    for a, b in zip(*values):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


def test_refuses_clips_shorter_than_a_frame():
    with pytest.raises(UserError, match='clips of 2048 samples'):
        TWO_FLOWS.replace(stft_weight=1.0, clip_samples=1024)
