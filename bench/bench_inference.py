"""How fast inference is, against the machine's own matrix products, and how much memory it takes.

    python -m bench.bench_inference                         # presets weixsong, nvidia and small
    python -m bench.bench_inference --preset weixsong --seconds 5 600 --precision float32

Weights are random: speed does not depend on them. Every row is a process of its own, whose figures
are medians over --repeats; in each repeat the model and the matrix product are timed side by side.
`limit` is the time that one product of large matrices, in the same precision, would take for the
floating-point work of the published definition (of its convolutions, every sample), so that what is
saved by merging filters counts as speed. Writes bench/inference.json beside the table.
"""
import argparse
import json
import os
import subprocess
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import files
import glow
import params
from bench.table import peak_mb, write_table
from vocoder import Vocoder

COLUMNS = ('preset', 'precision', 'chunk_frames', 'seconds', 'real_time_factor',
           'samples_a_second', 'limit_ratio', 'limit_gflops', 'load_seconds', 'first_seconds',
           'peak_mb')
SIDE = 2048  # of the matrices


def main():
    args = parse_arguments()
    if args.row:
        print(json.dumps(measure(args.preset[0], args.precision[0], args.chunk_frames[0],
                                 args.seconds[0], args.repeats)))
        return 0
    write_table(COLUMNS, (
        row(preset, precision, chunk, seconds, args.repeats) for preset in args.preset
        for precision in args.precision for chunk in args.chunk_frames
        for seconds in args.seconds), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--preset', nargs='+', default=['weixsong', 'nvidia', 'small'])
    parser.add_argument('--precision', nargs='+', choices=sorted(glow.PRECISIONS),
                        default=['float32', 'bfloat16'])
    parser.add_argument('--chunk_frames', nargs='+', type=int, default=[0],
                        help='0 for the default')
    parser.add_argument('--seconds', nargs='+', type=float, default=[5])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'inference.json'))
    parser.add_argument('--row', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def row(preset, precision, chunk_frames, seconds, repeats):
    """`measure` in a process of its own, for the sake of its peak of memory."""
    done = subprocess.run(
        [sys.executable, '-m', 'bench.bench_inference', '--row', '--preset', preset, '--precision',
         precision, '--chunk_frames', str(chunk_frames), '--seconds', str(seconds), '--repeats',
         str(repeats)], stdout=subprocess.PIPE, universal_newlines=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(preset, precision, chunk_frames, seconds, repeats):
    """One row of the table."""
    hp = params.preset(preset)
    weights = random_weights(hp)
    started = time.time()
    vocoder = Vocoder(hp, weights, precision, chunk_frames or None)
    del weights
    loaded = time.time()
    mel = hp.mel_mean + hp.mel_std * np.random.RandomState(0).randn(
        int(round(seconds * hp.sample_rate / hp.hop_length)), hp.n_mels).astype(np.float32)
    next(vocoder.stream([mel]))
    first = time.time()
    product = Product(glow.PRECISIONS[precision])
    samples, found = len(mel) * hp.hop_length, []
    for _ in range(repeats):
        began = time.time()
        vocoder.vocode(mel)
        spent = time.time() - began
        found.append((spent, product.seconds(spent)))
    spent = float(np.median([spent for spent, _ in found]))
    work = flops(hp) * len(mel) * hp.groups_per_frame
    ratio = float(np.median([spent / (work * each) for spent, each in found]))
    return dict(
        preset=preset, precision=precision, chunk_frames=vocoder.chunk_frames, seconds=seconds,
        real_time_factor=spent / samples * hp.sample_rate, samples_a_second=samples / spent,
        limit_ratio=ratio, limit_gflops=1e-9 / float(np.median([each for _, each in found])),
        load_seconds=loaded - started, first_seconds=first - loaded,
        peak_mb=peak_mb())


def random_weights(hp):
    """{variable: array} of an untrained model whose couplings do something."""
    rng = np.random.RandomState(0)
    with tf.Graph().as_default(), tf.Session(config=devices.session_config()) as session:
        glow.infer(tf.zeros([1, hp.groups_per_frame, hp.n_group]), tf.zeros([1, 1, hp.n_mels]), hp)
        session.run(tf.global_variables_initializer())
        variables = tf.trainable_variables()
        weights = {v.op.name: value for v, value in zip(variables, session.run(variables))}
    for name, value in weights.items():
        if '/end/' in name:
            value += 0.01 * rng.standard_normal(value.shape)
    return weights


def flops(hp):
    """Floating-point operations a group of the definition's convolutions, the conditioning's once
    a frame where it is repeated."""
    rows = 1.0 / hp.groups_per_frame if hp.upsampling == 'repeat' else 1.0
    units, skips = hp.residual_channels, hp.skip_channels
    total = 0
    for k in range(hp.n_flows):
        channels = hp.flow_channels(k)
        layer = (2 * hp.kernel_size * units ** 2 + units * (units + skips)
                 + 2 * units * hp.condition_channels * rows)
        total += (channels ** 2 + channels // 2 * units + hp.n_layers * layer - units ** 2
                  + skips * channels)
    return 2 * total


class Product:
    """Multiplies two large matrices of a type, for comparison."""

    def __init__(self, dtype):
        with tf.Graph().as_default() as graph:
            held = tf.Variable(tf.cast(tf.random_normal([SIDE, SIDE]), dtype), use_resource=True)
            self._product = tf.matmul(held, held).op
            self._session = tf.Session(graph=graph, config=devices.session_config())
            self._session.run(tf.global_variables_initializer())
        self.seconds(0.1)

    def seconds(self, at_least):
        """Seconds a floating-point operation, over a time like `at_least` seconds."""
        started, done = time.time(), 0
        while not done or time.time() - started < min(at_least, 2.0):
            self._session.run(self._product)
            done += 1
        return (time.time() - started) / done / (2.0 * SIDE ** 3)


if __name__ == '__main__':
    sys.exit(main())
