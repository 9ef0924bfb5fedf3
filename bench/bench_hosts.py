r"""What a second host brings: audio a second, and the bytes that a step sends.

    python -m bench.bench_hosts --preset small --hosts 1 2

Hosts are processes of train.py on this machine, each pinned to a core of its own, that speak over the
loopback; the batch of each is the preset's, so that a step's whole batch grows with the hosts. Rows
alternate over --repeats. Figures are medians over the later intervals of every run: between two
printed steps, the time and what the loopback carried (/proc/net/dev; all of this machine's, so let
nothing else use it). bytes_ratio: bytes sent a step and host over the gradients' bytes. Linux. Writes
bench/hosts.json beside the table.
"""
import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np

import files
import params
from bench.table import write_table

COLUMNS = ('preset', 'hosts', 'batch_size', 'step_seconds', 'audio_seconds_a_second', 'speedup',
           'bytes_ratio')
WARM, INTERVALS, STEPS = 2, 6, 10       # intervals passed over and measured, steps of each


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as data:
        subprocess.run([sys.executable, os.path.join(files.ROOT, 'preprocess_data.py'),
                        '--wave_dir=' + os.path.join(files.ROOT, 'samples', 'wavs'),
                        '--mel_dir=' + os.path.join(data, 'mels'), '--data_dir=' + data,
                        '--preset=' + args.preset, '--test_size=0'],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        found = {count: [] for count in args.hosts}
        for _ in range(args.repeats):
            for count in args.hosts:
                found[count] += run(data, args.preset, args.hparams, count)
    write_table(COLUMNS, rows(args, found), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--preset', default='small')
    parser.add_argument('--hparams', default='', help='of all rows')
    parser.add_argument('--hosts', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'hosts.json'))
    return parser.parse_args()


def rows(args, found):
    hp = params.override(params.preset(args.preset), args.hparams)
    seconds = hp.batch_size * hp.clip_frames * hp.hop_length / hp.sample_rate
    one = None
    for count in args.hosts:
        step = float(np.median([spent for spent, _, _ in found[count]]))
        sent = float(np.median([carried for _, carried, _ in found[count]])) / count
        rate = count * seconds / step
        one = one or rate / count
        yield dict(preset=args.preset, hosts=count, batch_size=count * hp.batch_size,
                   step_seconds=step, audio_seconds_a_second=rate, speedup=rate / one,
                   bytes_ratio=sent / found[count][0][2])


def run(data, preset, hparams, count):
    """[(seconds a step, bytes a step, bytes of the gradients)] of the later intervals of a run."""
    batch = count * params.override(params.preset(preset), hparams).batch_size
    steps = (WARM + INTERVALS) * STEPS
    hparams = ','.join(filter(None, [hparams, 'batch_size=%d,summary_every=%d' % (batch, STEPS)]))
    with tempfile.TemporaryDirectory() as logdir:
        command = [sys.executable, os.path.join(files.ROOT, 'train.py'),
                   '--filelist=' + os.path.join(data, 'train.scp'), '--hparams=' + hparams,
                   '--wave_dir=' + os.path.join(files.ROOT, 'samples', 'wavs'),
                   '--lc_dir=' + os.path.join(data, 'mels'), '--logdir_root=' + logdir,
                   '--max_steps=%d' % steps]
        if count > 1:
            command.append('--worker_hosts=' + ','.join(addresses(count)))
        cores = sorted(os.sched_getaffinity(0))
        processes = [subprocess.Popen(
            ['taskset', '-c', str(cores[i]), *command]
            + (['--task_index=%d' % i] if count > 1 else []),
            stdout=subprocess.DEVNULL if i else subprocess.PIPE, universal_newlines=True)
            for i in range(count)]
        seen, gradients = [], None
        for line in processes[0].stdout:
            parameters = re.search(r'; ([\d.]+) M parameters', line)
            if parameters:
                gradients = 4e6 * float(parameters.group(1))
            if re.match(r'step \d+: loss', line):
                seen.append((time.monotonic(), loopback()))
        if any([process.wait() for process in processes]):
            raise SystemExit('train.py failed')
    later = seen[WARM - 1:]
    return [((b[0] - a[0]) / STEPS, (b[1] - a[1]) / STEPS, gradients)
            for a, b in zip(later, later[1:])]


def addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(('127.0.0.1', 0))
    found = ['127.0.0.1:%d' % s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


def loopback():
    """Bytes that the loopback has carried."""
    with open('/proc/net/dev') as f:
        line = next(line for line in f if line.strip().startswith('lo:'))
    return int(line.split(':')[1].split()[8])


if __name__ == '__main__':
    sys.exit(main())
