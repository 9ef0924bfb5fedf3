"""The input pipeline over shards: each host reads its share of them, and goes on where it stopped.

An epoch is every shard once, in an order of its own, dealt out to the hosts. A host reads
CYCLE_LENGTH shards side by side, cuts each utterance into clips from a random frame on, and draws
from SHUFFLE_BUFFER of them. A clip's position, (epoch, which CYCLE_LENGTH shards, which of their
clips), is stored with the weights: from there a training goes on with the clips that it would have
had, after reading those shards again.
"""
import hashlib
import sys
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from datasets import shards
from datasets.clips import Clips, cut_clip, draw_noise, heldout_frames, without_autograph
from errors import UserError
from params import HParams

CYCLE_LENGTH = 8            # shards read side by side
SHUFFLE_BUFFER = 256        # clips that the next is drawn from


class Reader:
    """The clips of one host.

    Args:
      paths: of all shards, the same on every host.
      hp: HParams.
      seed: of order and clips.
      num_hosts: that share the shards.
      task_index: which of the hosts this one is, from 0.
      skip: what to do about a damaged record: tell and pass over it, or end (`fault`).

    Raises UserError if there are fewer shards than hosts.
    """

    def __init__(self, paths: List[str], hp: HParams, seed: int = 0, num_hosts: int = 1,
                 task_index: int = 0, skip: bool = False):
        if len(paths) < num_hosts:
            raise UserError('%d shards cannot be dealt out to %d hosts; preprocess with '
                            '--tfrecord_shards=%d or more' % (len(paths), num_hosts, num_hosts))
        self.paths, self.hp, self.seed, self.skip = paths, hp, seed, skip
        self.num_hosts, self.task_index = num_hosts, task_index
        self.fault: Optional[str] = None    # why `clips` ended, a sentence
        self._told = set()

    def clips(self, start: Sequence[int] = (0, 0, 0)) -> Iterator[
            Tuple[np.ndarray, np.ndarray, bytes, int, np.ndarray]]:
        """Yields audio, mel, name and start frame of a clip, and the position of the next clip.

        It begins at position `start` and does not end, but for a `fault`. Audio is float32
        [clip_frames * hop_length], -1 to 1; mel is float32 [clip_frames, n_mels]; a position is
        int64 [3].
        """
        epoch, group, taken = (int(i) for i in start)
        while True:
            own = sorted(self.paths, key=lambda path: self._digest(epoch, path))
            own = own[self.task_index::self.num_hosts]
            found = group > 0 or taken > 0
            while group * CYCLE_LENGTH < len(own):
                paths = own[group * CYCLE_LENGTH:][:CYCLE_LENGTH]
                for n, clip in enumerate(self._drawn(paths, (epoch, group))):
                    if n >= taken:
                        yield clip + (np.array([epoch, group, n + 1]),)
                        found = True
                if self.fault:
                    return
                group, taken = group + 1, 0
            if not found:
                self.fault = ('none of the %d shards from %s on has a whole record as long as a '
                              'clip of clip_samples=%d' % (len(own), own[0], self.hp.clip_samples))
                return
            epoch, group = epoch + 1, 0

    def _digest(self, *what):
        return hashlib.sha256(repr((self.seed,) + what).encode()).digest()

    def _drawn(self, paths, group):
        """The clips of `paths`, each exchanged with one of SHUFFLE_BUFFER before it."""
        rng = np.random.RandomState(np.frombuffer(
            self._digest(group, self.task_index), np.uint32))
        waiting = []
        for record in self._records(paths):
            for clip in self._clips_of(record, rng):
                if len(waiting) < SHUFFLE_BUFFER:
                    waiting.append(clip)
                    continue
                i = rng.randint(SHUFFLE_BUFFER)
                waiting[i], clip = clip, waiting[i]
                yield clip
        if not self.fault:
            for i in rng.permutation(len(waiting)):
                yield waiting[i]

    def _records(self, paths):
        """The records of `paths`, one of each in turn, up to a fault that is not to be skipped."""
        streams = [shards.records(path, self.hp) for path in paths]
        while streams:
            for stream in list(streams):
                try:
                    record = next(stream, None)
                except UserError as error:
                    self.fault = str(error)
                    return
                if record is None:
                    streams.remove(stream)
                elif isinstance(record, shards.Fault):
                    if not self.skip:
                        self.fault = ('%s; restore the shard, or pass over what is damaged with '
                                      '--damaged_records=skip' % (record,))
                        return
                    self._tell(record)
                else:
                    yield record

    def _tell(self, fault):
        if fault[:2] not in self._told:     # once, not in every epoch
            print('skipped %s' % (fault,), file=sys.stderr, flush=True)
            self._told.add(fault[:2])

    def _clips_of(self, record, rng):
        """The whole clips of a record, side by side from a random frame on."""
        length, hop = self.hp.clip_frames, self.hp.hop_length
        frames = min(len(record.audio) // hop, len(record.mel))
        if frames < length:
            return
        first = rng.randint(frames % length + 1)
        for frame in range(first, frames - length + 1, length):
            audio, mel = _cut(record, frame, length, self.hp)
            yield audio, mel.copy(), record.name.encode(), frame    # its record need not be kept


def _cut(record, first_frame, frames, hp):
    """Audio and mel of `frames` frames of a record."""
    return cut_clip(lambda first, end: record.audio[first:end],
                    lambda first, end: record.mel[first:end], first_frame, frames, hp)


def training_clips(reader: Reader, start: Any = (0, 0, 0), parts: int = 1) -> tf.data.Dataset:
    """A dataset of Clips from position `start` on, an int64 [3] or such a tensor.

    `parts` elements are a training step. As clip_files.training_clips, and shard_position
    [batch, 3]: where the reader stands after each clip. The dataset ends, which is a fault, when
    reader.fault says so.
    """
    hp = reader.hp
    samples = hp.clip_frames * hp.hop_length
    clips = tf.data.Dataset.from_generator(
        reader.clips, (tf.float32, tf.float32, tf.string, tf.int32, tf.int64),
        ([samples], [hp.clip_frames, hp.n_mels], [], [], [3]),
        args=(tf.cast(start, tf.int64),))

    def clip(audio, mel, name, start_frame, position):
        noise = ()
        if hp.stft_weight:
            epoch, group, n = tf.unstack(position)
            serial = (((epoch * 2 ** 20 + group) * 2 ** 24 + n) * reader.num_hosts
                      + reader.task_index)
            noise = draw_noise(serial, reader.seed, hp)
        return Clips(audio, mel, name, start_frame, noise, position)

    batch = hp.batch_size // (parts * reader.num_hosts)
    return clips.map(without_autograph(clip), num_parallel_calls=2).batch(
        batch, drop_remainder=True).prefetch(4)


def first_utterances(paths: List[str], hp: HParams) -> List[Clips]:
    """The first hp.eval_utterances records of shards, of each the first hp.eval_seconds.

    Of each: audio float32 [samples], -1 to 1; mel float32 [frames, n_mels]; no batch. Raises
    UserError for a damaged record.
    """
    found = []
    for record in (record for path in paths for record in shards.records(path, hp)):
        if isinstance(record, shards.Fault):
            raise UserError('%s; restore the shard, or give another --test_data' % (record,))
        frames = min(len(record.audio) // hp.hop_length, len(record.mel), heldout_frames(hp))
        if frames:
            audio, mel = _cut(record, 0, frames, hp)
            found.append(Clips(audio, mel, record.name.encode(), 0))
        if len(found) == hp.eval_utterances:
            break
    return found


def whole_utterances(clips: List[Clips], hp: HParams) -> tf.data.Dataset:
    """A dataset of `clips`, as clip_files.whole_utterances makes them: batches of 1."""
    utterances = tf.data.Dataset.from_generator(
        lambda: (clip[:4] for clip in clips), (tf.float32, tf.float32, tf.string, tf.int32),
        ([None], [None, hp.n_mels], [], []))
    return utterances.map(without_autograph(lambda *clip: Clips(*clip))).batch(1).prefetch(1)
