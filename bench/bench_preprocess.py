"""How fast preprocessing is, in times real time, by number of processes, and how much memory.

    python -m bench.bench_preprocess                              # 30 minutes of the bundled speech
    python -m bench.bench_preprocess --wave_dir corpus/wavs --minutes 120 --num_workers 2

The corpus is the sound files of --wave_dir under as many names as it takes to make up --minutes. The
bundled ones are at 16 kHz: preset small takes them as they are, weixsong resamples them to 22,050 Hz.
Every run is a fresh process of preprocess_data.py with new output folders; figures are medians over
--repeats. times_real_time is the work on the files alone, whole_times_real_time the whole process, its
start and imports included; peak_mb is of the largest of its processes. Writes bench/preprocess.json
beside the table.
"""
import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import soundfile

import files
from bench.table import write_table
from datasets import corpus

COLUMNS = ('preset', 'num_workers', 'minutes', 'files', 'times_real_time', 'whole_times_real_time',
           'peak_mb')


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        kinds = itertools.product(args.minutes, args.preset, args.num_workers)
        write_table(COLUMNS, (measure(os.path.join(folder, 'wavs-%g' % minutes), minutes, preset,
                                      workers, args) for minutes, preset, workers in kinds),
                    args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--wave_dir', default=os.path.join(files.ROOT, 'samples', 'wavs'))
    parser.add_argument('--minutes', nargs='+', type=float, default=[30])
    parser.add_argument('--preset', nargs='+', default=['small', 'weixsong'])
    parser.add_argument('--num_workers', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'preprocess.json'))
    return parser.parse_args()


def measure(wave_dir, minutes, preset, workers, args):
    """One row of the table."""
    if not os.path.isdir(wave_dir):
        build_corpus(args.wave_dir, wave_dir, 60 * minutes)
    runs = [run(wave_dir, preset, workers) for _ in range(args.repeats)]
    seconds = sum(soundfile.info(os.path.join(wave_dir, name)).duration
                  for name in os.listdir(wave_dir))
    return dict(preset=preset, num_workers=workers, minutes=seconds / 60,
                files=len(os.listdir(wave_dir)),
                times_real_time=float(np.median([speed for speed, _, _ in runs])),
                whole_times_real_time=seconds / float(np.median([spent for _, spent, _ in runs])),
                peak_mb=max(peak for _, _, peak in runs))


def build_corpus(source, wave_dir, seconds):
    """Copies the sound files of `source`, again and again, until they last `seconds`."""
    os.makedirs(wave_dir)
    paths = sorted(corpus.find_audio(source)[0].values())
    for i, path in enumerate(itertools.cycle(paths)):
        if seconds <= 0:
            return
        path = os.path.join(source, path)
        seconds -= soundfile.info(path).duration
        shutil.copy(path, os.path.join(wave_dir, '%06d%s' % (i, os.path.splitext(path)[1])))


def run(wave_dir, preset, workers):
    """(times real time by its own account, seconds in all, MB) of one preprocessing."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(wave_dir)) as out:
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, os.path.join(files.ROOT, 'preprocess_data.py'), '--wave_dir=' + wave_dir,
             '--mel_dir=' + os.path.join(out, 'mels'), '--data_dir=' + out, '--preset=' + preset,
             '--num_workers=%d' % workers], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            universal_newlines=True)
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        spent = time.time() - began
    if status:
        raise SystemExit('preprocess_data.py failed: %s' % said)
    return float(re.search(r'computed at (\d+) x', said).group(1)), spent, usage.ru_maxrss * 1.024e-3


if __name__ == '__main__':
    sys.exit(main())
