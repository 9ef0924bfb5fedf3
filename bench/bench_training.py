r"""How long a training step takes, against the machine's own matrix products, and how much memory.

    python -m bench.bench_training                                # presets small and weixsong
    python -m bench.bench_training --preset weixsong --reversible false true \
        --hparams '' n_flows=24,n_early_every=8
    python -m bench.bench_training --preset small --xla off gates --precision float32 --profile

Clips are noise and weights are as at the start: speed does not depend on them. Every row is a
process of its own, whose figures are medians over --repeats; in each repeat a step and a product of
large matrices, in the same precision, are timed side by side. `limit` is the time that such products
would take for three times the floating-point work of the forward pass. activations_mb is what the
steps' peak of memory (step_mb) lies above that of a process with one clip of a single frame: what is
kept for the gradients, and not weights, their averages or Adam's. peak_mb is of the whole process.
Writes bench/training.json beside the table.
"""
import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tensorflow.compat.v1 as tf

import command_line
import devices
import files
import glow
import params
from bench.bench_inference import Product, flops
from bench.table import forget_peak, peak_mb, write_table
from datasets import clip_files
from training import towers
from training.graph import build_training_graph

COLUMNS = ('preset', 'hparams', 'precision', 'xla', 'reversible', 'step_seconds',
           'audio_seconds_a_second', 'limit_ratio', 'limit_gflops', 'first_step_seconds',
           'peak_mb', 'activations_mb')


def main():
    args = parse_arguments()
    if args.row:
        print(json.dumps(measure(args.preset[0], args.hparams[0], args.precision[0], args.xla[0],
                                 args.reversible[0], args.repeats, args.profile)))
        return 0
    write_table(COLUMNS, (row(*kind, args) for kind in itertools.product(
        args.preset, args.hparams, args.precision, args.xla, args.reversible)), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--preset', nargs='+', default=['small', 'weixsong'])
    parser.add_argument('--hparams', nargs='+', default=[''], help='one row for each')
    parser.add_argument('--precision', nargs='+', choices=sorted(glow.PRECISIONS),
                        default=['float32', 'bfloat16'])
    parser.add_argument('--xla', nargs='+', choices=['default'] + list(towers.XLA_CHOICES),
                        default=['default'])
    parser.add_argument('--reversible', nargs='+', type=command_line.boolean, default=[False])
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'training.json'))
    parser.add_argument('--profile', action='store_true', help='kinds of operations, by their time')
    parser.add_argument('--row', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def row(preset, hparams, precision, xla, reversible, args):
    """`measure` in a process of its own, for the sake of its peak of memory, and a second one."""
    def measured(hparams, repeats, *more):
        done = subprocess.run(
            [sys.executable, '-m', 'bench.bench_training', '--row', '--preset', preset, '--hparams',
             hparams, '--precision', precision, '--xla', xla, '--reversible', str(reversible),
             '--repeats', str(repeats)] + list(more),
            stdout=subprocess.PIPE, universal_newlines=True, check=True)
        lines = done.stdout.splitlines()
        for line in lines[:-1]:
            print(line)
        return json.loads(lines[-1])

    found = measured(hparams, args.repeats, *['--profile'] * args.profile)
    frame = params.override(params.preset(preset), hparams).hop_length
    least = measured(','.join(filter(None, [hparams, 'clip_samples=%d,batch_size=1' % frame])), 1)
    return dict(found, activations_mb=found['step_mb'] - least['step_mb'])


def measure(preset, hparams, precision, xla, reversible, repeats, profile):
    """One row of the table, but for activations_mb."""
    hp = params.override(params.preset(preset), hparams)
    compute = towers.compute_options(precision, reversible, None if xla == 'default' else xla)
    began = time.time()
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        model = build_training_graph(hp, lambda *start: noise(hp), None, devices.tower_devices(1), compute)
        session = tf.Session(graph=graph, config=devices.session_config())
        session.run(tf.global_variables_initializer())
        session.run(model.clips.initializer)
        graph.finalize()
    start_mb = peak_mb()
    forget_peak()
    session.run(model.step)
    first = time.time() - began
    session.run(model.step)
    step_mb = peak_mb()
    product, found = Product(glow.PRECISIONS[precision]), []
    for _ in range(repeats):
        started = time.time()
        session.run(model.step)
        spent = time.time() - started
        found.append((spent, product.seconds(spent)))
    if profile:
        print_profile(session, model)
    spent = float(np.median([spent for spent, _ in found]))
    samples = hp.batch_size * hp.clip_frames * hp.hop_length
    work = 3 * flops(hp) * samples / hp.n_group
    return dict(
        preset=preset, hparams=hparams, precision=precision, xla=compute.xla, reversible=reversible,
        step_seconds=spent,
        audio_seconds_a_second=samples / hp.sample_rate / spent,
        limit_ratio=float(np.median([spent / (work * each) for spent, each in found])),
        limit_gflops=1e-9 / float(np.median([each for _, each in found])),
        first_step_seconds=first, peak_mb=max(start_mb, step_mb), step_mb=step_mb)


def noise(hp):
    """A dataset of dataset.Clips of a batch, always the same one."""
    rng, n = np.random.RandomState(0), hp.batch_size
    return tf.data.Dataset.from_tensors(clip_files.Clips(
        (0.1 * rng.standard_normal([n, hp.clip_frames * hp.hop_length])).astype(np.float32),
        (hp.mel_mean + hp.mel_std * rng.standard_normal(
            [n, hp.clip_frames, hp.n_mels])).astype(np.float32),
        np.array(['noise'] * n), np.zeros([n], np.int64))).repeat()


def print_profile(session, model):
    """Where a step's time goes, by kind of operation."""
    metadata = tf.RunMetadata()
    session.run(model.step, options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
                run_metadata=metadata)
    kinds = {op.name: op.type for op in session.graph.get_operations()}
    spent, count = collections.Counter(), collections.Counter()
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            kind = kinds.get(node.node_name, 'other')
            spent[kind] += node.op_end_rel_micros - node.op_start_rel_micros
            count[kind] += 1
    for kind, micros in spent.most_common(16):
        print('%28s %9.1f ms %6d times' % (kind, 1e-3 * micros, count[kind]))


if __name__ == '__main__':
    sys.exit(main())
