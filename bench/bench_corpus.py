r"""Whether memory and speed stay as they are when the corpus grows: preprocessing, packing, reading.

    python -m bench.bench_corpus --hours 1 100 --work_dir /somewhere/with/40/GB

For each size, a synthetic corpus (stretches of the bundled speech, ten seconds each, at random gains)
goes through `preprocess_data.py --tfrecord_shards` and then, once, through the input pipeline that
`train.py --data` reads it with; then it is deleted. The memory of both, children included, is sampled
and drawn over time in docs/scaling/memory.png. compute_times_real_time is the script's own account of
mels alone; preprocess_times_real_time counts all, its start and the packing too. Writes
bench/corpus.json beside the table. Linux.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tensorflow.compat.v1 as tf

import files
from bench.table import write_table
from datasets import audio_files, clip_shards, shards

COLUMNS = ('hours', 'files', 'compute_times_real_time', 'preprocess_times_real_time',
           'preprocess_mb', 'read_times_real_time', 'read_mb')
SECONDS, RATE = 10, 16000       # of a synthetic utterance


def main():
    args = parse_arguments()
    if args.read:
        print(json.dumps(read(args.read)))
        return 0
    curves = {}
    write_table(COLUMNS, (row(hours, args, curves) for hours in args.hours), args.json)
    draw(curves, args.plot)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--hours', type=float, nargs='+', default=[1, 10])
    parser.add_argument('--shards', type=int, default=32)
    parser.add_argument('--work_dir', help='0.4 GB for each hour (default: the system\'s)')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'corpus.json'))
    parser.add_argument('--plot', default=os.path.join(files.ROOT, 'docs', 'scaling', 'memory.png'))
    parser.add_argument('--read', help=argparse.SUPPRESS)
    return parser.parse_args()


def row(hours, args, curves):
    work = tempfile.mkdtemp(dir=args.work_dir)
    try:
        count = int(hours * 3600 / SECONDS)
        synthesize(os.path.join(work, 'wavs'), count)
        preprocess, spent, computed = watched([
            'preprocess_data.py', '--wave_dir=' + os.path.join(work, 'wavs'),
            '--mel_dir=' + os.path.join(work, 'mels'), '--data_dir=' + work, '--preset=small',
            '--tfrecord_shards=%d' % args.shards])
        reading, _, said = watched([
            os.path.join('bench', 'bench_corpus.py'),
            '--read=' + os.path.join(work, 'shards', 'train-*.tfrecord')])
    finally:
        shutil.rmtree(work)
    seconds, took = json.loads(said.splitlines()[-1])
    curves[hours] = preprocess, reading
    return dict(
        hours=hours, files=count,
        compute_times_real_time=float(re.search(r'computed at (\d+) x', computed).group(1)),
        preprocess_times_real_time=count * SECONDS / spent,
        preprocess_mb=max(mb for _, mb in preprocess), read_times_real_time=seconds / took,
        read_mb=max(mb for _, mb in reading))


def synthesize(folder, count):
    """Writes `count` wavs of SECONDS seconds."""
    os.makedirs(folder)
    wavs = os.path.join(files.ROOT, 'samples', 'wavs')
    speech = np.concatenate([audio_files.read_wav(os.path.join(wavs, name), RATE)
                             for name in sorted(os.listdir(wavs))])
    rng = np.random.RandomState(0)
    for i in range(count):
        start = rng.randint(len(speech) - SECONDS * RATE)
        audio_files.write_wav(os.path.join(folder, '%07d.wav' % i),
                        rng.uniform(0.2, 0.9) * speech[start:start + SECONDS * RATE], RATE)


def watched(command):
    """Runs a script; returns ([(seconds, MB of it and its children)], seconds in all, stdout)."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, os.path.join(files.ROOT, command[0])] + command[1:],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               universal_newlines=True)
    samples, ended = [], threading.Event()

    def sample():
        while not ended.wait(0.5):
            samples.append((time.monotonic() - began, memory_mb(process.pid)))
    thread = threading.Thread(target=sample)
    thread.start()
    said = process.communicate()[0]
    ended.set()
    thread.join()
    if process.returncode:
        raise SystemExit('%s failed: %s' % (command[0], said))
    return samples, time.monotonic() - began, said


def memory_mb(pid):
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


def read(pattern):
    """(seconds of audio in an epoch of clips, seconds that reading it took)."""
    hp = shards.hyperparameters(pattern)
    reader = clip_shards.Reader(shards.matching(pattern), hp)
    batches = clips = 0
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.data.make_one_shot_iterator(clip_shards.training_clips(reader)).get_next()
        fetches = batch.shard_position[-1, 0], batch.name
        began = time.monotonic()
        while True:
            epoch, name = session.run(fetches)
            if epoch:
                break
            batches, clips = batches + 1, clips + len(name)
    return clips * hp.clip_frames * hp.hop_length / hp.sample_rate, time.monotonic() - began


def draw(curves, path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    for i, title in enumerate(('preprocessing and packing', 'reading an epoch')):
        axes = figure.add_subplot(1, 2, i + 1)
        for hours, of in sorted(curves.items()):
            axes.plot(*zip(*((seconds, mb) for seconds, mb in of[i])), label='%g hours' % hours)
        axes.set(title=title, xlabel='seconds', ylabel='MB, all processes', ylim=(0, None))
        axes.legend()
    figure.tight_layout()
    with files.atomic_open(path, 'wb') as f:
        canvas.print_png(f)


if __name__ == '__main__':
    sys.exit(main())
