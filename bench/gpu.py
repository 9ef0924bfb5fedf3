"""Measures what a GPU does with this project: is it right, and how fast is it?

    python -m bench.gpu                                     # on the GPU that TensorFlow finds
    python -m bench.gpu --code waveglow/glow.py             # beside NVIDIA's code, in PyTorch
    python -m bench.gpu --small                             # runs through anywhere, for a test
    python -m bench.gpu --sections batch --presets nvidia

Every section is a process of its own, so that one that fails leaves the others alone. What does not
fit into --minutes is left out, and said. docs/gpu.md explains the figures. Writes bench/gpu.json.
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List

import files
from bench.table import describe_machine, format_value
from command_line import run_script

SECTIONS = 'convolution', 'accuracy', 'batch', 'training', 'stream', 'nvidia_code', 'pipeline'
LEAST_SECONDS = 5       # for which a section is started at all


def main():
    args = parse_arguments()
    if args.section:
        return print_section(args)
    sections = [name for name in args.sections if name != 'nvidia_code' or args.code]
    deadline = time.time() + 60 * args.minutes
    found: Dict[str, Any] = {'machine': describe_machine(), 'sections': {}, 'left_out': {}}
    for i, name in enumerate(sections):
        left = deadline - time.time()
        # what one leaves of its share is for those that follow
        run_section(name, args, min(left, 2 * left / (len(sections) - i)), found)
        with files.atomic_open(args.json) as f:
            json.dump(found, f, indent=1)
    print('\nwritten: %s; docs/gpu.md tells how to report it' % args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sections', nargs='+', choices=SECTIONS, default=SECTIONS,
                        help='what to measure (default: all)')
    parser.add_argument('--presets', nargs='+', help='presets to measure, the full one first')
    parser.add_argument('--batches', nargs='+', type=int, help='utterances in a batch')
    parser.add_argument('--minutes', type=float, default=9.5,
                        help='for all of it (default: %(default)s)')
    parser.add_argument('--code', metavar='glow.py', help="the file of NVIDIA's repository")
    parser.add_argument('--small', action='store_true', help='a model of a few channels')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'gpu.json'),
                        help='file to write')
    parser.add_argument('--section', choices=SECTIONS, help=argparse.SUPPRESS)  # of run_section
    return parser.parse_args()


def run_section(name: str, args: argparse.Namespace, seconds: float, found: Dict[str, Any]) -> None:
    """Adds a section's rows to found, and why it ended early, if it did."""
    print('\n%s' % name, flush=True)
    rows: List[Dict[str, Any]] = found['sections'].setdefault(name, [])
    if seconds < LEAST_SECONDS:
        found['left_out'][name] = 'no time was left'
        print(found['left_out'][name], flush=True)
        return
    given = [sys.executable, '-m', 'bench.gpu', '--section', name] + ['--small'] * args.small
    for option in 'code', 'presets', 'batches':
        value = getattr(args, option)
        if value:
            given += ['--' + option] + [str(v) for v in ([value] if option == 'code' else value)]
    with open(os.path.splitext(args.json)[0] + '.log', 'a', encoding='utf-8') as log:
        process = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=log,
                                   universal_newlines=True)
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        assert process.stdout
        for line in process.stdout:
            _add(line, rows, found)
        ended = process.wait()
        timer.cancel()
    if ended:
        found['left_out'][name] = ('the rest, after %.0f seconds' % seconds if ended == -9 else
                                   'the rest: it ended with status %d, see %s' % (ended, log.name))
        print(found['left_out'][name], flush=True)


def _add(line, rows, found):
    """A line of a section's process: a row, the device, or what a library prints."""
    try:
        row = json.loads(line)
    except ValueError:
        return
    if 'device' in row:
        found['machine'].update(row)
        return
    if not rows:
        print('  '.join(row))
    rows.append(row)
    print('  '.join(format_value(value).rjust(len(name)) for name, value in row.items()),
          flush=True)


def print_section(args: argparse.Namespace) -> int:
    """What a section's process does: a line of JSON for each row."""
    from bench import gpu_sections  # here: the parent must hold no GPU
    setting = gpu_sections.SMALL if args.small else gpu_sections.FULL
    setting = setting._replace(code=args.code, presets=args.presets or setting.presets,
                               batches=args.batches or setting.batches)
    print(json.dumps({'device': gpu_sections.device_name()}), flush=True)
    for row in gpu_sections.SECTIONS[args.section](setting):
        print(json.dumps(row), flush=True)
    return 0


if __name__ == '__main__':
    run_script(main)
