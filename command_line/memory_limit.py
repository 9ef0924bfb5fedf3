"""What happens to a command where memory is limited (`ulimit -v`): it ends with a sentence."""
import atexit
import contextlib
import ctypes
import os
import signal
import sys
import time
from typing import NoReturn, Optional

import errors

try:
    import resource
except ImportError:     # Windows has no such limits
    resource = None     # type: ignore[assignment]

CRASHES = ('SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGSEGV')      # of code that got no memory
STUCK_SECONDS = 20      # in which a process that has used all of its memory ends, or frees some
MARGIN = 16 << 20       # bytes: with less than this left it has used all


def guard_memory() -> None:
    """Where the address space is limited (`ulimit -v`), lets a child process do the work.

    Code that gets no memory may abort, crash or go round in circles, in NumPy, TensorFlow or below
    them. The parent, which needs none, then says in a sentence what happened and ends with status
    2. It hands on signals, and it returns the exit status of the child.

    To be called by a command before it imports TensorFlow. Returns in the child, or where there is
    no limit.
    """
    limit = address_space()
    if not limit or not sys.platform.startswith('linux'):
        return
    handed_on = {signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handed_on)
    ended, ends = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child:
        os.close(ends)
        _watch_child(child, limit, handed_on, ended)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)      # PR_SET_PDEATHSIG: to die with the parent
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(ended)
    atexit.register(os.write, ends, b'.')       # which libraries that call exit() pass over
    sys.excepthook = _tell_exception


def address_space():
    """The limit of a process's address space in bytes, or None."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit if limit != resource.RLIM_INFINITY else None


def _tell_exception(kind, error, trace):
    """sys.excepthook: for what happens outside of `run_script`, in an import."""
    if not errors.is_out_of_memory(error):
        return sys.__excepthook__(kind, error, trace)
    print_error(out_of_memory(error))
    os._exit(2)


def _watch_child(child: int, limit: int, handed_on: set, ended: int) -> NoReturn:
    """Waits for the end of a child process, and ends as it did."""
    full_since: Optional[float] = None
    status = 0
    while True:
        received = signal.sigtimedwait(handed_on, 1)
        if (received is not None and received.si_signo != signal.SIGCHLD
                and received.si_code <= 0):     # else of the terminal, which the child got too
            os.kill(child, received.si_signo)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if _virtual_memory(child) < limit - MARGIN:
            full_since = None
        elif full_since is None:
            full_since = time.monotonic()
        elif time.monotonic() - full_since > STUCK_SECONDS:
            _end_with(child, 'it stands still with all of it used', limit)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        if name in CRASHES:
            _end_with(None, 'ended by ' + name, limit)
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    if os.WEXITSTATUS(status) == 1 and not _read_now(ended):
        _end_with(None, 'a library ended it', limit)
    os._exit(os.WEXITSTATUS(status))


def _end_with(child: Optional[int], what: str, limit: int) -> NoReturn:
    if child is not None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print_error('out of memory, limited to %d MB: %s; raise the limit (ulimit -v)'
                 % (limit >> 20, what))
    os._exit(2)


def _read_now(descriptor):
    """A byte from a pipe if there is one; processes that the child left may have its other end."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, 1)
    return b''


def _virtual_memory(process):
    with contextlib.suppress(OSError), open('/proc/%d/statm' % process) as f:
        return int(f.read().split()[0]) * os.sysconf('SC_PAGE_SIZE')
    return 0


def print_error(what):
    print('%s: error: %s' % (os.path.basename(sys.argv[0]), what), file=sys.stderr, flush=True)


def out_of_memory(error):
    limit = address_space()
    return 'out of memory (%s)%s; %s' % (
        errors.reason(error) or type(error).__name__, ', limited to %d MB' % (limit >> 20)
        if limit else '', 'raise the limit (ulimit -v)' if limit else 'close other programs, or '
        'take a machine with more')
