"""Vocoder.stream: the blocks put together are the whole, and they come in time."""
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from graphs import CONDITIONS, TINY, VOCODING, random_weights

import glow
import params
import vocoder as vocoder_module
from errors import UserError
from flows import conditions
from vocoder import Vocoder


def mel_of(hp, frames, seed=0):
    noise = np.random.RandomState(seed).randn(frames, hp.n_mels)
    return (hp.mel_mean + hp.mel_std * noise).astype(np.float32)


def whole(vocoder, mel):
    """The audio of one graph of the whole utterance, which a batch of two goes through."""
    return vocoder.vocode_batch([mel, mel[:1]])[0]


@pytest.mark.tensorflow1
@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(VOCODING))
def test_blocks_are_the_whole(name):
    """For several sizes of chunks, and for mels that come in pieces of any size."""
    hp = TINY.replace(**VOCODING[name])
    vocoder = Vocoder(hp, random_weights(hp))
    mel = mel_of(hp, 37)
    expected = whole(vocoder, mel)
    assert np.abs(expected).max() > 0.1
    assert vocoder._chunks == 4         # of a narrow model, at a time
    for chunk, vocoder._chunks in ((2, 4), (1, 1), (5, 1), (64, 1)):
        vocoder.chunk_frames = chunk
        streamed = list(vocoder.stream([mel[:3], mel[3:4], mel[4:20], mel[20:]]))
        for found in (vocoder.vocode(mel), np.concatenate(streamed)):
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()
        if chunk == 1 and hp.encoder != 'blstm':
            assert len(streamed) > 20


@pytest.mark.slow
@pytest.mark.parametrize('name', ['repeat', 'conv_two_transposed', 'causal'])
@pytest.mark.parametrize('precision, tolerance', [('float32', 2e-5), ('bfloat16', 0.05)])
def test_blocks_of_the_compiled_length(name, precision, tolerance):
    """Full blocks go through loops that XLA compiles; those at the ends do not."""
    hp = TINY.replace(residual_channels=128, **CONDITIONS[name])
    if sys.version_info < (3, 8):  # TensorFlow 1.15
        assert not Vocoder(hp, random_weights(hp))._compiles
        return
    vocoder = Vocoder(hp, random_weights(hp), precision, chunk_frames=3)
    kinds = [op.type for op in vocoder._graph.get_operations()]
    assert vocoder._compiles and kinds.count('PartitionedCall') > hp.n_flows * hp.n_layers
    assert not Vocoder(TINY, random_weights(TINY))._compiles    # nor does any narrow model
    mel = mel_of(hp, 37)
    expected = Vocoder(hp, random_weights(hp)).vocode(mel)
    assert np.abs(vocoder.vocode(mel) - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.own_process
@pytest.mark.parametrize('name', ['nvidia', 'weixsong', 'small'])
def test_blocks_are_the_whole_at_the_presets_depth(name):
    """All layers and an early output of a preset, narrow for the test's time."""
    hp = params.preset(name)
    hp = hp.replace(n_flows=min(hp.n_flows, hp.n_early_every + 1), residual_channels=8,
                    skip_channels=8, encoder_channels=8)
    vocoder = Vocoder(hp, random_weights(hp))
    mel = mel_of(hp, 250)  # longer than the receptive field
    expected = whole(vocoder, mel)
    for chunk in (7, 96, 250):
        vocoder.chunk_frames = chunk
        found = vocoder.vocode(mel)
        assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_utterances_of_one_frame_and_of_none():
    vocoder = Vocoder(TINY, random_weights(TINY))
    mel = mel_of(TINY, 1)
    np.testing.assert_allclose(vocoder.vocode(mel), whole(vocoder, mel), atol=1e-5)
    assert list(vocoder.stream([])) == []
    with pytest.raises(UserError, match='frames x 80'):
        list(vocoder.stream([mel.T]))


@pytest.mark.slow
@pytest.mark.parametrize('changes', [dict(), dict(causal=True, kernel_size=2), dict(n_group=16),
                                     dict(kernel_size=5)])
def test_flow_has_the_stated_receptive_field(monkeypatch, changes):
    """NaN in one group of noise reaches all groups that depend on it, and no others."""
    hp = TINY.replace(**changes)
    vocoder = Vocoder(hp, random_weights(hp))
    mel, group = mel_of(hp, 20), hp.groups(10) + 3
    z = np.random.RandomState(0).randn(hp.groups(20), hp.n_group)
    z[group] = np.nan
    position = [0]

    def draw(self, frames):
        start, position[0] = position[0], position[0] + hp.groups(frames)
        return z[start:position[0]].astype(np.float32)

    monkeypatch.setattr(vocoder_module.NoiseGenerator, 'draw', draw)
    for found in (whole(vocoder, mel), position.__setitem__(0, 0) or vocoder.vocode(mel)):
        reached = np.flatnonzero(np.isnan(found.reshape(-1, hp.n_group)).any(axis=1))
        behind, ahead = glow.receptive_field(hp)
        assert list(reached) == list(range(group - ahead, group + behind + 1))
    assert vocoder.latency == ahead * hp.n_group / hp.sample_rate


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(set(CONDITIONS) - {'blstm', 'blstm_two_transposed'}))
def test_condition_has_the_stated_receptive_field(name):
    hp = TINY.replace(**CONDITIONS[name])
    vocoder = Vocoder(hp, random_weights(hp))
    mel, frame, frames = mel_of(hp, 30), 15, 30
    changed = mel.copy()
    changed[frame] += 100
    moved = np.abs(vocoder._run_condition(changed) - vocoder._run_condition(mel))
    reached = np.flatnonzero(moved.reshape(frames, -1).max(axis=1))
    behind, ahead = conditions.condition_receptive_field(hp)
    assert (reached.min(), reached.max()) == (frame - ahead, frame + behind)


@pytest.mark.slow
def test_first_samples_come_as_soon_as_latency_allows():
    """The stream gives its first samples at the first frame that `latency` allows."""
    for changes in (dict(), dict(causal=True), dict(encoder='conv', encoder_channels=7),
                    dict(gen_correction_rounds=2)):
        hp = TINY.replace(**changes)
        vocoder = Vocoder(hp, random_weights(hp), chunk_frames=1)
        given = []

        def frames():
            for frame in mel_of(hp, 40):
                given.append(frame)
                yield frame[None]

        block = next(vocoder.stream(frames()))
        latency = len(given) * hp.hop_length / hp.sample_rate
        assert len(block) > 0
        least = vocoder.latency + 1.0 / hp.sample_rate  # for the first sample itself
        assert least <= latency <= least + 2.0 * hp.hop_length / hp.sample_rate
    assert Vocoder(TINY.replace(causal=True), random_weights(TINY.replace(causal=True))
                   ).latency == 0


def test_latency_of_a_blstm_is_the_whole_utterance():
    hp = TINY.replace(**CONDITIONS['blstm'])
    assert Vocoder(hp, random_weights(hp)).latency is None


@pytest.mark.slow
def test_ten_minutes_take_no_more_memory_than_ten_seconds(tmp_path):
    """Of a tiny model, so that it is the utterance that would be seen; the result comes on top."""
    np.savez(str(tmp_path / 'weights.npz'), **random_weights(TINY))
    code = '''if True:
        import resource, sys
        sys.path.append({root!r} + '/tests')
        import numpy as np
        from graphs import TINY
        from vocoder import Vocoder
        vocoder = Vocoder(TINY, dict(np.load({weights!r})))
        frame = np.zeros([100, 80], np.float32)
        for seconds in (10, 600):
            blocks = vocoder.stream(frame for _ in range(seconds * 16000 // 25600))
            samples = sum(len(block) for block in blocks)
            print(samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    '''.format(root=ROOT, weights=str(tmp_path / 'weights.npz'))
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=600)
    (short, before), (long, after) = (map(int, line.split())
                                      for line in done.stdout.splitlines())
    assert (short, long) == (6 * 25600, 375 * 25600), done.stderr
    assert after < 1.05 * before


@pytest.mark.slow
@pytest.mark.parametrize('precision, tolerance', [('bfloat16', 0.05), ('float16', 0.01)])
def test_16_bits_are_near_float32(precision, tolerance):
    hp = TINY
    weights = random_weights(hp)
    if precision == 'bfloat16' and sys.version_info < (3, 8):  # TensorFlow 1.15
        with pytest.raises(UserError, match='takes TensorFlow 2'):
            Vocoder(hp, weights, 'bfloat16')
        return
    mel = mel_of(hp, 20)
    exact, near = (Vocoder(hp, weights, precision).vocode(mel)
                   for precision in ('float32', precision))
    difference = np.abs(near - exact).max() / np.abs(exact).max()
    assert 1e-5 < difference < tolerance
