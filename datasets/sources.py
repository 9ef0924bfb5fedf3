"""What a training reads: wavs and mels by file lists, or shards."""
import dataclasses
import multiprocessing.pool
import os
from typing import Any, Callable, List, NamedTuple, Optional

import tensorflow.compat.v1 as tf

import params
from datasets import clip_files, clip_shards, file_lists, shards
from params import HParams


class Source(NamedTuple):
    """Clips to train on and held-out utterances, found and checked."""
    summary: str                # what to tell the user about it
    fingerprint: Any            # what it holds; hosts compare their repr
    # A dataset of clips.Clips, made in the graph from the steps already done and, of shards,
    # the position (int64 [3]) of the last clip.
    training_clips: Callable[[tf.Tensor, Optional[tf.Tensor]], tf.data.Dataset]
    heldout_clips: Callable[[], tf.data.Dataset]    # a dataset of whole utterances
    heldout_names: List[str]
    fault: Callable[[], Optional[str]]  # why training_clips ended, a sentence
    has_positions: bool                 # whether clips have a shard_position


@dataclasses.dataclass(frozen=True)
class FileData:
    """A corpus in one wav and one mel an utterance, as preprocess_data.py writes them."""
    filelist: str                           # utterance names to train on, one a line
    wave_dir: str                           # folder of NAME.wav
    lc_dir: str                             # folder of NAME.mel
    test_filelist: Optional[str] = None     # names of held-out utterances

    def hyperparameters(self) -> Optional[HParams]:
        """Those in params.json beside the file list, or None."""
        return params.load_if_exists(self._folder())

    def require_fit(self, hp: HParams) -> None:
        """Raises UserError if lists or mels were made with another rate or mel profile."""
        for directory in (self._folder(), self.lc_dir):
            stored = params.load_if_exists(directory)
            if stored:
                params.require_same(hp, stored, params.DATA_FIELDS, 'the data in ' + directory,
                                    'preprocess the corpus with the same --preset and --hparams')

    def open(self, hp: HParams, seed: int = 0, parts: int = 1, num_hosts: int = 1,
             task_index: int = 0) -> Source:
        """The Source of one host's clips: `parts` batches for every training step.

        Raises UserError for what cannot be trained on.
        """
        train_set = self._load(self.filelist, hp)
        clippable = clip_files.long_enough(train_set, hp)
        test_set = []
        if self.test_filelist and task_index == 0:
            test_set = self._load(self.test_filelist, hp)[:hp.eval_utterances]
        return Source(
            summary=_summary(train_set, clippable, test_set, hp),
            fingerprint=clippable,
            training_clips=lambda first_step, position: clip_files.training_clips(
                clippable, self.wave_dir, self.lc_dir, hp, seed, first_step, parts, num_hosts,
                task_index),
            heldout_clips=lambda: clip_files.whole_utterances(
                test_set, self.wave_dir, self.lc_dir, hp),
            heldout_names=[utterance.name for utterance in test_set],
            fault=lambda: None,
            has_positions=False)

    def _folder(self):
        return os.path.dirname(os.path.abspath(self.filelist))

    def _load(self, filelist, hp):
        return clip_files.index(file_lists.read_file_list(filelist, self.wave_dir), self.wave_dir,
                                self.lc_dir, hp)


def test_filelist_beside(filelist: str) -> Optional[str]:
    """The path of test.scp beside `filelist`, or None if there is none or it names nothing."""
    beside = os.path.join(os.path.dirname(filelist), 'test.scp')
    if os.path.abspath(beside) == os.path.abspath(filelist):
        return None
    return beside if os.path.exists(beside) and os.path.getsize(beside) else None


def _summary(train_set, clippable, test_set, hp):
    def hours(utterances):
        return sum(u.frames for u in utterances) * hp.hop_length / hp.sample_rate / 3600

    text = '%d utterances, %.2f hours, at %d Hz, mel profile %s; held out: %d, %.2f hours' % (
        len(train_set), hours(train_set), hp.sample_rate, hp.mel_name, len(test_set),
        hours(test_set))
    if len(clippable) < len(train_set):
        text += ('\n      %d of them, %.2f hours, are shorter than a clip of %d samples and not '
                 'used' % (len(train_set) - len(clippable), hours(train_set) - hours(clippable),
                    hp.clip_frames * hp.hop_length))
    return text


@dataclasses.dataclass(frozen=True)
class ShardData:
    """A corpus in shards, as preprocess_data.py --tfrecord_shards writes them."""
    pattern: str                            # shards to train on, on any path that tf.io.gfile reads
    test_pattern: Optional[str] = None      # held-out shards
    skip_damaged: bool = False              # pass over damaged records instead of stopping

    def hyperparameters(self) -> HParams:
        """Those in params.json beside the shards; UserError without one."""
        return shards.hyperparameters(self.pattern)

    def require_fit(self, hp: HParams) -> None:
        """Nothing to do: every record says what it is, and is checked when it is read."""

    def open(self, hp: HParams, seed: int = 0, parts: int = 1, num_hosts: int = 1,
             task_index: int = 0) -> Source:
        """The Source of one host's clips: `parts` batches for every training step.

        Raises UserError for what cannot be trained on.
        """
        paths = shards.matching(self.pattern)
        reader = clip_shards.Reader(paths, hp, seed, num_hosts, task_index, self.skip_damaged)
        with multiprocessing.pool.ThreadPool(64) as pool:   # waits for storage, not for processors
            sizes = list(zip(map(os.path.basename, paths), pool.map(shards.size, paths)))
        test_set = []
        if self.test_pattern and task_index == 0:
            test_set = clip_shards.first_utterances(shards.matching(self.test_pattern), hp)
        return Source(
            summary='%d shards, %.0f MB, at %d Hz, mel profile %s; held out: %d utterances' % (
                len(paths), sum(size for _, size in sizes) / 1e6, hp.sample_rate, hp.mel_name,
                len(test_set)),
            fingerprint=sizes,
            training_clips=lambda first_step, position: clip_shards.training_clips(
                reader, position, parts),
            heldout_clips=lambda: clip_shards.whole_utterances(test_set, hp),
            heldout_names=[clip.name.decode() for clip in test_set],
            fault=lambda: reader.fault,
            has_positions=True)
