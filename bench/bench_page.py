"""Measures the page of app.py under load: requests at once, and the memory of its server.

    pip install -r requirements-demo.txt
    python -m bench.bench_page

Starts app.py and sends it rounds of requests, all of a round at once; a quarter of them are bad.
The first round loads the model. Each row is a round: how many requests were answered, how many of
them with an error, the seconds until the last answer, and the memory of the server after it in MB.

Writes bench/page.json.
"""
import argparse
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, Iterator

from bench.table import write_table
from command_line import run_script
from errors import UserError
from files import ROOT
from playground.voices import BUNDLED, NEWEST

COLUMNS = 'round', 'answers', 'errors', 'seconds', 'mb'
SOUND = os.path.join(ROOT, 'samples', 'wavs', 'pbx-invalidpark.wav')
SETTINGS = 0.6, 0, 3, 0.0       # sigma, seed, rounds, denoiser


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=6, help='rounds of requests')
    parser.add_argument('--requests', type=int, default=20, help='requests of a round, all at once')
    parser.add_argument('--json', default=os.path.join(ROOT, 'bench', 'page.json'),
                        help='file to write')
    args = parser.parse_args()
    write_table(COLUMNS, measure(args.rounds, args.requests), args.json)
    return 0


def measure(rounds: int, requests: int) -> Iterator[Dict[str, Any]]:
    """Yields the rows of the table."""
    from gradio_client import Client
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, '-u', os.path.join(ROOT, 'app.py'), '--port=%d' % port], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
    try:
        if not any('the page is at' in line for line in server.stdout or ()):
            raise UserError('app.py has ended; run it by hand to see why')
        with tempfile.TemporaryDirectory() as folder:
            client = Client('http://127.0.0.1:%d' % port, verbose=False, analytics_enabled=False,
                            download_files=folder)
            given = list(itertools.islice(inputs(folder), requests))
            for number in range(rounds):
                yield dict({'round': number}, **run_round(client, given), mb=memory(server.pid))
    finally:
        server.terminate()
        server.wait()


def inputs(folder: str) -> Iterator[tuple]:
    """(sound, run, checkpoint) of requests without end; each fourth one cannot be answered."""
    text = os.path.join(folder, 'notes.wav')
    with open(text, 'w') as f:
        f.write('no sound')
    for bad in itertools.cycle([(text, BUNDLED, NEWEST), (None, BUNDLED, NEWEST),
                                (SOUND, BUNDLED, 'step 5')]):
        yield from [(SOUND, BUNDLED, NEWEST)] * 3 + [bad]


def run_round(client: Any, given: list) -> Dict[str, Any]:
    from gradio_client import handle_file
    started = time.time()
    jobs = [client.submit(handle_file(sound) if sound else None, run, checkpoint, *SETTINGS,
                          api_name='/vocode_sound') for sound, run, checkpoint in given]
    answers = [job.result(timeout=900) for job in jobs]
    return dict(answers=len(answers), seconds=time.time() - started,
                errors=sum('class="error"' in status for status, *_ in answers))


def memory(pid: int) -> float:
    """MB of a process and of all that it started, after a moment in which they may free some."""
    time.sleep(3)
    listed = subprocess.run(['ps', '-eo', 'pid,ppid,rss'], stdout=subprocess.PIPE, check=True,
                            universal_newlines=True).stdout.splitlines()[1:]
    rows = [tuple(map(int, line.split())) for line in listed]
    family, total = {pid}, 0
    for child, parent, kilobytes in sorted(rows):
        if child in family or parent in family:
            family.add(child)
            total += kilobytes
    return total * 1024 * 1e-6


if __name__ == '__main__':
    run_script(main)
