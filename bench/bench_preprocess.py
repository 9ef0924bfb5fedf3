"""Measures how fast preprocessing is, in times real time, by number of processes, and its memory.

    python -m bench.bench_preprocess                              # 30 minutes of the bundled speech
    python -m bench.bench_preprocess --wave_dir corpus/wavs --minutes 120 --num_workers 2

The corpus is the sound files of --wave_dir, copied under new names until they last --minutes. The
bundled ones are at 16 kHz: preset small takes them as they are, weixsong resamples them to
22,050 Hz.

Every run is a fresh process that calls datasets.preprocessing.preprocess with new output folders.
Figures are medians over --repeats:

    times_real_time         the work on the files alone
    whole_times_real_time   the whole process, with its start and imports
    peak_mb                 memory of the largest of its processes

Writes bench/preprocess.json.
"""
import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, NamedTuple

import numpy as np
import soundfile

import files
import params
from bench.table import write_table
from command_line import run_script
from datasets import corpus, preprocessing

COLUMNS = ('preset', 'num_workers', 'minutes', 'files', 'times_real_time', 'whole_times_real_time',
           'peak_mb')


class Run(NamedTuple):
    """What one run of preprocessing took."""
    speed: float        # seconds of speech computed in a second, by its Summary
    seconds: float      # from the start of its process to the end
    peak_mb: float      # of the largest of its processes


def main():
    args = parse_arguments()
    if args.child:
        print(json.dumps(preprocess(*args.child)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        kinds = itertools.product(args.minutes, args.preset, args.num_workers)
        write_table(COLUMNS, (measure(os.path.join(folder, 'wavs-%g' % minutes), minutes, preset,
                                      num_workers, args.wave_dir, args.repeats)
                              for minutes, preset, num_workers in kinds), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--wave_dir', default=os.path.join(files.ROOT, 'samples', 'wavs'),
                        help='folder of sound files (default: the bundled speech)')
    parser.add_argument('--minutes', nargs='+', type=float, default=[30],
                        help='minutes of speech to preprocess')
    parser.add_argument('--preset', nargs='+', default=['small', 'weixsong'],
                        help='presets to preprocess for')
    parser.add_argument('--num_workers', nargs='+', type=int, default=[1, 2],
                        help='numbers of worker processes')
    parser.add_argument('--repeats', type=int, default=5, help='runs for each row')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'preprocess.json'),
                        help='file to write')
    parser.add_argument('--child', nargs=4, help=argparse.SUPPRESS)     # of `run`
    return parser.parse_args()


def measure(wave_dir: str, minutes: float, preset: str, num_workers: int, source_dir: str,
            repeats: int) -> Dict[str, Any]:
    """One row of the table. Makes the corpus in `wave_dir` first, if it is not there."""
    if not os.path.isdir(wave_dir):
        build_corpus(source_dir, wave_dir, 60 * minutes)
    runs = [run(wave_dir, preset, num_workers) for _ in range(repeats)]
    seconds = sum(soundfile.info(os.path.join(wave_dir, name)).duration
                  for name in os.listdir(wave_dir))
    return dict(preset=preset, num_workers=num_workers, minutes=seconds / 60,
                files=len(os.listdir(wave_dir)),
                times_real_time=float(np.median([each.speed for each in runs])),
                whole_times_real_time=seconds / float(np.median([each.seconds for each in runs])),
                peak_mb=max(each.peak_mb for each in runs))


def build_corpus(source_dir: str, wave_dir: str, seconds: float) -> None:
    """Copies the sound files of `source_dir`, again and again, until they last `seconds`."""
    os.makedirs(wave_dir)
    paths = sorted(corpus.find_audio(source_dir)[0].values())
    for i, path in enumerate(itertools.cycle(paths)):
        if seconds <= 0:
            return
        path = os.path.join(source_dir, path)
        seconds -= soundfile.info(path).duration
        shutil.copy(path, os.path.join(wave_dir, '%06d%s' % (i, os.path.splitext(path)[1])))


def run(wave_dir: str, preset: str, num_workers: int) -> Run:
    """Runs `preprocess` in a process of its own."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(wave_dir)) as out_dir:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, '-m', 'bench.bench_preprocess', '--child', wave_dir, out_dir, preset,
             str(num_workers)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        output = process.stdout.read() if process.stdout else ''
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    if status:
        raise SystemExit('preprocessing %s for preset %s failed' % (wave_dir, preset))
    return Run(json.loads(output)['speed'], seconds, usage.ru_maxrss * 1.024e-3)


def preprocess(wave_dir: str, out_dir: str, preset: str, num_workers: str) -> Dict[str, float]:
    """Preprocesses a folder; returns the speed of its Summary."""
    summary = preprocessing.preprocess(wave_dir, os.path.join(out_dir, 'mels'), out_dir,
                                       params.preset(preset), num_workers=int(num_workers))
    return {'speed': summary.speed}


if __name__ == '__main__':
    run_script(main)
