"""Mel definitions as hyperparameters: profiles, single fields, what old files mean, refusals."""
import dataclasses
import json

import pytest

import params
from datasets import mel_definition
from datasets.mel_definition import FIELDS, PROFILES, MelDefinition, MelHParams
from errors import UserError

SMALL = params.preset('small')


def overridden(text, hp=SMALL):
    return params.override(hp, text)


def test_every_field_is_a_hyperparameter_of_the_same_type():
    """The two lists of fields are kept by hand."""
    flat = {f.name: f.type for f in dataclasses.fields(MelHParams)}
    assert flat.pop('mel_profile') is str
    assert set(flat) == set(FIELDS) <= set(params.DATA_FIELDS)
    for f in dataclasses.fields(MelDefinition):
        name = mel_definition.FLAT_NAMES.get(f.name, f.name)
        assert flat[name] is (tuple if f.name in ('mean', 'scale') else f.type), name


@pytest.mark.parametrize('name', sorted(PROFILES))
def test_a_profile_sets_all(name):
    found = MelHParams(mel_profile=name)
    assert found.mel == PROFILES[name] and found.mel_name == name
    assert found.data() == {'sample_rate': PROFILES[name].sample_rate, 'mel_profile': name}
    assert hash(found.mel) == hash(PROFILES[name])


def test_single_fields_win_in_any_order():
    expected = PROFILES['espnet'].replace(sample_rate=16000, fmin=0.0, padding='same')
    for text in ('mel_profile=espnet,fmin=0,padding=same',
                 'fmin=0,padding=same,mel_profile=espnet'):
        hp = overridden(text)
        assert hp.mel == expected and hp.mel_profile == 'espnet'
        assert hp.mel_name == 'espnet with fmin=0.0, padding=same'
        assert hp.data() == {'sample_rate': 16000, 'mel_profile': 'espnet', 'fmin': 0.0,
                             'padding': 'same'}
    assert overridden('mel_profile=espnet', hp).mel == expected.replace(fmin=80.0, padding='center')
    assert overridden('fmax=7000', hp).mel == expected.replace(fmax=7000.0)
    assert overridden('log=10,mel_gain=2,power=2').mel == PROFILES['tacotron2'].replace(
        sample_rate=16000, log='10', gain=2.0, power=2)


@pytest.mark.parametrize('preset, text, rate', [
    ('weixsong', 'mel_profile=hifigan', 22050),
    ('weixsong', 'mel_profile=vocos', 24000),             # the profile's own
    ('weixsong', 'mel_profile=vocos,sample_rate=16000', 16000),
    ('weixsong', 'sample_rate=16000,mel_profile=vocos', 16000),
    ('small', 'mel_profile=vocos', 16000),                # the preset has chosen 16 kHz
    ('small', 'mel_profile=vocos,sample_rate=24000', 24000),
])
def test_a_profile_sets_the_rate_unless_it_was_chosen(preset, text, rate):
    assert overridden(text, params.preset(preset)).sample_rate == rate


def test_a_chosen_rate_stays_from_command_to_command():
    hp = params.from_json(params.to_json(overridden('mel_profile=vocos')), 'x')
    assert overridden('mel_profile=f5', hp).sample_rate == 16000
    hp = overridden('mel_profile=vocos', params.preset('weixsong'))
    assert overridden('mel_profile=bigvgan_24k', hp).sample_rate == 24000
    assert overridden('mel_profile=tacotron2', hp).sample_rate == 22050


@pytest.mark.parametrize('stored, profile, rate', [
    ({'sample_rate': 16000, 'mel_profile': 'tacotron2', 'n_group': 16}, 'tacotron2', 16000),
    ({'sample_rate': 16000, 'mel_profile': 'seed'}, 'weixsong', 16000),
    ({'mel_profile': 'tacotron2'}, 'tacotron2', 22050), ({'lr': 0.1}, 'weixsong', 22050)])
def test_params_json_of_before_means_what_it_meant(stored, profile, rate):
    hp = params.from_json(json.dumps(stored), 'params.json')
    assert hp.mel == PROFILES[profile].replace(sample_rate=rate)


def test_json_returns_every_value():
    hp = overridden('mel_profile=nemo,n_mels=3,mel_clip_max=2,drop_last_frame=yes').replace(
        mel_stats_mean=(1.0, 2.0, 3.0), mel_stats_scale=(0.5, 0.25, 0.125))
    again = params.from_json(params.to_json(hp), 'x')
    assert again == hp and again.mel.mean == (1.0, 2.0, 3.0) and again.mel.drop_last_frame is True


def test_data_of_the_same_mels_are_the_same_by_any_name():
    hifigan = overridden('mel_profile=hifigan')
    for text in ('padding=same', 'mel_profile=nemo,floor_mode=clip,window=hann,padding=same'):
        other = overridden(text)
        assert mel_definition.same_data(hifigan.data(), other.data())
        params.require_same(hifigan, other, params.DATA_FIELDS, 'x', 'y')
    for text in ('padding=center', 'padding=same,fmin=10', 'padding=same,sample_rate=22050'):
        assert not mel_definition.same_data(hifigan.data(), overridden(text).data())
        with pytest.raises(UserError):
            params.require_same(hifigan, overridden(text), params.DATA_FIELDS, 'x', 'y')
    for odd in ({}, {'mel_profile': []}, {'mel_profile': 'other', 'sample_rate': 16000}):
        assert not mel_definition.same_data(odd, hifigan.data())


def test_differences_name_profiles_and_what_was_changed():
    def differences(a, b):
        return params.differences(overridden(a), overridden(b), params.DATA_FIELDS)

    assert differences('mel_profile=vocos', 'fmin=10') == (
        'mel_profile vocos and tacotron2, fmin 0.0 and 10.0')
    assert differences('sample_rate=22050', '') == 'sample_rate 22050 and 16000'
    assert differences('hop_length=128', '') == 'hop_length 128 and 256'


def test_names_of_definitions():
    name_of = mel_definition.name_of
    for name in PROFILES:
        assert name_of(PROFILES[name]) == name
    # at another rate too, where no other profile has the same values
    assert name_of(PROFILES['tacotron2'].replace(sample_rate=16000)) == 'tacotron2'
    assert name_of(PROFILES['vocos'].replace(fmin=20.0)) == 'vocos with fmin=20.0'
    standardized = PROFILES['espnet'].replace(mean=(0.0,) * 80, scale=(1.0,) * 80)
    assert name_of(standardized) == 'espnet with statistics'


@pytest.mark.parametrize('text, words', [
    ('mel_profile=hifi_gan', ["did you mean 'hifigan'"]),
    ('window=hamming', ['window=hamming', 'hann']),
    ('padding=centre', ["'center'"]),
    ('power=3', ['power=3', '1, 2']),
    ('log=2', ['log=2', 'e, 10']),
    ('n_fft=1023', ['n_fft=1023', 'even', '1024']),
    ('win_length=2048', ['win_length=2048', 'n_fft=1024']),
    ('hop_length=1100,n_group=10', ['hop_length=1100', 'win_length=1024']),
    ('fmin=8000', ['fmin=8000', '8000 Hz']),
    ('fmin=-1', ['fmin=-1']),
    ('fmax=9000', ['9000 Hz', 'sample_rate=18000']),
    ('fmax=inf', ['fmax=inf']),
    ('floor=0', ['floor=0']),
    ('n_mels=0', ['n_mels=0', 'more than zero']),
    ('n_mels=100000', ['n_mels=100000', '4096']),
    ('n_fft=' + '9' * 300, ['n_fft', 'too much']),
    ('preemphasis=1', ['preemphasis=1']),
    ('mel_gain=-1', ['mel_gain=-1']),
    ('mel_clip_min=1,mel_clip_max=0', ['mel_clip_min=1', 'mel_clip_max=0']),
    ('dynamic_range=-1', ['dynamic_range=-1']),
    ('mel_stats_mean=1', ['--mel_stats']),
    ('mean=1', ['mean', "'mel_mean'"]),
])
def test_refusals(text, words):
    with pytest.raises(UserError) as error:
        overridden(text)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert '\n' not in str(error.value) and len(str(error.value)) < 1300


def test_json_of_statistics_is_checked():
    for value in ('[1, "2"]', '3', '[[1]]', '[1, 2]'):
        with pytest.raises(UserError, match='params.json'):
            params.from_json('{"mel_stats_mean": %s}' % value, 'params.json')
