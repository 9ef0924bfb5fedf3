"""Signals that stop a training."""
import os
import signal
import sys
import threading
import time
from typing import Any, Dict, Optional

# of a terminal that closes; Windows has none
HANGUP = [signal.SIGHUP] if hasattr(signal, 'SIGHUP') else []
COPY_SECONDS = 0.5      # a signal that follows so soon is a copy: one sent to a group of processes,
                        # and handed on by the parent of one of them (command_line.guard_memory)


def end_when_there_is_nothing_to_save() -> None:
    """From now on SIGTERM and SIGHUP end the process with a sentence, but within StopSignals.

    Exit status: 128 + the signal's number. A thread ends it, at once: the main thread may be in
    TensorFlow, where it hears of no signal.
    """
    ending = _Ending()
    for number in (signal.SIGTERM, *HANGUP):
        if signal.getsignal(number) != signal.SIG_IGN:      # as nohup wants it
            # where another has the descriptor, a StepWatch, this handler is called alone
            signal.signal(number, ending.end)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)         # where the number of each signal is written
    threading.Thread(target=ending.end_on_signal, args=(read,), daemon=True).start()


class _Ending:
    """Ends the process once, whichever thread hears of a signal first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def end_on_signal(self, read: int) -> None:
        while True:
            for number in os.read(read, 1):
                handler: Any = signal.getsignal(number)
                if handler == self.end:     # and not that of StopSignals
                    self.end(number)

    def end(self, number: int, frame: Any = None) -> None:
        if not self._lock.acquire(blocking=False):
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
        self._received_time = 0.0
        self._handlers_before: Dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        self._handlers_before = {number: signal.signal(number, self._receive)
                                 for number in (signal.SIGINT, signal.SIGTERM, *HANGUP)
                                 if number not in HANGUP
                                 or signal.getsignal(number) != signal.SIG_IGN}     # by nohup
        return self

    def __exit__(self, *error):
        for number, handler in self._handlers_before.items():
            # _Ending's thread may read late of a signal that was received here
            if self.received and isinstance(getattr(handler, '__self__', None), _Ending):
                handler = signal.SIG_DFL
            signal.signal(number, handler)

    def _receive(self, number, frame):
        if self.received and time.monotonic() - self._received_time > COPY_SECONDS:
            raise KeyboardInterrupt
        if not self.received:
            self.received, self._received_time = signal.Signals(number).name, time.monotonic()
