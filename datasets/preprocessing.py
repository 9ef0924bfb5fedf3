"""Preprocessing: mel spectrograms and file lists of a folder of speech, in worker processes.

preprocess_data.py tells what is written where.
"""
import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Dict, Generator, Iterable, List, NamedTuple, Optional, Tuple

import numpy as np
import threadpoolctl
import tqdm

import files
import params
from datasets import audio_files, corpus, features, mel_files, mel_transform, predicted_mels
from datasets.corpus import size_and_mtime, write_text
from datasets.mel_definition import MelDefinition
from datasets.predicted_mels import PredictedMel, PredictedMels
from errors import UserError, escape_unprintable

Records = Dict[str, Dict[str, Any]]      # {NAME: what `plan` says of it}
VERSION = 1             # of what `compute` writes; another one redoes everything


class Job(NamedTuple):
    """One utterance to compute."""
    name: str
    source: str             # path of a sound file
    mel: str                # path to write
    wav: Optional[str]      # path to write; None if training can read the source as it is
    definition: MelDefinition
    min_samples: int
    predicted: Optional[PredictedMel] = None    # to take in place of the mel of the audio


class Done(NamedTuple):
    """What a manifest keeps of an utterance that was computed."""
    samples: int
    clipped: int            # samples of the converted wav that clip
    zeros: int              # samples of digital silence
    notes: List[str]        # what is worth telling of the file
    mel: Optional[list]     # stamps of the files
    wav: Optional[list]


class Summary(NamedTuple):
    train: list             # utterance names
    test: list
    skipped: list           # (path under wave_dir, reason)
    notes: list             # (path under wave_dir, what was done about it)
    computed: int           # utterances computed by this run
    clipped: int            # utterances whose converted wav clips
    speech_seconds: float   # in train and test
    zero_seconds: float     # of it digital silence: runs of exact zeros
    speed: float            # seconds of speech computed in a second
    wave_dir: str           # where training finds NAME.wav


def compute(job: Job) -> Tuple[str, Any]:
    """Writes the mel, and the wav if asked for, of one utterance.

    Returns ('done', Done), ('skipped', reason) for audio of no use, or ('failed', reason) if it
    cannot write.
    """
    try:
        found = features.compute(job.source, job.definition, job.min_samples, job.predicted)
    except UserError as error:
        return 'skipped', str(error)
    except Exception as error:      # one file, whatever it is, is not to lose a corpus
        return 'skipped', 'cannot be processed (%s: %s)' % (type(error).__name__, error)
    try:
        if job.wav:
            audio_files.write_wav(job.wav, found.audio / np.float32(32768),
                                  job.definition.sample_rate)
        mel_files.save_mel(job.mel, found.mel)
    except OSError as error:
        return 'failed', 'cannot write %s (%s)' % (error.filename or job.mel,
                                                   error.strerror or error)
    return 'done', Done(
        samples=len(found.audio), clipped=found.clipped if job.wav else 0, zeros=found.zeros,
        notes=found.notes, mel=size_and_mtime(job.mel),
        wav=size_and_mtime(job.wav) if job.wav else None)


def start_worker(parent: Optional[int]) -> None:
    """Prepares a worker process: one thread of arithmetic, and no life after that of `parent`.

    `parent` is a process id, or None below a fork server, which ends with its own parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)     # Ctrl-C is the parent's to answer
    threadpoolctl.threadpool_limits(1)
    parent = parent or os.getppid()

    def watch():
        # A parent that was killed cannot say so, and the queue to it never ends.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_jobs(jobs: Iterable[Job], num_workers: int, context: Any = None
             ) -> Generator[Tuple[Job, Tuple[str, Any]], None, None]:
    """Yields (job, what `compute` returned), in the order of completion, from worker processes.

    A worker that dies (a decoder that crashes, memory that runs out) takes the pool with it: then
    the jobs in flight run again, each alone, and the one that kills its worker is skipped.
    """
    waiting = collections.deque(jobs)
    context = context or multiprocessing.get_context()
    parent = None if context.get_start_method() == 'forkserver' else os.getpid()

    def pool(size):
        return concurrent.futures.ProcessPoolExecutor(size, context, start_worker, (parent,))

    while waiting:
        pending = {}
        with pool(min(num_workers, len(waiting))) as executor:
            try:
                while waiting or pending:
                    while waiting and len(pending) < 4 * num_workers:
                        pending[executor.submit(compute, waiting[0])] = waiting[0]
                        waiting.popleft()
                    ready, _ = concurrent.futures.wait(
                        pending, return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in ready:
                        result = future.result()
                        yield pending.pop(future), result
            except BrokenProcessPool:
                pass
            finally:
                for future in pending:
                    future.cancel()
        for job in pending.values():
            with pool(1) as executor:
                try:
                    result = executor.submit(compute, job).result()
                except BrokenProcessPool:
                    result = 'skipped', 'the process that read it died: damaged, or too large'
            yield job, result


def plan(sources: Dict[str, str], old: Records, wave_dir: str, mel_dir: str, wavs: str,
         hp: params.HParams, min_samples: int, predicted: Optional[PredictedMels] = None
         ) -> Tuple[Records, Records, List[Job]]:
    """({NAME: record} that still holds, {NAME: record} begun, [Job]) for what there is to do.

    A record says of what something was made (the source, its stamp and whether training can read
    it as it is; the data parameters) and, when it is complete, what (`compute`'s part).
    """
    data = dict(hp.data(), version=VERSION)
    later = predicted is not None and predicted_mels.moves(predicted.definition, hp.mel)[0]
    kept, begun, jobs = {}, {}, []
    for name, relative in sorted(sources.items()):
        source = os.path.join(wave_dir, relative)
        mel = os.path.join(mel_dir, name + '.mel')
        wav = os.path.join(wavs, name + '.wav')
        plain = (relative.endswith('.wav') and not later
                 and audio_files.is_plain_wav(source, hp.sample_rate))
        found = predicted_mels.find(predicted, relative) if predicted else None
        record = {'source': relative, 'stamp': size_and_mtime(source), 'data': data, 'plain': plain,
                  'predicted': predicted and [found and size_and_mtime(found.path),
                                              predicted_mels.fingerprint(predicted.definition)]}
        before = old.get(name, {})
        if (all(before.get(key) == value for key, value in record.items())
                and before.get('mel') and before['mel'] == size_and_mtime(mel)
                and (plain or before.get('wav') and before['wav'] == size_and_mtime(wav))
                and 'clipped' in before and before.get('samples', -1) >= min_samples):
            kept[name] = dict(before)
        else:
            begun[name] = record
            jobs.append(Job(name, source, mel, None if plain else wav, hp.mel, min_samples, found))
    return kept, begun, jobs


def compute_all(jobs: List[Job], begun: Records, kept: Records, old: Records, data_dir: str,
                num_workers: int) -> Tuple[Records, Dict[str, str]]:
    """Runs the jobs; returns ({NAME: record} of the usable, {NAME: reason} of the others).

    Completes the records of `begun`, and takes them from there.
    """
    records, unusable = dict(kept), {}
    save_at = time.monotonic() + 10
    bar = tqdm.tqdm(total=len(jobs), unit='file', disable=not jobs)
    try:
        with contextlib.closing(run_jobs(jobs, num_workers)) as results, bar:
            for job, (outcome, result) in results:
                bar.update()
                if outcome == 'failed':
                    raise UserError(result)
                if outcome == 'skipped':
                    unusable[job.name] = result
                else:
                    records[job.name] = begun.pop(job.name)
                    records[job.name].update(result._asdict())
                began = time.monotonic()
                if began > save_at:     # a large corpus takes long to save, and is saved less often
                    corpus.write_manifest(data_dir, collections.ChainMap(records, old))
                    save_at = time.monotonic() + max(10, 20 * (time.monotonic() - began))
    finally:        # a run that is stopped is not in vain; one that is killed has the last save
        corpus.write_manifest(data_dir, collections.ChainMap(records, old))
    return records, unusable


def gather_wavs(records: Records, wave_dir: str, wavs: str) -> str:
    """Completes the folder of converted wavs with the files that need no conversion.

    Returns the folder in which training finds every NAME.wav: `wave_dir` if nothing is converted.
    """
    if all(record['plain'] for record in records.values()):
        for record in records.values():
            record['wav'] = None
        return wave_dir
    for name, record in records.items():
        wav = os.path.join(wavs, name + '.wav')
        if record['plain'] and not (record['wav'] and record['wav'] == size_and_mtime(wav)):
            corpus.link_or_copy(os.path.join(wave_dir, record['source']), wav)
            record['wav'] = size_and_mtime(wav)
    return wavs


def prepare_folders(mel_dir: str, data_dir: str, wavs: str, hp: params.HParams) -> None:
    """Rids the output folders of what a killed run left and of parameters that will not hold."""
    for folder, recurse in ((mel_dir, True), (data_dir, False), (wavs, True)):
        corpus.remove_temporaries(folder, recurse)
    for folder in (mel_dir, data_dir):
        # Should this run be killed, mels of two kinds side by side must not pass for either.
        try:
            stored = params.load_if_exists(folder)
            holds = not stored or not params.differences(stored, hp, params.DATA_FIELDS)
        except UserError:
            holds = False
        if not holds:
            os.unlink(os.path.join(folder, 'params.json'))


def preprocess(wave_dir: str, mel_dir: str, data_dir: str, hp: params.HParams,
               test_size: Optional[int] = None, seed: int = 0, num_workers: int = 1,
               min_samples: int = 0, predicted: Optional[PredictedMels] = None) -> Summary:
    """Does what preprocess_data.py says, and returns a Summary.

    predicted: mels to take in place of those of the audio.

    Raises UserError for input of no use, OSError if it cannot write.
    """
    sources, skipped = corpus.find_audio(wave_dir)
    if sources:
        corpus.split(sources, test_size, seed)      # a wrong test_size is told before the work
    elif not skipped:
        raise UserError('%s holds no sound files (%s)'
                        % (wave_dir, ' '.join(sorted(audio_files.AUDIO_EXTENSIONS))))
    with contextlib.ExitStack() as locks:
        for folder in sorted({os.path.realpath(folder) for folder in (mel_dir, data_dir)}):
            os.makedirs(folder, exist_ok=True)
            locks.enter_context(files.lock_directory(
                folder, 'another preprocess_data.py is writing to %s; wait for it, or give other '
                'folders as --mel_dir and --data_dir' % folder))
        return _preprocess(sources, skipped, wave_dir, mel_dir, data_dir, hp, test_size, seed,
                           num_workers, min_samples, predicted)


def _preprocess(sources, skipped, wave_dir, mel_dir, data_dir, hp, test_size, seed, num_workers,
                min_samples, predicted):
    wavs = corpus.converted_dir(data_dir, wave_dir, hp.sample_rate)
    prepare_folders(mel_dir, data_dir, wavs, hp)
    old = corpus.read_manifest(data_dir)
    if predicted:
        lacking = [name for name in sources if not predicted_mels.find(predicted, sources[name])]
        skipped = skipped + [(sources[name], 'there is no predicted mel of it in '
                              + predicted.directory) for name in lacking]
        sources = {name: sources[name] for name in set(sources).difference(lacking)}
    kept, begun, jobs = plan(sources, old, wave_dir, mel_dir, wavs, hp, min_samples, predicted)
    if any(job.wav for job in jobs):
        write_text(os.path.join(wavs, corpus.MARKER), corpus.MARKER_TEXT)
    if jobs:
        mel_transform.mel_basis(hp.mel)     # forked workers inherit it
    began = time.monotonic()
    records, unusable = compute_all(jobs, begun, kept, old, data_dir, num_workers)
    took = time.monotonic() - began
    skipped = sorted(skipped + [(sources[name], reason) for name, reason in unusable.items()])
    write_text(os.path.join(data_dir, 'skipped.tsv'), corpus.skipped_table(skipped))
    if not records:
        raise UserError('none of the %d sound files in %s can be used; the first, %s: %s'
                        % (len(skipped), wave_dir, escape_unprintable(skipped[0][0]),
                           skipped[0][1]))
    train, test = corpus.split(records, test_size, seed)
    train_wave_dir = gather_wavs(records, wave_dir, wavs)
    corpus.remove_stale(old, records, mel_dir, wavs)
    if train_wave_dir != wavs and os.path.exists(os.path.join(wavs, corpus.MARKER)):
        corpus.remove_converted(wavs)
    corpus.write_manifest(data_dir, records)
    for folder in (mel_dir, data_dir):
        params.save(folder, hp)
    for name, names in (('test.scp', test), ('train.scp', train)):
        write_text(os.path.join(data_dir, name), ''.join(n + '\n' for n in names))
    new = [records[job.name] for job in jobs if job.name in records]

    def seconds(of, key='samples'):
        return sum(record.get(key, 0) for record in of) / hp.sample_rate

    return Summary(
        train=train, test=test, skipped=skipped, computed=len(new),
        notes=[(records[name]['source'], note) for name in sorted(records)
               for note in records[name].get('notes', ())],
        clipped=sum(1 for record in records.values() if record['clipped']),
        speech_seconds=seconds(records.values()), zero_seconds=seconds(records.values(), 'zeros'),
        speed=seconds(new) / took, wave_dir=train_wave_dir)


def pack(summary: Summary, mel_dir: str, shard_dir: str, hp: params.HParams, count: int,
         num_workers: int):
    """Writes `count` shards of a corpus that `preprocess` returned the summary of.

    Raises UserError if they cannot be written.
    """
    from datasets import shards  # TensorFlow, which nothing else here needs

    def read(name):
        audio = audio_files.read_wav(os.path.join(summary.wave_dir, name + '.wav'), hp.sample_rate)
        return (audio_files.to_pcm16(audio)[0],
                mel_files.read_mel(os.path.join(mel_dir, name + '.mel'), hp.n_mels))
    shards.pack(shard_dir, hp, summary.train, summary.test, count, read, num_workers)
