"""Preprocessing on Apache Beam gives what preprocessing without it gives."""
import os
import shutil

import numpy as np
import pytest
import soundfile
from speech import WAVS, refusal, script

import params
import preprocess_data
from datasets import shards

pytestmark = pytest.mark.slow

FLAGS = ['--preset=small', '--tfrecord_shards=4', '--seed=5']


@pytest.fixture(scope='module')
def local(tmp_path_factory):
    """(folder of a corpus with everything in it, its shards by the local path, what was said)."""
    root = tmp_path_factory.mktemp('corpus')
    wavs = root / 'wavs'
    shutil.copytree(WAVS, str(wavs / 'plain'))
    speech = soundfile.read(str(wavs / 'plain' / 'tt-weasels.wav'))[0]
    for name, audio, rate in (('loud.wav', 3 * speech / np.abs(speech).max(), 16000),
                              ('stereo.flac', np.stack([speech, speech], axis=1), 44100),
                              ('silent.wav', np.zeros(9999), 16000),
                              ('short.wav', speech[:99], 16000)):
        soundfile.write(str(wavs / name), audio, rate,
                        subtype='FLOAT' if name == 'loud.wav' else None)
    (wavs / 'text.wav').write_text('no sound')
    for name in ('twice.wav', 'twice.flac'):
        soundfile.write(str(wavs / name), speech, 16000)
    done = script('preprocess_data.py', '--wave_dir=%s' % wavs, '--mel_dir=%s' % (root / 'mels'),
                  '--data_dir=%s' % root, *FLAGS)
    assert done.returncode == 1, done.stderr
    return wavs, root / 'shards', done, (root / 'skipped.tsv').read_text()


@pytest.mark.parametrize('workers', [1, 2])
def test_the_same_bytes_and_the_same_report(local, tmp_path, workers):
    wavs, expected, said, skipped = local
    scheme = 'file://' if workers == 2 else ''      # a path that only tf.io.gfile knows
    done = script('preprocess_data.py', '--wave_dir=%s%s' % (scheme, wavs),
                  '--data_dir=%s' % tmp_path, '--shard_dir=%s%s' % (scheme, tmp_path / 'shards'),
                  '--runner=DirectRunner', '--direct_running_mode=multi_processing',
                  '--direct_num_workers=%d' % workers, *FLAGS)
    assert done.returncode == 1, done.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / 'shards').iterdir()}
    assert made.pop('skipped.tsv').decode() == skipped and len(skipped.splitlines()) == 5
    assert made == {path.name: path.read_bytes() for path in expected.iterdir()}
    assert sorted(made) == ['params.json', 'test-00000-of-00001.tfrecord'] + [
        'train-%05d-of-00004.tfrecord' % i for i in range(4)]
    assert len(made['train-00002-of-00004.tfrecord']) > 10 ** 5
    # counters against the local summary
    lines = said.stdout.splitlines()
    assert [line for line in lines if 'hours of speech' in line] == [
        line for line in done.stdout.splitlines() if 'hours of speech' in line] != []
    for line in ('1 utterances overshoot full scale and were clipped', 'skipped 5 in all'):
        assert line in said.stderr and line in done.stderr


def test_nothing_to_train_on_is_told(monkeypatch, capsys, tmp_path):
    (tmp_path / 'wavs').mkdir()
    flags = ['--wave_dir=%s' % (tmp_path / 'wavs'), '--data_dir=%s' % tmp_path,
             '--runner=DirectRunner'] + FLAGS
    for told in ('holds no sound files', 'none of the 1 sound files'):
        assert told in refusal(monkeypatch, capsys, preprocess_data, *flags)
        (tmp_path / 'wavs' / 'text.wav').write_text('no sound')
    assert not params.exists(str(tmp_path / 'shards'))
    assert os.listdir(str(tmp_path / 'shards')) and shards.test_beside(
        str(tmp_path / 'shards' / 'train-*')) is None
    assert 'unrecognized arguments: --no_such_flag=1' in refusal(
        monkeypatch, capsys, preprocess_data, '--no_such_flag=1', '--mel_dir=m',
        *flags[:2] + FLAGS)
