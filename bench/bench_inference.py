"""Measures how fast inference is, against the machine's own matrix products, and its memory.

    python -m bench.bench_inference                         # presets weixsong, nvidia and small
    python -m bench.bench_inference --preset weixsong --seconds 5 600 --precision float32

Weights are random: speed does not depend on them. Every row is a process of its own. Its figures
are medians over --repeats. Each repeat times the model, and beside it a product of large matrices
in the same precision:

    limit_ratio     time of the model over the time of such products with as many floating-point
                    operations as the published definition has: its convolutions, for every sample.
                    So what is saved by merging filters counts as speed
    limit_gflops    the speed of these products
    load_seconds    until a Vocoder is made, and first_seconds from there to its first samples
    peak_mb         memory of the whole process

Writes bench/inference.json.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from typing import Any, Dict

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import files
import glow
import params
from bench.limit import MatrixProduct, flops
from bench.table import peak_mb, write_table
from command_line import run_script
from params import HParams
from vocoder import Vocoder

COLUMNS = ('preset', 'precision', 'chunk_frames', 'seconds', 'real_time_factor',
           'samples_a_second', 'limit_ratio', 'limit_gflops', 'load_seconds', 'first_seconds',
           'peak_mb')


def main():
    args = parse_arguments()
    kinds = itertools.product(args.preset, args.precision, args.chunk_frames, args.seconds)
    if args.row:
        print(json.dumps(measure(*next(kinds), args.repeats)))
        return 0
    write_table(COLUMNS, (measure_apart(*kind, args.repeats) for kind in kinds), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', nargs='+', default=['weixsong', 'nvidia', 'small'],
                        help='presets to measure')
    parser.add_argument('--precision', nargs='+', choices=sorted(glow.PRECISIONS),
                        default=['float32', 'bfloat16'], help='precisions of the networks')
    parser.add_argument('--chunk_frames', nargs='+', type=int, default=[0],
                        help="frames of a block; 0 for the vocoder's default")
    parser.add_argument('--seconds', nargs='+', type=float, default=[5],
                        help='lengths of the mel, in seconds')
    parser.add_argument('--repeats', type=int, default=5, help='repeats in each row')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'inference.json'),
                        help='file to write')
    parser.add_argument('--row', action='store_true', help=argparse.SUPPRESS)   # measure_apart's
    return parser.parse_args()


def measure_apart(preset: str, precision: str, chunk_frames: int, seconds: float,
                  repeats: int) -> Dict[str, Any]:
    """`measure` in a process of its own, so that its peak of memory is its own."""
    done = subprocess.run(
        [sys.executable, '-m', 'bench.bench_inference', '--row', '--preset', preset, '--precision',
         precision, '--chunk_frames', str(chunk_frames), '--seconds', str(seconds), '--repeats',
         str(repeats)], stdout=subprocess.PIPE, universal_newlines=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(preset: str, precision: str, chunk_frames: int, seconds: float,
            repeats: int) -> Dict[str, Any]:
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
    product = MatrixProduct(glow.PRECISIONS[precision])
    model_seconds, limit_seconds = [], []       # limit: of one floating-point operation
    for _ in range(repeats):
        started_repeat = time.time()
        vocoder.vocode(mel)
        model_seconds.append(time.time() - started_repeat)
        limit_seconds.append(product.seconds_per_flop(model_seconds[-1]))
    median_seconds = float(np.median(model_seconds))
    samples = len(mel) * hp.hop_length
    work = flops(hp) * hp.groups(len(mel))
    ratios = np.divide(model_seconds, np.multiply(work, limit_seconds))
    return dict(
        preset=preset, precision=precision, chunk_frames=vocoder.chunk_frames, seconds=seconds,
        real_time_factor=median_seconds / samples * hp.sample_rate,
        samples_a_second=samples / median_seconds,
        limit_ratio=float(np.median(ratios)), limit_gflops=1e-9 / float(np.median(limit_seconds)),
        load_seconds=loaded - started, first_seconds=first - loaded, peak_mb=peak_mb())


def random_weights(hp: HParams) -> Dict[str, np.ndarray]:
    """{variable: array} of an untrained model whose couplings do something."""
    rng = np.random.RandomState(0)
    with tf.Graph().as_default(), tf.Session(config=devices.session_config()) as session:
        weights = session.run({w.name: w.initial_value() for w in glow.weights(hp)})
    for name, value in weights.items():
        if '/end/' in name:
            value += 0.01 * rng.standard_normal(value.shape)
    return weights


if __name__ == '__main__':
    run_script(main)
