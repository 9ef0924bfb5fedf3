"""Signals that stop a training."""
import signal
from typing import Any, Dict, Optional

# of a terminal that closes; Windows has none
HANGUP = [signal.SIGHUP] if hasattr(signal, 'SIGHUP') else []


class StopSignals:
    """Within it, SIGTERM, SIGHUP and Ctrl-C ask the training to stop; a second one interrupts it.

    The training looks at `received` after every step, so that it can save before it stops.
    """

    def __init__(self) -> None:
        self.received: Optional[str] = None     # the name of the first signal: 'SIGTERM'
        self._handlers_before: Dict[int, Any] = {}

    def __enter__(self) -> 'StopSignals':
        self._handlers_before = {number: signal.signal(number, self._receive)
                                 for number in (signal.SIGINT, signal.SIGTERM, *HANGUP)}
        return self

    def __exit__(self, *error):
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
