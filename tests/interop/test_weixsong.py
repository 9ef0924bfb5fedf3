"""interop.weixsong: checkpoints of weixsong/WaveGlow, converted, against that model in NumPy."""
import os
import shutil

import numpy as np
import nvidia_reference
import pytest
import tensorflow.compat.v1 as tf
import weixsong_reference
from graphs import run_model, session, speechlike

import glow
import params
import utils
from errors import UserError
from interop import nvidia, weixsong

VARIANTS = {
    'repeat': dict(encoder='none'),
    'conv': dict(encoder='conv', encoder_layers=2, encoder_width=5),
    'blstm': dict(encoder='blstm'),
    'two_transposed': dict(encoder='none', transposed=True),
    'blstm_two_transposed': dict(encoder='blstm', transposed=True),
    'conv_two_transposed': dict(encoder='conv', encoder_layers=1, encoder_width=4, transposed=True,
                                upsample_width=16),
    'odd_sizes': dict(encoder='conv', encoder_layers=3, encoder_width=3, encoder_channels=9,
                      n_flows=6, n_group=4, n_early_every=10, n_layers=5, residual_channels=64,
                      skip_channels=24, kernel_size=5),
    'odd_early_outputs': dict(encoder='none', n_flows=6, n_group=16, n_early_every=2,
                              n_early_size=4, n_layers=1, skip_channels=14),
}


def save(path, weights):
    """Writes a checkpoint of weixsong/WaveGlow and its optimizer. Returns its path."""
    utils.save_weights(str(path), with_optimizer(weights))
    return str(path / 'model.ckpt-0')


def with_optimizer(weights):
    first = min(weights)
    return dict(weights, global_step=np.int64(7), beta1_power=np.float32(0.9),
                **{first + '/Adam': weights[first], first + '/Adam_1': weights[first]})


def inputs(rng, n_group, batch=2, frames=3, hop=256, bands=80):
    audio = speechlike(rng, batch, frames * hop).astype(np.float32)
    mel = rng.uniform(0, 1, [batch, frames, bands]).astype(np.float32)
    z = rng.standard_normal([batch, frames * hop // n_group, n_group]).astype(np.float32)
    return audio, mel, z


def run_ours(hp, converted, audio, mel, z, gradients):
    """(z of audio, audio of z, loss, the loss's gradients if asked for) with converted weights."""
    def build(flows, weights):
        x = tf.constant(audio), tf.constant(mel)
        loss = glow.loss(*x, hp, flows=flows).total
        return [glow.encode(*x, hp, flows), glow.infer(tf.constant(z), x[1], hp, flows=flows),
                loss, tf.gradients(loss, weights) if gradients else []]

    return run_model(hp, converted, build)


def assert_same_model(weights, tmp_path, gradients=False, overrides='', **sizes):
    """Converts `weights` of weixsong/WaveGlow and compares both models.

    Returns (hp, converted weights).
    """
    hp, converted = weixsong.read(save(tmp_path, weights), overrides)
    assert {value.dtype for value in converted.values()} == {np.dtype(np.float32)}
    hop = hp.hop_length
    audio, mel, z = inputs(np.random.RandomState(1), hp.n_group, hop=hop, bands=hp.n_mels, **sizes)
    whole = z[0].size
    found_z, found_audio, found_loss, slopes = run_ours(hp, converted, audio, mel, z, gradients)
    expected_z, expected_loss = weixsong_reference.forward(weights, audio, mel, sigma=0.707,
                                                           hop=hop)
    expected_audio = weixsong_reference.infer(weights, z, mel, hop)
    assert np.abs(expected_z.reshape(len(audio), -1) - audio[:, :whole]).max() > 0.5  # a model
    assert np.abs(found_z - expected_z).max() < 1e-4
    assert found_audio.shape == audio.shape and not found_audio[:, whole:].any()
    found_audio = found_audio[:, :whole]
    assert np.abs(found_audio - expected_audio).max() < 1e-4 * np.abs(expected_audio).max()
    assert abs(found_loss - expected_loss) < 1e-4
    assert all(np.isfinite(slope).all() and slope.any() for slope in slopes)
    return hp, converted


# --- The reference --------------------------------------------------------------------------------

@pytest.mark.parametrize('variant', ['conv', 'blstm_two_transposed'])
def test_reference_undoes_itself(variant):
    rng = np.random.RandomState(0)
    weights = weixsong_reference.weights(rng, **VARIANTS[variant])
    audio, mel, _ = inputs(rng, 8)
    z = weixsong_reference.forward(weights, audio, mel)[0]
    np.testing.assert_allclose(weixsong_reference.infer(weights, z, mel), audio, atol=1e-9)


def test_reference_ignores_what_weixsong_does_not_use():
    rng = np.random.RandomState(0)
    weights = weixsong_reference.weights(rng, n_flows=1, n_layers=2)
    audio, mel, _ = inputs(rng, 8)
    z = weixsong_reference.forward(weights, audio, mel)[0]
    unused = ('b_g_f', 'dilation_2/w_res', 'dilation_2/g_res', 'dilation_2/b_res')
    for name, value in weights.items():
        changed = dict(weights, **{name: 1.5 * value + 0.1})
        other = weixsong_reference.forward(changed, audio, mel)[0]
        assert np.any(other != z) != name.endswith(unused), name


@pytest.mark.parametrize('width,stride', [(40, 16), (16, 16), (7, 4), (3, 4), (80, 16)])
def test_reference_convolves_as_tensorflow_does(width, stride):
    rng = np.random.RandomState(0)
    x = rng.standard_normal([2, 5, 3])
    filters = rng.standard_normal([width, 3, 4])
    with session() as sess:
        same, transposed = sess.run([
            tf.nn.conv1d(tf.constant(x), tf.constant(filters), stride=1, padding='SAME'),
            tf.nn.conv1d_transpose(tf.constant(x), tf.constant(filters.transpose([0, 2, 1])),
                                   [2, 5 * stride, 4], strides=stride, padding='SAME')])
    np.testing.assert_allclose(weixsong_reference.convolve(x, filters), same, atol=1e-12)
    np.testing.assert_allclose(
        weixsong_reference.convolve_transposed(x, filters.transpose([0, 2, 1]), stride), transposed,
        atol=1e-12)


# --- Conversion -----------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize('variant', sorted(VARIANTS))
def test_converted_model_is_the_same_model(variant, tmp_path):
    """The same z, audio and loss, in exactly the variables of the hyperparameters that are read."""
    weights = weixsong_reference.weights(np.random.RandomState(0), **VARIANTS[variant])
    hp = assert_same_model(weights, tmp_path)[0]
    if variant == 'odd_sizes':
        assert hp == params.preset('weixsong').replace(
            n_flows=6, n_group=4, n_early_every=6, n_layers=5, residual_channels=64,
            skip_channels=24, kernel_size=5, encoder='conv', encoder_layers=3, encoder_width=3,
            encoder_channels=9)
    if variant == 'blstm_two_transposed':
        assert hp == params.preset('weixsong').replace(
            n_flows=4, n_early_every=2, n_layers=3, residual_channels=12, skip_channels=10,
            encoder='blstm', encoder_channels=7, upsampling='two_transposed', upsample_width=40,
            upsample_channels=6)


@pytest.mark.slow
def test_published_width(tmp_path):
    weights = weixsong_reference.weights(
        np.random.RandomState(0), encoder='conv', n_flows=2, n_early_every=1, n_layers=8,
        residual_channels=256, skip_channels=256, encoder_channels=128)
    hp = assert_same_model(weights, tmp_path, batch=1, frames=2)[0]
    assert hp == params.preset('weixsong').replace(n_flows=2, n_early_every=1)


@pytest.mark.parametrize('positive', [[], [1], [0, 2, 3]])
def test_nvidias_code_can_train_a_converted_model(tmp_path, positive):
    """The same audio and loss with positive determinants, whose logarithm its loss takes."""
    weights = weixsong_reference.weights(np.random.RandomState(0), **VARIANTS['repeat'])
    for k in positive:      # of four determinants that are negative
        weights['Waveglow/glow_%d/inv1x1conv/W' % k][0] *= -1
    signs = [np.linalg.slogdet(w)[0] for name, w in weights.items() if name.endswith('conv/W')]
    hp, converted = weixsong.read(save(tmp_path, weights))
    state, _ = nvidia.to_state_dict(hp, converted)
    assert signs.count(1) == len(positive) and all(
        np.linalg.slogdet(w[:, :, 0])[0] == 1 for key, w in state.items()
        if key.startswith('convinv.'))
    audio, mel, z = inputs(np.random.RandomState(1), hp.n_group, batch=1)
    expected_z, expected_loss = weixsong_reference.forward(weights, audio, mel, sigma=0.707)
    expected = weixsong_reference.infer(weights, z, mel)[0]
    z[..., -1] *= np.prod(signs)        # the channel of z that may have the other sign
    expected_z[..., -1] *= np.prod(signs)
    found_z, found_loss = nvidia_reference.forward(state, audio[0], mel[0].T, every=2, sigma=0.707)
    found = nvidia_reference.infer(state, z[0].T, mel[0].T, every=2)
    assert abs(found_loss - expected_loss) < 1e-4
    assert np.abs(found_z.T - expected_z[0]).max() < 1e-4
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_training_continues(tmp_path):
    """The loss has a gradient for every variable."""
    weights = weixsong_reference.weights(np.random.RandomState(0),
                                         **VARIANTS['blstm_two_transposed'])
    assert_same_model(weights, tmp_path, gradients=True)


@pytest.mark.slow
def test_filters_of_length_zero(tmp_path):
    """Legal in weixsong/WaveGlow, whose norm has an epsilon; here they would be 0 / 0."""
    rng = np.random.RandomState(0)
    weights = weixsong_reference.weights(rng, encoder='conv')
    layer = 'Waveglow/glow_%d/wavenet/dilation_%d/'
    weights['Waveglow/glow_1/wavenet/w_s'][:, :, 2] = 0
    weights[layer % (0, 1) + 'w_g_f'][:, :, 3] = 0
    weights[layer % (0, 2) + 'w_g_f'][:, :, 4] *= 1e-8  # the epsilon counts
    weights[layer % (0, 4) + 'w_g_f'][:, :, 5] *= 1e-30
    weights[layer % (1, 1) + 'w_skip'][:, :, 6] = 0
    weights[layer % (1, 1) + 'w_res'][:, :, 7] = 0
    weights[layer % (1, 2) + 'w_res'][...] = 0
    weights[layer % (2, 1) + 'w_lc'][:, :, 8] = 0
    # blocks that cancel: not zero before they are summed up, zero after
    block = rng.standard_normal(7)
    weights[layer % (2, 2) + 'w_lc'][0, :, 9] = np.outer([1, -1] * 4, block).ravel()
    converted = assert_same_model(weights, tmp_path, gradients=True)[1]
    for name, value in converted.items():
        if name.endswith('/v'):
            assert np.sum(np.square(value, dtype=np.float32), axis=(0, 1)).min() > 0, name
    assert converted['waveglow/flow_0/layer_0/dilated/g'][3] == 0
    assert np.sum(np.square(converted['waveglow/flow_0/layer_0/dilated/v'][:, :, 3])) == 1


def test_paths_that_mean_a_checkpoint(tmp_path):
    """As weixsong/WaveGlow's train.py leaves them: Saver, kind of variables, several steps."""
    weights = with_optimizer(small(n_flows=1))
    with session() as sess:
        variables = [tf.get_variable(name, initializer=value, use_resource=False)
                     for name, value in sorted(weights.items())]
        sess.run(tf.global_variables_initializer())
        saver = tf.train.Saver()
        for step in (4000, 8000, 10000):
            path = saver.save(sess, str(tmp_path / 'model.ckpt'), step, write_meta_graph=False)
            sess.run(tf.assign_add(variables[0], tf.ones_like(variables[0])))
    assert path.endswith('model.ckpt-10000') and variables[0].op.name.endswith('/inv1x1conv/W')
    expected = weights['Waveglow/glow_0/inv1x1conv/W']
    for given in (path, path + '.index', path + '.data-00000-of-00001', str(tmp_path)):
        found = weixsong.read(given)[1]['waveglow/flow_0/W']
        np.testing.assert_allclose(found, expected + 2, atol=1e-6)
    found = weixsong.read(str(tmp_path / 'model.ckpt-4000'))[1]['waveglow/flow_0/W']
    np.testing.assert_array_equal(found, expected)


def test_gate_biases_are_told_of(tmp_path, capsys):
    weights = small(n_flows=2)
    gate_biases = [name for name in weights if name.endswith('b_g_f')]
    assert len(gate_biases) == 4
    converted = weixsong.read(save(tmp_path, weights))[1]
    out = capsys.readouterr().out
    assert 'b_g_f' in out and 'ignored' in out and out.count('\n') == 1
    for name, value in converted.items():
        assert not name.endswith('dilated/bias') or not value.any()
    weights[gate_biases[0]][0] = np.nan
    weixsong.read(save(tmp_path, weights))
    assert 'b_g_f' in capsys.readouterr().out
    for name in gate_biases:
        weights[name][...] = 0
    weixsong.read(save(tmp_path, weights))
    assert capsys.readouterr().out == ''


OTHER_MELS = {
    'another number of bands': (dict(n_mels=64), ''),
    'another hop': (dict(n_mels=40), 'hop_length=200,sample_rate=16000'),
    'a hop that n_group does not divide': (dict(n_group=12), ''),
    'the same with an encoder': (dict(n_mels=128, encoder='conv'), 'hop_length=275'),
    'another hop, transposed': (dict(n_mels=100, transposed=True), 'hop_length=441'),
    'other values': (dict(), 'mel_profile=rayhane,hop_length=300'),
}


@pytest.mark.slow
@pytest.mark.parametrize('what', sorted(OTHER_MELS))
def test_mels_and_hop_that_are_told(what, tmp_path):
    sizes, overrides = OTHER_MELS[what]
    hp = assert_same_model(small(**sizes), tmp_path, overrides=overrides)[0]
    told = params.parse_overrides(overrides)
    assert hp.n_mels == sizes.get('n_mels', 80)
    assert {name: getattr(hp, name) for name in told} == told


# --- Refusals -------------------------------------------------------------------------------------

def small(**sizes):
    return weixsong_reference.weights(np.random.RandomState(0), n_layers=2, **sizes)


def without(part):
    return {name: value for name, value in small().items() if part not in name}


def with_(name, value):
    return dict(small(), **{'Waveglow/' + name: np.float32(value)})


def with_changed(name, function, **sizes):
    weights = small(**sizes)
    return dict(weights, **{'Waveglow/' + name: function(weights['Waveglow/' + name])})


def put(value):
    """A function that changes one entry of an array to `value`."""
    def function(array):
        array.flat[1] = value
        return array
    return function


REFUSED = {
    'no matrix in a flow': (lambda: without('glow_2/inv1x1conv/W'),
                            'has no Waveglow/glow_2/inv1x1conv/W;'),
    'a flow missing': (lambda: without('glow_2/'), 'has no Waveglow/glow_2/inv1x1conv/W;'),
    'a layer missing': (lambda: without('glow_1/wavenet/dilation_2'),
                        'has no Waveglow/glow_1/wavenet/dilation_2/w_g_f;'),
    'no g': (lambda: without('glow_1/wavenet/g_s'), 'has no Waveglow/glow_1/wavenet/g_s;'),
    'no skip, as on one of its branches': (lambda: without('_skip'), 'w_skip;'),
    'a layer more in one flow': (
        lambda: with_('glow_3/wavenet/dilation_4/w_g_f', [1]),
        'holds Waveglow/glow_3/wavenet/dilation_4/w_g_f, which does not belong to the rest'),
    'a network that it does not have': (
        lambda: with_('transformer_encoder/w', [1]),
        'holds Waveglow/transformer_encoder/w, which does not belong to the rest'),
    'the 2-D convolution of before 15 March 2019': (
        lambda: with_changed('glow_0/wavenet/dilation_1/w_g_f', lambda v: v[None]),
        'has 4 axes instead of 3'),
    'another shape': (
        lambda: with_changed('glow_2/wavenet/dilation_2/w_lc', lambda v: v[:, 1:]),
        'has shape [1, 639, 24], where the rest of the model needs [1, 640, 24];'),
    'not a number': (lambda: with_changed('glow_2/wavenet/w_e', put(np.nan)),
                     'Waveglow/glow_2/wavenet/w_e holds values that are NaN'),
    'infinite': (lambda: with_changed('glow_3/wavenet/g_s', put(-np.inf)),
                 'Waveglow/glow_3/wavenet/g_s holds values that are NaN'),
    'early outputs at odd distances': (
        lambda: with_changed('glow_3/inv1x1conv/W', lambda w: w[2:, 2:]), '8, 8, 6, 4 channels'),
    'early outputs of an odd size': (lambda: small(n_early_size=1), 'n_early_size=1 must be even'),
    'more and more channels': (lambda: small(n_early_size=-2), 'n_early_size=-2 must be'),
    'an even kernel': (lambda: small(kernel_size=2), 'kernel_size=2 must be odd'),
    'gaps in the upsampling': (lambda: small(transposed=True, upsample_width=8),
                               'upsample_width=8 is less'),
    'two widths in the upsampling': (
        lambda: with_changed('transpoed_conv/layer2', lambda v: v[2:], transposed=True),
        'Waveglow/transpoed_conv/layer2 has shape'),
}


@pytest.mark.slow
@pytest.mark.parametrize('what', sorted(REFUSED))
def test_what_is_refused(what, tmp_path):
    weights, words = REFUSED[what]
    assert_refused(save(tmp_path, weights()), words)


def assert_refused(path, words):
    with pytest.raises(UserError) as refusal:
        weixsong.read(path)
    message = str(refusal.value)
    assert words in message and path in message and '\n' not in message, message


def test_foreign_checkpoints_are_refused(tmp_path):
    theirs = save(tmp_path, {'generator/w': np.float32([1])})
    assert_refused(theirs, 'holds no variable under Waveglow/')
    ours = save(tmp_path, {'waveglow/flow_0/W': np.eye(8, dtype=np.float32)})
    assert_refused(ours, 'needs no conversion')


def test_unreadable_checkpoints_are_refused(tmp_path):
    assert_refused(str(tmp_path), 'there is no checkpoint at')
    assert_refused(str(tmp_path / 'model.ckpt-1'), 'there is no checkpoint at')
    path = save(tmp_path, small())
    data = path + '.data-00000-of-00001'
    with open(data, 'r+b') as f:
        f.truncate(os.path.getsize(data) // 2)
    assert_refused(path, 'cannot be read')
    os.unlink(data)
    assert_refused(path, 'cannot be read')
    for text in (b'', b'x' * 1000):
        with open(path + '.index', 'wb') as f:
            f.write(text)
        assert_refused(path, 'cannot be read')
    shutil.rmtree(str(tmp_path))
    assert_refused(path, 'there is no checkpoint at')
