"""Mels of other projects: what values tell for certain is refused by name, padding is cut."""
import os

import numpy as np
import pytest
from conftest import ROOT
from speech import definition

from datasets import audio_files, mel_files, mel_transform
from datasets.mel_definition import PROFILES
from errors import UserError

RATE = 16000


@pytest.fixture(scope='module')
def mels():
    """Natural logarithms of magnitudes of every bundled utterance."""
    folder = os.path.join(ROOT, 'samples', 'wavs')
    return [mel_transform.mel_spectrogram(
        audio_files.read_wav(os.path.join(folder, name), RATE), definition('tacotron2', RATE))
        for name in sorted(os.listdir(folder)) if name.endswith('.wav')]


def coqui(mel):
    """20 log10 with floor 1e-8, reference 20, minimum -100, symmetric to 4."""
    decibels = 20 * np.log10(np.maximum(np.exp(mel), 1e-8)) - 20
    return np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)


def standardized(mel):
    return (mel - mel.mean(axis=0)) / mel.std(axis=0)


@pytest.mark.parametrize('scale, words', [
    (coqui, 'Coqui'), (standardized, 'standardized bands'), (np.exp, 'without a logarithm')])
def test_scales_of_other_projects_are_refused_by_name(scale, words, mels):
    refused = 0
    for mel in mels:
        mel_files.check_mel_values(mel, definition('tacotron2'), 'x.npy')
        foreign = scale(mel).astype(np.float32)
        if scale is coqui and np.count_nonzero(foreign == -4) < 2:
            foreign[0, :2] = -4     # this utterance is never silent in a band
        with pytest.raises(UserError, match='x.npy holds values') as error:
            mel_files.check_mel_values(foreign, definition('tacotron2'), 'x.npy')
        refused += words in str(error.value)
    # of a quiet one, magnitudes within 0..1 look like weixsong's
    assert refused >= len(mels) - 2


SOME = [os.path.join(ROOT, 'samples', 'wavs', name + '.wav')
        for name in ('auth-incorrect', 'conf-invalid', 'pbx-invalidpark', 'tt-weasels')]


@pytest.mark.parametrize('name', sorted(PROFILES))
def test_mels_of_every_profile_pass_as_their_own_predicted_ones_too(name):
    d, rng = PROFILES[name], np.random.RandomState(0)
    for path in SOME:
        mel = mel_transform.mel_spectrogram(audio_files.read_wav(path, d.sample_rate), d)
        standardized = d.replace(mean=tuple(mel.mean(axis=0)),
                                 scale=tuple(np.maximum(mel.std(axis=0), 0.05)))
        for values, by in ((mel, d), (mel_transform.mel_values(
                mel_transform.mel_magnitudes(mel, d), standardized), standardized)):
            predicted = 0.9 * values + 0.1 * values.mean() + 0.1 * values.std() * rng.randn(
                *values.shape)
            for each in (values, predicted):
                mel_files.check_mel_values(each, by, 'x.npy')
            assert mel_files.cut_padding(values, by)[1] == 0


@pytest.mark.parametrize('own, other, words', [
    ('espnet', 'standardized', 'standardized bands'), ('espnet', 'tacotron', 'weixsong'),
    ('hifigan', 'standardized', 'standardized bands'), ('vocos', 'magnitudes', 'logarithm'),
    ('coqui', 'tacotron2', 'tacotron2'), ('rayhane', 'weixsong', 'weixsong'),
    ('nemo', 'coqui', 'coqui'), ('tacotron', 'coqui', 'coqui'), ('whisper', 'tacotron2', 'log'),
    ('standardized', 'tacotron2', 'without statistics'), ('standardized', 'coqui', 'coqui')])
def test_what_is_of_another_scale_is_told_by_any_profile(own, other, words):
    def by(name, path):
        rate = 22050
        logs = mel_transform.mel_spectrogram(audio_files.read_wav(path, rate), PROFILES['espnet'])
        standardized = PROFILES['espnet'].replace(mean=tuple(logs.mean(axis=0)),
                                                  scale=tuple(logs.std(axis=0)))
        if name == 'magnitudes':
            return np.exp(logs), None
        d = standardized if name == 'standardized' else definition(name, rate)
        return mel_transform.mel_spectrogram(audio_files.read_wav(path, rate), d), d

    for path in SOME:
        foreign = by(other, path)[0]
        if other == 'coqui' and np.count_nonzero(foreign == -4) < 2:
            foreign[0, :2] = -4     # this utterance is never silent in a band
        with pytest.raises(UserError, match='x.npy holds values') as error:
            mel_files.check_mel_values(foreign, by(own, path)[1], 'x.npy')
        assert words in str(error.value)


def test_mels_of_a_network_pass(mels):
    """A predicted mel is smoother, and off by a little."""
    rng = np.random.RandomState(0)
    for mel in mels:
        mel_files.check_mel_values(0.9 * mel + 0.3 * rng.randn(*mel.shape),
                                   definition('tacotron2'), 'x.npy')


def test_the_padding_of_a_batch_is_cut(mels):
    mel = mels[0]
    padded = np.pad(mel, [[0, 50], [0, 0]])
    kept, cut = mel_files.cut_padding(padded, definition('tacotron2'))
    assert cut == 50
    np.testing.assert_array_equal(kept, mel)
    assert mel_files.cut_padding(mel, definition('tacotron2'))[1] == 0
    assert mel_files.cut_padding(padded, definition('weixsong'))[1] == 0    # there 0 is silence
    assert mel_files.cut_padding(padded, definition('coqui'))[1] == 50


def test_npz_of_one_array(tmp_path, mels):
    path = str(tmp_path / 'x.npz')
    np.savez(path, mel=mels[0])
    np.testing.assert_array_equal(mel_files.read_mel(path, 80), mels[0])
    np.savez(path, a=mels[0], b=mels[1])
    with pytest.raises(UserError, match='2 arrays and not one: a, b'):
        mel_files.read_mel(path, 80)
    with open(path, 'r+b') as f:
        f.truncate(3000)
    with pytest.raises(UserError, match='x.npz: cannot be read'):
        mel_files.read_mel(path, 80)
    np.savez(path, mel=np.array([{}], dtype=object))
    with pytest.raises(UserError, match='x.npz: cannot be read'):
        mel_files.read_mel(path, 80)
