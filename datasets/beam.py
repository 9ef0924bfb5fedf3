"""Preprocessing on Apache Beam: a folder of speech to shards, on as many machines as there are.

What `preprocess_data.py --runner` runs. Each sound file goes through `features.compute`, as it does
without Beam. An utterance's shard and its position there follow from its name
(`shards.shard_and_order`), and whether it is held out follows from the hashes of all names
(`corpus.split_key`): the same corpus gives the same bytes.
Folders may be on any path that tf.io.gfile reads and writes.
"""
import os
import posixpath
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Optional, Tuple

import apache_beam as beam
import tensorflow.compat.v1 as tf
import threadpoolctl
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions

import errors
import files
from datasets import audio_files, corpus, features, remote, shards
from errors import UserError
from params import HParams

COUNTERS = 'train', 'test', 'skipped', 'clipped', 'train_samples', 'test_samples'
NAMESPACE = 'preprocess_data'


def list_sources(wave_dir: str) -> Iterator[Any]:
    """(NAME, path under wave_dir) of the sound files; to 'unnamed' the (path, reason) of others.

    Listed by a worker: of millions of files the names alone are more than a pipeline's description
    may hold.
    """
    sources, unnamed = find_audio(wave_dir)
    yield from sources.items()
    for found in unnamed:
        yield beam.pvalue.TaggedOutput('unnamed', found)


class Compute(beam.DoFn):
    """(NAME, path under wave_dir) -> (NAME, bytes of a record, samples, whether it clips).

    Of a file of no use, (path, reason) goes to the output 'skipped'.
    """

    def __init__(self, wave_dir: str, hp: HParams, min_samples: int):
        self._wave_dir, self._hp, self._min_samples = wave_dir, hp, min_samples

    def setup(self):
        threadpoolctl.threadpool_limits(1)      # as in the workers of preprocess_data.py

    def process(self, source):
        name, relative = source
        hp = self._hp
        try:
            with remote.local_copy(posixpath.join(self._wave_dir, relative)) as path:
                found = features.compute(path, hp.mel, self._min_samples)
        except Exception as error:      # one file, whatever it is, is not to lose a corpus
            yield beam.pvalue.TaggedOutput('skipped', (relative, errors.reason(error)))
            return
        yield (name, shards.encode(name, found.audio, found.mel, hp), len(found.audio),
               found.clipped > 0)


class AssignShard(beam.DoFn):
    """(NAME, bytes, samples, clips) -> (shard, (order in it, bytes)), counted."""

    def __init__(self, directory: str, count: int):
        self._directory, self._count = directory, count

    def process(self, utterance, held_out):
        name, record, samples, clips = utterance
        part, count = (shards.TEST, 1) if name in held_out else (shards.TRAIN, self._count)
        Metrics.counter(NAMESPACE, part).inc()
        Metrics.counter(NAMESPACE, part + '_samples').inc(samples)
        Metrics.counter(NAMESPACE, 'clipped').inc(int(clips))
        i, order = shards.shard_and_order(name, count)
        yield shards.shard_path(self._directory, part, i, count), (order, record)


def write_shard(shard: Tuple[str, Iterable[Tuple[bytes, Optional[bytes]]]]) -> None:
    """Writes the shard (path, [(order in it, bytes of a record or None)])."""
    path, found = shard
    shards.write(path, [record for order, record in sorted(found) if record is not None])


def write_skipped(path: str, skipped: List[Tuple[str, str]], namespace: str = NAMESPACE) -> None:
    """Writes the [(path, reason)] of files of no use to skipped.tsv at `path`, and counts them."""
    Metrics.counter(namespace, 'skipped').inc(len(skipped))
    with tf.io.gfile.GFile(path, 'w') as f:
        f.write(corpus.skipped_table(skipped))


def heldout_names(keys: List[Tuple[bytes, str]], count: int,
                  test_size: Optional[int]) -> FrozenSet[str]:
    """The names held out of `count`, of (split key, name) with the least keys."""
    if test_size is None or not count:
        test_size = corpus.test_size_of(count, None)
    return frozenset(name for _, name in sorted(keys)[:test_size])


def run(wave_dir: str, shard_dir: str, hp: HParams, count: int, test_size: Optional[int], seed: int,
        min_samples: int, options: List[str]) -> Dict[str, int]:
    """Writes `count` shards of all the speech in wave_dir, test shard and skipped.tsv beside.

    Args:
      test_size: utterances to hold out; None for the default of corpus.test_size_of.
      seed: random seed of the train/test split.
      min_samples: shorter files are skipped.
      options: of Beam, as its command line has them.

    Returns: {counter: number} of COUNTERS. Raises UserError if there is nothing to train on.
    """
    sources, unnamed = find_audio(wave_dir)
    if not sources:
        raise UserError('%s holds no sound files' % wave_dir)
    corpus.test_size_of(len(sources), test_size)    # a wrong one is told before the work
    with shards.writable(shard_dir):
        shards.clear(shard_dir)
    let_workers_import()
    most = corpus.MOST_HELD_OUT if test_size is None else max(1, test_size)
    empty = [(shards.shard_path(shard_dir, shards.TRAIN, i, count), (b'', None))
             for i in range(count)]
    pipeline = beam.Pipeline(options=PipelineOptions(options))
    listed = (pipeline | 'folder' >> beam.Create([wave_dir])
              | 'find' >> beam.FlatMap(list_sources).with_outputs('unnamed', main='sources'))
    done = (listed.sources | 'spread' >> beam.Reshuffle()
            | 'compute' >> beam.ParDo(Compute(wave_dir, hp, min_samples)).with_outputs(
                'skipped', main='done'))
    names = done.done | 'names' >> beam.Map(lambda utterance: utterance[0])
    keys = (names | 'split keys' >> beam.Map(lambda name: (corpus.split_key(name, seed), name))
            | 'least' >> beam.combiners.Top.Smallest(most))
    chosen = keys | 'held out' >> beam.Map(
        heldout_names, beam.pvalue.AsSingleton(names | beam.combiners.Count.Globally()), test_size)
    sharded = done.done | 'shard' >> beam.ParDo(AssignShard(shard_dir, count),
                                                beam.pvalue.AsSingleton(chosen))
    ((sharded, pipeline | 'empty' >> beam.Create(empty)) | beam.Flatten()
     | beam.GroupByKey() | 'write' >> beam.Map(write_shard))
    (listed.unnamed, done.skipped) | 'all skipped' >> beam.Flatten() \
        | beam.combiners.ToList() | 'table' >> beam.Map(
            lambda skipped: write_skipped(posixpath.join(shard_dir, 'skipped.tsv'), skipped))
    counters = run_pipeline(pipeline, NAMESPACE, COUNTERS)
    if not counters['train']:
        raise UserError('none of the %d sound files in %s can be used; %s tells why'
                        % (len(sources) + len(unnamed), wave_dir,
                           posixpath.join(shard_dir, 'skipped.tsv')))
    with shards.writable(shard_dir):
        shards.finish(shard_dir, hp)
    return counters


def let_workers_import() -> None:
    """Lets workers of this machine, which are processes of their own, find our modules."""
    os.environ['PYTHONPATH'] = os.pathsep.join(
        filter(None, [files.ROOT, os.environ.get('PYTHONPATH')]))


def run_pipeline(pipeline: beam.Pipeline, namespace: str, names: Iterable[str]) -> Dict[str, int]:
    """Runs a pipeline to its end. Returns {name of a counter: its number}."""
    result = pipeline.run()
    result.wait_until_finish()
    counters = dict.fromkeys(names, 0)
    for counter in result.metrics().query(MetricsFilter().with_namespace(namespace))['counters']:
        counters[counter.key.metric.name] += counter.committed or counter.attempted    # a step's
    return counters


def find_audio(wave_dir: str) -> Tuple[Dict[str, str], List[Tuple[str, str]]]:
    """corpus.find_audio, of a folder on any path that tf.io.gfile lists."""
    if os.path.isdir(wave_dir):
        return corpus.find_audio(wave_dir)
    with shards.readable(wave_dir):
        found, skipped = corpus.find_files(wave_dir, audio_files.AUDIO_EXTENSIONS,
                                           remote.list_folder)
    sources, unnamed = corpus.sources_by_name(found)
    return sources, skipped + unnamed
