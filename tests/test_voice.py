"""recipes/voice.py but for its hours: who is held out, what its stages ask for, what is bundled."""
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT
from speech import WAVS, prepare, script

import errors
import glow
import params
import utils
import vocoder
from datasets import file_lists, sources
from recipes import voice
from training import loop, towers


def test_heldout_speech_and_its_doubles_are_kept_apart(tmp_path):
    heldout = file_lists.read_file_list(voice.HELDOUT)
    assert len(heldout) == 20
    assert sorted(heldout) == sorted(name[:-4] for name in os.listdir(WAVS))
    english, spanish = voice.VOICES['en'] + '/', voice.VOICES['es'] + '/'
    corpus = ([english + name for name in heldout + list(voice.TOO_ALIKE) + ['activated']]
              + [spanish + name for name in heldout])
    (tmp_path / 'train.scp').write_text(''.join(name + '\n' for name in corpus))
    (tmp_path / 'params.json').write_text(params.to_json(params.preset('small')))
    voice.split(str(tmp_path))
    train_names, test_names = (file_lists.read_file_list(str(tmp_path / 'lists' / (part + '.scp')))
                               for part in ('train', 'test'))
    assert test_names == [english + name for name in heldout]
    assert train_names == [english + 'activated'] + [spanish + name for name in heldout]
    assert params.load(str(tmp_path / 'lists')) == params.preset('small')

    (tmp_path / 'train.scp').write_text('one\n')
    with pytest.raises(errors.UserError, match='0 of the 20 held-out'):
        voice.split(str(tmp_path))


def test_stages_train_the_bundled_model():
    bundled = params.load(utils.BUNDLED_MODEL)
    hp = params.preset('small')
    for stage in voice.STAGES:
        hp = params.override(hp, stage.hparams)
    assert [stage.steps > 0 for stage in voice.STAGES] == [True] * len(voice.STAGES)
    for field in params.MODEL_FIELDS + ('lr', 'lr_decay_steps', 'lr_decay_rate', 'stft_weight',
                                        'nll_weight', 'clip_norm', 'gen_correction_rounds'):
        assert getattr(hp, field) == getattr(bundled, field), field


@pytest.mark.slow
def test_the_long_schedule_trains_a_model_that_can_be_bundled():
    hp = params.preset('small')
    for stage in voice.LONG_STAGES:
        hp = params.override(hp, stage.hparams)
    assert hp.lr_decay_steps == stage.steps and hp.stft_weight == 1
    assert not {stage.name for stage in voice.LONG_STAGES} & {
        stage.name for stage in voice.STAGES}       # their runs may lie in one folder
    with tf.Graph().as_default():
        glow.infer(tf.zeros([1, hp.groups(1), hp.n_group]), tf.zeros([1, 1, hp.n_mels]), hp)
        sizes = [np.prod(v.shape.as_list()) for v in tf.trainable_variables()]
    assert 1e6 < 4 * sum(sizes) < 19e6              # bytes


@pytest.mark.slow
def test_a_bundle_is_averaged_weights_alone(tmp_path):
    data = prepare(tmp_path)
    done = script('train.py', *data, '--logdir_root=%s' % tmp_path, '--run_name=run',
                  '--max_steps=3')
    assert done.returncode == 0, done.stderr
    for _ in range(2):                              # the second replaces the first
        voice.bundle(str(tmp_path / 'run'), str(tmp_path / 'model'))
    run, bundle = (vocoder.load_model(str(tmp_path / name)) for name in ('run', 'model'))
    assert run[0] == bundle[0] and sorted(run[1]) == sorted(bundle[1])
    for name, weights in run[1].items():
        np.testing.assert_array_equal(weights, bundle[1][name])
    stored = utils.read_weights(utils.find_checkpoint(str(tmp_path / 'model')))
    assert sum(w.nbytes for w in stored.values()) < 1.1 * sum(w.nbytes for w in run[1].values())


def test_the_bundled_model_is_small_and_says_its_licence():
    size = sum(os.path.getsize(os.path.join(utils.BUNDLED_MODEL, name))
               for name in os.listdir(utils.BUNDLED_MODEL))
    assert 1e6 < size < 20e6
    with open(os.path.join(ROOT, 'samples', 'README.md')) as f:
        assert 'so is the model' in f.read()


@pytest.mark.slow
def test_a_failing_step_stops_the_recipe(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'recipes.voice', '--out_dir=%s' % tmp_path]
                          + (['--precision=float32'] if tf.__version__.startswith('1.') else []),
                          env=dict(os.environ, PATH=''), cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert message.startswith('voice.py: error: ')
    assert 'asterisk-core-sounds-en-g722' in message or 'pip install av' in message
    assert message.endswith('; the same command continues where it stopped')
    assert not (tmp_path / 'model').exists()


@pytest.mark.slow
def test_stages_follow_each_other_and_a_stopped_one_continues(monkeypatch, tmp_path, capsys):
    flags = dict(argument[2:].split('=', 1) for argument in prepare(tmp_path))
    data, runs = sources.FileData(**flags), str(tmp_path / 'runs')
    hp, compute = data.hyperparameters(), towers.compute_options(xla='off')
    stages = voice.Stage('a', 4, 'lr=1e-2'), voice.Stage('b', 3, 'lr=1e-12')

    def train():
        return voice.train_stages(hp, data, runs, compute, stages)

    with monkeypatch.context() as patch:
        original = loop.TrainingLoop.after_step

        def after_step(self, step, result, speed):
            original(self, step, result, speed)
            os.kill(os.getpid(), signal.SIGINT)
        patch.setattr(loop.TrainingLoop, 'after_step', after_step)
        with pytest.raises(errors.UserError, match='stage a is at step 1 of 4'):
            train()
    assert 'SIGINT: stopped and saved at step 1' in capsys.readouterr().out
    assert train() == os.path.join(runs, 'b')
    out = capsys.readouterr().out
    assert 'continuing %s from step 1' % os.path.join(runs, 'a') in out
    assert 'starting from the weights of %s' % os.path.join(runs, 'a', 'model.ckpt-4') in out
    assert params.load(os.path.join(runs, 'b')) == params.override(
        hp, 'lr=1e-12,' + voice.COMMON)
    a, b = (vocoder.load_model(os.path.join(runs, name))[1] for name in 'ab')
    for name, weights in a.items():
        np.testing.assert_allclose(weights, b[name], atol=1e-6)
    shutil.rmtree(os.path.join(runs, 'a'))              # what continues is the last run alone
    train()
    assert 'stage' not in capsys.readouterr().out       # nothing is done twice
