"""Hops that n_group does not divide: the flow, streams, batches and exports."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import HOPS, TINY, random_weights, run_model, speechlike

import export
import glow
import params
from datasets.mel_files import value_range
from errors import UserError
from vocoder import Vocoder, noise

pytestmark = pytest.mark.slow


def model(hop):
    hp = TINY.replace(n_flows=2, n_early_every=1, n_layers=2, **HOPS[hop])
    assert hp.hop_length == hop
    return hp, random_weights(hp)


def mel_of(hp, frames):
    mel = np.random.RandomState(0).randn(frames, hp.n_mels)
    return np.clip(hp.mel_mean + hp.mel_std * mel, *value_range(hp.mel)).astype(np.float32)


@pytest.mark.parametrize('hop', sorted(HOPS))
def test_audio_is_that_of_its_z(hop):
    """All samples of whole groups; fewer than n_group are left, and silent."""
    hp, weights = model(hop)
    frames = 5
    audio = speechlike(np.random.RandomState(1), 2, frames * hop).astype(np.float32)
    mel = np.stack([mel_of(hp, frames)] * 2)

    def build(flows, _):
        x = tf.constant(audio), tf.constant(mel)
        z = glow.encode(*x, hp, flows)
        return z, glow.infer(z, x[1], hp, flows=flows), glow.loss(*x, hp, flows=flows)

    z, back, loss = run_model(hp, weights, build)
    whole = frames * hop // hp.n_group * hp.n_group
    assert z.shape == (2, whole // hp.n_group, hp.n_group) and back.shape == audio.shape
    assert frames * hop - whole < hp.n_group and not back[:, whole:].any()
    assert np.abs(back[:, :whole] - audio[:, :whole]).max() < 1e-4
    # the loss counts the samples that it is of
    assert abs(loss.z - (z ** 2).sum() / (2 * hp.sigma ** 2) / (2 * whole)) < 1e-4 * loss.z


@pytest.mark.parametrize('hop', sorted(HOPS))
def test_streams_and_exports_are_the_whole(hop, tmp_path):
    """For chunks of any size, of which some do not end with a group."""
    hp, weights = model(hop)
    vocoder, frames = Vocoder(hp, weights), 29
    mel, z = mel_of(hp, frames), noise(frames, hp, 0.5, 3)
    expected = run_model(hp, weights, lambda flows, _: glow.infer(
        tf.constant(z[None]), tf.constant(mel[None]), hp, flows=flows))[0]
    bound = 2e-5 * np.abs(expected).max()
    assert len(expected) == frames * hop and bound > 1e-6
    assert vocoder.chunk_frames % hp.cycle_frames == 0
    for chunk in (1, 3, 8, vocoder.chunk_frames):
        vocoder.chunk_frames = chunk
        pieces = [mel[:2], mel[2:3], mel[3:17], mel[17:]]
        streamed = np.concatenate(list(vocoder.stream(pieces, sigma=0.5, seed=3)))
        assert streamed.shape == expected.shape
        assert np.abs(streamed - expected).max() < bound
    batch = vocoder.vocode_batch([mel, mel[:7], mel[:1]], sigma=0.5, seed=3)
    for found, n in zip(batch, (frames, 7, 1)):
        alone = vocoder.vocode(mel[:n], sigma=0.5, seed=3)
        assert found.shape == (n * hop,) and np.abs(found - alone).max() < bound

    export.write_saved_model(hp, weights, str(tmp_path / 'model'))
    with tf.Session(graph=tf.Graph()) as sess:
        meta = tf.saved_model.load(sess, ['serve'], str(tmp_path / 'model'))
        for name, given in (('from_noise', dict(noise=z[None])),
                            ('serving_default', dict(sigma=0.5, seed=3))):
            signature = meta.signature_def[name]
            feeds = {signature.inputs[key].name: value
                     for key, value in dict(given, mel=mel[None]).items()}
            found = sess.run(signature.outputs['audio'].name, feeds)
            assert found.shape == (1, frames * hop)
            if name == 'from_noise':
                assert np.abs(found[0] - expected).max() < bound


def test_first_samples_come_as_soon_as_latency_allows():
    """Frame by frame: some groups wait for the frame that their last samples lie in."""
    hp, weights = model(275)
    vocoder, waits = Vocoder(hp, weights, chunk_frames=1), []
    given = [0]

    def frames():
        for frame in mel_of(hp, 40):
            given[0] += hp.hop_length
            yield frame[None]

    done = 0
    for block in vocoder.stream(frames()):
        if given[0] < 40 * hp.hop_length:
            waits.append(given[0] - done)   # samples of mel, when sample `done` comes
        done += len(block)
    latency = vocoder.latency * hp.sample_rate
    assert latency + 1 - hp.hop_length < max(waits) <= latency + hp.hop_length
    assert done == 40 * hp.hop_length


def test_a_group_has_the_frame_of_its_first_sample():
    hp = params.preset('small').replace(hop_length=275, n_group=8)
    assert (hp.cycle_frames, hp.groups(1), hp.groups(8)) == (8, 34, 275)
    for group in range(2 * 275):
        assert hp.frame_of_group(group) == group * 8 // 275
    assert params.preset('small').cycle_frames == 1


@pytest.mark.parametrize('hop,strides', [(256, (16, 16)), (275, (11, 25)), (441, (21, 21)),
                                         (300, (15, 20)), (257, (1, 257))])
def test_strides_of_two_transposed_convolutions(hop, strides):
    hp = TINY.replace(hop_length=hop, upsampling='two_transposed', upsample_width=300)
    assert hp.upsample_strides == strides
    with pytest.raises(UserError, match='less than the stride of %d' % strides[1]):
        hp.replace(upsample_width=strides[1] - 1)


def test_a_group_is_no_longer_than_a_frame():
    with pytest.raises(UserError, match='n_group=16 is more than the 12 samples of a frame'):
        TINY.replace(hop_length=12, n_group=16)
