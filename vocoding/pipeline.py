"""Vocoding on Apache Beam: mels to wavs or shards, on as many machines as there are.

What `inference.py --runner` runs. RunInference loads one model a worker process (`VocoderHandler`).
An utterance is vocoded by the code, the blocks and the number of threads of inference.py, with
noise that follows from the seed alone. So its bytes do not depend on workers, bundles and retries.
With a batch_size above one, what is in a batch follows from the lengths of all mels, as in
inference.py. A shard is vocoded and written by one worker at a time.
"""
import posixpath
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import apache_beam as beam
import numpy as np
import tensorflow.compat.v1 as tf
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

import errors
import files
from datasets import audio_files, shards
from datasets.beam import let_workers_import, run_pipeline, write_skipped
from datasets.mel_definition import MelHParams
from datasets.mel_inputs import Source
from errors import UserError
from vocoding import job
from vocoding.job import Group, Outcome, Settings, Utterance, Worker
from vocoding.processing import batches

NAMESPACE = 'inference'
COUNTERS = 'utterances', 'kept', 'skipped', 'clipped', 'samples', 'microseconds'
SKIPPED = 'skipped'     # the output of what cannot be vocoded: (path, reason)


class Done(NamedTuple):
    """A group that was vocoded."""
    shard: Optional[str]
    outcomes: List[Outcome]


class VocoderHandler(ModelHandler[Group, Done, Worker]):
    """Vocodes groups of mels: one model a process, which its threads use in turn.

    Beam's own batches hold one group: what may be computed together is in it already.
    """

    def __init__(self, settings: Settings):
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._settings = settings

    def load_model(self) -> Worker:
        return Worker(self._settings)

    def run_inference(self, batch: Sequence[Group], model: Worker,
                      inference_args: Optional[Dict[str, Any]] = None) -> Iterable[Done]:
        for group in batch:
            outcomes, seconds = model.vocode(group)
            count('microseconds', int(1e6 * seconds))
            yield Done(group.shard, outcomes)

    def get_num_bytes(self, batch: Sequence[Group]) -> int:
        """Of the mels that came with the batch; others are read from their files."""
        return sum(utterance.mel.nbytes for group in batch for utterance in group.utterances
                   if utterance.mel is not None)


def count(name: str, by: int = 1) -> None:
    """Adds to a counter of the running step."""
    Metrics.counter(NAMESPACE, name).inc(by)


def skipped(path: str, reason: str) -> Any:
    """An element of the output SKIPPED."""
    return beam.pvalue.TaggedOutput(SKIPPED, (path, reason))


# --- Steps ----------------------------------------------------------------------------------------

def list_utterances(paths: List[str]) -> Iterable[Utterance]:
    """The mels and sound files that paths mean.

    Listed by a worker: of millions of files the names alone are more than a pipeline's description
    may hold.
    """
    for i, source in enumerate(job.find_sources(paths)):
        yield Utterance((0, i, 0), source)


def read_records(shard: Tuple[int, str], hp: MelHParams) -> Iterable[Any]:
    """The utterances in shard (its number, its path); a damaged record is skipped."""
    i, path = shard
    for j, record in enumerate(shards.records(path, hp)):
        if isinstance(record, shards.Fault):
            yield skipped(path, 'record at byte %d: %s' % (record.offset, record.reason))
        elif files.leaves_folder(record.name):
            yield skipped(path, 'the name %s leads out of the folder' % errors.cut(record.name))
        else:
            yield Utterance((1, i, j), Source(path, record.name, ''), record.mel)


def record_names(shard: Tuple[int, str], hp: MelHParams) -> Iterable[str]:
    """The names in a shard."""
    return (record.name for record in shards.records(shard[1], hp)
            if isinstance(record, shards.Record))


class Pending(beam.DoFn):
    """Passes on the utterances whose output is not there yet."""

    def __init__(self, settings: Settings, sample_rate: int):
        self._settings, self._sample_rate = settings, sample_rate
        self._written: Dict[str, bool] = {}         # shards

    def process(self, utterance, repeated):
        source, settings = utterance.source, self._settings
        if source.name in repeated:
            yield skipped(source.path, 'the name %s is there more than once' % source.name)
            return
        if settings.num_shards:
            path = shard_of(source.name, settings)
            if path not in self._written:
                self._written[path] = tf.io.gfile.exists(path)
            there = self._written[path]
        else:       # a batch that lacks one is vocoded whole
            there = settings.batch_size == 1 and job.is_complete(
                job.wav_path(settings.out_dir, source), self._sample_rate)
        if there:
            count('kept')
        else:
            yield utterance


class Measure(beam.DoFn):
    """Utterance -> (its frames, itself), of what can be vocoded."""

    def __init__(self, hp: MelHParams):
        self._hp = hp

    def process(self, utterance):
        try:
            yield len(job.read_mel(utterance, self._hp)), utterance
        except Exception as error:      # one file, whatever it is, is not to lose a corpus
            yield skipped(utterance.source.path, job.reason_of(utterance.source, error))


def plan_batches(measured: List[Tuple[int, Tuple[int, int, int]]], batch_size: int
                 ) -> Dict[Tuple[int, int, int], int]:
    """{position: number of the batch} of (frames, position): those that inference.py makes."""
    in_order = sorted(measured, key=lambda one: one[1])
    return {in_order[i][1]: number for number, batch in enumerate(
        batches([frames for frames, _ in in_order], batch_size)) for i in batch}


def shard_of(name: str, settings: Settings) -> str:
    """The path of the shard that an utterance is written to."""
    n = settings.num_shards or 1
    return shards.shard_path(settings.out_dir, shards.TRAIN, shards.shard_and_order(name, n)[0], n)


class Write(beam.DoFn):
    """Writes what was vocoded: wavs, or a shard. (path, reason) of the rest goes to SKIPPED."""

    def __init__(self, settings: Settings, sample_rate: int):
        self._settings, self._sample_rate = settings, sample_rate

    def process(self, done: Done):
        good: List[Outcome] = []
        for outcome in done.outcomes:
            if outcome.reason:
                yield skipped(outcome.source.path, outcome.reason)
            else:
                good.append(outcome)
        if done.shard:
            self._write_shard(done.shard, good)
        else:
            good = [outcome for outcome in good if self._write_wav(outcome)]
        count('utterances', len(good))
        count('samples', sum(np.size(outcome.pcm) for outcome in good))
        count('clipped', sum(outcome.clipped for outcome in good))

    def _write_wav(self, outcome):
        path = job.wav_path(self._settings.out_dir, outcome.source)
        with shards.writable(path):
            if self._settings.batch_size > 1 and job.is_complete(path, self._sample_rate):
                count('kept')
                return False
            job.write_file(path, audio_files.wav_bytes(outcome.pcm, self._sample_rate))
        return True

    def _write_shard(self, path, good):
        found = sorted((shards.shard_and_order(each.source.name, 1)[1], i)
                       for i, each in enumerate(good))
        with shards.writable(path):
            shards.write(path, (shards.encode(good[i].source.name, good[i].pcm, good[i].mel,
                                              self._settings.hp, flac=True) for _, i in found))


# --- The pipeline ---------------------------------------------------------------------------------

def run(paths: List[str], settings: Settings, sample_rate: int, options: List[str]
        ) -> Dict[str, int]:
    """Vocodes what `paths` mean, but for what an earlier run has written. skipped.tsv tells what
    could not be vocoded, and why.

    Args:
      paths: mels, sound files and folders of them, and shards; without patterns.
      sample_rate: Hz, of the audio.
      options: of Beam, as its command line has them.

    Returns: {counter: number} of COUNTERS. Raises UserError if the pipeline fails.
    """
    let_workers_import()
    pipeline = beam.Pipeline(options=PipelineOptions(options))
    left_out = build(pipeline, paths, settings, sample_rate)
    left_out | beam.combiners.ToList() | 'table' >> beam.Map(
        lambda rows: write_skipped(posixpath.join(settings.out_dir, 'skipped.tsv'), rows,
                                   NAMESPACE))
    try:
        counters = run_pipeline(pipeline, NAMESPACE, COUNTERS)
    except Exception as error:      # a worker's comes as text
        raise UserError('the pipeline failed (%s); the same command goes on where it ended'
                        % last_line(error)) from error
    return counters


def build(pipeline: beam.Pipeline, paths: List[str], settings: Settings, sample_rate: int) -> Any:
    """Adds all steps to a pipeline. Returns the (path, reason) of what is skipped."""
    left_out = []

    def steps(collection, name, step):
        results = collection | name >> step.with_outputs(SKIPPED, main='main')
        left_out.append(results[SKIPPED])
        return results.main

    of_files = [path for path in paths if not job.is_shard(path)]
    of_shards = list(enumerate(path for path in paths if job.is_shard(path)))
    found, repeated = [], pipeline | 'no names' >> beam.Create([frozenset()])
    if of_files:
        found.append(pipeline | 'inputs' >> beam.Create([of_files])
                     | 'find' >> beam.FlatMap(list_utterances) | 'spread' >> beam.Reshuffle())
    if of_shards:
        given = pipeline | 'shards' >> beam.Create(of_shards) | 'spread shards' >> beam.Reshuffle()
        found.append(steps(given, 'read', beam.FlatMap(read_records, settings.hp)))
        names = given | 'names' >> beam.FlatMap(record_names, settings.hp)
        if of_files:
            names = ((names, found[0] | beam.Map(lambda utterance: utterance.source.name))
                     | 'all names' >> beam.Flatten())
        repeated = (names | beam.combiners.Count.PerElement()
                    | beam.Filter(lambda counted: counted[1] > 1) | beam.Keys()
                    | 'list' >> beam.combiners.ToList() | beam.Map(frozenset))
    waiting = steps(found | 'all' >> beam.Flatten(), 'pending', beam.ParDo(
        Pending(settings, sample_rate), beam.pvalue.AsSingleton(repeated)))
    if settings.num_shards:
        groups = by_shard(pipeline, waiting, settings)
    elif settings.batch_size > 1:
        measured = steps(waiting, 'measure', beam.ParDo(Measure(settings.hp)))
        groups = by_batch(measured, settings, sample_rate)
    else:
        groups = waiting | 'one by one' >> beam.Map(lambda utterance: Group(None, [utterance]))
    done = groups | RunInference(VocoderHandler(settings))
    steps(done, 'write', beam.ParDo(Write(settings, sample_rate)))
    return left_out | 'all skipped' >> beam.Flatten()


def by_shard(pipeline: beam.Pipeline, utterances: Any, settings: Settings) -> Any:
    """A Group for each shard that is not there, the empty ones too."""
    n = settings.num_shards or 1
    every = [(shards.shard_path(settings.out_dir, shards.TRAIN, i, n), None) for i in range(n)]
    return (((utterances | 'shard' >> beam.Map(
        lambda utterance: (shard_of(utterance.source.name, settings), utterance)),
              pipeline | 'every' >> beam.Create(every)) | 'with empty' >> beam.Flatten())
            | 'by shard' >> beam.GroupByKey()
            | 'unwritten' >> beam.Filter(lambda shard: not tf.io.gfile.exists(shard[0]))
            | 'shards to write' >> beam.MapTuple(lambda path, members: Group(path, sorted(
                filter(None, members), key=lambda utterance: utterance.position))))


def by_batch(measured: Any, settings: Settings, sample_rate: int) -> Any:
    """A Group for each batch of inference.py with an output that is not there."""
    plan = (measured | 'lengths' >> beam.MapTuple(
        lambda frames, utterance: (frames, utterance.position))
            | 'all lengths' >> beam.combiners.ToList()
            | 'plan' >> beam.Map(plan_batches, settings.batch_size))

    def is_missing(group):
        there = [job.is_complete(job.wav_path(settings.out_dir, utterance.source), sample_rate)
                 for utterance in group.utterances]
        count('kept', len(there) if all(there) else 0)
        return not all(there)

    return (measured | 'batch' >> beam.Map(
        lambda one, plan: (plan[one[1].position], one[1]), beam.pvalue.AsSingleton(plan))
            | 'by batch' >> beam.GroupByKey()
            | 'batches' >> beam.MapTuple(lambda _, members: Group(None, sorted(
                members, key=lambda utterance: utterance.position)))
            | 'missing' >> beam.Filter(is_missing))


def last_line(error: Exception) -> str:
    """The line of a failed pipeline that tells what happened."""
    found = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in found if 'Error: ' in line and not line.startswith('RuntimeError')]
    return errors.cut((telling or found or [type(error).__name__])[-1], 300)
