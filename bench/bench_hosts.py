"""Measures what a second host brings: audio a second, and the bytes that a step sends.

    python -m bench.bench_hosts --preset small --hosts 1 2

Hosts are processes on this machine that train through training.run.train, each pinned to a core of
its own. They speak over the loopback. The batch of each host is the preset's, so the whole batch of
a step grows with the hosts. The rows take turns, --repeats times.

The chief writes TensorBoard events every ten steps. Figures are medians over the later of these
intervals in all runs:

    step_seconds    seconds between events, a step
    bytes_ratio     bytes that the loopback carried (/proc/net/dev), a step and host, over the bytes
                    of the gradients. Let nothing else use the loopback

Writes bench/hosts.json. Linux.
"""
import argparse
import contextlib
import glob
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import files
import glow
import params
from bench.table import available_cores, write_table
from command_line import run_script
from datasets import preprocessing, sources
from params import HParams
from training import run
from training.hosts import Hosts
from training.options import TrainingOptions

COLUMNS = ('preset', 'hosts', 'batch_size', 'step_seconds', 'audio_seconds_a_second', 'speedup',
           'bytes_ratio')
WAVE_DIR = os.path.join(files.ROOT, 'samples', 'wavs')
STEPS = 10                      # of an interval
WARM_UP, INTERVALS = 2, 6       # intervals to pass over and to measure


class Interval(NamedTuple):
    """What one step took, on average over an interval."""
    step_seconds: float
    step_bytes: float           # that the loopback carried


def main():
    args = parse_arguments()
    if args.child:
        run_host(*args.child)
        return 0
    hp = params.override(params.preset(args.preset), args.hparams)
    intervals = {num_hosts: [] for num_hosts in args.hosts}
    with tempfile.TemporaryDirectory() as data_dir:
        preprocessing.preprocess(WAVE_DIR, os.path.join(data_dir, 'mels'), data_dir, hp,
                                 test_size=0)
        for _ in range(args.repeats):
            for num_hosts in args.hosts:
                intervals[num_hosts] += measure(data_dir, args.preset, args.hparams, num_hosts)
    write_table(COLUMNS, rows(args.preset, hp, intervals), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', default='small', help='hyperparameters to train with')
    parser.add_argument('--hparams', default='', help='hyperparameters to change, in all rows')
    parser.add_argument('--hosts', type=int, nargs='+', default=[1, 2], help='numbers of hosts')
    parser.add_argument('--repeats', type=int, default=3, help='runs for each row')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'hosts.json'),
                        help='file to write')
    parser.add_argument('--child', nargs=6, help=argparse.SUPPRESS)     # of `measure`
    return parser.parse_args()


def rows(preset: str, hp: HParams,
         intervals: Dict[int, List[Interval]]) -> Iterator[Dict[str, Any]]:
    """The table. intervals: {number of hosts: [Interval]}; hp: of one host."""
    host_seconds = hp.batch_size * hp.clip_frames * hp.hop_length / hp.sample_rate
    gradients = gradient_bytes(hp)
    first_rate = None       # of a host, in the first row
    for num_hosts, measured in intervals.items():
        step_seconds = float(np.median([each.step_seconds for each in measured]))
        host_bytes = float(np.median([each.step_bytes for each in measured])) / num_hosts
        rate = num_hosts * host_seconds / step_seconds
        first_rate = first_rate or rate / num_hosts
        yield dict(preset=preset, hosts=num_hosts, batch_size=num_hosts * hp.batch_size,
                   step_seconds=step_seconds, audio_seconds_a_second=rate,
                   speedup=rate / first_rate, bytes_ratio=host_bytes / gradients)


def gradient_bytes(hp: HParams) -> int:
    """Bytes of the gradients of all weights, in float32."""
    return 4 * sum(weight.size for weight in glow.weights(hp))


def measure(data_dir: str, preset: str, hparams: str, num_hosts: int) -> List[Interval]:
    """Trains on `num_hosts` hosts; returns the later intervals."""
    addresses = ','.join(free_addresses(num_hosts))
    cores = available_cores()
    with tempfile.TemporaryDirectory() as run_dir:
        processes = [subprocess.Popen(
            ['taskset', '-c', str(cores[i]), sys.executable, '-m', 'bench.bench_hosts', '--child',
             data_dir, run_dir, preset, hparams, addresses, str(i)],
            stdout=subprocess.DEVNULL) for i in range(num_hosts)]
        with sampled_loopback() as samples:
            statuses = [process.wait() for process in processes]
        if any(statuses):
            raise SystemExit('training on %d hosts failed' % num_hosts)
        times = event_times(run_dir)
    carried = np.interp(times, *np.transpose(samples))
    later = slice(WARM_UP - 1, None)
    return [Interval(seconds / STEPS, sent / STEPS)
            for seconds, sent in zip(np.diff(times[later]), np.diff(carried[later]))]


def run_host(data_dir: str, run_dir: str, preset: str, hparams: str, addresses: str,
             task_index: str) -> None:
    """Trains as one of the hosts at `addresses`, in this process."""
    hosts = Hosts(tuple(addresses.split(',')), int(task_index))
    hp = params.override(params.preset(preset), hparams)
    hp = hp.replace(batch_size=hosts.num_hosts * hp.batch_size, summary_every=STEPS)
    data = sources.FileData(os.path.join(data_dir, 'train.scp'), WAVE_DIR,
                            os.path.join(data_dir, 'mels'))
    run.train(hp, data, TrainingOptions(run_dir, max_steps=(WARM_UP + INTERVALS) * STEPS,
                                        hosts=hosts))


def free_addresses(count: int) -> List[str]:
    """'host:port' of `count` ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(('127.0.0.1', 0))
    addresses = ['127.0.0.1:%d' % each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def event_times(run_dir: str) -> List[float]:
    """When the loss of every STEPS steps was logged, in seconds since the epoch."""
    return [event.wall_time for path in sorted(glob.glob(os.path.join(run_dir, 'events*')))
            for event in tf.train.summary_iterator(path)
            if any(value.tag == 'train/nll' for value in event.summary.value)]


@contextlib.contextmanager
def sampled_loopback() -> Iterator[List[Tuple[float, int]]]:
    """A list that grows by (seconds since the epoch, bytes that the loopback has carried)."""
    samples, ended = [(time.time(), loopback_bytes())], threading.Event()

    def sample():
        while not ended.wait(0.01):
            samples.append((time.time(), loopback_bytes()))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def loopback_bytes() -> int:
    """Bytes that the loopback has carried since the machine started."""
    with open('/proc/net/dev') as f:
        line = next(line for line in f if line.strip().startswith('lo:'))
    return int(line.split(':')[1].split()[8])


if __name__ == '__main__':
    run_script(main)
