"""Shards: aligned speech and mels in TFRecord files, on any path that tf.io.gfile reads.

A record is a tf.train.Example of one utterance: name; audio, int16 little-endian samples, or flac,
the same as a FLAC file; mel, float32 little-endian [frames, n_mels]; data, the mel definition as
JSON. Which shard an
utterance is in, and where, follows from its name alone, so that the same corpus gives the same
bytes however it was packed.
"""
import contextlib
import hashlib
import json
import multiprocessing.pool
import posixpath
import struct
from typing import (
    Callable,
    ContextManager,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
    Union,
)

import google_crc32c
import numpy as np
import tensorflow.compat.v1 as tf

import errors
import params
from datasets import audio_files, mel_definition
from datasets.mel_definition import MelHParams
from errors import UserError
from params import HParams

TRAIN, TEST = 'train', 'test'


class Record(NamedTuple):
    """An utterance in a shard."""
    name: str
    audio: np.ndarray       # int16 [samples]
    mel: np.ndarray         # float32 [frames, n_mels]


class Fault(NamedTuple):
    """What is wrong with the record that begins at byte `offset` of file `path`."""
    path: str
    offset: int
    reason: str

    def __str__(self):
        return '%s, record at byte %d: %s' % self


# --- Writing --------------------------------------------------------------------------------------

def shard_and_order(name: str, count: int) -> Tuple[int, bytes]:
    """(shard, order in it) of the utterance `name` among `count` shards: as good as shuffled."""
    digest = hashlib.sha256(name.encode('utf-8')).digest()
    return int.from_bytes(digest[:8], 'little') % count, digest[8:]


def shard_path(directory: str, part: str, i: int, count: int) -> str:
    """The path of shard `i` of `count` of a part, train or test."""
    return posixpath.join(directory, '%s-%05d-of-%05d.tfrecord' % (part, i, count))


def encode(name: str, audio: np.ndarray, mel: np.ndarray, hp: MelHParams, flac: bool = False
           ) -> bytes:
    """The bytes of a record, of audio int16 [samples] and mel [frames, n_mels].

    They are the same for the same arguments. flac: whether the samples are stored as FLAC.
    """
    def feature(value):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature={
        'name': feature(name.encode('utf-8')),
        **({'flac': feature(audio_files.flac_bytes(audio, hp.sample_rate))} if flac else
           {'audio': feature(np.asarray(audio, '<i2').tobytes())}),
        'mel': feature(np.asarray(mel, '<f4').tobytes()),
        'data': feature(_data(hp))})).SerializeToString(deterministic=True)


def _data(hp):
    return json.dumps(hp.data()).encode()


def layout(directory: str, names: Iterable[str], part: str, count: int) -> Dict[str, List[str]]:
    """{path of a shard: [the names in it, in order]} of all `count` shards of a part."""
    found: Dict[str, List[str]] = {shard_path(directory, part, i, count): [] for i in range(count)}
    for name in names:
        found[shard_path(directory, part, shard_and_order(name, count)[0], count)].append(name)
    return {path: sorted(names, key=lambda name: shard_and_order(name, count)[1])
            for path, names in found.items()}


def pack(directory: str, hp: HParams, train: Iterable[str], test: List[str], count: int,
         read: Callable[[str], Tuple[np.ndarray, np.ndarray]], num_workers: int) -> None:
    """Writes all shards of a corpus, `count` of them to train on, and their params.json.

    Args:
      train, test: utterance names; test makes one shard, if any.
      read: gives (int16 [samples], float32 [frames, n_mels]) for a name.
      num_workers: shards written at a time.

    Raises UserError if it cannot write.
    """
    def write_shard(shard):
        path, names = shard

        def records():
            for name in names:
                audio, mel = read(name)
                yield encode(name, audio, mel, hp)

        write(path, records())

    parts = [layout(directory, train, TRAIN, count)]
    if test:
        parts.append(layout(directory, test, TEST, 1))
    with writable(directory), multiprocessing.pool.ThreadPool(num_workers) as pool:
        clear(directory)
        paths_and_names = [item for part in parts for item in part.items()]
        for _ in pool.imap_unordered(write_shard, paths_and_names):
            pass
        finish(directory, hp)


def finish(directory: str, hp: HParams) -> None:
    """Writes params.json, by which complete shards are known."""
    with tf.io.gfile.GFile(posixpath.join(directory, 'params.json'), 'w') as f:
        f.write(params.to_json(hp))


def write(path: str, records: Iterable[bytes]) -> None:
    """Writes the bytes of records to the shard `path`, which appears when it is complete."""
    temporary = posixpath.join(posixpath.dirname(path), '.tmp-' + posixpath.basename(path))
    with tf.io.TFRecordWriter(temporary) as writer:
        for record in records:
            writer.write(record)
    tf.io.gfile.rename(temporary, path, overwrite=True)


def clear(directory: str) -> None:
    """Makes `directory`, without the shards and parameters of an earlier run."""
    tf.io.gfile.makedirs(directory)
    for name in tf.io.gfile.listdir(directory):
        part, _, rest = name.replace('.tmp-', '').partition('-')
        if name == 'params.json' or part in (TRAIN, TEST) and rest.endswith('.tfrecord'):
            tf.io.gfile.remove(posixpath.join(directory, name))


# --- Reading --------------------------------------------------------------------------------------

def matching(pattern: str) -> List[str]:
    """The shards that a pattern ('gs://bucket/corpus/train-*') means, sorted; UserError if none."""
    paths = _glob(pattern)
    if not paths:
        raise UserError('no shard matches %s; preprocess_data.py --tfrecord_shards writes them'
                        % pattern)
    return paths


def _glob(pattern):
    with readable(pattern), contextlib.suppress(tf.errors.NotFoundError):   # of 1.15, for a folder
        return sorted(tf.io.gfile.glob(pattern))
    return []


def size(path: str) -> int:
    """The bytes of a shard; UserError if it cannot be read."""
    with readable(path):
        return tf.io.gfile.stat(path).length


def hyperparameters(pattern: str) -> HParams:
    """The HParams that preprocess_data.py wrote beside the shards that `pattern` means."""
    path = posixpath.join(posixpath.dirname(pattern), 'params.json')
    with readable(path), tf.io.gfile.GFile(path) as f:
        return params.from_json(f.read(), path)


def test_beside(pattern: str) -> Optional[str]:
    """The pattern of the held-out shards beside those of `pattern`, or None if there are none."""
    beside = posixpath.join(posixpath.dirname(pattern), TEST + '-*.tfrecord')
    return beside if beside != pattern and _glob(beside) else None


def readable(path: str) -> ContextManager[None]:
    """Turns what tf.io.gfile raises about reading `path` into a UserError."""
    return errors.as_user_error('cannot read ' + path, '', tf.errors.OpError, OSError)


def writable(path: str) -> ContextManager[None]:
    """Turns what tf.io.gfile raises about writing `path` into a UserError."""
    return errors.as_user_error('cannot write ' + path, '', tf.errors.OpError, OSError)


def records(path: str, hp: MelHParams) -> Iterator[Union[Record, Fault]]:
    """Yields a Record, or a Fault, for each record of the shard `path`, to its end.

    Raises UserError for records of other parameters than `hp`.
    """
    for offset, payload in payloads(path):
        yield payload if isinstance(payload, Fault) else decode(payload, hp, path, offset)


def payloads(path: str) -> Iterator[Tuple[int, Union[bytes, Fault]]]:
    """Yields (offset, bytes or a Fault) of the shard `path`.

    A record is its length (uint64), its masked CRC-32C, as many bytes and their masked CRC-32C,
    little-endian. After a length that is wrong the next one that is right is searched for.
    """
    try:
        with tf.io.gfile.GFile(path, 'rb') as f:
            size, offset = f.size(), 0
            while offset < size:
                f.seek(offset)
                head = f.read(12)
                length = _length(head, size - offset)
                if length is None:
                    yield offset, Fault(path, offset, 'cut short' if len(head) < 12 or _length(
                        head, None) is not None else 'its length does not match its checksum')
                    offset = _next(f, offset + 1, size)
                    continue
                payload, end = f.read(length), f.read(4)
                if end != _masked(payload):
                    yield offset, Fault(path, offset, 'its content does not match its checksum')
                    f.seek(offset + 16 + length)
                    after = f.read(12)
                    if after and _length(after, None) is None:  # bytes were lost or put in
                        offset = _next(f, offset + 12, size)
                        continue
                else:
                    yield offset, payload
                offset += 16 + length
    except (tf.errors.OpError, OSError) as error:
        yield 0, Fault(path, 0, 'the file cannot be read (%s)' % errors.reason(error))


def _length(head, left):
    """The length that a record's first 12 bytes announce, if it is true and within `left` bytes."""
    if len(head) < 12 or head[8:] != _masked(head[:8]):
        return None
    length, = struct.unpack('<Q', head[:8])
    return length if left is None or 16 + length <= left else None


def _masked(content):
    crc = google_crc32c.value(content)
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff)


def _next(f, offset, size):
    """The offset of the next record from `offset` on, or `size`."""
    while offset < size:
        f.seek(offset)
        block = f.read(1 << 20)
        for i in range(len(block) - 11):
            if _length(block[i:i + 12], size - offset - i) is not None:
                return offset + i
        if offset + len(block) >= size:
            break
        offset += len(block) - 11
    return size


def decode(payload: bytes, hp: MelHParams, path: str, offset: int) -> Union[Record, Fault]:
    """The Record in a payload, or a Fault. Raises UserError if its parameters are others."""
    try:
        features = tf.train.Example.FromString(payload).features.feature
        kind = 'flac' if 'flac' in features else 'audio'
        name, audio, mel, data = (features[key].bytes_list.value[0]
                                  for key in ('name', kind, 'mel', 'data'))
        name, data = name.decode('utf-8'), json.loads(data.decode('utf-8'))
    except Exception as error:  # whatever protobuf raises, which differs with its version
        return Fault(path, offset, 'not an utterance of preprocess_data.py (%s)'
                     % (errors.cut(error) or type(error).__name__))
    if any(ord(character) < 32 for character in name):
        return Fault(path, offset, 'its name, %s, holds a control character' % errors.shown(name))
    if not isinstance(data, dict):
        return Fault(path, offset, '%s does not tell its mel definition' % errors.cut(name))
    data = params.with_current_names(data)
    if not mel_definition.same_data(data, hp.data()):
        raise UserError('%s holds data of %s, and this model is for %s; preprocess with the same '
                        '--preset and --hparams'
                        % (path, errors.shown(data, 300), _data(hp).decode()))
    try:
        audio = audio if kind == 'audio' else audio_files.pcm_of_flac(audio).astype('<i2').tobytes()
    except ValueError as error:
        return Fault(path, offset, 'the audio of %s: %s' % (errors.cut(name), error))
    if len(audio) % 2 or len(mel) % (4 * hp.n_mels):
        return Fault(path, offset, '%s does not hold whole samples and frames' % errors.cut(name))
    mel = np.frombuffer(mel, '<f4').reshape(-1, hp.n_mels)
    if not np.isfinite(mel).all():
        return Fault(path, offset, 'the mel of %s is not finite' % errors.cut(name))
    return Record(name, np.frombuffer(audio, '<i2'), mel)
