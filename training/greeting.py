"""How the hosts of a training know each other before TensorFlow's servers take their ports.

A server of TensorFlow's tells nobody what it serves, so that whatever holds a port looks like a
host. Each host first listens on its own port itself, and tells those who know the training's word
that it does: GREETING, the answer, and THANKS, after which both know the other.
"""
import contextlib
import errno
import hashlib
import json
import socket
import threading
import time
from typing import Callable, Set

from errors import UserError

GREETING = 'waveglow host %d of %s\n'
THANKS = b'thanks\n'
ANSWER_SECONDS = 3      # for a host to answer a greeting
TELL_SECONDS = 5        # between two lines about a wait


def greet_all(hosts, run_name: str, wait_minutes: float,
              connect: Callable[[str, float], socket.socket]) -> None:
    """Returns when every host knows every other; this host's port is free again then.

    Args:
      hosts: a hosts.Hosts.
      run_name: of the training.
      wait_minutes: for all of it.
      connect: makes a socket of 'host:port' and a timeout in seconds.

    Raises UserError if this host's port stays taken or another host does not greet within the time.
    """
    deadline = time.monotonic() + 60 * wait_minutes
    word = hashlib.sha256(json.dumps([hosts.addresses, run_name]).encode()).hexdigest()
    with _serving(_listen(hosts, deadline), hosts, word, deadline) as greeted_by:
        told = began = time.monotonic()
        greeted: Set[int] = set()
        while len(greeted) < hosts.num_hosts or len(greeted_by) < hosts.num_hosts:
            waits_for, reason = None, ''
            for i in sorted(set(range(hosts.num_hosts)) - greeted):
                problem = _greet(hosts, i, word, connect)
                if not problem:
                    greeted.add(i)
                elif waits_for is None:
                    waits_for, reason = i, problem
            if waits_for is None:       # all that is left is to be greeted
                waits_for = min(set(range(hosts.num_hosts)) - greeted_by, default=None)
                reason = 'it has not found this host'
            now = time.monotonic()
            if waits_for is not None and now > deadline:
                raise UserError('%s was not there within %g minutes (%s); start it with the same '
                                'command, or correct its address'
                                % (hosts.name(waits_for), wait_minutes, reason))
            if waits_for is not None and now - told > TELL_SECONDS:
                print('waiting for %s, %.0f s: %s'
                      % (hosts.name(waits_for), now - began, reason), flush=True)
                told = now
            time.sleep(0.2)


def _listen(hosts, deadline):
    """A socket that listens on this host's port, once nothing else holds it."""
    port, told = int(hosts.addresses[hosts.task_index].rpartition(':')[2]), False
    while True:
        try:
            return _listener(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UserError('cannot serve on port %d (%s); give another'
                                % (port, error.strerror)) from error
        if time.monotonic() > deadline:
            raise UserError('port %d of %s is taken by another process; give another address'
                            % (port, hosts.name(hosts.task_index)))
        if not told:
            print('port %d is taken; waiting for the process that holds it' % port, flush=True)
        told = True
        time.sleep(0.5)


def _listener(port):
    """Of IPv6 and IPv4 together, as TensorFlow's; of IPv4 where there is no other."""
    for family in (socket.AF_INET6, socket.AF_INET):
        listener = None
        try:
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(('', port))
            listener.listen(128)
            listener.settimeout(0.1)
            return listener
        except OSError as error:
            if listener is not None:
                listener.close()
            if family == socket.AF_INET or error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise


@contextlib.contextmanager
def _serving(listener, hosts, word, deadline):
    """Within it, threads answer greetings; gives the set of the hosts that greeted.

    Afterwards `listener` is closed.
    """
    greeted_by: Set[int] = set()
    done = threading.Event()

    def answer(connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(ANSWER_SECONDS)
            line = _read_line(connection)
            for i in range(hosts.num_hosts):
                if line == (GREETING % (i, word)).encode():
                    connection.sendall((GREETING % (hosts.task_index, word)).encode())
                    connection.settimeout(max(1, deadline - time.monotonic()))
                    if _read_line(connection) == THANKS:
                        greeted_by.add(i)
                    return
            connection.sendall((GREETING % (hosts.task_index, 'another training')).encode())

    def accept():
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:     # a time without one, or a connection that ended at once
                continue
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield greeted_by
    finally:
        done.set()
        thread.join()       # a listener that is accepting holds the port even when it is closed
        listener.close()


def _greet(hosts, i, word, connect):
    """Returns '' once host i knows this one, else what is the matter."""
    expected = (GREETING % (i, word)).encode()
    try:
        connection = connect(hosts.addresses[i], ANSWER_SECONDS)
    except OSError as error:
        return error.strerror or str(error)
    with connection:
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall((GREETING % (hosts.task_index, word)).encode())
            line = _read_line(connection)
            if line == expected:
                connection.sendall(THANKS)
                return ''
        except OSError:
            line = b''
    if line.startswith(GREETING.split('%')[0].encode()):
        return 'its port is held by a host of another training: other addresses or --run_name'
    return 'its port is held by something that is no host of this training, or by one in training'


def _read_line(connection):
    line = b''
    while not line.endswith(b'\n') and len(line) < 200:
        more = connection.recv(1)
        if not more:
            break
        line += more
    return line
