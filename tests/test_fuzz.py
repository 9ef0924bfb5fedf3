"""Damaged inputs of every kind: nothing but a result or a UserError comes back.

FUZZ=50000 FUZZ_SEED=7 python -m pytest tests/test_fuzz.py tries as many others.
"""
import json
import os
import random
import unittest.mock

import numpy as np
import nvidia_reference
import ptfiles
import pytest
import soundfile
from damages import mutate
from graphs import TINY, random_weights
from speech import WAVS, speech

import params
import utils
import vocoder
from datasets import (
    audio_files,
    clip_files,
    clip_shards,
    corpus,
    features,
    file_lists,
    mel_files,
    mel_inputs,
    mel_statistics,
    mel_transform,
    preprocessing,
    shards,
)
from errors import UserError
from interop import nvidia
from training import hosts

COUNT, SEED = int(os.environ.get('FUZZ', 2000)), os.environ.get('FUZZ_SEED', '0')
MOST_SAID = 1100        # characters of a message, paths and all
HP = params.override(params.preset('small'), 'clip_samples=2048')


# --- Kinds of input -------------------------------------------------------------------------------

KINDS = {}      # name: (part of all mutations, whether it is text, make, read)


def kind(part, is_text=False):
    """Adds two functions, those that a function returns, to KINDS.

    make(folder) writes what is right and returns the path of the file to damage, and read(path)
    reads it; it returns True where it passes over what is wrong. A kind of a text, and not of a
    file, has a text for a path.
    """
    def add(function):
        KINDS[function.__name__] = (part, is_text) + function()
        return function
    return add


def sound(extension, **how):
    def make(folder):
        path = os.path.join(folder, 'x' + extension)
        soundfile.write(path, np.stack([speech(0.3)] * 2, axis=1), 16000, **how)
        return path

    def read(path):
        return features.compute(path, HP.mel, 1024)
    return make, read


@kind(10)
def wav():
    return sound('.wav')


@kind(4)
def wav_of_gsm():
    def make(folder):
        path = os.path.join(folder, 'x.wav')
        soundfile.write(path, speech(0.3), 8000, subtype='GSM610')
        return path
    return make, sound('.wav')[1]


@kind(8)
def flac():
    return sound('.flac')


@kind(6)
def ogg():
    return sound('.ogg')


if 'MP3' in soundfile.available_formats():
    @kind(6)
    def mp3():
        return sound('.mp3', format='MP3')


@kind(3)
def wav_to_train_on():
    def make(folder):
        path = os.path.join(folder, 'x.wav')
        audio_files.write_wav(path, speech(0.5), 16000)
        mel_files.save_mel(path[:-4] + '.mel', np.zeros([31, 80]))
        return path

    def read(path):
        audio_files.is_plain_wav(path, HP.sample_rate)
        folder = os.path.dirname(path)
        found, = clip_files.index(['x'], folder, folder, HP)
        assert found.frames <= 31
    return make, read


def mel(name, save):
    def make(folder):
        path = os.path.join(folder, name)
        save(path, mel_transform.mel_spectrogram(speech(0.5), HP.mel))
        return path

    def read(path):
        found = mel_inputs.read_source(mel_inputs.Source(path, 'x', os.path.dirname(path)), HP)[0]
        assert found[:].shape == found.shape == (len(found), 80) and np.isfinite(found[:]).all()
    return make, read


@kind(5)
def mel_file():
    return mel('x.mel', mel_files.save_mel)


@kind(10)
def npy():
    return mel('x.npy', lambda path, array: np.save(path, array.T))


@kind(8)
def npz():
    return mel('x.npz', lambda path, array: np.savez(path, array))


@kind(8)
def npz_compressed():
    return mel('x.npz', lambda path, array: np.savez_compressed(path, array))


@kind(10)
def pt():
    return mel('x.pt', lambda path, array: ptfiles.save_zip(path, array.T))


@kind(10)
def pt_legacy():
    return mel('x.pt', lambda path, array: ptfiles.save_legacy(path, array.T))


def checkpoint_of_nvidia(save):
    def make(folder):
        path = os.path.join(folder, 'x.pt')
        state = nvidia_reference.state(np.random.RandomState(0), n_flows=2, units=4, layers=2)
        save(path, nvidia_reference.pickled_module(state))
        return path
    return make, nvidia.read


@kind(2)
def nvidia_zip():
    return checkpoint_of_nvidia(ptfiles.save_zip)


@kind(2)
def nvidia_legacy():
    return checkpoint_of_nvidia(ptfiles.save_legacy)


def statistics(name, save):
    """A file of statistics of bands."""
    def make(folder):
        path = os.path.join(folder, name)
        save(path, np.linspace(-5, -3, 80), np.linspace(1, 2, 80))
        return path

    def read(path):
        HP.replace(**mel_statistics.read(path))
    return make, read


@kind(4)
def statistics_npy():
    return statistics('x.npy', lambda path, mean, scale: np.save(path, np.stack([mean, scale])))


@kind(4)
def statistics_npz():
    return statistics('x.npz', lambda path, mean, scale: np.savez_compressed(
        path, count=10.0, sum=10 * mean, sum_square=10 * (mean ** 2 + scale ** 2)))


@kind(5)
def statistics_pickled():
    return statistics('x.npy', lambda path, mean, scale: np.save(
        path, {'mel_mean': mean, 'mel_std': scale, 'audio_config': {'spec_gain': 20}}))


try:
    import h5py
except ImportError:
    pass
else:
    @kind(5)
    def statistics_h5():
        def save(path, mean, scale):
            with h5py.File(path, 'w') as f:
                f['mean'], f['scale'] = mean, scale
        return statistics('x.h5', save)

    @kind(5)
    def mel_h5():
        def save(path, array):
            with h5py.File(path, 'w') as f:
                f['feats'] = array
        return mel('x.h5', save)


@kind(8, is_text=True)
def file_list():
    names = sorted(name[:-4] for name in os.listdir(WAVS))[:8]

    def make(folder):
        path = os.path.join(folder, 'x.scp')
        with open(path, 'w') as f:
            f.write(''.join('wavs/%s.wav|what it says\n' % name for name in names))
        return path
    return make, lambda path: file_lists.read_file_list(path, WAVS)


@kind(10, is_text=True)
def params_json():
    def make(folder):
        params.save(folder, HP.replace(mel_stats_mean=(-1.5,) * 80, mel_stats_scale=(0.5,) * 80))
        return os.path.join(folder, params.FILE_NAME)

    def read(path):
        hp = params.load(os.path.dirname(path))
        assert params.from_json(params.to_json(hp), path) == hp
    return make, read


def compute_here(jobs, num_workers):
    """preprocessing.run_jobs without its processes."""
    for job in jobs:
        yield job, preprocessing.compute(job)


@kind(2, is_text=True)
def manifest():
    def make(folder):
        os.mkdir(os.path.join(folder, 'in'))
        audio_files.write_wav(os.path.join(folder, 'in', 'x.wav'), speech(0.3), 16000)
        audio_files.write_wav(os.path.join(folder, 'in', 'y.wav'), speech(0.4), 8000)
        read(os.path.join(folder, corpus.MANIFEST))
        return os.path.join(folder, corpus.MANIFEST)

    def read(path):
        folder = os.path.dirname(path)
        with unittest.mock.patch.object(preprocessing, 'run_jobs', compute_here):
            found = preprocessing.preprocess(os.path.join(folder, 'in'),
                                             os.path.join(folder, 'mels'), folder, HP, test_size=1)
        assert sorted(found.train + found.test) == ['x', 'y']
        return bool(found.computed)
    return make, read




def checkpoint(name):
    """A checkpoint of a training, of whose files the one of `name` is damaged."""
    def make(folder):
        utils.save_weights(folder, random_weights(TINY))
        params.save(folder, TINY)
        return os.path.join(folder, name)

    def read(path):
        hp, weights = vocoder.load_model(os.path.dirname(path))
        assert all(np.isfinite(value).all() for value in weights.values())
    return make, read


@kind(8)
def checkpoint_index():
    return checkpoint('model.ckpt-0.index')


@kind(3)
def checkpoint_data():
    return checkpoint('model.ckpt-0.data-00000-of-00001')


@kind(5, is_text=True)
def checkpoint_state():
    make, read = checkpoint('checkpoint')
    return make, lambda path: read(path) or True    # what it lacks the files' names tell


def read_shard(path):
    found = list(shards.records(path, HP))
    assert all(isinstance(each, (shards.Record, shards.Fault)) for each in found)
    reader = clip_shards.Reader([path], HP, skip=True)
    for _, (audio, mel, _, _, _) in zip(range(5), reader.clips()):
        assert len(audio) == 2048 and mel.shape == (8, 80)
    assert reader.fault is None or len(reader.fault) < MOST_SAID
    return any(isinstance(each, shards.Fault) for each in found)


@kind(6)
def shard():
    def make(folder):
        path = os.path.join(folder, 'train-00000-of-00001.tfrecord')
        audio = audio_files.to_pcm16(speech(0.2))[0]
        shards.write(path, [shards.encode(name, audio, np.zeros([13, 80]), HP)
                            for name in ('a', 'b/c', '\u00e9')])
        return path
    return make, read_shard


@kind(8)
def shard_with_checksums():
    """What is wrong within a record that says itself that it is right."""
    good = shards.encode('a', np.ones(4096, 'i2'), np.zeros([16, 80]), HP)

    def make(folder):
        path = os.path.join(folder, 'record')
        with open(path, 'wb') as f:
            f.write(good)
        return path

    def read(path):
        with open(path, 'rb') as f:
            shards.write(path + '.tfrecord', [f.read()])
        return read_shard(path + '.tfrecord')
    return make, read


@kind(10, is_text=True)
def tf_config():
    good = json.dumps({'cluster': {'chief': ['a:2222'], 'worker': ['b:2222', 'c:2223']},
                       'task': {'type': 'worker', 'index': 0}, 'environment': 'cloud'})
    return lambda folder: good, lambda text: hosts.from_arguments(None, None, text)


@kind(4, is_text=True)
def worker_hosts():
    return lambda folder: 'a:2222,b:2222', lambda text: hosts.from_arguments(text, 1, None)


@kind(12, is_text=True)
def hparams():
    good = ('lr=1e-4,batch_size=8,n_flows=4,causal=true,encoder=conv,encoder_layers=2,'
            'lr_schedule=cosine,clip_samples=8192,mel_profile=tacotron2,eval_seconds=3,n_fft=2048,'
            'fmin=20.5,fmax=8000,padding=same,power=2,mel_gain=0.5,mel_clip_min=-4,mel_clip_max=4')
    return lambda folder: good, lambda text: params.resolve('small', text)


# --- The test -------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', sorted(KINDS))
def test_a_damaged_input_gives_a_result_or_a_sentence(name, tmp_path, capsys):
    part, is_text, make, read = KINDS[name]
    total = sum(part for part, _, _, _ in KINDS.values())
    good = make(str(tmp_path))
    read(good)
    is_file = os.path.isfile(good)
    content = open(good, 'rb').read() if is_file else good.encode()
    noticed = 0
    for number in range(-(-COUNT * part // total)):
        damaged = mutate(content, random.Random('%s %s %d' % (SEED, name, number)), is_text)
        if is_file:
            with open(good, 'wb') as f:
                f.write(damaged)
        try:
            noticed += read(good if is_file else damaged.decode('utf-8', 'replace')) is True
        except UserError as error:
            noticed += 1
            said = str(error)
            assert said and len(said) < MOST_SAID and '\n' not in said, (number, said[:3000])
        except Exception as error:
            raise AssertionError('FUZZ_SEED=%s, %s, mutation %d' % (SEED, name, number)) from error
        assert len(capsys.readouterr().err) < 20 * MOST_SAID
    assert noticed      # the damages reach what is read
