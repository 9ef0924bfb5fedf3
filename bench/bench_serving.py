"""Measures what a batch costs in the graph that TensorFlow Serving runs: latency by batch size.

    python -m bench.bench_serving                       # the bundled voice
    python -m bench.bench_serving --run logdir/waveglow --batch_size 1 2 4 --seconds 2

Exports the model and loads the SavedModel as Serving does, on all cores that the process may use.
Each row runs serving_default on a batch of mels of one length. The rows take turns, --repeats
times, so that other work on the machine meets all of them. Figures are medians:

    latency_ms          until the whole batch is there, which every request in it waits for
    utterances_a_second of the batch, while nothing else computes
    core_seconds        processor time for one second of speech
    gain                utterances a second, over those of the first row in the same turn

Writes bench/serving.json.
"""
import argparse
import os
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import export
import files
import params
import utils
from bench.table import write_table
from command_line import run_script
from params import HParams

COLUMNS = ('batch_size', 'seconds', 'latency_ms', 'utterances_a_second', 'core_seconds', 'gain')


def main():
    args = parse_arguments()
    if args.threads:
        devices.limit_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, '1')
        export.export_saved_model(args.run, saved)
        hp = params.load(os.path.join(saved, 'assets.extra'))
        with tf.Session(graph=tf.Graph()) as session:
            run = signature(session, saved)
            rows = measure(run, hp, args.batch_size, args.seconds, args.repeats)
            write_table(COLUMNS, rows, args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', default=utils.BUNDLED_MODEL,
                        help='a run of train.py, or one of its checkpoints')
    parser.add_argument('--batch_size', type=int, nargs='+', default=[1, 2, 4, 8],
                        help='batches to measure')
    parser.add_argument('--seconds', type=float, default=4, help='length of each mel')
    parser.add_argument('--threads', type=int, help='threads to compute with, of all rows')
    parser.add_argument('--repeats', type=int, default=5, help='runs of each row')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'serving.json'),
                        help='file to write')
    return parser.parse_args()


def signature(session: tf.Session, saved: str) -> Callable[[np.ndarray], np.ndarray]:
    """serving_default of a SavedModel: audio [batch, samples] of mel [batch, frames, n_mels]."""
    meta = tf.saved_model.load(session, [tf.saved_model.tag_constants.SERVING], saved)
    found = meta.signature_def['serving_default']
    names = {name: info.name for name, info in found.inputs.items()}
    return lambda mel: session.run(found.outputs['audio'].name, {
        names['mel']: mel, names['sigma']: np.full(len(mel), 0.6, np.float32),
        names['seed']: np.arange(len(mel))})


def measure(run: Callable[[np.ndarray], np.ndarray], hp: HParams, sizes: List[int], seconds: float,
            repeats: int) -> Iterator[Dict[str, Any]]:
    """The rows of the table, as soon as all are measured."""
    frames = int(round(seconds * hp.sample_rate / hp.hop_length))
    one = hp.mel_mean + hp.mel_std * np.random.RandomState(0).randn(frames, hp.n_mels)
    mels = [np.stack([one] * size).astype(np.float32) for size in sizes]
    for mel in mels:
        run(mel)
    taken = np.zeros([repeats, len(sizes), 2])      # seconds, and of processor time
    for i in range(repeats):
        for j, mel in enumerate(mels):
            started = time.time(), time.process_time()
            run(mel)
            taken[i, j] = time.time() - started[0], time.process_time() - started[1]
    rates = np.array(sizes) / taken[:, :, 0]
    for j, size in enumerate(sizes):
        yield dict(batch_size=size, seconds=seconds,
                   latency_ms=1000 * float(np.median(taken[:, j, 0])),
                   utterances_a_second=float(np.median(rates[:, j])),
                   core_seconds=float(np.median(taken[:, j, 1])) / size / seconds,
                   gain=float(np.median(rates[:, j] / rates[:, 0])))


if __name__ == '__main__':
    run_script(main)
