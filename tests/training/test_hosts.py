"""Training on several hosts: processes of this machine that speak over its loopback."""
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT
from speech import MODEL, WAVS, prepare, script
from test_train import assert_same_bits, weights

import params
from datasets import clip_files, file_lists
from datasets.clips import Clips
from errors import UserError
from training import greeting, hosts
from training.hosts import SINGLE_HOST, Hosts

KILLS = int(os.environ.get('KILLS', 2))     # times that a host is killed in training
HOSTS = int(os.environ.get('HOSTS', 2))     # of more than three, two are killed at once
DATA = os.environ.get('DATA', 'sharded')    # what they train on: data, for files, or sharded


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp('corpus'))


@pytest.fixture(scope='module')
def sharded(tmp_path_factory):
    """The same as four shards."""
    directory = tmp_path_factory.mktemp('shards')
    assert script('preprocess_data.py', '--wave_dir=' + WAVS, '--mel_dir=%s' % (directory / 'mels'),
                  '--data_dir=%s' % directory, '--preset=small', '--hparams=' + MODEL,
                  '--test_size=2', '--tfrecord_shards=4').returncode == 0
    return ['--data=%s' % (directory / 'shards' / 'train-*.tfrecord')]


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(('127.0.0.1', 0))
    addresses = ['127.0.0.1:%d' % s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def start(data, root, index, addresses, *more, **env):
    """train.py as host `index`; with addresses=None as env says. Hosts share no directory."""
    arguments = data + ['--logdir_root=%s' % (root / ('host_%d' % index)), '--run_name=run',
                        '--xla=off'] + list(more)
    if addresses:
        arguments += ['--worker_hosts=' + ','.join(addresses), '--task_index=%d' % index]
    return subprocess.Popen([sys.executable, '-u', os.path.join(ROOT, 'train.py')] + arguments,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            universal_newlines=True, env=dict(os.environ, **env))


def finish(processes, seconds=240):
    """[(exit status, output)] of all; none may outlast `seconds`."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out) for process, out in zip(processes, outputs)]


def train_together(data, root, *more, count=2):
    addresses = free_addresses(count)
    ended = finish([start(data, root, i, addresses, *more) for i in range(count)])
    assert [status for status, _ in ended] == [0] * count, ended
    assert not (root / 'host_1').exists()       # the chief alone writes
    for address, (_, out) in zip(addresses, ended):
        assert 'port %s is open on all addresses' % address.split(':')[1] in out
    return root / 'host_0' / 'run'


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_two_hosts_of_two_towers_train_as_one_tower_does(data, tmp_path):
    """The whole batch in one: the weights of 20 steps, and their averages, agree to 1e-5."""
    # a large epsilon: Adam would blow the rounding of a gradient near zero up to a whole step
    more = ['--max_steps=20', '--hparams=batch_size=4,lr=1e-2,adam_epsilon=0.1']
    assert script('train.py', *(data + ['--logdir_root=%s' % tmp_path, '--run_name=run',
                                        '--xla=off'] + more)).returncode == 0
    alone = weights(tmp_path / 'run')
    together = weights(train_together(data, tmp_path, '--ngpu=2', *more))
    assert sorted(alone) == sorted(together) and together['global_step'] == 20
    moved = 0
    for name, value in alone.items():
        if name.startswith('waveglow/') and '/Adam' not in name:
            np.testing.assert_allclose(together[name], value, atol=1e-5, err_msg=name)
            if name.endswith('/end/filter'):    # zero before the first step
                moved = max(moved, np.abs(value).max())
    assert moved > 1e-3     # a hundred times the tolerance above


@pytest.mark.slow
def test_killed_hosts_continue_to_the_same_bits(tmp_path, request):
    """kill -9 of hosts at random moments, the last and the chief by turns: the others end, say so.

    Then they go on as if never cut.
    """
    data, count, steps = request.getfixturevalue(DATA), HOSTS, 45 * (KILLS + 1)
    more = ['--max_steps=%d' % steps, '--accumulate=2',
            '--hparams=batch_size=%d,save_every=5,eval_every=40,gen_test_wave_every=1000'
            % (2 * count)]
    whole = weights(train_together(data, tmp_path / 'whole', *more, count=count))
    rng, run, cut = random.Random(3), tmp_path / 'cut' / 'host_0' / 'run', 0
    for kill in range(KILLS + 1):
        addresses = free_addresses(count)
        processes = [start(data, tmp_path / 'cut', i, addresses, *more) for i in range(count)]
        step, victims = cut + rng.randint(5, 30), [0, 1] if kill % 2 else [count - 1, count // 2]
        victims = victims[:2 if count > 3 else 1]
        while kill < KILLS and newest(run) < step and processes[0].poll() is None:
            time.sleep(0.01)
        if kill < KILLS:
            time.sleep(rng.random() * 0.2)
            for victim in victims:
                processes[victim].kill()
            killed = time.monotonic()
            ended = finish(processes)
            assert time.monotonic() - killed < 60
            gone = ['%s (%s) is gone' % ('worker %d' % i if i else 'the chief, worker 0',
                                         addresses[i]) for i in victims]
            others = [ended[i] for i in range(count) if i not in victims]
            for status, out in others:
                assert status == 2 and out.count('error: ') == 1 and 'Traceback' not in out, out
            assert any(words in out for words in gone for _, out in others), others
            cut = newest(run)
            assert 0 < cut < steps
    ended = finish(processes)
    assert [status for status, _ in ended] == [0] * count, ended
    assert all('continuing' in out for _, out in ended)
    assert_same_bits(weights(run), whole)


def newest(run):
    steps = [int(path.name[len('model.ckpt-'):-len('.index')])
             for path in run.glob('model.ckpt-*.index')]
    return max(steps or [0])


@pytest.mark.tensorflow1
@pytest.mark.slow
def test_told_to_stop_all_stop_at_one_step(data, tmp_path):
    addresses = free_addresses(2)
    config = {'cluster': {'chief': addresses[:1], 'worker': addresses[1:]}}
    tasks = [{'type': 'chief', 'index': 0}, {'type': 'worker', 'index': 0}]
    pair = [start(data, tmp_path, i, None, '--hparams=save_every=10',
                  TF_CONFIG=json.dumps(dict(config, task=task))) for i, task in enumerate(tasks)]
    run = tmp_path / 'host_0' / 'run'
    while newest(run) < 10 and pair[0].poll() is None:
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    (chief, said), (worker, worker_said) = finish(pair)
    assert (chief, worker) == (0, 0), said + worker_said
    assert 'another host was told to stop: stopped and saved at step %d;' % newest(run) in said
    assert 'SIGTERM: stopped at step %d;' % newest(run) in worker_said


@pytest.mark.slow
@pytest.mark.parametrize('told', [False, True])
def test_a_host_that_hangs_does_not_hang_the_other(told, data, tmp_path):
    """SIGSTOP of the worker: the chief names it after the time that was set, or at a SIGTERM."""
    addresses = free_addresses(2)
    pair = [start(data, tmp_path, i, addresses, '--hparams=save_every=10',
                  '--step_timeout_minutes=%g' % (5 if told else 0.1)) for i in range(2)]
    run = tmp_path / 'host_0' / 'run'
    try:
        while newest(run) < 10 and pair[0].poll() is None:
            time.sleep(0.05)
        pair[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        if told:
            time.sleep(1)
            pair[0].send_signal(signal.SIGTERM)
        (status, said), = finish(pair[:1], 60)
    finally:
        pair[1].kill()
        pair[1].communicate()
    assert time.monotonic() - began < 30
    assert status == 2 and said.count('error: ') == 1 and 'Traceback' not in said, said
    assert 'worker 1 (%s) does not answer; ' % addresses[1] in said
    assert ('error: SIGTERM: ended in the middle' if told else 'no step has ended for 0.1 minutes'
            ) in said


@pytest.mark.slow
def test_a_process_on_the_port_of_the_chief_is_waited_for(data, tmp_path):
    addresses = free_addresses(2)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(('127.0.0.1', int(addresses[0].split(':')[1])))
        other.listen()
        pair = [start(data, tmp_path, i, addresses, '--max_steps=5') for i in range(2)]
        said = ''
        for line in pair[1].stdout:
            said += line
            if 'held by something' in line:
                break
    (status, chief), (worker_status, worker) = finish(pair)
    assert (status, worker_status) == (0, 0), chief + said + worker
    assert 'waiting for the chief, worker 0 (%s), ' % addresses[0] in said
    assert 'port %s is taken; waiting' % addresses[0].split(':')[1] in chief


@pytest.mark.slow
def test_another_training_is_refused(data, tmp_path):
    """Other hyperparameters, flags and data, all named, and nothing is trained."""
    other = data[0].split('=')[1].replace('train.scp', 'other.scp')     # beside params.json
    with open(data[0].split('=')[1]) as f, open(other, 'w') as shorter:
        shorter.writelines(f.readlines()[1:])
    addresses = free_addresses(2)
    ended = finish([start(data, tmp_path, 0, addresses, '--hparams=lr=1e-3'),
                    start(['--filelist=%s' % other] + data[1:], tmp_path, 1, addresses,
                          '--seed=1')])
    for status, out in ended:
        assert status == 2 and 'Traceback' not in out
        assert ('worker 1 (%s) and the chief differ in lr, data, --seed; ' % addresses[1]) in out
    assert newest(tmp_path / 'host_0' / 'run') == 0


def test_shares_of_a_step_make_it_up(data):
    """Steps 3 to 5 in two parts on three hosts, against one host: the same clips."""
    hp = params.preset('small').replace(batch_size=12, clip_samples=2048, stft_weight=1.0)
    paths = [argument.split('=')[1] for argument in data]
    train_set = clip_files.index(file_lists.read_file_list(paths[0]), paths[1], paths[2], hp)

    def steps(share, parts):
        with tf.Graph().as_default(), tf.Session() as session:
            clips = clip_files.training_clips(train_set, paths[1], paths[2], hp, 5, 3, parts,
                                              share.num_hosts, share.task_index)
            read = tf.data.make_one_shot_iterator(clips).get_next()
            batches = [Clips(*session.run(read)) for _ in range(3 * parts)]
        assert {len(batch.name) for batch in batches} == {12 // (parts * share.num_hosts)}
        found = [list(zip(batch.name, batch.start_frame, batch.noise[:, 0, 0]))
                 for batch in batches]
        return [sum(found[i:i + parts], []) for i in range(0, len(found), parts)]

    alone = steps(SINGLE_HOST, 1)
    together = [sum(shares, []) for shares in zip(*(
        steps(Hosts(('a:1', 'b:1', 'c:1'), i), 2) for i in range(3)))]
    assert len(together) == 3
    assert [sorted(step) for step in together] == [sorted(step) for step in alone]


@pytest.mark.parametrize('worker_hosts, task_index, tf_config, expected', [
    (None, None, None, SINGLE_HOST),
    (None, None, '{}', SINGLE_HOST),
    (None, None, '{"cluster": {}, "task": {"type": "worker", "index": 0}}', SINGLE_HOST),
    ('a:1, b:2', 1, '{"cluster": 3}', Hosts(('a:1', 'b:2'), 1)),        # flags go first
    (None, None, '{"cluster": {"worker": ["a:1", "b:1"]}, '
                 '"task": {"type": "worker", "index": "1"}}',
     Hosts(('a:1', 'b:1'), 1)),
    (None, None, '{"cluster": {"master": ["m:1"], "worker": ["a:1"]}, "task": {"type": "worker"}}',
     Hosts(('m:1', 'a:1'), 1)),
    (None, None, '{"cluster": {"chief": ["c:1"], "worker": ["a:1"]}, '
                 '"task": {"type": "chief", "index": 0}}', Hosts(('c:1', 'a:1'), 0)),
    ('[::1]:80', 0, None, Hosts(('[::1]:80',), 0))])
def test_who_the_hosts_are(worker_hosts, task_index, tf_config, expected):
    assert hosts.from_arguments(worker_hosts, task_index, tf_config) == expected


@pytest.mark.parametrize('worker_hosts, task_index, tf_config, told', [
    ('a:1,b:1', None, None, 'takes --task_index'),
    (None, 1, None, 'takes --worker_hosts'),
    ('a:1,b:1', 2, None, '--task_index is 2, but --worker_hosts lists 2'),
    ('a:1,b:1', -1, None, '--task_index is -1'),
    ('a,b:1', 0, None, "'a', which is no host:port"),
    ('a:1,a:1', 0, None, 'twice'),
    ('a:99999', 0, None, 'no host:port'),
    (None, None, 'what', 'TF_CONFIG is not'),
    (None, None, '[]', 'TF_CONFIG is not'),
    (None, None, '[' * 100000, 'TF_CONFIG is not'),
    (None, None, '{"cluster": {"worker": ["a:1"]}, "task": {"index": 1e400}}', 'no index'),
    (None, None, '{"cluster": {"worker": ["a:1"]}, "task": {"index": 0.5}}', 'no index'),
    (None, None, '{"cluster": {"worker": ["a:1"]}, "task": {"index": "one"}}', "'one' is no index"),
    (None, None, '{"cluster": {"worker": ["a:\u00b2"]}}', 'no host:port'),
    (None, None, '{"cluster": {"worker": ["a:%s"]}}' % ('9' * 5000), 'no host:port'),
    (None, None, '{"cluster": {"worker": [["a:1"]]}}', 'no host:port'),
    (None, None, '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps"}}', "type 'ps'"),
    (None, None, '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief"}}', 'no chief 0'),
    (None, None, '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
     "TF_CONFIG's task is 1")])
def test_hosts_that_cannot_be(worker_hosts, task_index, tf_config, told):
    with pytest.raises(UserError, match='(?s).*' + told.replace('[', r'\[')):
        hosts.from_arguments(worker_hosts, task_index, tf_config)


@pytest.mark.slow
def test_a_host_that_never_comes(monkeypatch):
    monkeypatch.setattr(hosts, 'WAIT_MINUTES', 1 / 60)
    addresses = free_addresses(2)
    with pytest.raises(UserError, match='worker 1 .* was not there within'):
        hosts.start_server(Hosts(tuple(addresses), 0), tf.ConfigProto())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)     # of the server before
        other.bind(('127.0.0.1', int(addresses[0].split(':')[1])))
        other.listen()
        with pytest.raises(UserError, match='port %s of the chief.* is taken' % addresses[0][10:]):
            hosts.start_server(Hosts(tuple(addresses), 0), tf.ConfigProto())


def greet_in_threads(pairs):
    """[None or the error] of a greeting of each (Hosts, run name), all at once."""
    ended = [None] * len(pairs)

    def greet(i):
        try:
            greeting.greet_all(*pairs[i], 2 / 60, hosts.connect)
        except UserError as error:
            ended[i] = str(error)

    threads = [threading.Thread(target=greet, args=(i,)) for i in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_hosts_of_one_training_know_each_other():
    addresses = tuple(free_addresses(3))
    assert greet_in_threads([(Hosts(addresses, i), 'run') for i in range(3)]) == [None] * 3


def test_hosts_of_another_training_are_told_apart():
    addresses = tuple(free_addresses(2))
    ended = greet_in_threads([(Hosts(addresses, 0), 'run'), (Hosts(addresses, 1), 'other')])
    assert 'worker 1' in ended[0] and 'the chief, worker 0' in ended[1]
    assert any('held by a host of another training' in told for told in ended)


@pytest.mark.parametrize('speaks', [False, True])
def test_what_holds_the_port_of_the_chief_is_not_taken_for_it(speaks, capsys, monkeypatch):
    """A listener that is silent, and one that says what gRPC's servers say."""
    monkeypatch.setattr(greeting, 'ANSWER_SECONDS', 0.2)
    monkeypatch.setattr(greeting, 'TELL_SECONDS', 0.5)
    addresses = tuple(free_addresses(2))
    with socket.socket() as other:
        other.bind(('127.0.0.1', int(addresses[0].split(':')[1])))
        other.listen()

        def speak():
            with contextlib.suppress(OSError):
                while True:
                    other.accept()[0].sendall(b'\0\0\x18\4\0\0\0\0\0')

        if speaks:
            threading.Thread(target=speak, daemon=True).start()
        told, = greet_in_threads([(Hosts(addresses, 1), 'run')])
    held = 'its port is held by something that is no host of this training'
    assert told.startswith('the chief, worker 0 (%s) was not there within' % addresses[0])
    assert held in told
    assert 'waiting for the chief, worker 0 (%s), ' % addresses[0] in capsys.readouterr().out
