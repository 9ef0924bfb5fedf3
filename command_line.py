"""What all commands share: arguments and their types, exit status, errors in one line."""
import argparse
import atexit
import contextlib
import ctypes
import logging
import os
import select
import signal
import sys
import time
import traceback
from typing import Callable, NoReturn, Optional

import errors
import params
from errors import UserError

try:
    import resource
except ImportError:     # Windows has no such limits
    resource = None     # type: ignore[assignment]

CRASHES = ('SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGSEGV')      # of code that got no memory
STUCK_SECONDS = 20      # in which a process that has used all of its memory ends, or frees some
MARGIN = 16 << 20       # bytes: with less than this left it has used all


def local_path(text: str) -> str:
    """A path from the command line; `corpus\\wavs` means corpus/wavs where paths have slashes."""
    if os.sep == '/' and '\\' in text and not os.path.exists(text):
        return text.replace('\\', '/')
    return text


def random_seed(text: str) -> int:
    """argparse type of a random seed: what every generator of random numbers here takes."""
    with contextlib.suppress(ValueError):
        if 0 <= int(text) < 2 ** 32:
            return int(text)
    raise argparse.ArgumentTypeError('a random seed is a whole number from 0 to %d, not %r'
                                     % (2 ** 32 - 1, text))


def boolean(text: str) -> bool:
    """argparse type of a switch that may carry a value: true or false, or a whole number."""
    named = {'true': True, 'false': False}
    if text.lower() in named:
        return named[text.lower()]
    with contextlib.suppress(ValueError):
        return int(text) != 0
    raise argparse.ArgumentTypeError('true or false is expected, not %r' % text)


def add_hyperparameters(parser: argparse.ArgumentParser):
    """Adds --preset and --hparams to a parser: what `params.resolve` takes."""
    parser.add_argument('--preset', metavar='NAME',
                        help='hyperparameters to start from: %s (default: those of the data or '
                             'checkpoint, else %s)'
                             % (', '.join(params.PRESETS), params.DEFAULT_PRESET))
    parser.add_argument('--hparams', metavar='NAME=VALUE,...', default='',
                        help='hyperparameters to change; params.py documents every name')


def run_script(main: Callable[[], Optional[int]]):
    """Runs `main()` and exits with what it returns; a UserError becomes one line on stderr.

    With WAVEGLOW_TRACEBACK=1 in the environment the line comes after the traceback.
    Exit status: 0 for success, 2 for bad input, 130 after Ctrl-C, else what `main` returned. Where
    nobody reads any more what the script prints (`| head`), SIGPIPE ends it, as it ends others.
    """
    logging.getLogger('tensorflow').setLevel(logging.ERROR)     # of deprecations it warns at length
    reconfigure = getattr(sys.stdout, 'reconfigure', None)      # not of every stand-in
    if reconfigure:
        reconfigure(errors='backslashreplace')      # of paths that are not UTF-8
    try:
        status = _run(main)
        sys.stdout.flush()
    except BrokenPipeError:
        if not hasattr(signal, 'SIGPIPE') or not _is_unread():     # but a pipe to a worker is
            raise
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(status or 0)


def _run(main):
    try:
        return main()
    except SystemExit as ending:        # argparse's
        return ending.code
    except UserError as error:
        if os.environ.get('WAVEGLOW_TRACEBACK', '0') not in ('', '0'):
            traceback.print_exc()
        _print_error(error)
        return 2
    except KeyboardInterrupt:
        print('%s: interrupted' % os.path.basename(sys.argv[0]), file=sys.stderr)
        return 130
    except Exception as error:
        if not errors.is_out_of_memory(error):
            raise
        _print_error(_out_of_memory(error))
        return 2


def _print_error(what):
    print('%s: error: %s' % (os.path.basename(sys.argv[0]), what), file=sys.stderr, flush=True)


def _out_of_memory(error):
    limit = _address_space()
    return 'out of memory (%s)%s; %s' % (
        errors.reason(error) or type(error).__name__, ', limited to %d MB' % (limit >> 20)
        if limit else '', 'raise the limit (ulimit -v)' if limit else 'close other programs, or '
        'take a machine with more')


# --- A limit of memory ----------------------------------------------------------------------------

def guard_memory() -> None:
    """Where the address space is limited (`ulimit -v`), lets a child process do the work.

    Code that gets no memory may abort, crash or go round in circles, in NumPy, TensorFlow or below
    them. The parent, which needs none, then says in a sentence what happened and ends with status
    2. It hands on signals, and it returns the exit status of the child.

    To be called by a command before it imports TensorFlow. Returns in the child, or where there is
    no limit.
    """
    limit = _address_space()
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


def _address_space():
    """The limit of a process's address space in bytes, or None."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit if limit != resource.RLIM_INFINITY else None


def _tell_exception(kind, error, trace):
    """sys.excepthook: for what happens outside of `run_script`, in an import."""
    if not errors.is_out_of_memory(error):
        return sys.__excepthook__(kind, error, trace)
    _print_error(_out_of_memory(error))
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
    _print_error('out of memory, limited to %d MB: %s; raise the limit (ulimit -v)'
                 % (limit >> 20, what))
    os._exit(2)


def _is_unread():
    """Whether nobody reads any more what this process prints."""
    outputs = select.poll()
    for descriptor in (1, 2):
        outputs.register(descriptor, 0)     # for errors alone
    return bool(outputs.poll(0))


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
