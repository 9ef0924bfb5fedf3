"""Measures whether memory and speed stay the same when the corpus grows: preprocessing and reading.

    python -m bench.bench_corpus --hours 1 100 --work_dir /somewhere/with/40/GB

For each size it makes a synthetic corpus: stretches of the bundled speech, ten seconds each, at
random gains. One process preprocesses it and packs it into shards, as preprocess_data.py does with
--tfrecord_shards. Another reads it once through the input pipeline of `train.py --data`. Then the
corpus is deleted.

    compute_times_real_time     the mels alone
    preprocess_times_real_time  the whole process, with its start and packing
    read_times_real_time        an epoch of clips
    preprocess_mb, read_mb      peak memory of the process and its children, sampled twice a second

Writes bench/corpus.json, and the memory over time to docs/scaling/memory.png. Linux.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

import files
import params
from bench.table import available_cores, write_table
from command_line import run_script
from datasets import audio_files, preprocessing

COLUMNS = ('hours', 'files', 'compute_times_real_time', 'preprocess_times_real_time',
           'preprocess_mb', 'read_times_real_time', 'read_mb')
SECONDS, RATE = 10, 16000       # of a synthetic utterance


class Process(NamedTuple):
    """What a process did."""
    result: Dict[str, float]                # what it printed as JSON
    seconds: float                          # from its start to its end
    memory: List[Tuple[float, float]]       # (seconds since the start, MB of it and its children)

    @property
    def peak_mb(self) -> float:
        return max(mb for _, mb in self.memory)


def main():
    args = parse_arguments()
    if args.preprocess:
        print(json.dumps(preprocess(*args.preprocess)))
        return 0
    if args.read:
        print(json.dumps(read(args.read)))
        return 0
    processes: Dict[float, Tuple[Process, Process]] = {}
    rows = (measure(hours, args.shards, args.work_dir, processes) for hours in args.hours)
    write_table(COLUMNS, rows, args.json)
    draw_memory(processes, args.plot)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--hours', type=float, nargs='+', default=[1, 10],
                        help='sizes of the corpus')
    parser.add_argument('--shards', type=int, default=32, help='number of shards to pack')
    parser.add_argument('--work_dir', help='folder for the corpus, 0.4 GB for each hour '
                                           '(default: that of the system)')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'corpus.json'),
                        help='file to write')
    parser.add_argument('--plot', default=os.path.join(files.ROOT, 'docs', 'scaling', 'memory.png'),
                        help='picture to write')
    parser.add_argument('--preprocess', nargs=2, help=argparse.SUPPRESS)    # of `measure`
    parser.add_argument('--read', help=argparse.SUPPRESS)                   # of `measure`
    return parser.parse_args()


def measure(hours: float, num_shards: int, work_dir: str,
            processes: Dict[float, Tuple[Process, Process]]) -> Dict[str, Any]:
    """One row of the table. Adds the two processes to `processes`."""
    directory = tempfile.mkdtemp(dir=work_dir)
    try:
        count = int(hours * 3600 / SECONDS)
        synthesize(os.path.join(directory, 'wavs'), count)
        preprocessing_process = run_watched('--preprocess', directory, str(num_shards))
        reading_process = run_watched('--read', directory)
    finally:
        shutil.rmtree(directory)
    processes[hours] = preprocessing_process, reading_process
    return dict(
        hours=hours, files=count,
        compute_times_real_time=preprocessing_process.result['speed'],
        preprocess_times_real_time=count * SECONDS / preprocessing_process.seconds,
        preprocess_mb=preprocessing_process.peak_mb,
        read_times_real_time=reading_process.result['speed'],
        read_mb=reading_process.peak_mb)


def synthesize(wave_dir: str, count: int) -> None:
    """Writes `count` wavs of SECONDS seconds."""
    os.makedirs(wave_dir)
    samples_dir = os.path.join(files.ROOT, 'samples', 'wavs')
    speech = np.concatenate([audio_files.read_wav(os.path.join(samples_dir, name), RATE)
                             for name in sorted(os.listdir(samples_dir))])
    rng = np.random.RandomState(0)
    for i in range(count):
        start = rng.randint(len(speech) - SECONDS * RATE)
        audio_files.write_wav(os.path.join(wave_dir, '%07d.wav' % i),
                              rng.uniform(0.2, 0.9) * speech[start:start + SECONDS * RATE], RATE)


def run_watched(*arguments: str) -> Process:
    """Runs this module with other arguments, and samples its memory."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, '-m', 'bench.bench_corpus'] + list(arguments),
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               universal_newlines=True)
    memory, ended = [], threading.Event()

    def sample():
        while not ended.wait(0.5):
            memory.append((time.monotonic() - started, memory_mb(process.pid)))

    thread = threading.Thread(target=sample)
    thread.start()
    output = process.communicate()[0]
    seconds = time.monotonic() - started
    ended.set()
    thread.join()
    if process.returncode:
        raise SystemExit('bench_corpus %s failed' % ' '.join(arguments))
    return Process(json.loads(output.splitlines()[-1]), seconds, memory)


def memory_mb(pid: int) -> float:
    """What a process and its children hold of their own (proportional set size), in MB."""
    total, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        try:
            with open('/proc/%d/smaps_rollup' % pid) as f:
                total += next(int(line.split()[1]) for line in f if line.startswith('Pss:'))
            for task in os.listdir('/proc/%d/task' % pid):
                with open('/proc/%d/task/%s/children' % (pid, task)) as f:
                    waiting += [int(child) for child in f.read().split()]
        except (OSError, StopIteration):     # it has just ended
            continue
    return total * 1.024e-3


def preprocess(directory: str, num_shards: str) -> Dict[str, float]:
    """Preprocesses directory/wavs into shards; returns the speed of computing mels."""
    hp, num_workers = params.preset('small'), len(available_cores())
    mel_dir = os.path.join(directory, 'mels')
    summary = preprocessing.preprocess(os.path.join(directory, 'wavs'), mel_dir, directory, hp,
                                       num_workers=num_workers)
    preprocessing.pack(summary, mel_dir, os.path.join(directory, 'shards'), hp, int(num_shards),
                       num_workers)
    return {'speed': summary.speed}


def read(directory: str) -> Dict[str, float]:
    """Reads an epoch of clips of the shards; returns how many seconds of audio in a second."""
    import tensorflow.compat.v1 as tf  # here: computing mels must not load it

    from datasets import clip_shards, shards
    pattern = os.path.join(directory, 'shards', 'train-*.tfrecord')
    hp = shards.hyperparameters(pattern)
    reader = clip_shards.Reader(shards.matching(pattern), hp)
    clips = 0
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.data.make_one_shot_iterator(clip_shards.training_clips(reader)).get_next()
        fetches = batch.shard_position[-1, 0], batch.name
        started = time.monotonic()
        while True:
            epoch, names = session.run(fetches)
            if epoch:
                break
            clips += len(names)
    seconds = time.monotonic() - started
    return {'speed': clips * hp.clip_frames * hp.hop_length / hp.sample_rate / seconds}


def draw_memory(processes: Dict[float, Tuple[Process, Process]], path: str) -> None:
    """Draws memory over time. processes: {hours: (preprocessing, reading)}."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    for i, title in enumerate(('preprocessing and packing', 'reading an epoch')):
        axes = figure.add_subplot(1, 2, i + 1)
        for hours, pair in sorted(processes.items()):
            axes.plot(*zip(*pair[i].memory), label='%g hours' % hours)
        axes.set(title=title, xlabel='seconds', ylabel='MB, all processes', ylim=(0, None))
        axes.legend()
    figure.tight_layout()
    with files.atomic_open(path, 'wb') as f:
        canvas.print_png(f)


if __name__ == '__main__':
    run_script(main)
