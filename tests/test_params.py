"""params.py: presets, overrides, validation, params.json."""
import dataclasses
import json

import pytest

import params
from errors import UserError
from params import HParams


def test_presets_are_the_published_ones():
    weixsong = params.preset('weixsong')
    assert (weixsong.sample_rate, weixsong.mel_profile, weixsong.n_flows, weixsong.n_group) == (
        22050, 'weixsong', 12, 8)
    assert (weixsong.n_early_every, weixsong.n_early_size, weixsong.n_layers) == (4, 2, 8)
    assert (weixsong.residual_channels, weixsong.kernel_size, weixsong.sigma) == (256, 3, 0.707)
    assert (weixsong.encoder, weixsong.encoder_layers, weixsong.encoder_width,
            weixsong.encoder_channels, weixsong.upsampling) == ('conv', 2, 5, 128, 'repeat')
    assert (weixsong.lr, weixsong.lr_decay_rate, weixsong.lr_decay_steps) == (1e-3, 0.95, 50000)
    assert weixsong.clip_frames == 100
    assert [weixsong.flow_channels(k) for k in range(12)] == [8] * 4 + [6] * 4 + [4] * 4
    paper = params.preset('paper')
    assert (paper.residual_channels, paper.skip_channels, paper.sigma, paper.lr,
            paper.batch_size) == (512, 256, 0.707, 1e-4, 24)
    assert paper.clip_frames == 62  # of 16,000 samples, whole frames of 256
    nvidia = params.preset('nvidia')
    assert (nvidia.mel_profile, nvidia.upsampling, nvidia.upsample_width,
            nvidia.sigma) == ('tacotron2', 'transposed', 1024, 1.0)
    assert params.preset('small').sample_rate == 16000


def test_hyperparameters_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.preset('weixsong').lr = 1


def test_override():
    hp = params.override(params.preset('small'), ' lr=1e-4, batch_size=16,causal=true,encoder=conv')
    assert (hp.lr, hp.batch_size, hp.causal, hp.encoder) == (1e-4, 16, True, 'conv')
    assert params.override(hp, '') == hp
    assert params.override(hp, 'batch_size=1e2').batch_size == 100
    assert params.preset('small').batch_size != 100


@pytest.mark.parametrize('text,words', [
    ('n_flow=8', ["'n_flow'", "'n_flows'"]),
    ('zzz=8', ['zzz', 'sample_rate']),
    ('batch_size=abc', ['batch_size', 'whole number', "'abc'"]),
    ('batch_size=1.5', ['batch_size', 'whole number']),
    ('causal=maybe', ['causal', 'true or false']),
    ('lr', ['name=value', "'lr'"]),
    ('lr=nan', ['lr', 'finite']),
    ('lr=0', ['lr', 'more than zero']),
    ('n_layers=-1', ['n_layers', 'more than zero']),
    ('ema_decay=1', ['ema_decay', 'less than 1']),
    ('conv_form=conv2d_nwhc', ['conv_form', "'conv2d_nhwc'"]),
    ('upsampling=transpose', ["'transposed'"]),
    ('mel_profile=tacotorn2', ["'tacotron2'"]),
    ('n_group=512', ['n_group=512', '256']),
    ('n_flows=40', ['channels', 'fewer flows']),
    ('n_early_size=3', ['even']),
    ('kernel_size=4', ['kernel_size=4', '5', 'causal=true']),
    ('n_layers=17', ['n_layers=17', '16']),
    ('clip_samples=255', ['clip_samples=255', '256']),
    ('sample_rate=8000', ['tacotron2', '8000 Hz', '16000']),
    ('upsampling=transposed,upsample_width=100', ['upsample_width=100', '256']),
    ('causal=true,encoder=blstm', ['causal', 'blstm']),
    ('cond_terms=2,upsampling=transposed,upsample_width=512', ['cond_terms=2', 'repeat']),
    ('cond_terms=17', ['cond_terms=17', '16 groups']),
    ('nll_share=1.5', ['nll_share=1.5', '1 or less']),
    ('adversarial_weight=1', ['adversarial_weight=1', 'stft_weight=1']),
    ('stft_distance=mel', ['stft_distance=mel', "'mels'"]),
    ('batch_size=1000000000', ['batch_size=1e+09', '65536 or less']),
    ('residual_channels=1e18', ['residual_channels=1e+18', 'channels']),
    ('warmup_steps=1e18', ['warmup_steps=1000000000000000000', '32 bits']),
    ('lr_decay_steps=' + '9' * 1000, ['lr_decay_steps', '999...']),
    ('batch_size=-' + '9' * 1000, ['batch_size', '999...']),
    ('batch_size=-' + '9' * 200, ['batch_size', 'digits', 'more than zero']),
    ('batch_size=' + 'x' * 1000, ['batch_size', '...']),
    ('x' * 1000 + '=1', ['...']),
    ('eval_seconds=1e308', ['eval_seconds=1e+308', 'a day']),
    ('lr=1e308', ['lr=1e+308', '32 bits']),
    ('sigma=1e-300', ['sigma=1e-300', '32 bits']),
    ('mel_mean=-1e300', ['mel_mean=-1e+300', '32 bits']),
])
def test_refusals_say_what_and_what_instead(text, words):
    with pytest.raises(UserError) as error:
        params.override(params.preset('small'), text)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert '\n' not in message and len(message) < 1200


def test_former_names_are_understood():
    """The preset and mel profile weixsong were called `seed`."""
    hp = params.preset('weixsong')
    assert params.preset('seed') is hp
    for text in ('mel_profile=seed', 'mel_profile=weixsong'):
        assert params.override(params.preset('nvidia'), text).mel_profile == 'weixsong'
    stored = dict(dataclasses.asdict(hp), mel_profile='seed')
    assert params.from_json(json.dumps(stored), 'here') == hp
    assert json.loads(params.to_json(hp))['mel_profile'] == 'weixsong'


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="'nvidia'"):
        params.preset('nvdia')


def test_json_returns_every_field():
    for name in params.PRESETS:
        hp = params.preset(name)
        assert params.from_json(params.to_json(hp), 'here') == hp


@pytest.mark.parametrize('text,words', [
    ('{', 'not JSON'),
    ('[1]', 'not an object'),
    ('{"n_flow": 3}', "'n_flows'"),
    ('{"n_flows": "3"}', 'whole number'),
    ('{"n_flows": true}', 'whole number'),
    ('{"n_group": 512}', 'n_group=512'),
    ('[' * 100000, 'not JSON'),
    ('{"lr": 1%s}' % ('0' * 400), 'lr'),
    ('{"lr": "%s"}' % ('0' * 4000), '...'),
])
def test_json_is_checked_like_the_command_line(text, words):
    with pytest.raises(UserError, match='params.json') as error:
        params.from_json(text, 'some/params.json')
    assert words in str(error.value) and len(str(error.value)) < 1000


def test_integers_pass_for_numbers_in_json():
    assert params.from_json(json.dumps({'lr': 1}), 'here').lr == 1.0


def test_load_names_the_file(tmp_path):
    with pytest.raises(UserError, match='params.json'):
        params.load(str(tmp_path))
    assert not params.exists(str(tmp_path))
    (tmp_path / 'params.json').write_text(params.to_json(params.preset('small')))
    assert params.load(str(tmp_path)) == params.preset('small')


def test_save_makes_the_folder_and_leaves_nothing_else(tmp_path):
    directory = tmp_path / 'new' / 'run'
    params.save(str(directory), params.preset('small'))
    assert [path.name for path in directory.iterdir()] == ['params.json']
    assert params.load(str(directory)) == params.preset('small')


def test_load_if_exists(tmp_path):
    assert params.load_if_exists(str(tmp_path)) is None
    params.save(str(tmp_path), params.preset('paper'))
    assert params.load_if_exists(str(tmp_path)) == params.preset('paper')
    (tmp_path / 'params.json').write_text('{')
    with pytest.raises(UserError, match='not JSON') as error:
        params.load_if_exists(str(tmp_path))
    assert isinstance(error.value.__cause__, ValueError)


def test_parse_overrides_tells_which_names_are_set():
    assert params.parse_overrides('lr=1e-4, batch_size=8') == {'lr': 1e-4, 'batch_size': 8}
    assert params.parse_overrides('') == params.parse_overrides(None) == {}


def test_resolve_prefers_the_preset_then_what_is_stored_then_the_default():
    small, paper = params.preset('small'), params.preset('paper')
    assert params.resolve(None) == params.preset(params.DEFAULT_PRESET)
    assert params.resolve(None, '', lambda: None) == params.preset(params.DEFAULT_PRESET)
    assert params.resolve(None, 'lr=0.5', lambda: None, lambda: small) == small.replace(lr=0.5)

    def never():
        raise AssertionError('is not needed')
    assert params.resolve('paper', 'lr=0.5', never) == paper.replace(lr=0.5)
    assert params.resolve(None, '', lambda: small, never) == small


def test_require_same_names_both_values():
    small = params.preset('small')
    with pytest.raises(UserError) as error:
        params.require_same(small, params.preset('weixsong'), params.DATA_FIELDS, 'the data in X',
                            'do Y')
    assert str(error.value) == ('this command and the data in X differ in sample_rate 16000 and '
                                '22050, mel_profile tacotron2 and weixsong; do Y')
    params.require_same(small, small.replace(lr=1.0), params.MODEL_FIELDS, 'X', 'Y')


def test_every_field_is_of_the_model_or_free_to_change():
    """A model field left out of MODEL_FIELDS would let a run resume into another model."""
    assert set(params.MODEL_FIELDS) <= {f.name for f in dataclasses.fields(HParams)}
    free = {f.name for f in dataclasses.fields(HParams)} - set(params.MODEL_FIELDS)
    assert free == {
        'sigma', 'nll_weight', 'nll_share', 'stft_weight', 'stft_distance', 'stft_sigma',
        'adversarial_weight', 'dither', 'conv_form',
        'lr', 'warmup_steps', 'lr_schedule', 'lr_decay_rate',
        'lr_decay_steps', 'adam_beta1', 'adam_beta2', 'adam_epsilon', 'clip_norm', 'ema_decay',
        'batch_size', 'clip_samples', 'dither', 'summary_every', 'eval_every', 'eval_utterances',
        'eval_seconds', 'gen_test_wave_every', 'gen_utterances', 'gen_sigma',
            'gen_correction_rounds', 'save_every',
        'save_minutes', 'keep_checkpoints'}
