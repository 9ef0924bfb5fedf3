"""What surrounds the training loop: options, signals, events."""
import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT

import files
import params
import utils
from errors import UserError
from params import HParams
from training import events
from training import run as training_run
from training.checkpoints import Checkpoints
from training.graph import PartFetches, StepFetches
from training.hosts import SINGLE_HOST, HostMonitor, Hosts
from training.loop import TrainingLoop
from training.objective import Objective
from training.options import TrainingOptions
from training.signals import StopSignals


@pytest.mark.parametrize('changes, count, name', [
    ({}, 1, 'towers'),
    ({'num_towers': 2}, 2, 'towers'),
    ({'num_towers': 2, 'accumulate': 3}, 6, 'parts'),
    ({'num_towers': 2, 'accumulate': 3, 'hosts': Hosts(('a:1', 'b:1'))}, 12, 'parts of 2 hosts')])
def test_a_batch_is_split_over_towers_parts_and_hosts(changes, count, name):
    options = TrainingOptions(run_dir='run', **changes)
    assert (options.batch_parts, options.batch_parts_name) == (count, name)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_remembered_and_the_second_interrupts(number, monkeypatch):
    before, now = signal.getsignal(number), [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number.name
        os.kill(os.getpid(), number)        # a copy of the first
        now[0] += 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize('name, busy', [
    # in C, where Python hears of no signal; and between a training's end and the process's
    ('SIGTERM', "hashlib.pbkdf2_hmac('sha256', b'', b'', 2 ** 31 - 1)"),
    ('SIGHUP', 'time.sleep(60)'),
    ('SIGTERM', "signal.set_wakeup_fd(-1)\ntime.sleep(60)"),
    ('SIGTERM', 'with signals.StopSignals(): pass\ntime.sleep(60)')])
def test_a_signal_before_the_first_step_says_a_word(name, busy):
    code = ("import hashlib, signal, sys, time\nfrom training import signals\n"
            "sys.argv = ['train.py']\n"
            "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"        # the tests may run under nohup
            "signals.end_when_there_is_nothing_to_save()\nprint('ready', flush=True)\n" + busy)
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, universal_newlines=True)
    assert process.stdout.readline() == 'ready\n'
    time.sleep(0.2)
    started = time.time()
    process.send_signal(getattr(signal, name))
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + getattr(signal, name) and time.time() - started < 10
    assert told == ('train.py: %s came while no step was running: ended, there was nothing to '
                    'save\n' % name)


def test_a_training_hears_signals_itself_and_none_of_a_terminal_under_nohup():
    code = ("import os, signal, time\nfrom training import signals\n"
            "read = os.read\n"      # another thread hears of it late
            "os.read = lambda *args: (read(*args), time.sleep(0.3))[0]\n"
            "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
            "signals.end_when_there_is_nothing_to_save()\n"
            "os.kill(os.getpid(), signal.SIGHUP)\n"
            "with signals.StopSignals() as stop:\n"
            "    os.kill(os.getpid(), signal.SIGHUP)\n"
            "    assert stop.received is None\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n"
            "    assert stop.received == 'SIGTERM'\n"
            "time.sleep(1)\n")
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, timeout=60).returncode == 0


def test_who_watches_signals_of_several_hosts_goes_on_within_a_training():
    """A StepWatch's descriptor stays, before, within and after."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.received == 'SIGTERM'
        assert os.read(reader, 1) == bytes([signal.SIGTERM])
    finally:
        assert signal.set_wakeup_fd(before) == writer
        os.close(reader)
        os.close(writer)


def test_events_are_read_as_they_were_written(tmp_path):
    audio = np.linspace(-1, 1, 100)
    with tf.Graph().as_default(), events.Events(str(tmp_path), 3) as written:
        written.scalars({'a': 1.5, 'b': -2.0}, 4)
        written.scalars({'a': 2.5}, 5)
        written.audio('c', audio, 16000, 5)
    found = events.read(str(tmp_path))
    assert [(step, value.simple_value) for step, value in found['a']] == [(4, 1.5), (5, 2.5)]
    assert [(step, value.simple_value) for step, value in found['b']] == [(4, -2.0)]
    (step, value), = found['c']
    assert step == 5 and isinstance(value, tf.Summary.Value)
    assert (value.audio.sample_rate, value.audio.length_frames) == (16000, 100)
    assert value.audio.encoded_audio_string.startswith(b'RIFF')


class NoSource:
    @staticmethod
    def fault():
        return None


def a_loop(run_dir, checkpoints=None, session=None):
    """A TrainingLoop of nothing that is computed."""
    made = TrainingLoop(session, None, HParams(), TrainingOptions(run_dir=str(run_dir)), NoSource(),
                        checkpoints, HostMonitor(SINGLE_HOST, ''))
    made.saved_step = 4
    return made


@pytest.mark.parametrize('reason, told', [
    ('model.ckpt-8; No space left on device', 'make room on the disk of'),
    ('model.ckpt-8; Disk quota exceeded', 'make room on the disk of'),
    ('OOM when allocating tensor', 'ran out of memory (OOM when allocating tensor); take --rev'),
    ('a.mel; Too many open files', 'failed (a.mel; Too many open files)')])
def test_a_full_disk_and_memory_are_told_apart(tmp_path, reason, told):
    with pytest.raises(UserError) as error, a_loop(tmp_path).as_user_error('writing a checkpoint'):
        raise tf.errors.ResourceExhaustedError(
            None, None, "Detected at node 'save'\nNode: 'save'\n%s" % reason)
    assert told in str(error.value)
    assert ('out of memory' in str(error.value)) == ('OOM' in reason)


@pytest.mark.parametrize('broken', ['parent', 'lock', 'full'])
def test_a_run_directory_that_cannot_be_written_is_a_sentence(monkeypatch, tmp_path, broken):
    """As on a disk that is mounted read only, or of another user, or without inodes."""
    path = tmp_path / 'logdir' / 'run'
    if broken == 'parent':
        (tmp_path / 'logdir').write_text('no folder')
    elif broken == 'lock':
        (path / '.lock').mkdir(parents=True)
    else:
        def mkstemp(**options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'a temporary name')
        monkeypatch.setattr(files.tempfile, 'mkstemp', mkstemp)
    with pytest.raises(UserError) as error, training_run._locked_directory(str(path)):
        pass
    assert str(error.value).startswith('cannot write to the directory %s (' % path)
    assert '--logdir_root' in str(error.value)


def test_a_run_directory_is_held_by_one(tmp_path):
    path = str(tmp_path / 'run')
    with training_run._locked_directory(path):
        with pytest.raises(UserError, match='another train.py'), \
                training_run._locked_directory(path):
            pass
        with pytest.raises(KeyError), training_run._locked_directory(str(tmp_path / 'other')):
            raise KeyError
    assert os.listdir(path) == ['.lock']


@pytest.mark.parametrize('loss, there', [
    ('removed', False), ('renamed', False), ('another', False), ('lock', True), ('none', True)])
def test_a_run_directory_that_is_lost_is_known(tmp_path, loss, there):
    path = tmp_path / 'run'
    with training_run._locked_directory(str(path)) as is_there:
        params.save(str(path), HParams())
        if loss == 'removed':
            shutil.rmtree(str(path))
        elif loss in ('renamed', 'another'):
            path.rename(tmp_path / 'elsewhere')
        elif loss == 'lock':
            (path / '.lock').unlink()
        if loss == 'another':
            with training_run._locked_directory(str(path)) as is_other_there:
                assert is_other_there()
        assert is_there() == there


@pytest.mark.parametrize('zeros, told', [
    (100, '1 of these clips hold digital silence (runs of exact zeros), on which no likelihood is '
          'finite: take --hparams=dither=0.5'),
    (20, 'a lower lr or clip_norm may help')])
def test_a_divergence_tells_digital_silence(tmp_path, zeros, told):
    audio = np.random.RandomState(0).uniform(0.1, 1, [2, 500]).astype(np.float32)
    part = PartFetches([b'a'], [3], audio[:1].copy(), None)
    audio[1, 200:200 + zeros] = 0
    result = StepFetches(loss=Objective(*[np.nan] * 8), learning_rate=1, gradient_norm=np.nan,
                         loss_scale=(), clip_names=[b'b'], start_frames=[7], audio=audio[1:],
                         stopping=False, op=None)
    with pytest.raises(UserError) as error:
        a_loop(tmp_path)._require_finite(9, [part], result)
    assert 'its clips were a from frame 3, b from frame 7' in str(error.value)
    assert str(error.value).endswith('; ' + told)


def test_the_last_good_checkpoint_is_named(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        v = tf.get_variable('v', initializer=3.0)
        session.run(v.initializer)
        made = a_loop(tmp_path, Checkpoints(str(tmp_path), 3), session)
        made.saved_step = None

        def said():
            with pytest.raises(UserError) as error:
                made.fail_diverged(3, 'it diverged')
            return str(error.value)

        assert 'there is no good checkpoint yet' in said()
        made.checkpoints.save_best(session, 2)
        assert 'the best checkpoint is in %s' % (tmp_path / 'best') in said()
        made.save(3)        # of the weights that diverge
        assert 'is now suspect.ckpt-3' in said()
        assert 'the best checkpoint is in %s' % (tmp_path / 'best') in said()
        for step in (1, 3):
            made.save(step)
        assert 'the last good checkpoint is model.ckpt-1 in %s' % tmp_path in said()


def test_what_a_kill_left_of_checkpoints_is_removed(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        v = tf.get_variable('v', initializer=3.0)
        session.run(v.initializer)
        checkpoints = Checkpoints(str(tmp_path), 3)
        for step in (1, 2):
            checkpoints.save(session, step)
        before = sorted(os.listdir(str(tmp_path)))
        for name in ('model.ckpt-0.data-00000-of-00001', 'model.ckpt-3.data-00000-of-00001',
                     'model.ckpt-3.data-00000-of-00001.tempstate123'):
            (tmp_path / name).write_bytes(b'weights')
        assert checkpoints.restore(session) == str(tmp_path / 'model.ckpt-2')
        assert sorted(os.listdir(str(tmp_path))) == before


def test_a_training_whose_directory_is_lost_is_saved_beside_it(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        v = tf.get_variable('v', initializer=3.0)
        session.run(v.initializer)
        made = a_loop(tmp_path / 'run', Checkpoints(str(tmp_path / 'run'), 3), session)
        made.save(1)
        made.is_there = lambda: False
        shutil.rmtree(str(tmp_path / 'run'))
        for name in ('run-step-2', 'run-step-2-saved'):
            with pytest.raises(UserError) as error:
                made.save(2)
            assert 'was removed or renamed while it trained' in str(error.value)
            assert '--run_name=%s,' % name in str(error.value)
            found = utils.find_checkpoint(str(tmp_path / name))
            assert found == str(tmp_path / name / 'model.ckpt-2')
            assert tf.train.load_checkpoint(found).get_tensor('v') == 3.0
            assert params.load(str(tmp_path / name)) == HParams()
        assert not (tmp_path / 'run').exists()
