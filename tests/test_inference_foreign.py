"""inference.py on mels of other definitions, and without a model."""
import sys

import numpy as np
import pytest
import soundfile
import soxr
from graphs import TINY
from speech import SPEECH, refusal, speech

import inference
import params
from datasets import mel_inputs
from datasets.mel_definition import PROFILES
from datasets.mel_transform import mel_spectrogram
from errors import UserError


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['inference.py'] + [str(a) for a in arguments])
    return inference.main()


def save(path, definition, seconds=1.0):
    """Writes the mel of the bundled speech, and returns the speech at its rate and the mel."""
    audio = soxr.resample(speech(seconds), 16000, definition.sample_rate)
    mel = mel_spectrogram(audio, definition)
    np.save(str(path), mel)
    return audio, mel


@pytest.mark.slow
def test_mels_of_another_profile(monkeypatch, tmp_path, capsys):
    definition = PROFILES['espnet_24k']
    mean, scale = np.linspace(-2, -3, 80), np.linspace(0.5, 0.8, 80)
    np.save(str(tmp_path / 'stats.npy'), np.stack([mean, scale]).astype(np.float32))
    standardized = definition.replace(mean=tuple(mean), scale=tuple(scale))
    (tmp_path / 'mels').mkdir()
    for name, seconds in (('a', 1.0), ('b', 0.7)):
        _, mel = save(tmp_path / 'mels' / (name + '.npy'), standardized, seconds)
    out = tmp_path / 'out'
    assert run(monkeypatch, '--lc', tmp_path / 'mels', '--lc_profile', 'espnet_24k',
               '--mel_stats', tmp_path / 'stats.npy', '--out_dir', out,
               '--batch_size', 2, '--plot', tmp_path / 'p.png') == 0
    said = capsys.readouterr()
    assert ('mels of espnet_24k with statistics at 24000 Hz (80 bands, a frame every 12.5 ms) '
            "are converted to the model's: tacotron2 at 16000 Hz" in said.out)
    assert 'no params.json' not in said.out
    assert 'loses something: missing bands: nothing below 80 Hz' in said.err
    found, rate = soundfile.read(str(out / 'b.wav'), dtype='float32')
    assert rate == 16000 and len(found) == len(mel) * 200
    again = mel_spectrogram(soxr.resample(found, 16000, 24000), definition)
    expected = mel_spectrogram(soxr.resample(speech(0.7), 16000, 24000), definition)
    assert np.mean(np.abs(again[:50, 5:75] - expected[:50, 5:75])) < 0.15     # of log10
    assert (tmp_path / 'p.png').read_bytes().startswith(b'\x89PNG')


def test_griffin_lim_takes_no_model(monkeypatch, tmp_path, capsys):
    definition = PROFILES['hifigan']
    audio, mel = save(tmp_path / 'x.npy', definition)
    flags = ['--lc', tmp_path / 'x.npy', '--out_dir', tmp_path, '--vocoder', 'griffin_lim',
             '--restore_from', tmp_path / 'there_is_no_model']
    assert run(monkeypatch, *flags, '--lc_profile', 'hifigan') == 0
    found, rate = soundfile.read(str(tmp_path / 'x.wav'), dtype='float32')
    assert rate == 22050 and len(found) == 256 * len(mel)
    distances = []
    for rounds in (0, 4):
        run(monkeypatch, *flags, '--lc_profile', 'hifigan', '--mel_correction', rounds)
        found = soundfile.read(str(tmp_path / 'x.wav'), dtype='float32')[0]
        distances.append(np.mean(np.abs(mel_spectrogram(found, definition) - mel)))
    assert distances[1] < 0.8 * distances[0] < 0.4
    assert 'converted' not in capsys.readouterr().out
    # sound files too, at the rate of the profile
    run(monkeypatch, '--lc', SPEECH, *flags[2:], '--lc_profile', 'whisper')
    assert soundfile.info(str(tmp_path / 'pbx-invalidpark.wav')).samplerate == 16000


def test_griffin_lim_reads_what_is_beside_the_mels(monkeypatch, tmp_path, capsys):
    hp = TINY.replace(mel_profile='rayhane', sample_rate=16000, n_group=8, hop_length=200)
    _, mel = save(tmp_path / 'x.npy', hp.mel)
    flags = ['--lc', str(tmp_path / 'x.npy'), '--out_dir', str(tmp_path / 'out'),
             '--vocoder', 'griffin_lim']
    assert ('nothing tells what the mels are; give --lc_profile'
            in refusal(monkeypatch, capsys, inference, *flags))
    params.save(str(tmp_path), hp)
    assert run(monkeypatch, *flags) == 0
    found = soundfile.read(str(tmp_path / 'out' / 'x.wav'))[0]
    assert len(found) == 200 * len(mel) and np.std(found) > 1e-3


def test_a_refusal_names_the_flags_that_help(tmp_path, capsys):
    hp = TINY.replace(mel_profile='espnet', sample_rate=16000, fmin=50.0)
    _, mel = save(tmp_path / 'x.npy', hp.mel)
    params.save(str(tmp_path), hp)
    sources = mel_inputs.find_sources([str(tmp_path)])
    with pytest.raises(UserError, match='none of the 1 inputs'):
        mel_inputs.read_sources(sources, TINY)
    assert ('give --lc_profile=espnet --lc_hparams=sample_rate=16000,fmin=50.0, which tells'
            in capsys.readouterr().err)
    given = params.mel_hparams('espnet', 'sample_rate=16000,fmin=50.0', {}, TINY)
    found, = mel_inputs.read_sources(sources, given).values()
    np.testing.assert_array_equal(found[:], mel)


def test_hyperparameters_of_mels():
    statistics = dict(mel_stats_mean=(0.0,) * 80, mel_stats_scale=(2.0,) * 80)
    found = params.mel_hparams('espnet', 'fmin=0', statistics, TINY)
    assert found.mel == PROFILES['espnet'].replace(fmin=0.0, mean=(0.0,) * 80, scale=(2.0,) * 80)
    found = params.mel_hparams(None, 'n_mels=40', {}, TINY)
    assert found.mel == TINY.mel.replace(n_mels=40)
    for profile, text, told in (
            ('espnet', 'lr=1', 'lr is no hyperparameter of mels'),
            (None, 'fmin', 'no "="'), ('espnett', '', "did you mean 'espnet'"),
            ('espnet', 'sample_rate=8000', 'over half the sample rate'),
            ('vocos', '', '80 and 80 bands and the mels of 100')):
        with pytest.raises(UserError, match=told):
            params.mel_hparams(profile, text, statistics if profile == 'vocos' else {}, TINY)
