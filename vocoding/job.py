"""What a job on many machines vocodes, where it writes, and how its workers make audio.

Paths are any that tf.io.gfile reads and writes. Knows no Beam.
"""
import contextlib
import functools
import hashlib
import json
import os
import posixpath
import tempfile
import threading
import time
import uuid
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import errors
import files
import params
import utils
from datasets import audio_files, corpus, mel_files, mel_inputs, mel_transform, remote, shards
from datasets.mel_definition import MelHParams
from datasets.mel_inputs import Source
from errors import UserError
from synthesis.denoiser import Denoiser
from vocoder import Vocoder
from vocoding.processing import WithModel, batches, finite

IDENTITY = 'vocoded.json'       # in out_dir: what decides about its bytes


class Settings(NamedTuple):
    """What the bytes of the output follow from, beside the mels, and where they go."""
    checkpoint: str             # one, not a run: all workers load the same
    hp: MelHParams              # of the mels
    out_dir: str
    threads: int                # that TensorFlow and NumPy compute with, on every worker
    num_shards: Optional[int] = None    # shards of FLAC to write; None for wavs
    preset: Optional[str] = None        # these as in Vocoder.load
    hparams: str = ''
    precision: str = 'float32'
    chunk_frames: Optional[int] = None
    sigma: Optional[float] = None       # and these as in WithModel
    seed: int = 0
    mel_correction: Optional[int] = None
    denoiser_strength: float = 0.0
    batch_size: int = 1


class Utterance(NamedTuple):
    """A mel to vocode."""
    position: Tuple[int, int, int]      # among the inputs, which are in an order
    source: Source                      # with the name; of a record, the shard
    mel: Optional[np.ndarray] = None    # [frames, n_mels] of a record; None: it is read


class Group(NamedTuple):
    """Utterances that one worker vocodes at a time."""
    shard: Optional[str]                # that they make; None for wavs
    utterances: List[Utterance]


class Outcome(NamedTuple):
    """What became of an utterance."""
    source: Source
    reason: str = ''                    # why it was skipped; the rest is not set then
    pcm: Any = None                     # int16 [samples]
    mel: Optional[np.ndarray] = None    # [frames, n_mels] float32
    clipped: int = 0                    # samples beyond full scale


# --- Inputs ---------------------------------------------------------------------------------------

def expand_patterns(paths: Iterable[str]) -> List[str]:
    """Paths, with the files that a pattern such as 'gs://bucket/mels/a*.npy' means in its place.

    Raises UserError for a pattern that means none.
    """
    found: List[str] = []
    for path in paths:
        if not any(c in path for c in '*?[') or os.path.exists(path):
            found.append(path)
            continue
        with shards.readable(path), contextlib.suppress(tf.errors.NotFoundError):
            matching = sorted(tf.io.gfile.glob(path))
            if matching:
                found += matching
                continue
        raise UserError('no file matches %s' % path)
    return found


def is_shard(path: str) -> bool:
    """Whether an input is a shard, by its name."""
    return path.lower().endswith('.tfrecord')


def find_sources(paths: Sequence[str]) -> List[Source]:
    """mel_inputs.find_sources, of paths that are on any file system."""
    def is_folder(path):
        return tf.io.gfile.isdir(path) if remote.is_remote(path) else os.path.isdir(path)

    def listing(path):
        return remote.list_folder(path) if remote.is_remote(path) else corpus.list_folder(path)

    with errors.as_user_error('cannot list the inputs', '', tf.errors.OpError):
        return mel_inputs.find_sources(list(paths), is_folder, listing)


def read_mel(utterance: Utterance, hp: MelHParams) -> np.ndarray:
    """The mel [frames, n_mels] of an utterance; UserError if it cannot be one by `hp`."""
    source = utterance.source
    if utterance.mel is not None:
        if not len(utterance.mel):
            raise UserError('%s: the mel of %s is empty' % (source.path, source.name))
        mel_files.check_mel_values(utterance.mel, hp.mel, 'the mel of ' + source.name)
        return utterance.mel
    if not remote.is_remote(source.path):
        return mel_inputs.read_source(source, hp)[0][:]
    with remote.local_copy(source.path) as path:
        try:
            if not mel_inputs.is_mel(source):
                audio = audio_files.read_wav(path, hp.sample_rate)
                return mel_transform.mel_spectrogram(audio, hp.mel)
            made_with = remote_params(source.path, source.root)
            if made_with:
                mel_inputs.require_definition(hp, made_with, source.path)
            return mel_inputs.read_checked(path, hp)[:]
        except UserError as error:
            raise UserError(str(error).replace(path, source.path)) from error


def remote_params(path: str, root: str) -> Optional[params.HParams]:
    """mel_inputs.nearest_params, of a path that tf.io.gfile knows."""
    folder = posixpath.dirname(path)
    while True:
        found = params_in(folder)
        if found or len(folder) <= len(root.rstrip('/')):
            return found
        folder = posixpath.dirname(folder)


@functools.lru_cache(1000)
def params_in(folder: str) -> Optional[params.HParams]:
    """The HParams in a folder on any path; None if there are none of ours."""
    path = posixpath.join(folder, params.FILE_NAME)
    if tf.io.gfile.exists(path):
        with contextlib.suppress(UserError), tf.io.gfile.GFile(path) as f:
            return params.from_json(f.read(), path)
    return None


# --- The folder that is written -------------------------------------------------------------------

def identity_of(settings: Settings, names: Iterable[str]) -> Dict[str, Any]:
    """What decides about the bytes in settings.out_dir, as JSON has it.

    names: of the inputs. Which of them are there decides about shards, not about wavs.
    """
    found: Dict[str, Any] = {
        'model': checkpoint_digest(settings.checkpoint), 'tensorflow': tf.__version__,
        'mels': settings.hp.data()}
    unlike = 'checkpoint', 'hp', 'out_dir'
    found.update((name, value) for name, value in settings._asdict().items() if name not in unlike)
    if settings.num_shards:
        digest = hashlib.sha256('\n'.join(sorted(names)).encode('utf-8', 'replace'))
        found['inputs'] = digest.hexdigest()
    return json.loads(json.dumps(found))     # tuples are lists there


def stored_identity(out_dir: str) -> Optional[Dict[str, Any]]:
    """What `claim` wrote in an earlier run, or None. Raises UserError if it cannot be read."""
    path = posixpath.join(out_dir, IDENTITY)
    with shards.readable(path):
        if not tf.io.gfile.exists(path):
            return None
        with tf.io.gfile.GFile(path) as f:
            with errors.as_user_error('cannot read ' + path, 'remove the folder', ValueError,
                                      TypeError):
                return dict(json.loads(f.read()))


def claim(out_dir: str, identity: Dict[str, Any]) -> None:
    """Makes out_dir the folder of this job, or of the earlier run of it that this one continues.

    Raises UserError if it holds something else: what is there would be taken for done.
    """
    stored = stored_identity(out_dir)
    if stored is not None:
        other = [name for name in sorted(set(stored) | set(identity))
                 if stored.get(name) != identity.get(name)]
        if other:
            told = ', '.join('%s %s and not %s' % (
                name, errors.shown(stored.get(name), 40), errors.shown(identity.get(name), 40))
                for name in other)
            raise UserError('%s was begun with %s; give another --out_dir, or the same flags and '
                            'inputs' % (out_dir, told))
        _remove_leftovers(out_dir)
        return
    with shards.writable(out_dir):
        tf.io.gfile.makedirs(out_dir)
        if any(not name.startswith('.') for name in tf.io.gfile.listdir(out_dir)):
            raise UserError('%s holds files that are not of a run with --runner; give a new '
                            '--out_dir' % out_dir)
        write_file(posixpath.join(out_dir, IDENTITY), json.dumps(identity, indent=1).encode())


def _remove_leftovers(out_dir):
    """Removes temporary files that a run that was killed left."""
    if not remote.is_remote(out_dir):
        return corpus.remove_temporaries(out_dir)
    for folder, _, names in tf.io.gfile.walk(out_dir):
        for name in names:
            if name.startswith('.tmp-'):
                tf.io.gfile.remove(posixpath.join(folder, name))


def write_file(path: str, content: bytes) -> None:
    """Writes a file that appears at `path` when it is complete. Raises OSError or tf's OpError."""
    if not remote.is_remote(path):
        with files.atomic_open(path, 'wb') as f:
            f.write(content)
        return
    folder, name = posixpath.split(path)
    tf.io.gfile.makedirs(folder)
    temporary = posixpath.join(folder, '.tmp-%s-%s' % (uuid.uuid4().hex[:8], name[-60:]))
    with tf.io.gfile.GFile(temporary, 'wb') as f:
        f.write(content)
    tf.io.gfile.rename(temporary, path, overwrite=True)


def wav_path(out_dir: str, source: Source) -> str:
    """Where the wav of an input is written."""
    return posixpath.join(out_dir, source.name + '.wav')


def is_complete(path: str, sample_rate: int) -> bool:
    """Whether a wav is there, whole."""
    try:
        with tf.io.gfile.GFile(path, 'rb') as f:
            return audio_files.is_whole_wav(f.read(44), f.size(), sample_rate)
    except tf.errors.NotFoundError:
        return False


# --- The model ------------------------------------------------------------------------------------

def find_checkpoint(path: str) -> str:
    """utils.find_checkpoint, of a path that may be on any file system."""
    if not remote.is_remote(path):
        return utils.find_checkpoint(path)
    with shards.readable(path):
        found = tf.train.latest_checkpoint(path) or path
        if not tf.io.gfile.exists(found + '.index'):
            raise UserError('there is no checkpoint %s; give a run of train.py, or one of its '
                            'checkpoints' % path)
    return found


def checkpoint_digest(checkpoint: str) -> str:
    """A hash of the files of a checkpoint."""
    digest = hashlib.sha256()
    with shards.readable(checkpoint):
        for path in _checkpoint_files(checkpoint):
            with tf.io.gfile.GFile(path, 'rb') as f:
                piece = b' '
                while piece:
                    piece = f.read(1 << 24)
                    digest.update(piece)
    return digest.hexdigest()


def _checkpoint_files(checkpoint):
    names = [name for name in tf.io.gfile.listdir(posixpath.dirname(checkpoint) or '.')
             if name.startswith((posixpath.basename(checkpoint) + '.index',
                                 posixpath.basename(checkpoint) + '.data-'))]
    return [posixpath.join(posixpath.dirname(checkpoint), name)
            for name in sorted(names) + [params.FILE_NAME]]


@contextlib.contextmanager
def local_checkpoint(checkpoint: str) -> Iterator[str]:
    """The path of a checkpoint on this machine: its own, or that of a copy for the block."""
    if not remote.is_remote(checkpoint):
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        with shards.readable(checkpoint):
            for path in _checkpoint_files(checkpoint):
                tf.io.gfile.copy(path, os.path.join(folder, posixpath.basename(path)))
        yield os.path.join(folder, posixpath.basename(checkpoint))


def load_vocoder(settings: Settings) -> Vocoder:
    """The vocoder of a job. Raises what Vocoder.load raises."""
    with local_checkpoint(settings.checkpoint) as path:
        return Vocoder.load(path, settings.preset, settings.hparams, settings.precision,
                            settings.chunk_frames)


class Worker:
    """What a worker process has of a job, for all of its threads: one model.

    Each utterance is computed by what inference.py computes it with, in the same blocks, on the
    same number of threads and, with batch_size above one, in the same batch.
    """

    def __init__(self, settings: Settings):
        devices.limit_threads(settings.threads)
        vocoder = load_vocoder(settings)
        denoiser = (Denoiser.from_vocoder(vocoder, settings.denoiser_strength)
                    if settings.denoiser_strength else None)
        self._settings, self._computing = settings, threading.Lock()
        self._processing = WithModel(vocoder, settings.sigma, settings.seed,
                                     settings.mel_correction, denoiser, settings.hp.mel)

    def vocode(self, group: Group) -> Tuple[List[Outcome], float]:
        """What becomes of each utterance of a group, and the seconds that computing took."""
        skipped, read, mels = [], [], []
        for utterance in group.utterances:
            try:
                mels.append(read_mel(utterance, self._settings.hp))
                read.append(utterance.source)
            except Exception as error:      # one file, whatever it is, is not to lose a corpus
                skipped.append(Outcome(utterance.source, reason_of(utterance.source, error)))
        done: List[Outcome] = []
        with self._computing:
            started = time.time()
            for indices in batches([len(mel) for mel in mels], self._settings.batch_size):
                computed = self._processing.batch([mels[i] for i in indices])
                done += [self._outcome(read[i], mels[i], blocks)
                         for i, blocks in zip(indices, computed)]
            seconds = time.time() - started
        return skipped + done, seconds

    def _outcome(self, source, mel, blocks):
        path = wav_path(self._settings.out_dir, source)
        try:
            pieces = [audio_files.to_pcm16(audio) for audio in finite(blocks, path)]
            pcm = np.concatenate([piece for piece, _ in pieces])
            if pcm.nbytes > audio_files.MOST_WAV_BYTES:
                raise UserError('a WAV holds no more than 4 GB; cut the mel in two')
        except UserError as error:
            return Outcome(source, reason_of(source, error))
        return Outcome(source, pcm=pcm, mel=mel, clipped=sum(clipped for _, clipped in pieces))


def reason_of(source: Source, error: Exception) -> str:
    """What is wrong with an input, without its path."""
    told = str(error) if isinstance(error, UserError) else errors.reason(error)
    told = told or type(error).__name__
    start = source.path + ': '
    return told[len(start):] if told.startswith(start) else told
