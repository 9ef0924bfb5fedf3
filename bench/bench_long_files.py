"""Measures whether a corpus of one long file trains as fast as the same speech in sentences.

    python -m bench.bench_long_files --wave_dir=corpus/wavs

Takes an hour of a folder of speech, again from its beginning where it has less: once as it is, once
put together into one file. Trains preset `small` on both in turn, some steps at a time, in one
process. Prints medians over --repeats: steps a second on each, and what one is of the other beside
it.
"""
import argparse
import os
import shutil
import tempfile
import time
from typing import Callable, Dict, List

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import params
from command_line import local_path, run_script
from datasets import audio_files, corpus, preprocessing
from datasets.sources import FileData
from params import HParams
from training import towers
from training.graph import build_training_graph


def main():
    args = parse_arguments()
    directory = tempfile.mkdtemp(dir=args.work_dir)
    try:
        speeds = measure(args.wave_dir, directory, args.minutes, args.steps, args.repeats)
    finally:
        shutil.rmtree(directory)
    for name, values in speeds.items():
        print('%s: %.3f steps a second' % (name, np.median(values)))
    print('one file trains at %.3f of the speed of sentences (median of %d pairs)'
          % (np.median(np.divide(speeds['one file'], speeds['sentences'])), args.repeats))
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--wave_dir', type=local_path, required=True, help='folder of speech')
    parser.add_argument('--minutes', type=float, default=60, help='speech to take')
    parser.add_argument('--steps', type=int, default=10, help='steps on one corpus in a row')
    parser.add_argument('--repeats', type=int, default=21, help='repeats in each row')
    parser.add_argument('--work_dir', help='folder for the corpora, 0.4 GB for an hour (default: '
                                           'that of the system)')
    return parser.parse_args()


def measure(wave_dir: str, directory: str, minutes: float, steps: int, repeats: int
            ) -> Dict[str, List[float]]:
    """{corpus: steps a second of each repeat}. Writes to `directory`."""
    hp = params.preset('small')
    sentences = take(wave_dir, minutes * 60, hp.sample_rate)
    train = {'sentences': trainer(sentences, os.path.join(directory, 'sentences'), hp),
             'one file': trainer([np.concatenate(sentences)], os.path.join(directory, 'one'), hp)}
    speeds: Dict[str, List[float]] = {name: [] for name in train}
    for repeat in range(-1, repeats):
        for name in sorted(train, reverse=bool(repeat % 2)):
            started = time.monotonic()
            for _ in range(steps):
                train[name]()
            if repeat >= 0:     # the first steps compile
                speeds[name].append(steps / (time.monotonic() - started))
    return speeds


def take(wave_dir: str, seconds: float, sample_rate: int) -> List[np.ndarray]:
    """Audio [samples] of the sound files in a folder, as many as make up `seconds`."""
    sources, _ = corpus.find_audio(wave_dir)
    audio = [audio_files.read_wav(os.path.join(wave_dir, path), sample_rate)
             for _, path in sorted(sources.items())]
    taken, samples = [], 0
    while samples < seconds * sample_rate:
        taken.append(audio[len(taken) % len(audio)])
        samples += len(taken[-1])
    return taken


def trainer(utterances: List[np.ndarray], directory: str, hp: HParams) -> Callable[[], None]:
    """Preprocesses a corpus; returns a function that runs a training step on it."""
    wavs, mels = os.path.join(directory, 'wavs'), os.path.join(directory, 'mels')
    for i, audio in enumerate(utterances):
        audio_files.write_wav(os.path.join(wavs, '%05d.wav' % i), audio, hp.sample_rate)
    preprocessing.preprocess(wavs, mels, directory, hp, test_size=0)
    data = FileData(os.path.join(directory, 'train.scp'), wavs, mels)
    with tf.Graph().as_default() as tf_graph:
        tf.set_random_seed(0)
        graph = build_training_graph(hp, data.open(hp).training_clips, None,
                                     devices.tower_devices(1),
                                     towers.compute_options('float32', False, None))
        session = tf.Session(graph=tf_graph, config=devices.session_config())
        session.run(tf.global_variables_initializer())
        session.run(graph.clips_iterator.initializer)
    return lambda: session.run(graph.step.op)


if __name__ == '__main__':
    run_script(main)
