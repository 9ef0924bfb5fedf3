"""recipes/voice.py but for its hours: who is held out, what its stages ask for, what is bundled."""
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from graphs import TINY, random_weights
from speech import WAVS, prepare, script

import errors
import glow
import params
import utils
import vocoder
from datasets import audio_files, file_lists, sources
from recipes import voice
from training import loop, towers


def test_heldout_speech_and_its_doubles_are_kept_apart(tmp_path):
    heldout = file_lists.read_file_list(voice.HELDOUT)
    assert len(heldout) == 20
    assert sorted(heldout) == sorted(name[:-4] for name in os.listdir(WAVS))
    english, spanish = voice.VOICES['en'] + '/', voice.VOICES['es'] + '/'
    slower = voice.VOICES['en'] + voice.SLOWER + '/activated'
    corpus = ([english + name for name in heldout + list(voice.TOO_ALIKE) + ['activated']]
              + [slower] + [spanish + name for name in heldout])
    (tmp_path / 'train.scp').write_text(''.join(name + '\n' for name in corpus))
    (tmp_path / 'params.json').write_text(params.to_json(params.preset('small')))
    voice.split(str(tmp_path))
    train_names, slower_names, test_names = (
        file_lists.read_file_list(str(tmp_path / 'lists' / (part + '.scp')))
        for part in ('train', 'slower', 'test'))
    assert test_names == [english + name for name in heldout]
    assert train_names == [english + 'activated'] + [spanish + name for name in heldout]
    assert slower_names == [english + 'activated', slower] + [spanish + name for name in heldout]
    assert params.load(str(tmp_path / 'lists')) == params.preset('small')

    (tmp_path / 'train.scp').write_text('one\n')
    with pytest.raises(errors.UserError, match='0 of the 20 held-out'):
        voice.split(str(tmp_path))


def test_slower_copies_are_longer_and_lower(tmp_path):
    """Of every second utterance that is not held apart, by turns at two speeds."""
    rate, seconds = 16000, 0.5
    tone = np.sin(2 * np.pi * 400 * np.arange(int(seconds * rate)) / rate) / 2
    english, spanish = voice.VOICES['en'], voice.VOICES['es']
    for folder in english, spanish:
        for name in 'a', 'b', 'digits/1':
            audio_files.write_wav(str(tmp_path / folder / (name + '.wav')), tone, rate)
    apart = sorted(voice.held_apart())[0]
    audio_files.write_wav(str(tmp_path / (apart + '.wav')), tone, rate)
    written = []
    for _ in range(2):
        voice.add_slower(str(tmp_path))
        written.append({str(path.relative_to(tmp_path)): path.stat().st_mtime_ns
                        for path in tmp_path.glob('*_slower/**/*.wav')})
    assert written[0] == written[1]     # what is there stays
    found = sorted(written[0])
    assert found == [english + '_slower/a.wav', english + '_slower/digits/1.wav',
                     spanish + '_slower/b.wav']
    for name, speed in zip(found, (0.7, 0.85, 0.7)):
        audio = audio_files.read_wav(str(tmp_path / name), rate)
        assert len(audio) == pytest.approx(seconds * rate / speed, abs=1)
        assert np.argmax(np.abs(np.fft.rfft(audio))) * rate / len(audio) == pytest.approx(
            400 * speed, abs=2)


@pytest.mark.parametrize('condition', [{}, dict(cond_terms=3), dict(encoder='conv',
                                                                    encoder_layers=3)], ids=str)
def test_the_first_layers_are_a_network_of_their_own(condition):
    """What a layer gave that is left out is missing in the sum, and nothing else changes."""
    hp, fewer = (TINY.replace(n_layers=n, **condition) for n in (3, 2))
    weights = random_weights(hp)
    for name in weights:
        if '/layer_2/res_skip/' in name and not name.endswith('/v'):
            weights[name] = np.zeros_like(weights[name])        # it gives nothing
    mel = np.random.RandomState(0).randn(4, hp.n_mels).astype(np.float32)
    whole = vocoder.Vocoder(hp, weights).vocode(mel)
    part = vocoder.Vocoder(fewer, voice.first_layers(weights, hp, 2)).vocode(mel)
    np.testing.assert_allclose(part, whole, atol=1e-5 * np.abs(whole).max())


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
    assert 1e6 < 4 * sum(weight.size for weight in glow.weights(hp)) < 19e6     # bytes


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


def test_what_was_trained_in_first_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(voice.glow, 'require_precision', lambda precision: None)
    folder = str(tmp_path / 'voice')
    for fast, given, chosen in ((True, None, 'bfloat16'), (False, None, 'bfloat16'),
                                (True, 'float32', 'float32'), (True, None, 'float32')):
        monkeypatch.setattr(voice.devices, 'is_bfloat16_fast', lambda fast=fast: fast)
        assert voice.choose_precision(folder, given) == chosen
    (tmp_path / 'voice' / 'precision').write_text('no type')
    assert voice.choose_precision(folder, None) == 'bfloat16'

    def refuse(precision):
        raise errors.UserError('no ' + precision)
    monkeypatch.setattr(voice.glow, 'require_precision', refuse)
    with pytest.raises(errors.UserError, match='no float16'):
        voice.choose_precision(folder, 'float16')
    assert (tmp_path / 'voice' / 'precision').read_text() == 'bfloat16\n'     # as before


@pytest.mark.slow
def test_a_failing_step_stops_the_recipe(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'recipes.voice', '--out_dir=%s' % tmp_path],
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
    names = file_lists.read_file_list(flags['filelist'])
    fewer = tmp_path / 'fewer.scp'
    fewer.write_text(''.join(name + '\n' for name in names[:-1]))
    data = {'train': sources.FileData(**flags),
            'slower': sources.FileData(**dict(flags, filelist=str(fewer)))}
    hp, compute = data['train'].hyperparameters(), towers.compute_options(xla='off')
    stages = voice.Stage('a', 4, 'lr=1e-2'), voice.Stage('b', 3, 'lr=1e-12,n_layers=1', 'slower')
    a, b = (str(tmp_path / 'runs' / stage.name) for stage in stages)

    def train():
        return voice.train_stages(hp, data, str(tmp_path / 'runs'), compute, stages)

    original, stop_at = loop.TrainingLoop.after_step, {a, b}

    def after_step(self, step, result, speed):
        original(self, step, result, speed)
        if self.options.run_dir in stop_at:
            stop_at.remove(self.options.run_dir)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.TrainingLoop, 'after_step', after_step)
    with pytest.raises(errors.UserError, match='stage a is at step 1 of 4'):
        train()
    out = capsys.readouterr().out
    assert 'SIGINT: stopped and saved at step 1' in out
    assert 'data: %d utterances' % len(names) in out
    with pytest.raises(errors.UserError, match='stage b is at step 1 of 3'):
        train()
    out = capsys.readouterr().out
    assert 'continuing %s from step 1' % a in out
    assert 'starting from the weights of %s' % os.path.join(b + '-start', 'model.ckpt-0') in out
    assert 'data: %d utterances' % (len(names) - 1) in out
    assert params.load(b) == params.override(hp, 'lr=1e-12,n_layers=1,' + voice.COMMON)
    first = voice.first_layers(vocoder.load_model(a)[1], hp, 1)
    shutil.rmtree(a)                                    # what continues is the last run alone
    shutil.rmtree(b + '-start')
    assert train() == b
    assert 'continuing %s from step 1' % b in capsys.readouterr().out
    last = vocoder.load_model(b)[1]
    assert sorted(first) == sorted(last)
    for name, weights in first.items():
        np.testing.assert_allclose(weights, last[name], atol=1e-6)
    train()
    assert 'stage' not in capsys.readouterr().out       # nothing is done twice
