r"""Measures how long a training step takes, against the machine's matrix products, and its memory.

    python -m bench.bench_training                                # presets small and weixsong
    python -m bench.bench_training --preset weixsong --reversible false true \
        --hparams '' n_flows=24,n_early_every=8
    python -m bench.bench_training --preset small --xla off gates --precision float32 --profile

Clips are noise and weights are as at the start: speed does not depend on them. Every row is a
process of its own. Its figures are medians over --repeats. Each repeat times a step, and beside it
a product of large matrices in the same precision:

    limit_ratio     time of a step over the time of such products with as many floating-point
                    operations as three forward passes
    limit_gflops    the speed of these products
    peak_mb         memory of the whole process
    activations_mb  what the peak during steps lies above that of a process with one clip of a
                    single frame. This is what is kept for the gradients, without weights, their
                    averages and Adam's moments

Writes bench/training.json.
"""
import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
import time
from typing import Any, Dict

import numpy as np
import tensorflow.compat.v1 as tf

import command_line
import devices
import files
import glow
import params
from bench.limit import MatrixProduct, flops
from bench.table import peak_mb, reset_peak, write_table
from datasets.clips import Clips
from params import HParams
from training import towers
from training.graph import TrainingGraph, build_training_graph

COLUMNS = ('preset', 'hparams', 'precision', 'xla', 'reversible', 'step_seconds',
           'audio_seconds_a_second', 'limit_ratio', 'limit_gflops', 'first_step_seconds',
           'peak_mb', 'activations_mb')


def main():
    args = parse_arguments()
    kinds = itertools.product(args.preset, args.hparams, args.precision, args.xla, args.reversible)
    if args.row:
        print(json.dumps(measure(*next(kinds), args.repeats, args.profile)))
        return 0
    write_table(COLUMNS, (measure_apart(*kind, args.repeats, args.profile) for kind in kinds),
                args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preset', nargs='+', default=['small', 'weixsong'],
                        help='presets to measure')
    parser.add_argument('--hparams', nargs='+', default=[''],
                        help='hyperparameters to change, once for each row')
    parser.add_argument('--precision', nargs='+', choices=sorted(glow.PRECISIONS),
                        default=['float32', 'bfloat16'], help='precisions of the networks')
    parser.add_argument('--xla', nargs='+', choices=['default'] + list(towers.XLA_CHOICES),
                        default=['default'], help='what XLA compiles')
    parser.add_argument('--reversible', nargs='+', type=command_line.boolean, default=[False],
                        help='whether activations are computed anew instead of kept')
    parser.add_argument('--repeats', type=int, default=7, help='repeats in each row')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'training.json'),
                        help='file to write')
    parser.add_argument('--profile', action='store_true',
                        help='also print the kinds of operations that take most of the time')
    parser.add_argument('--row', action='store_true', help=argparse.SUPPRESS)   # measure_apart's
    return parser.parse_args()


def measure_apart(preset: str, hparams: str, precision: str, xla: str, reversible: bool,
                  repeats: int, profile: bool = False) -> Dict[str, Any]:
    """One row of the table: two runs of `measure`, each in a process of its own.

    The second one has the smallest clip, for activations_mb.
    """
    def measured(hparams, repeats, *flags):
        done = subprocess.run(
            [sys.executable, '-m', 'bench.bench_training', '--row', '--preset', preset, '--hparams',
             hparams, '--precision', precision, '--xla', xla, '--reversible', str(reversible),
             '--repeats', str(repeats)] + list(flags),
            stdout=subprocess.PIPE, universal_newlines=True, check=True)
        lines = done.stdout.splitlines()
        for line in lines[:-1]:
            print(line)
        return json.loads(lines[-1])

    row = measured(hparams, repeats, *['--profile'] * profile)
    frame = params.override(params.preset(preset), hparams).hop_length
    # without the losses of samples, whose windows are longer than a frame
    smallest = ','.join(filter(None, [
        hparams, 'clip_samples=%d,batch_size=1,stft_weight=0,adversarial_weight=0' % frame]))
    return dict(row, activations_mb=row['step_mb'] - measured(smallest, 1)['step_mb'])


def measure(preset: str, hparams: str, precision: str, xla: str, reversible: bool, repeats: int,
            profile: bool) -> Dict[str, Any]:
    """One row of the table, but for activations_mb."""
    hp = params.override(params.preset(preset), hparams)
    compute = towers.compute_options(precision, reversible, None if xla == 'default' else xla)
    started = time.time()
    with tf.Graph().as_default() as tf_graph:
        tf.set_random_seed(0)
        graph = build_training_graph(hp, lambda *start: noise_clips(hp), None,
                                     devices.tower_devices(1), compute)
        session = tf.Session(graph=tf_graph, config=devices.session_config())
        session.run(tf.global_variables_initializer())
        session.run(graph.clips_iterator.initializer)
        tf_graph.finalize()
    start_mb = peak_mb()
    reset_peak()
    session.run(graph.step)
    first_step_seconds = time.time() - started
    session.run(graph.step)
    step_mb = peak_mb()
    product = MatrixProduct(glow.PRECISIONS[precision])
    step_seconds, limit_seconds = [], []        # limit: of one floating-point operation
    for _ in range(repeats):
        started = time.time()
        session.run(graph.step)
        step_seconds.append(time.time() - started)
        limit_seconds.append(product.seconds_per_flop(step_seconds[-1]))
    if profile:
        print_profile(session, graph)
    samples = hp.batch_size * hp.clip_frames * hp.hop_length
    work = 3 * flops(hp) * samples / hp.n_group
    ratios = np.divide(step_seconds, np.multiply(work, limit_seconds))
    return dict(
        preset=preset, hparams=hparams, precision=precision, xla=compute.xla, reversible=reversible,
        step_seconds=float(np.median(step_seconds)),
        audio_seconds_a_second=samples / hp.sample_rate / float(np.median(step_seconds)),
        limit_ratio=float(np.median(ratios)), limit_gflops=1e-9 / float(np.median(limit_seconds)),
        first_step_seconds=first_step_seconds, peak_mb=max(start_mb, step_mb), step_mb=step_mb)


def noise_clips(hp: HParams) -> tf.data.Dataset:
    """clip_files.Clips of one batch, again and again."""
    rng, n = np.random.RandomState(0), hp.batch_size

    def draw(*sizes):
        return rng.standard_normal((n,) + sizes).astype(np.float32)

    return tf.data.Dataset.from_tensors(Clips(
        0.1 * draw(hp.clip_frames * hp.hop_length),
        hp.mel_mean + hp.mel_std * draw(hp.clip_frames, hp.n_mels),
        np.array(['noise'] * n), np.zeros([n], np.int64),
        noise=draw(hp.groups(hp.clip_frames), hp.n_group))).repeat()


def print_profile(session: tf.Session, graph: TrainingGraph) -> None:
    """Prints where a step's time goes, by kind of operation."""
    metadata = tf.RunMetadata()
    session.run(graph.step, options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
                run_metadata=metadata)
    definition = session.graph.as_graph_def()
    kinds = {node.name: node.op for nodes in
             [f.node_def for f in definition.library.function] + [definition.node]
             for node in nodes}
    micros, count = collections.Counter(), collections.Counter()
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            kind = kinds.get(node.node_name, 'other')
            micros[kind] += node.op_end_rel_micros - node.op_start_rel_micros
            count[kind] += 1
    for kind, spent in micros.most_common(16):
        print('%28s %9.1f ms %6d times' % (kind, 1e-3 * spent, count[kind]))


if __name__ == '__main__':
    command_line.run_script(main)
