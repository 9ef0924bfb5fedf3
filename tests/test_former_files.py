"""What earlier versions wrote is read as it is, and their trainings go on (tests/data/former)."""
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT
from speech import WAVS

import params
import utils
from datasets import audio_files, corpus, file_lists, mel_files, mel_transform, shards
from datasets.sources import FileData
from training import run
from training.options import TrainingOptions
from vocoder import Vocoder

FORMER = os.path.join(ROOT, 'tests', 'data', 'former')
TRAINED_ON = ['auth-incorrect', 'conf-waitforleader', 'demo-thanks', 'tt-weasels']


def former(*names):
    return os.path.join(FORMER, *names)


def mel_of(name):
    return mel_files.read_mel(former('mels', name + '.mel'), 80)


def mel_again(name, hp):
    audio = audio_files.read_wav(os.path.join(WAVS, name + '.wav'), hp.sample_rate)
    return mel_transform.mel_spectrogram(audio, hp.mel)


def test_lists_parameters_and_manifest():
    assert file_lists.read_file_list(former('train.scp'), WAVS) == TRAINED_ON
    assert file_lists.read_file_list(former('test.scp'), WAVS) == ['queue-youarenext']
    small = params.preset('small')
    for folder in ('', 'mels', 'shards', 'run'):
        hp = params.load(former(folder))
        assert [getattr(hp, field) for field in params.DATA_FIELDS] == [
            getattr(small, field) for field in params.DATA_FIELDS]
    assert (hp.n_flows, hp.stft_weight, hp.ema_decay) == (3, 1.0, 0.9)      # of the run
    manifest = corpus.read_manifest(FORMER)
    assert sorted(manifest) == sorted(TRAINED_ON + ['queue-youarenext'])
    assert manifest['tt-weasels']['data']['mel_profile'] == 'tacotron2'
    assert manifest['tt-weasels']['mel'][0] == os.path.getsize(former('mels', 'tt-weasels.mel'))


@pytest.mark.parametrize('name', TRAINED_ON)
def test_mels(name):
    np.testing.assert_allclose(mel_of(name), mel_again(name, params.load(former('mels'))),
                               atol=1e-3)


def test_shards():
    hp = params.load(former('shards'))
    path = former('shards', 'test-00000-of-00001.tfrecord')
    record, = shards.records(path, hp)
    assert record.name == 'queue-youarenext'
    np.testing.assert_allclose(record.mel, mel_again(record.name, hp)[:len(record.mel)], atol=1e-3)
    wav = audio_files.read_wav(os.path.join(WAVS, record.name + '.wav'), hp.sample_rate)
    np.testing.assert_array_equal(record.audio / np.float32(32768), wav[:len(record.audio)])
    assert shards.hyperparameters(former('shards', 'test-*')) == hp


def test_a_checkpoint_sounds_as_it_did():
    audio = Vocoder.load(former('run')).vocode(mel_of('tt-weasels'))
    expected = audio_files.read_wav(former('vocoded.wav'), 16000)
    np.testing.assert_allclose(audio, expected, atol=1e-3)
    assert np.abs(expected).max() > 0.4


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_a_training_goes_on_to_the_weights_that_it_reached(tmp_path):
    """From step 20 to 30. Rounding differs between processors, and Adam enlarges it."""
    run_dir = str(tmp_path / 'run')
    shutil.copytree(former('run'), run_dir)
    start = utils.find_checkpoint(run_dir)
    before = tf.train.load_checkpoint(start)
    data = FileData(former('train.scp'), WAVS, former('mels'))
    run.train(params.load(run_dir), data, TrainingOptions(run_dir=run_dir, max_steps=30))
    found = tf.train.load_checkpoint(utils.find_checkpoint(run_dir))
    assert found.get_tensor('global_step') == 30
    way, error = 0, 0
    with np.load(former('weights_30.npz')) as expected:
        assert len(expected.files) == 81
        for name in expected.files:
            value = expected[name]
            way += np.sum((value - before.get_tensor(name)) ** 2)
            error += np.sum((value - found.get_tensor(name)) ** 2)
    assert way ** 0.5 > 0.1
    assert error ** 0.5 < 0.05 * way ** 0.5
