"""Signals that stop a training."""
import os
import signal
import sys
import threading
from typing import Any, Dict, Optional

# of a terminal that closes; Windows has none
HANGUP = [signal.SIGHUP] if hasattr(signal, 'SIGHUP') else []


_ending = threading.Lock()          # held by the thread that ends the process
_writer: Optional[int] = None       # end of the pipe of end_when_there_is_nothing_to_save


def end_when_there_is_nothing_to_save() -> None:
    """From now on SIGTERM and SIGHUP end the process with a sentence, but within StopSignals.

    Exit status: 128 + the signal's number. A thread ends it, at once: the main thread may be in
    TensorFlow, where it hears of no signal.
    """
    global _writer
    read, _writer = os.pipe()
    os.set_blocking(_writer, False)
    for number in (signal.SIGTERM, *HANGUP):
        if signal.getsignal(number) != signal.SIG_IGN:      # as nohup wants it
            signal.signal(number, _end)     # where another has the descriptor: a StepWatch
    signal.set_wakeup_fd(_writer)       # where the number of each signal is written
    threading.Thread(target=_end_on_signal, args=(read,), daemon=True).start()


def _end_on_signal(read):
    while True:
        for number in os.read(read, 1):
            if number in (signal.SIGTERM, *HANGUP):
                _end(number)
            # Ctrl-C raises KeyboardInterrupt


def _end(number, frame=None):
    if not _ending.acquire(blocking=False):
        return      # the other thread is about to
    print('%s: %s came while no step was running: ended, there was nothing to save'
          % (os.path.basename(sys.argv[0]), signal.Signals(number).name),
          file=sys.stderr, flush=True)
    os._exit(128 + number)


class StopSignals:
    """Within it, SIGTERM, SIGHUP and Ctrl-C ask the training to stop; a second one interrupts it.

    The training looks at `received` after every step, so that it can save before it stops.
    """

    def __init__(self) -> None:
        self.received: Optional[str] = None     # the name of the first signal: 'SIGTERM'
        self._handlers_before: Dict[int, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> 'StopSignals':
        self._handlers_before = {number: signal.signal(number, self._receive)
                                 for number in (signal.SIGINT, signal.SIGTERM, *HANGUP)
                                 if number not in HANGUP
                                 or signal.getsignal(number) != signal.SIG_IGN}     # by nohup
        self._wakeup_before = signal.set_wakeup_fd(-1)
        if self._wakeup_before != _writer:      # a StepWatch's, which goes on
            signal.set_wakeup_fd(self._wakeup_before)
        return self

    def __exit__(self, *error):
        if self._wakeup_before == _writer:
            signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
