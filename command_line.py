"""What all commands share: types of arguments, exit status, errors in one line."""
import contextlib
import logging
import os
import signal
import sys

from errors import UserError


def local_path(text):
    """A path from the command line; `corpus\\wavs` means corpus/wavs where paths have slashes."""
    if os.sep == '/' and '\\' in text and not os.path.exists(text):
        return text.replace('\\', '/')
    return text


def seed(text):
    """argparse type of a seed: what every generator of random numbers here takes."""
    value = int(text)
    if not 0 <= value < 2 ** 32:
        raise ValueError
    return value


def flag(text):
    """argparse type of a flag that may carry a value: true or false."""
    return {'true': True, 'false': False}[text.lower()] if text.lower() in (
        'true', 'false') else int(text) != 0


def run_script(main):
    """Runs `main()` and exits with what it returns; a UserError becomes one line on stderr.

    Exit status: 0 for success, 2 for bad input, 130 after Ctrl-C, else what `main` returned.
    """
    logging.getLogger('tensorflow').setLevel(logging.ERROR)     # of deprecations it warns at length
    with contextlib.suppress(AttributeError):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        status = main()
    except UserError as error:
        print('%s: error: %s' % (os.path.basename(sys.argv[0]), error), file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print('%s: interrupted' % os.path.basename(sys.argv[0]), file=sys.stderr)
        status = 130
    sys.exit(status or 0)
