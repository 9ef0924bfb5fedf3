"""Training on several hosts: who they are, whether all are there, and when one is lost.

Each host runs the same command and works on its part of every batch; `collectives.py` averages what
they find. The first of them, the chief, alone reads and writes the run's directory.
"""
import contextlib
import dataclasses
import hashlib
import json
import re
import select
import socket
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

import tensorflow.compat.v1 as tf

import errors
from errors import UserError
from training.greeting import greet_all
from training.step_watch import (
    ANSWER_SECONDS,
    SETTLE_SECONDS,
    WAIT_MINUTES,
    StepWatch,
    end_process,
)

JOB = 'worker'
RENEW_SECONDS = 20      # between two connections to a peer; a server ends silent ones after 120
SERVE_SECONDS = 60      # for the servers of hosts that have greeted each other to be there
CONNECT_SECONDS = 10    # for a peer to accept one: two failures, and it is lost within 60


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes that compute every training step together, and which of them this one is."""
    addresses: Tuple[str, ...] = ('localhost',)     # 'host:port' of each, the chief's first
    task_index: int = 0                             # of this process, in `addresses`

    @property
    def num_hosts(self) -> int:
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process alone reads and writes the run's directory."""
        return self.task_index == 0

    def name(self, task_index: int) -> str:
        """How messages name a host: its role and its address."""
        role = 'worker %d' % task_index if task_index else 'the chief, worker 0'
        return '%s (%s)' % (role, self.addresses[task_index])


SINGLE_HOST = Hosts()


def from_arguments(worker_hosts: Optional[str], task_index: Optional[int],
                   tf_config: Optional[str]) -> Hosts:
    """The Hosts of --worker_hosts and --task_index, else of TF_CONFIG's JSON, else SINGLE_HOST.

    TF_CONFIG is {"cluster": {"chief": ["a:2222"], "worker": ["b:2222"]}, "task": {"type": "worker",
    "index": 0}}, as Kubeflow and Vertex AI set it; without a chief, the first worker is it.

    Args:
      worker_hosts: 'host:port,host:port' or None.
      task_index: an int or None.
      tf_config: the value of the environment variable, or None.

    Raises UserError for what is not of these forms.
    """
    if worker_hosts is not None:
        addresses = [address.strip() for address in worker_hosts.split(',')]
        if task_index is None:
            raise UserError('--worker_hosts takes --task_index: which of the %d this one is, from 0'
                            % len(addresses))
        return _checked(addresses, task_index, '--worker_hosts', '--task_index')
    if task_index is not None:
        raise UserError('--task_index=%d takes --worker_hosts, the addresses of all' % task_index)
    return _from_tf_config(tf_config) if tf_config else SINGLE_HOST


def _from_tf_config(tf_config):
    try:
        config = json.loads(tf_config)
        cluster = {job: list(members) for job, members in config.get('cluster', {}).items()}
        task = config.get('task', {})
        kind, index = task.get('type', JOB), _whole(task.get('index', 0))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError('TF_CONFIG is not {"cluster": {"worker": [...]}, "task": {...}} in JSON '
                        '(%s); correct it, or give --worker_hosts and --task_index'
                        % errors.reason(error)) from error
    if not cluster:
        return SINGLE_HOST
    if kind not in ('chief', 'master', JOB):
        raise UserError('TF_CONFIG makes this process a task of type %s; here are chief and worker '
                        'alone: the chief evaluates, and no parameter server is needed'
                        % errors.shown(kind))
    chiefs = cluster.get('chief', []) + cluster.get('master', [])
    if index < 0 or kind != JOB and index >= len(chiefs):
        raise UserError('TF_CONFIG has no %s %d among %d' % (kind, index, len(chiefs)))
    return _checked(chiefs + cluster.get(JOB, []), index + (len(chiefs) if kind == JOB else 0),
                    'TF_CONFIG', "TF_CONFIG's task")


def _whole(value):
    """The int of a number or a text of one; ValueError if it is none of a task's."""
    if not re.match(r'-?[0-9]{1,9}$', str(value)):
        raise ValueError('%s is no index of a task' % errors.shown(value))
    return int(value)


def _checked(addresses, index, where, which):
    for address in addresses:
        host, _, port = address.rpartition(':') if isinstance(address, str) else ('', '', '')
        if not host or not re.match('[0-9]{1,5}$', port) or not 0 < int(port) < 65536:
            raise UserError('%s lists %s, which is no host:port' % (where, errors.shown(address)))
    if len(set(addresses)) < len(addresses):
        raise UserError('%s lists an address twice: %s' % (where, ', '.join(addresses)))
    if not 0 <= index < len(addresses):
        raise UserError('%s is %d, but %s lists %d, counted from 0'
                        % (which, index, where, len(addresses)))
    return Hosts(tuple(addresses), index)


def fingerprints(settings: Dict[str, Any]) -> List[int]:
    """A whole number for the value of each setting, by which hosts compare them."""
    return [int(hashlib.sha256(repr(value).encode()).hexdigest()[:12], 16)
            for value in settings.values()]


def require_agreement(all_fingerprints: Sequence[Sequence[int]], settings: Dict[str, Any],
                      hosts: Hosts) -> None:
    """Raises UserError, naming the host and the settings, if one differs from the chief.

    Args:
      all_fingerprints: `fingerprints` of the settings of every host, the chief's first.
      settings: those of this host, for their names.
    """
    for i, found in enumerate(all_fingerprints):
        unlike = [name for name, a, b in zip(settings, found, all_fingerprints[0]) if a != b]
        if unlike:
            raise UserError('%s and the chief differ in %s; start the same version with the same '
                            'flags on the same data everywhere'
                            % (hosts.name(i), ', '.join(unlike)))


def add_collectives(config: tf.ConfigProto, hosts: Hosts) -> tf.ConfigProto:
    """A copy of a session's `config` with what collective operations between `hosts` need."""
    distributed = tf.ConfigProto()
    distributed.CopyFrom(config)
    distributed.experimental.collective_group_leader = '/job:%s/replica:0/task:0' % JOB
    distributed.experimental.collective_nccl = True     # where there are GPUs
    distributed.device_filters.append('/job:%s/task:%d' % (JOB, hosts.task_index))
    return distributed


def start_server(hosts: Hosts, config: tf.ConfigProto, run_name: str = '') -> tf.train.Server:
    """Starts this host's server, and waits until all hosts have theirs.

    It serves until the process ends. Before, the hosts greet each other: what else holds a port is
    no host. Raises UserError if this port stays taken, or after WAIT_MINUTES without one of the
    others.
    """
    port = int(hosts.addresses[hosts.task_index].rpartition(':')[2])
    greet_all(hosts, run_name, WAIT_MINUTES, connect)
    try:
        server = tf.train.Server({JOB: list(hosts.addresses)}, JOB, hosts.task_index, config=config)
    except tf.errors.OpError as error:
        raise UserError('cannot serve %s (%s)' % (hosts.name(hosts.task_index),
                                                  errors.reason(error))) from error
    print('port %d is open on all addresses of this machine to anybody who reaches it, without a '
          'password: whoever does can read and write the files of this user; see that only the '
          'hosts reach it (docs/scaling.md)' % port, flush=True)
    deadline = time.monotonic() + SERVE_SECONDS
    for i in range(hosts.num_hosts):
        while not _serves(hosts.addresses[i], CONNECT_SECONDS):
            if time.monotonic() > deadline:
                raise UserError('%s went away while it started; see what it printed'
                                % hosts.name(i))
            time.sleep(0.2)
    return server


def _serves(address, timeout):
    """Whether a server of TensorFlow's is there: it speaks first, as gRPC's do."""
    try:
        with connect(address, timeout) as connection:
            connection.settimeout(timeout)
            return bool(connection.recv(1))
    except OSError:
        return False


def connect(address: str, timeout: float) -> socket.socket:
    """A connection to 'host:port'; OSError if none is made in `timeout` seconds."""
    host, _, port = address.rpartition(':')
    return socket.create_connection((host.strip('[]'), int(port)), timeout)


class HostMonitor:
    """Ends the process, with one sentence and status 2, when another host is lost or late.

    A thread holds a connection to every other host's server. The system ends that of a process that
    dies, however it dies; one on a host that vanished is not accepted again. A step that waits for
    the lost host waits for ever in some versions of TensorFlow and fails in others: the thread ends
    it in all of them. A StepWatch ends one that waits for a host that hangs.
    """

    def __init__(self, hosts: Hosts, advice: str, step_timeout_minutes: float = 5.0):
        """
        Args:
          hosts: all of them.
          advice: what to do after a loss; the message ends with it.
          step_timeout_minutes: a step may wait so long for the other hosts.
        """
        self.hosts, self._advice = hosts, advice
        self._watch = StepWatch(step_timeout_minutes, self._silent_hosts, advice)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> 'HostMonitor':
        if self.hosts.num_hosts > 1:
            self._watch.start()
            self._thread.start()
        return self

    def __exit__(self, *error):
        self.stop()
        if self.hosts.num_hosts > 1:
            self._watch.close()

    def stop(self) -> None:
        """To be called when all hosts are done: from now on they may end."""
        self._done.set()
        self._watch.stop()

    @contextlib.contextmanager
    def waiting(self, is_step: bool = False):
        """Within it, this host may wait for the others, for as long as a step may.

        is_step: whether a training step ends with it.
        """
        with self._watch.waiting(is_step):
            yield

    @contextlib.contextmanager
    def guard(self):
        """Within it, an error of TensorFlow's waits for the thread to tell that a host is lost."""
        try:
            yield
        except tf.errors.OpError:
            if self._thread.is_alive():
                self._thread.join(2 * CONNECT_SECONDS)
            raise

    def _others(self):
        return [i for i in range(self.hosts.num_hosts) if i != self.hosts.task_index]

    def _silent_hosts(self):
        """The names of the other hosts whose servers say nothing: gRPC's speak first."""
        silent = []
        deadline = time.monotonic() + ANSWER_SECONDS
        for i in self._others():
            if not _serves(self.hosts.addresses[i], max(0.5, deadline - time.monotonic())):
                silent.append(self.hosts.name(i))
        return silent

    def _run(self):
        others = self._others()
        connections = {}        # of each other host: (socket, when it was made)
        while not self._done.is_set():
            now = time.monotonic()
            for i in others:
                if i not in connections or now - connections[i][1] > RENEW_SECONDS:
                    fresh = self._connect(i)
                    if fresh is None:
                        return self._lost(i)
                    if i in connections:
                        connections[i][0].close()
                    connections[i] = fresh, time.monotonic()
            for i in self._ended(connections):
                return self._lost(i)

    def _connect(self, i):
        for _ in range(2):
            try:
                return connect(self.hosts.addresses[i], CONNECT_SECONDS)
            except socket.timeout:
                continue
            except OSError:
                return None
        return None

    @staticmethod
    def _ended(connections):
        """Yields the hosts that end their connection within half a second."""
        by_socket = {connection: i for i, (connection, _) in connections.items()}
        ready, _, _ = select.select(list(by_socket), [], [], 0.5)
        for connection in ready:
            try:
                alive = connection.recv(4096)
            except OSError:
                alive = b''
            if not alive:
                yield by_socket[connection]

    def _lost(self, i):
        if self._done.wait(SETTLE_SECONDS):
            return
        end_process('%s is gone: its process ended or its host cannot be reached; see what it '
                    'printed; %s' % (self.hosts.name(i), self._advice))
