"""Opens a page on which a trained WaveGlow is heard and seen, beside Griffin-Lim.

    pip install -r requirements-demo.txt
    python app.py                           # the bundled voice, and the runs in logdir

The page takes a sound, a mel or a sentence. It listens on this machine alone, fetches nothing from
elsewhere, and removes what is uploaded. Ctrl-C ends it.
"""
import argparse
import ipaddress
import os
import signal
import sys
import threading
import webbrowser

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()

import utils
from errors import UserError
from playground.voices import Voices

RUNS = 'logdir'         # where train.py writes its runs by default


def main():
    args = parse_arguments()
    try:
        from playground import page, server
    except ImportError as error:
        raise UserError('the page takes %s, which is not installed; run pip install -r '
                        'requirements-demo.txt, with Python 3.10 or newer (this is %d.%d)'
                        % ((error.name,) + sys.version_info[:2])) from error
    voices = Voices(args.restore_from or default_runs())
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with server.serving(voices, page.Limits(args.max_seconds, args.max_mb), args.host, args.port
                      ) as address:
        print('the page is at %s (Ctrl-C ends it)' % address, flush=True)
        if not is_loopback(args.host):
            print('whoever reaches this machine over the network can use it: there is no password',
                  flush=True)
        if args.open:
            webbrowser.open(address)
        ended.wait()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--restore_from', type=command_line.local_path, nargs='+',
                        metavar='RUN_OR_CHECKPOINT',
                        help='the models to choose from: runs of train.py, folders of runs, or '
                             'checkpoints (default: the bundled model, and the runs in %s)' % RUNS)
    parser.add_argument('--host', default='127.0.0.1',
                        help='address to listen on; 0.0.0.0 lets other machines in, without a '
                             'password (default: %(default)s)')
    parser.add_argument('--port', type=int, default=7860,
                        help='port to listen on; 0 for a free one (default: %(default)s)')
    parser.add_argument('--max_seconds', type=float, default=600,
                        help='longest speech that the page takes (default: %(default)s)')
    parser.add_argument('--max_mb', type=int, default=64,
                        help='largest file that the page takes, in MB (default: %(default)s)')
    parser.add_argument('--open', action='store_true', help='open the page in a browser')
    args = parser.parse_args()
    if not 0 <= args.port < 1 << 16:
        parser.error('--port is from 0 to 65535, not %d' % args.port)
    if not 0 < args.max_seconds < float('inf') or args.max_mb < 1:
        parser.error('--max_seconds is above 0, and --max_mb 1 or more')
    return args


def default_runs():
    """The bundled model, and the folder of the runs that are here, if there are any."""
    folders = [os.path.join(RUNS, name) for name in os.listdir(RUNS)] if os.path.isdir(RUNS) else []
    return [utils.BUNDLED_MODEL] + [RUNS] * any(map(utils.has_checkpoint, folders))


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


if __name__ == '__main__':
    command_line.run_script(main)
