"""train.py, run as its users run it: it learns, it stops and goes on, it refuses."""
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import wave

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT
from graphs import TINY
from speech import MODEL, prepare, script

import devices
import files
import ops
import params
import train
import utils
import vocoder
from datasets import file_lists
from datasets.clips import Clips
from errors import UserError
from training import events, loop
from training.graph import build_training_graph

TRAIN = os.path.join(ROOT, 'train.py')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp('corpus'))


def command(data, root, *more):
    # nothing compiled, for the time it takes, but where a test asks for it
    return data + ['--logdir_root=%s' % root, '--run_name=run', '--xla=off'] + list(more)


def run(monkeypatch, data, root, *more):
    """train.py's main in this process."""
    monkeypatch.setattr(sys, 'argv', ['train.py'] + command(data, root, *more))
    return train.main()


def weights(run_dir):
    """{name: value} of the newest checkpoint of a run: weights, averages, Adam's moments, step."""
    reader = tf.train.load_checkpoint(utils.find_checkpoint(str(run_dir)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_bits(a, b):
    assert sorted(a) == sorted(b) and len(a) > 100
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def test_learns_real_speech_and_says_so(monkeypatch, data, tmp_path, capsys):
    """The held-out loss falls by over a nat a sample in 150 steps of a tiny model."""
    state = tf.executing_eagerly(), tf.get_default_graph()
    assert run(monkeypatch, data, tmp_path, '--max_steps=150', '--listen', '--hparams='
               'eval_every=50,summary_every=25,gen_test_wave_every=150,gen_utterances=1,'
               'save_every=50') == 0
    assert (tf.executing_eagerly(), tf.get_default_graph()) == state     # of the process
    found = events.read(str(tmp_path / 'run'))
    losses = [value.simple_value for _, value in found['heldout/nll']]
    assert [step for step, _ in found['heldout/nll']] == [50, 100, 150]
    assert losses[2] < losses[1] < losses[0] and losses[2] < -2.5
    for half in ('train', 'heldout'):  # the three terms make up the loss
        terms = [[value.simple_value for _, value in found['%s/%s' % (half, tag)]]
                 for tag in ('nll', 'z', 'log_s', 'log_det')]
        np.testing.assert_allclose(terms[0], np.sum(terms[1:], axis=0), atol=1e-4)
    assert len(found['train/gradient_norm']) == 6
    vocoded = [tag for tag in found if tag.startswith('vocoded/')]
    assert len(vocoded) == 1
    audio = found[vocoded[0]][0][1].audio
    assert audio.sample_rate == 16000 and audio.length_frames > 8000
    image = next(values for tag, values in found.items() if tag.startswith('spectrogram/'))
    assert image[0][1].image.encoded_image_string.startswith(b'\x89PNG')
    out = capsys.readouterr().out
    assert 'parameters' in out and 'the best so far' in out and 'python inference.py' in out
    assert 'losses: %s\n' % (tmp_path / 'run' / 'losses.png') in out
    assert (tmp_path / 'run' / 'losses.png').read_bytes().startswith(b'\x89PNG')
    listen = tmp_path / 'run' / 'listen'
    for path in (listen / 'step_150').glob('*.wav'):
        with wave.open(str(path)) as heard, wave.open(str(listen / 'original' / path.name)) as said:
            assert heard.getnframes() == said.getnframes() == audio.length_frames
    assert len(list((listen / 'step_150').glob('*.wav'))) == 1
    assert params.load(str(tmp_path / 'run')).n_flows == 2
    # the newest few and the best are kept
    assert len(glob.glob(str(tmp_path / 'run' / 'model.ckpt-*.index'))) == 3
    best, = glob.glob(str(tmp_path / 'run' / 'best' / 'model.ckpt-*.index'))
    assert best.endswith('ckpt-150.index')
    assert weights(tmp_path / 'run')['best_heldout_loss'] == np.float32(losses[2])
    capsys.readouterr()
    assert run(monkeypatch, data, tmp_path, '--max_steps=150') == 0  # nothing left to do
    assert 'raise --max_steps' in capsys.readouterr().out


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_killed_at_any_moment_it_continues_to_the_same_bits(monkeypatch, data, tmp_path):
    """kill -9 at random moments, the same command again, against a training in one go."""
    rng, more = random.Random(7), ['--max_steps=60', '--hparams=save_every=7,eval_every=20']
    assert run(monkeypatch, data, tmp_path / 'whole', *more) == 0
    run_dir = str(tmp_path / 'cut' / 'run')

    def saved():  # the newest step saved, 0 before the first
        found = glob.glob(os.path.join(run_dir, 'model.ckpt-*.index'))
        return max([int(re.search(r'-(\d+)\.index', path).group(1)) for path in found] or [0])

    for kills in range(3):  # two are killed after a save of their own, the third ends
        process = subprocess.Popen([sys.executable, '-u', TRAIN]
                                   + command(data, tmp_path / 'cut', *more),
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   universal_newlines=True)
        if kills < 2:
            enough = saved() + 7 * rng.randint(1, 2)
            while process.poll() is None and saved() < enough:
                time.sleep(0.02)
            time.sleep(rng.random() * 0.1)
            process.kill()
        out = process.communicate()[0]
        assert process.returncode == (-signal.SIGKILL if kills < 2 else 0), out
        assert ('continuing' in out) == (kills > 0), out
    assert_same_bits(weights(tmp_path / 'whole' / 'run'), weights(tmp_path / 'cut' / 'run'))


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_continues_to_the_same_bits(monkeypatch, data,
                                                                       tmp_path, capsys):
    more = ['--max_steps=150', '--hparams=save_every=1000,eval_every=50']
    run(monkeypatch, data, tmp_path / 'whole', *more)
    arguments = command(data, tmp_path / 'cut', '--max_steps=1000000',
                        '--hparams=save_every=1000,eval_every=50,summary_every=1')
    process = subprocess.Popen([sys.executable, TRAIN] + arguments, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, universal_newlines=True)
    for line in process.stdout:
        if line.startswith('step 3:'):
            break
    process.send_signal(signal.SIGTERM)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert 'SIGTERM: stopped and saved at step' in out
    stopped = weights(tmp_path / 'cut' / 'run')['global_step']
    assert 3 <= stopped < 150
    capsys.readouterr()
    assert run(monkeypatch, data, tmp_path / 'cut', *more) == 0
    assert 'continuing' in capsys.readouterr().out
    assert_same_bits(weights(tmp_path / 'whole' / 'run'), weights(tmp_path / 'cut' / 'run'))


@pytest.mark.tensorflow1
@pytest.mark.own_process
@pytest.mark.slow
def test_towers_parts_and_reversible_flows_train_like_the_whole_batch(monkeypatch, data, tmp_path):
    found = []
    for i, more in enumerate(([], ['--ngpu=2', '--accumulate=2', '--reversible'])):
        # a large epsilon: Adam would blow the rounding of a gradient near zero up to a whole step
        run(monkeypatch, data, tmp_path / str(i), '--max_steps=5',
            '--hparams=adam_epsilon=0.1,batch_size=4,stft_weight=1', *more)
        found.append(weights(tmp_path / str(i) / 'run'))
    for other in found[1:]:
        assert sorted(other) == sorted(found[0])
        for name in other:
            np.testing.assert_allclose(found[0][name], other[name], atol=1e-4, err_msg=name)


STFT = ',stft_weight=1,nll_weight=0.1,adversarial_weight=0.5'


@pytest.mark.tensorflow1
@pytest.mark.own_process
@pytest.mark.slow
@pytest.mark.parametrize('hparams,more', [
    ('', ['--xla=off', '--reversible', '--accumulate=2', '--ngpu=2']),
    ('', ['--xla=off', '--precision=float16', '--accumulate=2']),
    (STFT, ['--xla=off', '--accumulate=2', '--ngpu=2'] if tf.__version__.startswith('1.')
     else ['--precision=bfloat16', '--xla=gates'])])
def test_each_way_of_computing_continues_to_the_same_bits(monkeypatch, data, tmp_path, capsys,
                                                          hparams, more):
    monkeypatch.setattr(devices, 'convolution_speed', lambda dtype: 0.25)
    is_slow = any('float16' in flag for flag in more)
    more = more + ['--max_steps=6', '--hparams=batch_size=4,save_every=3' + hparams]
    run(monkeypatch, data, tmp_path / 'whole', *more)
    shutil.copytree(str(tmp_path / 'whole'), str(tmp_path / 'cut'))
    for path in (tmp_path / 'cut' / 'run').glob('**/*-6.*'):
        path.unlink()
    run(monkeypatch, data, tmp_path / 'cut', *more)
    out = capsys.readouterr().out
    assert 'from step 3' in out
    assert out.count('at 0.25 of the speed of float32; ') == 2 * is_slow
    assert_same_bits(weights(tmp_path / 'whole' / 'run'), weights(tmp_path / 'cut' / 'run'))


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_the_seeds_command_line(data, tmp_path):
    """Paths with backslashes, no flag that it lacks but the end; in the current directory."""
    backslashed = [argument.replace('/', '\\') for argument in data]
    done = script('train.py', *(backslashed + ['--max_steps=12', '--store_metadata=True']),
                  cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / 'logdir' / 'waveglow'
    assert (run_dir / 'params.json').exists()
    with open(str(run_dir / 'timeline-11.json')) as f:
        assert any('Conv2D' in event.get('name', '') for event in json.load(f)['traceEvents'])


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(monkeypatch, data, tmp_path):
    run(monkeypatch, data, tmp_path, '--max_steps=4', '--hparams=save_every=2')
    before = weights(tmp_path / 'run')
    with pytest.raises(UserError) as error:
        run(monkeypatch, data, tmp_path, '--max_steps=50',
            '--hparams=lr=1e9,clip_norm=0,warmup_steps=0,save_every=1000')
    message = str(error.value)
    assert 'the last good checkpoint is model.ckpt-4' in message and 'from frame' in message
    assert_same_bits(before, weights(tmp_path / 'run'))


@pytest.mark.slow
def test_a_checkpoint_of_weights_gone_bad_is_set_aside(monkeypatch, data, tmp_path, capsys):
    """Saved after every step: what is saved just before the loss breaks is not the last good."""
    run(monkeypatch, data, tmp_path, '--max_steps=3', '--hparams=save_every=1')
    with pytest.raises(UserError) as error:
        run(monkeypatch, data, tmp_path, '--max_steps=50',
            '--hparams=lr=1e5,clip_norm=0,warmup_steps=0,save_every=1,keep_checkpoints=1')
    message = str(error.value)
    bad = int(message.split('suspect.ckpt-')[1].split(';')[0])
    assert 'the last good checkpoint is model.ckpt-%d' % (bad - 1) in message
    assert (tmp_path / 'run' / ('suspect.ckpt-%d.index' % bad)).exists()
    assert weights(tmp_path / 'run')['global_step'] == bad - 1
    capsys.readouterr()
    with pytest.raises(UserError):  # the broken rate again: from the good one, to the same end
        run(monkeypatch, data, tmp_path, '--max_steps=50',
            '--hparams=lr=1e5,clip_norm=0,warmup_steps=0,save_every=1,keep_checkpoints=1')
    assert 'from step %d' % (bad - 1) in capsys.readouterr().out


@pytest.mark.slow
def test_data_that_vanishes_is_named(monkeypatch, tmp_path):
    """A training file gone: its name. A held-out one: its name, and the weights are saved."""
    for which in ('train', 'test'):
        corpus = tmp_path / which
        corpus.mkdir()
        arguments = prepare(corpus, MODEL + ',eval_every=4')
        gone = file_lists.read_file_list(str(corpus / (which + '.scp')))
        original = loop.TrainingLoop.after_step

        def after_step(self, step, result, speed):
            if step == 3:
                for name in gone:
                    os.rename(str(corpus / 'mels' / (name + '.mel')), str(corpus / 'gone'))
            original(self, step, result, speed)
        monkeypatch.setattr(loop.TrainingLoop, 'after_step', after_step)
        with pytest.raises(UserError) as error:
            run(monkeypatch, arguments, corpus, '--max_steps=400')
        monkeypatch.undo()
        assert any(name + '.mel' in str(error.value) for name in gone), error.value
        assert utils.has_checkpoint(str(corpus / 'run')) == (which == 'test')


@pytest.mark.slow
def test_a_directory_that_is_renamed_ends_the_training_saved(monkeypatch, data, tmp_path):
    """And what is saved beside it continues to the same bits."""
    run(monkeypatch, data, tmp_path / 'whole', '--max_steps=6')
    original = loop.TrainingLoop.after_step

    def after_step(self, step, result, speed):
        if step == 4:
            (tmp_path / 'run').rename(tmp_path / 'renamed')
        original(self, step, result, speed)
    monkeypatch.setattr(loop, 'LOOK_SECONDS', -1)
    monkeypatch.setattr(loop.TrainingLoop, 'after_step', after_step)
    with pytest.raises(UserError, match='renamed while it trained; step 4 is saved in'):
        run(monkeypatch, data, tmp_path, '--max_steps=400', '--hparams=save_every=3')
    monkeypatch.undo()
    assert not (tmp_path / 'run').exists()
    run(monkeypatch, data, tmp_path, '--max_steps=6', '--run_name=run-step-4')
    assert_same_bits(weights(tmp_path / 'whole' / 'run'), weights(tmp_path / 'run-step-4'))


@pytest.mark.slow
def test_another_held_out_set_does_not_compete_for_the_best(monkeypatch, data, tmp_path):
    run(monkeypatch, data, tmp_path, '--max_steps=4')
    first = weights(tmp_path / 'run')
    run(monkeypatch, data, tmp_path, '--max_steps=8', '--hparams=eval_seconds=0.5')
    second = weights(tmp_path / 'run')
    assert first['best_heldout_set'] != second['best_heldout_set']
    assert glob.glob(str(tmp_path / 'run' / 'best' / 'model.ckpt-8.index'))


@pytest.mark.slow
def test_averages_and_discriminators_are_not_begun_on_the_way(monkeypatch, data, tmp_path):
    run(monkeypatch, data, tmp_path, '--max_steps=2', '--hparams=ema_decay=0')
    with pytest.raises(UserError, match='ema_decay=0'):
        run(monkeypatch, data, tmp_path, '--max_steps=4', '--hparams=ema_decay=0.9')
    adversarial = '--hparams=stft_weight=1,adversarial_weight=1,summary_every=1'
    with pytest.raises(UserError, match='adversarial_weight=0; discriminators'):
        run(monkeypatch, data, tmp_path, '--max_steps=4', adversarial)
    # a run of its own may begin them; the model is as large as before
    run(monkeypatch, data, tmp_path / 'other', '--max_steps=2', adversarial,
        '--restore_from=%s' % (tmp_path / 'run'))
    other = tmp_path / 'other' / 'run'
    assert any(name.startswith('discriminator_512/') for name in weights(other))
    assert sorted(vocoder.load_model(str(other))[1]) == sorted(
        vocoder.load_model(str(tmp_path / 'run'))[1])
    found = events.read(str(other))
    for tag in ('adversarial', 'discriminators'):
        assert all(value.simple_value > 0 for _, value in found['train/' + tag])
        assert len(found['train/' + tag]) == 2


@pytest.mark.slow
def test_iterators_stay_on_the_cpu():
    """On a GPU their host tensors would be taken for its own; the graph tells without a GPU."""
    hp = TINY
    with tf.Graph().as_default() as graph:
        def clips(batch):
            return tf.data.Dataset.range(9).map(lambda i: Clips(
                tf.zeros([hp.clip_frames * hp.hop_length]), tf.zeros([hp.clip_frames, hp.n_mels]),
                'name', i)).batch(batch, drop_remainder=True)
        build_training_graph(hp, lambda *start: clips(hp.batch_size), lambda: clips(1),
                             ['/device:GPU:0']).build_evaluation()
        iterators = [op for op in graph.get_operations()
                     if 'Iterator' in op.type and 'ToString' not in op.type]
        assert len(iterators) >= 6
        assert {'GPU' in op.device for op in iterators} == {False}
        assert any('GPU' in op.device for op in graph.get_operations() if op.type == 'MatMul')


@pytest.mark.tensorflow1
@pytest.mark.own_process
@pytest.mark.slow
def test_a_broken_checkpoint_falls_back_to_the_one_before(monkeypatch, data, tmp_path, capsys):
    run(monkeypatch, data, tmp_path, '--max_steps=4', '--hparams=save_every=2')
    data_file = str(tmp_path / 'run' / 'model.ckpt-4.data-00000-of-00001')
    with open(data_file, 'r+b') as f:
        f.truncate(os.path.getsize(data_file) // 2)
    run(monkeypatch, data, tmp_path, '--max_steps=6')
    out = capsys.readouterr().out
    assert 'cannot read' in out and 'from step 2' in out
    for path in glob.glob(str(tmp_path / 'run' / '*.data-*')):
        with open(path, 'r+b') as f:
            f.truncate(100)
    with pytest.raises(UserError, match='none of the .* checkpoints'):
        run(monkeypatch, data, tmp_path, '--max_steps=8')


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_fine_tuning_starts_from_the_averaged_weights(monkeypatch, data, tmp_path, capsys):
    run(monkeypatch, data, tmp_path / 'a', '--max_steps=20', '--hparams=lr=1e-2')
    source = weights(tmp_path / 'a' / 'run')
    # the smallest of steps, so that what it started from is still to be seen
    run(monkeypatch, data, tmp_path / 'b', '--max_steps=1', '--hparams=lr=1e-12',
        '--restore_from=%s' % (tmp_path / 'a' / 'run'))
    tuned = weights(tmp_path / 'b' / 'run')
    moved = 0
    for name in source:
        if name.endswith(utils.AVERAGE):
            weight = name[:-len(utils.AVERAGE)]
            np.testing.assert_allclose(tuned[weight], source[name], atol=1e-6)
            np.testing.assert_allclose(tuned[name], source[name], atol=1e-6)
            moved = max(moved, np.abs(source[weight] - source[name]).max())
    assert moved > 1e-3 and tuned['global_step'] == 1


@pytest.fixture(scope='module')
def started(data, tmp_path_factory):
    """A --logdir_root with a run of one step."""
    root = tmp_path_factory.mktemp('started')
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, data, root, '--max_steps=1')
    return root


@pytest.mark.slow
@pytest.mark.parametrize('more,words', [
    (['--hparams=n_flows=3'], ['n_flows 3 and 2', '--run_name']),
    (['--preset=weixsong'], ['sample_rate', '--run_name']),
    (['--filelist=nowhere.scp'], ['nowhere.scp']),
    (['--wave_dir=nowhere'], ['nowhere']),
    (['--ngpu=3', '--hparams=batch_size=2'], ['3 equal towers', 'batch_size=3']),
    (['--ngpu=2', '--accumulate=2', '--hparams=batch_size=2'], ['4 equal parts', 'batch_size=4']),
    (['--hparams=clip_samples=1000000'], ['no utterance', 'clip_samples=']),
    (['--preset=smal'], ["'small'"]),
])
def test_refusals(monkeypatch, data, started, more, words):
    with pytest.raises(UserError) as error:
        run(monkeypatch, data, started, '--max_steps=1', *more)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert '\n' not in message


def test_data_of_another_profile_is_refused(monkeypatch, data, tmp_path):
    with pytest.raises(UserError, match='mel_profile weixsong and tacotron2'):
        run(monkeypatch, data, tmp_path, '--preset=weixsong')
    assert not (tmp_path / 'run').exists()


def test_a_run_is_trained_by_one_process(monkeypatch, data, tmp_path):
    os.makedirs(str(tmp_path / 'run'))
    with files.lock_directory(str(tmp_path / 'run'), ''):
        with pytest.raises(UserError, match='another train.py'):
            run(monkeypatch, data, tmp_path, '--max_steps=1')


@pytest.mark.slow
@pytest.mark.parametrize('flags', [
    ['--filelist=corpus/train.scp', '--wave_dir=wavs', '--lc_dir=mels'],
    ['--filelist=train.scp', '--wave_dir=wavs', '--lc_dir=link'], ['--data=corpus/train-*']])
def test_a_run_is_not_written_among_its_data(monkeypatch, tmp_path, flags):
    """Its params.json would replace that of the data."""
    monkeypatch.chdir(str(tmp_path))
    os.mkdir('corpus')
    os.symlink('corpus', 'link')
    monkeypatch.setattr(sys, 'argv', ['train.py', '--logdir_root=.', '--run_name=corpus'] + flags)
    with pytest.raises(UserError, match='params.json, which is read, would be overwritten'):
        train.main()
    assert os.listdir('corpus') == []


def test_errors_are_one_sentence_and_a_status(data, tmp_path):
    done = script('train.py', *command(data, tmp_path, '--hparams=n_group=7'))
    assert done.returncode == 2
    assert done.stderr.startswith('train.py: error: n_group=7') and done.stderr.count('\n') == 1


def test_a_convolution_that_this_device_lacks_is_refused(monkeypatch, data, tmp_path):
    """TensorFlow 1.15 has no NCHW convolution on a CPU; elsewhere an impostor stands in."""
    if not tf.__version__.startswith('1.'):
        forms = dict(ops.CONV_FORMS, conv2d_nchw=lambda x, f, dilation,
                     padding: ops.CONV_FORMS['time_to_batch'](x, f, 1, [1, 1]))
        monkeypatch.setattr(ops, 'CONV_FORMS', forms)
    with pytest.raises(UserError, match='conv_form=time_to_batch') as error:
        run(monkeypatch, data, tmp_path, '--hparams=conv_form=conv2d_nchw')
    assert 'conv_form=conv2d_nchw does not compute a dilated convolution' in str(error.value)
