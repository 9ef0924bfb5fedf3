"""Ends a host that waits for another for too long, or that is told to stop while it waits.

While TensorFlow waits for the other hosts in a step, Python runs no signal handler and no timeout:
a thread does both.
"""
import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Callable, List, NoReturn, Optional

from training.signals import COPY_SECONDS

WAIT_MINUTES = 10       # for all hosts to be there, and for the first step: it compiles
SIGNAL_SECONDS = 3      # and two steps: from a signal to the step that ends them all
ANSWER_SECONDS = 4      # for a server to say its first bytes
SETTLE_SECONDS = 2      # from the end of one host to the end of another, that both name the cause

_ending = threading.Lock()      # held by the thread that ends the process


def end_process(message: str, settle_seconds: float = 0) -> NoReturn:
    """Prints a sentence and ends the process with status 2, whatever its other threads wait for."""
    _ending.acquire()
    print('\n%s: error: %s' % (os.path.basename(sys.argv[0]), message), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(settle_seconds)
    os._exit(2)


class StepWatch:
    """A thread that watches how long the main thread has been in `waiting`, and for signals."""

    def __init__(self, timeout_minutes: float, silent_hosts: Callable[[], List[str]], advice: str):
        """
        Args:
          timeout_minutes: a wait of so long ends the process.
          silent_hosts: returns the names of the other hosts that do not answer.
          advice: what to do afterwards; messages end with it.
        """
        self._timeout_minutes, self._silent_hosts = timeout_minutes, silent_hosts
        self._advice = advice
        self._done = threading.Event()
        self._waiting_since: Optional[float] = None
        self._last_wait = 0.0           # seconds
        self._has_stepped = False
        self._signals: List[float] = []     # when each came
        self._last_signal = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """To be called by the main thread; Python lets no other have the signals."""
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno())
        self._thread.start()

    def stop(self) -> None:
        self._done.set()

    def close(self) -> None:
        """Undoes `start`."""
        self.stop()
        signal.set_wakeup_fd(self._wakeup_before)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    @contextlib.contextmanager
    def waiting(self, is_step: bool):
        """Within it the main thread may wait for other hosts."""
        began = self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None
            self._last_wait = time.monotonic() - began
        self._has_stepped |= is_step

    def _run(self):
        while not self._done.is_set():
            self._read_signals()
            began = self._waiting_since
            if began is None or self._done.is_set():
                continue
            now, minutes = time.monotonic(), self._timeout_minutes
            if not self._has_stepped:
                minutes = max(minutes, WAIT_MINUTES)
            if now - began > 60 * minutes:
                self._end_late(began, minutes)
            elif len(self._signals) > 1 and now - self._signals[1] > SIGNAL_SECONDS:
                self._end_told(began)
            elif self._signals and now - self._signals[0] > SIGNAL_SECONDS + 2 * self._last_wait:
                silent = self._silent_hosts()
                if silent:
                    self._end_told(began, silent)

    def _read_signals(self):
        ready, _, _ = select.select([self._reader], [], [], 0.5)
        for number in self._reader.recv(16) if ready else b'':
            if not self._signals or time.monotonic() - self._signals[-1] > COPY_SECONDS:
                self._last_signal = number
                self._signals.append(time.monotonic())

    def _end_late(self, began, minutes):
        silent = self._silent_hosts()
        if self._waiting_since == began and not self._done.is_set():
            late = ('all hosts answer: one of them waits for its data, or the chief evaluates for '
                    'longer (raise --step_timeout_minutes)')
            end_process('no step has ended for %g minutes; %s; %s'
                        % (minutes, _not_answering(silent) if silent else late, self._advice),
                        SETTLE_SECONDS)

    def _end_told(self, began, silent=()):
        if self._waiting_since == began and not self._done.is_set():
            end_process('%s: ended in the middle of a step%s; nothing is saved of it; %s'
                        % (signal.Signals(self._last_signal).name,
                           '; ' + _not_answering(silent) if silent else '', self._advice))


def _not_answering(names):
    return '%s %s not answer' % (' and '.join(names), 'do' if len(names) > 1 else 'does')
