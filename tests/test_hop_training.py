"""Hops and bands of every kind, from sound files to a stopped training and a vocoded utterance."""
import glob
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import HOPS, TINY
from speech import WAVS

import utils
from datasets import mel_files, preprocessing
from datasets.sources import FileData, ShardData
from flows import grouping
from training import run
from training.options import TrainingOptions
from training.towers import compute_options
from vocoder import Vocoder

NAMES = ['auth-incorrect', 'conf-waitforleader', 'tt-weasels']
# How a step is computed, and from what: {hop: (changes, options)}.
WAYS = {160: (dict(), dict(accumulate=2)),
        275: (dict(stft_weight=1.0), dict(num_towers=2)),
        300: (dict(n_layers=2), dict(compute=compute_options('float32', True, 'off')))}
SHARDS = 275,


def prepare(folder, hp, shards):
    """Preprocesses NAMES: the data of a training, and the path of a mel."""
    wavs, mels, data = (str(folder / name) for name in ('wavs', 'mels', 'data'))
    os.mkdir(wavs)
    for name in NAMES:
        shutil.copy(os.path.join(WAVS, name + '.wav'), wavs)
    summary = preprocessing.preprocess(wavs, mels, data, hp, test_size=1)
    mel = os.path.join(mels, NAMES[0] + '.mel')
    if not shards:
        return FileData(os.path.join(data, 'train.scp'), summary.wave_dir, mels,
                        os.path.join(data, 'test.scp')), mel
    preprocessing.pack(summary, mels, os.path.join(data, 'shards'), hp, 1, 1)
    return ShardData(os.path.join(data, 'shards', 'train-*'),
                     os.path.join(data, 'shards', 'test-*')), mel


def weights(run_dir):
    reader = tf.train.load_checkpoint(utils.find_checkpoint(run_dir))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def train_and_resume(folder, hp, steps, shards=False, **options):
    """Trains `steps`, and again from the middle; (Vocoder of the run, a mel of the speech)."""
    data, mel = prepare(folder, hp, shards)
    once, twice = (str(folder / name) for name in ('once', 'twice'))
    hp = hp.replace(save_every=steps // 2)
    options = dict(dict(compute=compute_options(xla='off')), **options)
    run.train(hp, data, TrainingOptions(run_dir=once, max_steps=steps, **options))
    shutil.copytree(once, twice)
    for path in glob.glob(os.path.join(glob.escape(twice), '*-%d.*' % steps)):
        os.unlink(path)
    assert utils.find_checkpoint(twice).endswith('-%d' % (steps // 2))
    run.train(hp, data, TrainingOptions(run_dir=twice, max_steps=steps, **options))
    vocoder = Vocoder.load(twice)
    once, twice = weights(once), weights(twice)
    assert once['global_step'] == steps and sorted(once) == sorted(twice)
    for name in once:
        assert once[name].tobytes() == twice[name].tobytes(), name
    return vocoder, mel_files.read_mel(mel, hp.n_mels)


@pytest.mark.slow
@pytest.mark.own_process
def test_hops_from_speech_to_speech(tmp_path):
    """Training goes on to the bit after a stop; the held-out loss is that of every whole group."""
    for hop, (changes, options) in WAYS.items():
        hp = TINY.replace(n_flows=2, batch_size=2, clip_samples=2500, eval_every=2,
                          gen_test_wave_every=2, gen_utterances=1,
                          **dict(dict(HOPS[hop], n_layers=1), **changes))
        (tmp_path / str(hop)).mkdir()
        vocoder, mel = train_and_resume(tmp_path / str(hop), hp, 2, hop in SHARDS, **options)
        assert np.isfinite(weights(str(tmp_path / str(hop) / 'once'))['best_heldout_loss'])
        audio = vocoder.vocode(mel)
        assert audio.shape == (len(mel) * hop,) and np.isfinite(audio).all()
        vocoder.chunk_frames = 7
        streamed = np.concatenate(list(vocoder.stream([mel[:20], mel[20:]])))
        assert np.abs(streamed - audio).max() < 2e-5 * np.abs(audio).max()
        vocoder.close()


def test_clips_end_with_the_last_whole_group():
    """clip_samples is rounded down to whole frames, and what is learned of them to groups."""
    hp = TINY.replace(**dict(HOPS[275], clip_samples=2500))
    assert hp.clip_frames == 9 and hp.groups(9) == 309
    with tf.Graph().as_default():
        clip = tf.zeros([1, 9 * 275])
        assert grouping.whole_groups(clip, hp).shape.as_list() == [1, 309 * 8]


def test_which_n_group_fits_is_told():
    hp = TINY.replace(hop_length=300, n_group=16)
    assert run.hop_note(hp).endswith('these divide it: 10, 12, 20')
    assert run.hop_note(TINY.replace(hop_length=275)).endswith('no even number of 4 to 64 divides '
                                                               'it')
