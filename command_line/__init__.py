"""What all commands share: arguments and their types, exit status, errors in one line."""
import argparse
import contextlib
import gc
import logging
import os
import select
import signal
import sys
import traceback
from typing import Callable, Optional

import errors
import params
from command_line.memory_limit import guard_memory, out_of_memory, print_error
from errors import UserError

__all__ = ['add_hyperparameters', 'boolean', 'guard_memory', 'local_path',
           'prepare_tensorflow_import', 'random_seed', 'run_script']


def prepare_tensorflow_import() -> None:
    """Makes the imports of a command fast and silent, TensorFlow's above all.

    TensorFlow logs nothing, and leaves Keras out, which nothing here uses: in its place it looks
    for tf_keras, whose absence it does not mind. Python does not look for garbage until
    `run_script`: imports make little. TensorFlow then takes 2 instead of 4.7 processor seconds.
    """
    if 'tensorflow' not in sys.modules:
        gc.disable()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')


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
    if not gc.isenabled():
        gc.freeze()     # what is imported stays
        gc.enable()
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
        cause = error.__cause__     # a package may be there, and its library too large to load
        is_memory = isinstance(cause, ImportError) and errors.is_out_of_memory(cause)
        print_error(out_of_memory(cause) if is_memory else error)
        return 2
    except KeyboardInterrupt:
        print('%s: interrupted' % os.path.basename(sys.argv[0]), file=sys.stderr)
        return 130
    except Exception as error:
        if not errors.is_out_of_memory(error):
            raise
        print_error(out_of_memory(error))
        return 2


def _is_unread():
    """Whether nobody reads any more what this process prints."""
    outputs = select.poll()
    for descriptor in (1, 2):
        outputs.register(descriptor, 0)     # for errors alone
    return bool(outputs.poll(0))
