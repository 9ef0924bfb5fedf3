"""preprocess_data.py on what real corpora hold: odd files, digital silence, a second run beside."""
import os

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from speech import script

import files
import params
from datasets import audio_files, corpus, digital_silence, features, preprocessing
from errors import UserError

HP = params.preset('small')
WAV = os.path.join(ROOT, 'samples', 'wavs', 'tt-weasels.wav')


def preprocess(tmp_path):
    return preprocessing.preprocess(str(tmp_path / 'wavs'), str(tmp_path / 'mels'),
                                    str(tmp_path), HP, test_size=0)


@pytest.fixture
def speech(tmp_path):
    (tmp_path / 'wavs').mkdir()
    audio = audio_files.read_wav(WAV, HP.sample_rate)
    soundfile.write(str(tmp_path / 'wavs' / 'good.wav'), audio, HP.sample_rate)
    return audio


def test_one_odd_file_does_not_lose_a_corpus(tmp_path, speech, monkeypatch):
    soundfile.write(str(tmp_path / 'wavs' / 'bad.wav'), speech, HP.sample_rate)
    compute = features.compute

    def fail(path, *more):
        if path.endswith('bad.wav'):
            raise ZeroDivisionError('of a decoder')
        return compute(path, *more)
    monkeypatch.setattr(features, 'compute', fail)      # forked workers inherit it
    summary = preprocess(tmp_path)
    assert summary.train == ['good']
    (path, reason), = summary.skipped
    assert path == 'bad.wav' and 'ZeroDivisionError: of a decoder' in reason
    assert 'bad.wav' in (tmp_path / 'skipped.tsv').read_text()


def test_what_was_done_about_a_file_is_told_again_and_again(tmp_path, speech):
    soundfile.write(str(tmp_path / 'wavs' / 'opposite.wav'), np.stack([speech, -speech], 1),
                    HP.sample_rate)
    for _ in range(2):      # the second run computes nothing
        (path, note), = preprocess(tmp_path).notes
        assert path == 'opposite.wav' and 'channel 1 of 2 was taken' in note
    done = script('preprocess_data.py', '--wave_dir=%s' % (tmp_path / 'wavs'), '--mel_dir=%s' % (
        tmp_path / 'mels'), '--data_dir=%s' % tmp_path, '--preset=small', '--test_size=0')
    assert done.returncode == 0 and 'opposite.wav: its channels cancel' in done.stderr


def test_digital_silence_is_counted(tmp_path, speech):
    gated = speech.copy()
    gated[8000:16000] = gated[20000:20000 + digital_silence.ZERO_RUN - 1] = 0
    (first, end), = digital_silence.zero_runs(audio_files.to_pcm16(gated)[0])
    assert 7980 < first <= 8000 and 16000 <= end < 16020
    soundfile.write(str(tmp_path / 'wavs' / 'gated.wav'), gated, HP.sample_rate)
    summary = preprocess(tmp_path)
    assert summary.zero_seconds == pytest.approx(0.5, abs=0.01)
    assert preprocess(tmp_path).zero_seconds == summary.zero_seconds


def test_a_second_run_in_the_same_folders_is_refused(tmp_path, speech):
    with files.lock_directory(str(tmp_path), ''):
        with pytest.raises(UserError, match='another preprocess_data.py is writing'):
            preprocess(tmp_path)
    assert preprocess(tmp_path).train == ['good']


def test_a_spreadsheet_runs_nothing_of_skipped_tsv():
    table = corpus.skipped_table([('=cmd|x.wav', 'silent'), ('+1.wav', '-1'), ('a.wav', 'silent')])
    assert sorted(table.splitlines()) == ["'+1.wav\t'-1", "'=cmd|x.wav\tsilent", 'a.wav\tsilent']


def test_dither_is_of_digital_silence_alone_and_a_function_of_position(speech):
    pcm = audio_files.to_pcm16(speech)[0]
    pcm[8000:16000] = 0
    audio = digital_silence.to_float(pcm, 0, 0.5)
    changed = np.flatnonzero(audio != pcm.astype(np.float32) / 32768)
    (first, end), = digital_silence.zero_runs(pcm)
    assert changed.min() >= first and changed.max() < end and len(changed) > 0.99 * (end - first)
    noise = audio[first:end] * 32768
    assert np.abs(noise).max() <= 0.5 and np.std(noise) == pytest.approx(0.5 / 3 ** 0.5, rel=0.02)
    clip = digital_silence.to_float(pcm[9000:12000], 9000, 0.5)
    np.testing.assert_array_equal(clip, audio[9000:12000])
    np.testing.assert_array_equal(digital_silence.to_float(pcm, 0, 0) * 32768, pcm)
