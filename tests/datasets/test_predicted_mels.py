"""Training on mels that an acoustic model predicted: taken, trimmed, converted or refused."""
import os
import shutil
import sys

import numpy as np
import pytest
import soundfile
from graphs import TINY
from speech import WAVS, definition, refusal

import params
import preprocess_data
from datasets import audio_files, mel_files, predicted_mels, preprocessing
from datasets.mel_definition import PROFILES
from datasets.mel_transform import mel_spectrogram
from datasets.predicted_mels import PredictedMel, PredictedMels

NAMES = 'tt-weasels', 'tt-somethingwrong'
HP = TINY


@pytest.fixture
def corpus(tmp_path):
    """A folder of two recordings, in a folder."""
    for name in NAMES:
        path = tmp_path / 'wavs' / 'a' / (name + '.wav')
        os.makedirs(str(path.parent), exist_ok=True)
        shutil.copy(os.path.join(WAVS, name + '.wav'), str(path))
    return tmp_path


def recording(name, rate=16000):
    return audio_files.read_wav(os.path.join(WAVS, name + '.wav'), rate)


def predict(corpus, profile, suffix='.npy', frames=0):
    """Writes what an acoustic model might predict: the mel, a bit louder, so much longer."""
    folder = corpus / 'predicted' / 'a'
    os.makedirs(str(folder), exist_ok=True)
    for name in NAMES:
        mel = mel_spectrogram(1.1 * recording(name, profile.sample_rate), profile)
        mel = np.pad(mel, ((0, max(0, frames)), (0, 0)), mode='edge')[:len(mel) + frames]
        np.save(str(folder / (name + suffix)), mel.T)
    return PredictedMels(str(corpus / 'predicted'), profile)


def preprocess(corpus, predicted):
    return preprocessing.preprocess(str(corpus / 'wavs'), str(corpus / 'mels'), str(corpus), HP,
                                    test_size=1, predicted=predicted)


def written(corpus, summary, name):
    """(audio, mel) that training reads."""
    audio = audio_files.read_wav(os.path.join(summary.wave_dir, 'a', name + '.wav'), 16000)
    return audio, mel_files.read_mel(str(corpus / 'mels' / 'a' / (name + '.mel')), 80)


def test_mels_of_the_own_definition_are_taken_as_they_are(corpus):
    summary = preprocess(corpus, predict(corpus, HP.mel))
    for name in NAMES:
        audio, mel = written(corpus, summary, name)
        np.testing.assert_array_equal(audio, recording(name))
        np.testing.assert_allclose(mel, mel_spectrogram(1.1 * audio, HP.mel), atol=1e-4)
    assert not summary.notes and not summary.skipped


@pytest.mark.parametrize('profile', [PROFILES['tacotron2'], definition('hifigan'),
                                     PROFILES['espnet_24k']])
def test_mels_of_others_are_converted_and_fit_the_audio(corpus, profile):
    summary = preprocess(corpus, predict(corpus, profile))
    for name in NAMES:
        audio, mel = written(corpus, summary, name)
        expected = mel_spectrogram(1.1 * audio, HP.mel)
        assert abs(len(mel) - len(expected)) <= 2
        frames = min(len(mel), len(expected)) - 2
        band = slice(5, 75)

        def distance(later):
            inner = slice(10 + later, frames - 10 + later)
            return np.abs(mel[10:frames - 10, band] - expected[inner, band]).mean()

        assert distance(0) < 0.2 and min(distance(-1), distance(1)) > 2 * distance(0)
        if profile == definition('hifigan'):        # half a frame later than the recording
            np.testing.assert_array_equal(audio, recording(name)[128:])
            assert distance(0) < 0.01


@pytest.mark.parametrize('frames, note', [
    (1, None), (-1, None), (5, 'longer than it; the end of the mel was left out'),
    (-5, 'shorter than it; its end was left out')])
def test_a_few_frames_are_trimmed(corpus, frames, note):
    summary = preprocess(corpus, predict(corpus, HP.mel, frames=frames))
    assert len(summary.train + summary.test) == 2 and not summary.skipped
    for name in NAMES:
        audio, mel = written(corpus, summary, name)
        assert len(mel) == 1 + len(audio) // 256 + min(0, frames)
    assert [said.endswith(note or '') for _, said in summary.notes] == [True] * (2 if note else 0)


def test_another_length_is_refused_with_the_numbers(corpus):
    """As of a hop that was not named."""
    predict(corpus, definition('tacotron2').replace(hop_length=200))
    predicted = PredictedMels(str(corpus / 'predicted'), HP.mel)
    samples = len(recording('tt-somethingwrong'))
    told = ('tt-somethingwrong.npy has %d frames, %.3f seconds, and the recording %d, '
            '%.3f seconds; predict it with' % (1 + samples // 200, (1 + samples // 200) * 0.016,
                                 1 + samples // 256, samples / 16000))
    with pytest.raises(preprocessing.UserError, match=told):
        preprocess(corpus, predicted)


def test_what_has_no_mel_is_skipped(corpus):
    predicted = predict(corpus, HP.mel)
    os.unlink(str(corpus / 'predicted' / 'a' / (NAMES[0] + '.npy')))
    with pytest.raises(preprocessing.UserError, match='test_size=1'):
        preprocess(corpus, predicted)
    shutil.copy(os.path.join(WAVS, 'tt-weasels.wav'), str(corpus / 'wavs' / 'a' / 'more.wav'))
    shutil.copy(str(corpus / 'predicted' / 'a' / (NAMES[1] + '.npy')),
                str(corpus / 'predicted' / 'a' / 'more.npy'))
    (path, reason), = [each for each in preprocess(corpus, predict(corpus, HP.mel)).skipped]
    assert 'frames' in reason and path == os.path.join('a', 'more.wav')
    os.unlink(str(corpus / 'predicted' / 'a' / 'more.npy'))
    (path, reason), = preprocess(corpus, predicted).skipped
    assert reason.startswith('there is no predicted mel of it in')


def test_only_what_changed_is_computed_anew(corpus):
    predicted = predict(corpus, HP.mel)
    assert preprocess(corpus, predicted).computed == 2
    assert preprocess(corpus, predicted).computed == 0
    path = str(corpus / 'predicted' / 'a' / (NAMES[0] + '.npy'))
    np.save(path, np.load(path) - 0.5)
    os.utime(path, (0, 0))
    assert preprocess(corpus, predicted).computed == 1
    assert preprocess(corpus, None).computed == 2
    audio, mel = written(corpus, preprocess(corpus, None), NAMES[0])
    np.testing.assert_allclose(mel, mel_spectrogram(audio, HP.mel), atol=1e-4)


@pytest.mark.parametrize('name', ['x.npy', 'x.wav.npy', 'x-feats.npy'])
def test_names(tmp_path, name):
    predicted = PredictedMels(str(tmp_path), HP.mel)
    assert predicted_mels.find(predicted, 'x.wav') is None
    (tmp_path / name).write_bytes(b'')
    assert predicted_mels.find(predicted, 'x.wav') == PredictedMel(str(tmp_path / name), HP.mel)


def test_the_command(corpus, monkeypatch, capsys):
    predict(corpus, PROFILES['espnet_24k'].replace(fmin=0.0))
    flags = ['--wave_dir=%s' % (corpus / 'wavs'), '--mel_dir=%s' % (corpus / 'mels'),
             '--data_dir=%s' % corpus, '--preset=small', '--num_workers=1']
    given = ['--predicted_mels=%s' % (corpus / 'predicted'), '--predicted_profile=espnet_24k',
             '--predicted_hparams=fmin=0']
    monkeypatch.setattr(sys, 'argv', ['preprocess_data.py'] + flags + given)
    assert preprocess_data.main() == 0
    said = capsys.readouterr()
    assert 'mel profile espnet_24k with fmin=0.0 at 24000 Hz' in said.out
    assert 'loses something: missing bands: nothing above 7600 Hz' in said.err
    assert params.load(str(corpus)).mel == params.preset('small').mel
    assert ('take --predicted_mels, a folder of mels'
            in refusal(monkeypatch, capsys, preprocess_data, *(flags + given[1:])))
    assert ('no hyperparameter of mels' in refusal(
        monkeypatch, capsys, preprocess_data, *(flags + given[:2] + ['--predicted_hparams=lr=1'])))
    assert soundfile.info(os.path.join(str(corpus), 'wavs', 'a', NAMES[0] + '.wav')).frames
