"""interop.nvidia: the same function as NVIDIA's, in every spelling, there and back."""
import collections

import numpy as np
import nvidia_reference as reference
import ptfiles
import pytest
import tensorflow.compat.v1 as tf
from graphs import TINY, random_weights, run_model, speechlike

import glow
import params
from errors import UserError
from interop import nvidia

# (arguments of reference.state, of reference.forward and infer)
SIZES = {
    'odd': (dict(units=64, layers=5, n_flows=6, n_group=4), {}),
    'often early': (dict(units=6, layers=3, n_flows=5, n_group=16, every=2, size=4, kernel=5),
                    dict(every=2, size=4)),
    'no early output': (dict(units=4, layers=1, n_flows=3, n_group=2), {}),
}
SMALL = dict(units=4, layers=2, n_flows=3, n_group=4, every=2)


def converted(tmp_path, stored, save=ptfiles.save_zip, **options):
    path = str(tmp_path / 'waveglow.pt')
    save(path, stored)
    return nvidia.read(path, **options)


def ours(hp, weights, audio, mel, z):
    """(audio of z, z of audio, loss of audio) of our model, in the reference's shapes."""
    def build(flows, _):
        x = tf.constant(audio[None]), tf.constant(mel.T[None])
        return (glow.infer(tf.constant(z.T[None]), x[1], hp, flows=flows),
                glow.encode(*x, hp, flows), glow.loss(*x, hp, flows=flows).total)

    back, found_z, loss = run_model(hp, weights, build)
    return back[0], found_z[0].T, loss


def assert_same_function(hp, weights, state, every=4, size=2, frames=5, reversed_z=False):
    """reversed_z: whether the last channel of z has the other sign in `state`."""
    rng = np.random.RandomState(5)
    mel = (rng.randn(hp.n_mels, frames) - 5).astype(np.float32)
    hop, whole = hp.hop_length, hp.groups(frames) * hp.n_group
    audio = speechlike(rng, 1, hop * frames)[0].astype(np.float32)
    z = 0.6 * rng.randn(hp.n_group, hp.groups(frames)).astype(np.float32)
    found = ours(hp, weights, audio, mel, z)
    assert len(found[0]) == hop * frames and not found[0][whole:].any()
    signs = np.ones([hp.n_group, 1], np.float32)
    signs[-1] = -1 if reversed_z else 1
    expected_z, expected_loss = reference.forward(state, audio, mel, every, size, hp.sigma,
                                                  hop)
    expected_z = expected_z * signs
    expected = reference.infer(state, z * signs, mel, every, size, hop)
    assert np.abs(found[0][:whole] - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(found[1] - expected_z).max() < 1e-4 * np.abs(expected_z).max()
    assert abs(found[2] - expected_loss) < 1e-4 * abs(expected_loss)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(SIZES))
def test_a_converted_model_is_the_same_function(tmp_path, name):
    sizes, early = SIZES[name]
    state = reference.state(np.random.RandomState(1), **sizes)
    hp, weights = converted(tmp_path, state)
    assert (hp.n_flows, hp.n_group, hp.n_layers, hp.residual_channels, hp.skip_channels) == (
        sizes['n_flows'], sizes['n_group'], sizes['layers'], sizes['units'], sizes['units'])
    assert hp.kernel_size == sizes.get('kernel', 3)
    assert_same_function(hp, weights, state, **early)


@pytest.mark.slow
@pytest.mark.own_process
def test_so_is_the_published_size(tmp_path):
    state = reference.state(np.random.RandomState(1))
    hp, weights = converted(tmp_path, state)
    assert hp == params.preset('nvidia')
    assert sum(w.size for w in weights.values()) == sum(w.size for w in state.values()) == 87879272
    assert_same_function(hp, weights, state, frames=1)


CONTAINERS = {
    'bare': (lambda state: state, ptfiles.save_zip),
    'state_dict': (lambda state: {'state_dict': collections.OrderedDict(
        ('module.' + key, value) for key, value in state.items()),
        'config': {'n_early_every': 2}, 'epoch': 3, 'optimizer': {}}, ptfiles.save_zip),
    'module': (lambda state: {'model': reference.pickled_module(state, n_early_every=2, n_group=4),
                              'iteration': 580000, 'learning_rate': 1e-4,
                              'optimizer': {'state': {0: {'exp_avg': np.ones(9, np.float32)}}}},
               ptfiles.save_legacy),
    'module, zip': (lambda state: {'model': reference.pickled_module(state)}, ptfiles.save_zip),
    'module in DataParallel': (lambda state: {'generator': ptfiles.module(
        'torch.nn.parallel.data_parallel.DataParallel',
        modules={'module': reference.pickled_module(state)})}, ptfiles.save_legacy),
    'twice in DataParallel': (lambda state: {'waveglow': {
        'module.module.' + key: value for key, value in state.items()}}, ptfiles.save_zip),
}
SPELLINGS = {'weight_g': dict, 'parametrized': reference.parametrized,
             'removed': reference.removed, 'unfused': reference.unfused,
             'NeMo': reference.nemo,
             'unfused, removed': lambda state: reference.unfused(reference.removed(state))}


@pytest.mark.slow
@pytest.mark.parametrize('container', sorted(CONTAINERS))
@pytest.mark.parametrize('spelling', sorted(SPELLINGS))
def test_containers_and_spellings(tmp_path, container, spelling):
    """All hold the same weights: to the bit, or to rounding where weight norm had been removed."""
    state = reference.state(np.random.RandomState(1), **SMALL)
    expected_hp, expected = converted(tmp_path, state)
    stored, save = CONTAINERS[container]
    hp, weights = converted(tmp_path, stored(SPELLINGS[spelling](state)), save)
    assert hp == expected_hp
    assert set(weights) == set(expected)
    for name, value in weights.items():
        if 'removed' in spelling and name.endswith(('/g', '/v')):
            continue
        np.testing.assert_array_equal(value, expected[name], name)
    for name in weights:
        if 'removed' in spelling and name.endswith('/v'):
            filters, there = (v / np.sqrt((v ** 2).sum(axis=(0, 1))) * g for v, g in (
                (w[name], w[name[:-1] + 'g']) for w in (weights, expected)))
            np.testing.assert_allclose(filters, there, rtol=0, atol=2e-6 * np.abs(there).max())


def test_a_pickled_module_of_nemo(tmp_path):
    state = reference.state(np.random.RandomState(1), **SMALL)
    module = reference.pickled_module(
        reference.nemo(state), 'nemo.collections.tts.modules.waveglow.WaveGlowModule',
        part='nemo.collections.tts.modules.submodules.WaveNet', mode=ptfiles.Call(
            ptfiles.Name('nemo.collections.tts.helpers.helpers.OperationMode'), 2))
    expected = converted(tmp_path, state)[1]
    for name, value in converted(tmp_path, module)[1].items():
        np.testing.assert_array_equal(value, expected[name], name)


def test_a_removed_filter_of_zeros_stays_one(tmp_path):
    """And its direction stays finite, for training."""
    state = reference.removed(reference.state(np.random.RandomState(1), **SMALL))
    state['WN.1.start.weight'][2:4] = [[[0]], [[1e-30]]]
    _, weights = converted(tmp_path, state)
    assert list(weights['waveglow/flow_1/start/g'][2:]) == [0, 0]
    assert (np.square(weights['waveglow/flow_1/start/v']).sum(axis=(0, 1)) > 0).all()


def test_half_precision(tmp_path):
    state = {key: value.astype(np.float16) for key, value in
             reference.state(np.random.RandomState(1), **SMALL).items()}
    _, weights = converted(tmp_path, state)
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(weights['waveglow/upsampling/bias'], state['upsample.bias'])


def test_few_flows_leave_the_interval_of_early_outputs_to_the_config(tmp_path):
    state = reference.state(np.random.RandomState(1), n_flows=2, n_group=4, units=4, layers=1)
    assert converted(tmp_path, state)[0].n_early_every == 2
    module = reference.pickled_module(state, n_early_every=5)
    wrapped = ptfiles.module('torch.nn.parallel.DataParallel', modules={'module': module})
    assert converted(tmp_path, {'model': wrapped})[0].n_early_every == 5
    for config, every in (({'n_early_every': 4}, 4), ({'n_early_every': 'x'}, 2),
                          ({'n_early_every': -1}, 2)):
        hp, _ = converted(tmp_path, {'state_dict': state, 'config': config})
        assert hp.n_early_every == every and not hp.early_output_before(1)


def narrowed(state, width):
    return dict(state, **{'upsample.weight': np.ascontiguousarray(
        state['upsample.weight'][:, :, :width])})


MEL = dict(filter_length=1024, hop_length=256, win_length=1024, n_mel_channels=80, mel_fmin=0.0,
           mel_fmax=8000.0)
STATED = {  # what waveglow-cli, and people who keep NVIDIA's config.json, have beside a state dict
    'hparams': lambda **values: {'hparams': dict(MEL, **values)},
    'config': lambda **values: {'config': {'train_config': {'seed': 1}, 'data_config': dict(
        MEL, **values), 'waveglow_config': {'n_group': 4}}},
    'namespace': lambda **values: {'hparams': ptfiles.thing('argparse.Namespace',
                                                            dict(MEL, **values))},
}


@pytest.mark.parametrize('where', sorted(STATED))
def test_rate_and_mels_that_a_file_states(tmp_path, where):
    state, stated = reference.state(np.random.RandomState(1), **SMALL), STATED[where]
    hp, _ = converted(tmp_path, dict(stated(sampling_rate=16000), state_dict=state))
    assert hp == converted(tmp_path, state)[0].replace(sample_rate=16000)
    hp, _ = converted(tmp_path, dict(stated(sampling_rate=16000, mel_fmax=None, win_length='x'),
                                     model={'state_dict': state}))
    assert (hp.sample_rate, hp.fmax, hp.win_length) == (16000, 0.0, 1024)
    hp, _ = converted(tmp_path, dict(stated(
        sampling_rate=24000, filter_length=2048, hop_length=300, win_length=1200, mel_fmin=55,
        mel_fmax=7600), state_dict=state))
    assert hp.mel == params.preset('nvidia').mel.replace(
        sample_rate=24000, n_fft=2048, hop_length=300, win_length=1200, fmin=55.0, fmax=7600.0)


def test_what_is_given_wins_over_what_is_stated(tmp_path):
    state = reference.state(np.random.RandomState(1), **SMALL)
    stored = dict(STATED['hparams'](hop_length=200, mel_fmin=20.0), state_dict=state)
    config = tmp_path / 'config.json'
    config.write_text('{"data_config": {"hop_length": 250, "sampling_rate": 24000}, "x": 1}')
    given = converted(tmp_path, stored, config=str(config))[0]
    assert (given.hop_length, given.sample_rate, given.fmin) == (250, 24000, 20.0)
    given = converted(tmp_path, stored, config=str(config),
                      overrides='hop_length=300,sample_rate=8000,fmax=3800')[0]
    assert (given.hop_length, given.sample_rate, given.fmax) == (300, 8000, 3800.0)
    for text, words in (('{"hop": 250}', 'config.json states nothing of a model'),
                        ('[1]', 'config.json states nothing'),
                        ('{', 'cannot read .*config.json as JSON'),
                        ('[' * 100000, 'config.json as JSON')):
        config.write_text(text)
        with pytest.raises(UserError, match=words):
            converted(tmp_path, stored, config=str(config))


def test_the_hop_is_that_of_the_upsampling(tmp_path):
    state = reference.state(np.random.RandomState(1), **SMALL)
    module = reference.pickled_module(narrowed(state, 800), stride=200)
    wrapped = ptfiles.module('torch.nn.parallel.DataParallel', modules={'module': module})
    for stored, options in (
            ({'model': module}, {}), ({'model': wrapped}, {}),
            (narrowed(state, 800), dict(overrides='hop_length=200')),
            ({'state_dict': narrowed(state, 800), 'config': {'hop_length': 200}}, {})):
        hp, _ = converted(tmp_path, stored, **options)
        assert (hp.hop_length, hp.upsample_width) == (200, 800)
    for stored in (reference.pickled_module(narrowed(state, 800)),
                   {'state_dict': narrowed(state, 800), 'hparams': {'hop_length': 256}}):
        hp, _ = converted(tmp_path, stored)
        assert (hp.hop_length, hp.upsample_width) == (256, 800)


@pytest.mark.slow
@pytest.mark.parametrize('hop,bands', [(200, 40), (275, 100), (300, 160), (512, 80)])
def test_other_hops_and_bands_there_and_back(tmp_path, hop, bands):
    """The same function, and the same numbers after it, at hops that n_group divides and not."""
    rate = 24000 if hop < 512 else 48000
    state = positive(reference.state(np.random.RandomState(1), units=6, layers=2, n_flows=3,
                                     n_group=8, every=2, bands=bands, width=4 * hop))
    hp, weights = converted(tmp_path, {'model': reference.pickled_module(state, stride=hop)},
                            overrides='sample_rate=%d' % rate)
    assert (hp.hop_length, hp.n_mels, hp.sample_rate) == (hop, bands, rate)
    assert_same_function(hp, weights, state, every=2)
    back, config = nvidia.to_state_dict(hp, weights)
    assert config['n_mel_channels'] == bands and set(back) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, key)


def changed(**entries):
    """A way to spoil a state dict: key (with _ for .) to new value, or None to take it out."""
    def change(state):
        for key, value in entries.items():
            key = key.replace('__', '.')
            if value is None:
                del state[key]
            else:
                state[key] = value(state[key]) if callable(value) else value
        return state
    return change


def spoilt(x, value):
    x = x.copy()
    x.flat[-1] = value
    return x


REFUSALS = {
    'no model': (lambda state: {'iteration': 3}, 'holds no model .*iteration'),
    'a list': (lambda state: [1, 2], 'holds no model .*something else'),
    'another network': (lambda state: {'encoder.weight': np.ones(3, np.float32)},
                        'holds no model .*encoder.weight'),
    'a bias that is a number': (changed(WN__1__start__bias=np.full([], 3, np.float32)),
                                'do not fit together'),
    'a key of escape sequences': (changed(**{'WN.0.\x1b[31m\n' + 'x' * 300: np.ones(1, 'f')}),
                                  r'holds WN.0.\\x1b\[31m\\n'),
    'too many flows': (lambda state: dict(state, **{
        'convinv.%d.conv.weight' % k: state['convinv.0.conv.weight'] for k in range(300)}),
        'n_flows=300'),
    'first architecture': (lambda state: {
        'model': reference.pickled_module(state, 'glow_old.WaveGlow')}, 'first architecture'),
    'first architecture in a package': (lambda state: {'model': reference.pickled_module(
        state, 'tacotron2.waveglow.glow_old.WaveGlow')}, 'first architecture'),
    'SqueezeWave': (lambda state: {'model': reference.pickled_module(
        state, 'glow.SqueezeWave')}, r'a SqueezeWave, another .*\(class glow.SqueezeWave\)'),
    'a state dict of SqueezeWave': (lambda state: {'state_dict': {
        'WN.0.in_layers.0.0.weight': np.ones(3, 'f')}}, 'holds a SqueezeWave, another'),
    'that of upsampling by a convolution': (lambda state: dict(state, **{
        'WN.0.in_layers.0.0.weight': np.ones(3, 'f')}), 'holds a SqueezeWave, another'),
    'another class': (lambda state: {'model': reference.pickled_module(state, 'my.Vocoder')},
                      'holds a model of class my.Vocoder, which is not known here'),
    'HiFi-GAN': (lambda state: {'generator': {'conv_pre.bias': np.ones(3, 'f')}},
                 'holds a HiFi-GAN'),
    'ParallelWaveGAN': (lambda state: {'model': {'generator': {
        'first_conv.bias': np.ones(3, 'f')}}, 'steps': 4}, 'the ParallelWaveGAN toolkit'),
    'Tacotron 2': (lambda state: {'state_dict': {
        'embedding.weight': np.ones(3, 'f'), 'decoder.prenet.layers.0.weight': np.ones(3, 'f')}},
        'holds a Tacotron 2'),
    'a tensor lost': (changed(WN__1__in_layers__1__weight_v=None), 'WN.1.in_layers.1.weight'),
    'a bias lost': (changed(WN__1__end__bias=None), 'has no WN.1.end.bias'),
    'the gains lost': (changed(WN__1__start__weight_g=None), 'has no WN.1.start.weight_g'),
    'a flow lost': (changed(convinv__1__conv__weight=None),
                    'holds WN.1.*, and its other weights are those of 1 flows of 2 layers'),
    'another shape': (changed(WN__1__end__weight=lambda w: w[:, 1:]), 'WN.1.end.weight has shape'),
    'an axis lost': (changed(WN__0__in_layers__0__weight_v=lambda w: w[:, :, 0]),
                     'has 2 axes instead of 3'),
    'NaN': (changed(WN__2__start__weight_v=lambda w: spoilt(w, np.nan)),
            'WN.2.start.weight_v holds values that are NaN'),
    'beyond float32': (changed(upsample__bias=lambda b: b.astype(np.float64) + 1e300),
                       'upsample.bias holds values that are NaN or infinite'),
    'quantized': (changed(WN__2__end__weight=lambda w: w.astype(np.int8)), 'int8'),
    'a filter of length zero': (changed(WN__0__start__weight_v=np.zeros_like), 'length zero'),
    'other mels than its weights': (lambda state: {
        'state_dict': state, 'hparams': {'n_mel_channels': 40}},
        'states n_mel_channels of 40, and its weights take mels of 80 bands'),
    'another hop than its upsampling': (lambda state: {
        'model': reference.pickled_module(state, stride=200), 'hparams': {'hop_length': 300}},
        'states a hop_length of 300, and its upsampling has a stride of 200'),
    'a hop beyond measure': (lambda state: reference.pickled_module(state, stride=2 ** 2000),
                             'has a hop of 11481.*[.]{3} sam'),
    'a hop that nobody tells': (lambda state: narrowed(state, 800),
                                'has 800 taps, in all .*: give .*--hparams=hop_length=200$'),
    'nor this': (lambda state: {'state_dict': narrowed(state, 600), 'config': {'hop_length': 'x'}},
                 'hop_length=150'),
    'a range that nobody tells': (lambda state: {
        'state_dict': state, 'hparams': {'sampling_rate': 8000}},
        'is of 8000 Hz and .*mel_fmax; .*fmax=4000'),
    'a range beyond the rate': (lambda state: {
        'state_dict': state, 'hparams': {'sampling_rate': 8000, 'mel_fmax': 8000.0}},
        'reaches 8000 Hz, over half the sample rate of 8000'),
    'irregular early outputs': (changed(
        convinv__1__conv__weight=np.eye(2, dtype=np.float32)[:, :, None]), 'work on 4, 2, 2'),
    'an even kernel': (lambda state: {key: w[:, :, :2] if 'in_layers' in key and w.ndim == 3
                                      and w.shape[2] == 3 else w for key, w in state.items()},
                       'kernel_size=2 must be odd'),
    'parts that do not fit': (lambda state: changed(
        WN__0__res_layers__0__weight_v=lambda w: w[:, :1])(reference.unfused(state)),
        'do not fit together'),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(REFUSALS))
def test_refusals(tmp_path, name):
    spoil, words = REFUSALS[name]
    state = spoil(reference.state(np.random.RandomState(1), **SMALL))
    with pytest.raises(UserError, match='waveglow.pt: .*(%s)' % words) as refusal:
        converted(tmp_path, state)
    assert '\n' not in str(refusal.value) and len(str(refusal.value)) < 400
    assert 'attack' not in str(refusal.value)


def test_tensors_that_are_one_in_the_file_are_bounded_by_it(tmp_path):
    """Else a small file could ask for any amount of memory."""
    state = reference.state(np.random.RandomState(1), n_flows=60, n_group=8, every=99, units=64,
                            layers=5)
    for key in state:
        if key.endswith('cond_layer.weight_v'):
            state[key] = state['WN.0.cond_layer.weight_v']
    with pytest.raises(UserError, match='add up to more than the file'):
        converted(tmp_path, state)


# --- There and back -------------------------------------------------------------------------------

def determinants(state):
    return [np.linalg.det(value[:, :, 0]) for key, value in sorted(state.items())
            if key.startswith('convinv.')]


def positive(state):
    """With positive determinants, as models have that NVIDIA's code trained."""
    for key, value in state.items():
        if key.startswith('convinv.'):
            value[0] *= np.sign(np.linalg.det(value[:, :, 0]))
    return state


@pytest.mark.parametrize('name', sorted(SIZES))
def test_there_and_back_to_the_bit(tmp_path, name):
    state = positive(reference.state(np.random.RandomState(1), **SIZES[name][0]))
    back, config = nvidia.to_state_dict(*converted(tmp_path, state))
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].dtype == np.float32 and back[key].flags.c_contiguous
        np.testing.assert_array_equal(back[key], value, key)
    assert config['n_flows'] == SIZES[name][0]['n_flows']
    assert config['WN_config'] == {'n_layers': SIZES[name][0]['layers'],
                                   'n_channels': SIZES[name][0]['units'],
                                   'kernel_size': SIZES[name][0].get('kernel', 3)}


@pytest.mark.slow
@pytest.mark.parametrize('changes', [
    dict(),                                             # repetition, mel_mean, mel_std, audio_scale
    dict(residual_channels=7, skip_channels=9),
    dict(residual_channels=9, skip_channels=4, n_layers=1),
    dict(causal=True, kernel_size=2),
    dict(causal=True, kernel_size=3, n_group=4),
    dict(upsampling='transposed', upsample_width=700, mel_mean=0.0, mel_std=2.0),
    dict(upsampling='transposed', upsample_width=256, mel_mean=0.0, audio_scale=1.0),
    dict(hop_length=275),                               # n_group does not divide it
    dict(hop_length=300, n_group=16),
])
def test_what_nvidias_architecture_can_express_of_ours(changes):
    hp = TINY.replace(**changes)
    weights = random_weights(hp, 3)
    kept = {name: value.copy() for name, value in weights.items()}
    state, config = nvidia.to_state_dict(hp, weights)
    assert config['WN_config']['n_channels'] % 2 == 0
    assert config['WN_config']['kernel_size'] % 2 == 1
    assert state['upsample.weight'].shape == (80, 80, 4 * hp.hop_length)
    negative = [np.linalg.det(value) < 0 for name, value in weights.items() if name.endswith('/W')]
    assert min(determinants(state)) > 0
    assert_same_function(hp, weights, state, hp.n_early_every, hp.n_early_size,
                         reversed_z=sum(negative) % 2 == 1)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, kept[name], 'export changed ' + name)


@pytest.mark.slow
@pytest.mark.parametrize('negative', [[0], [2], [0, 1], [1, 4], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_reflections_become_rotations(tmp_path, negative):
    """NVIDIA's loss is NaN where a determinant is negative. Early outputs leave on the way."""
    sizes, early = SIZES['often early']
    state = positive(reference.state(np.random.RandomState(1), **sizes))
    for k in negative:
        state['convinv.%d.conv.weight' % k][0] *= -1
    hp, weights = converted(tmp_path, state)
    back, _ = nvidia.to_state_dict(hp, weights)
    assert min(determinants(back)) > 0 > min(determinants(state))
    assert_same_function(hp, weights, back, reversed_z=len(negative) % 2 == 1, **early)
    for key, value in state.items():
        np.testing.assert_array_equal(np.abs(back[key]), np.abs(value), key)


@pytest.mark.parametrize('changes,words', [
    (dict(encoder='conv'), 'encoder=conv'),
    (dict(encoder='blstm'), 'encoder=blstm'),
    (dict(upsampling='two_transposed'), 'upsampling=two_transposed'),
    (dict(cond_terms=2), 'cond_terms=2'),
    (dict(upsampling='transposed', upsample_width=1025, mel_mean=0.0), 'upsample_width=1025'),
    (dict(upsampling='transposed', upsample_width=1024), 'mel_mean=-5'),
])
def test_what_it_cannot_express_is_named(changes, words):
    with pytest.raises(UserError, match=words):
        nvidia.to_state_dict(TINY.replace(**changes), {})
