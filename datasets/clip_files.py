"""The input pipeline: random aligned clips of wav and mel, read and decoded inside the graph.

Which clip is the j-th of step i is a pure function of (seed, i * batch_size + j), so that a
training that starts at step i gets what one that came there from step 0 would have got.
"""
import multiprocessing.pool
import os
import wave
from typing import List, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from datasets import audio_files
from datasets.clips import Clips, cut_clip, draw_noise, heldout_frames, without_autograph
from errors import UserError
from params import HParams


class Utterance(NamedTuple):
    """One utterance, as the headers and sizes of its files tell."""
    name: str
    frames: int             # whole frames that both the wav and the mel have
    wav_offset: int         # bytes before the samples of the wav
    wav_bytes: int          # size of the wav
    mel_bytes: int          # size of the mel


def index(names: List[str], wave_dir: str, lc_dir: str, hp: HParams) -> List[Utterance]:
    """The utterances `names`, from the headers of their wavs and the sizes of their mels.

    A wav and a mel that disagree in length are trimmed to the shorter. Raises UserError, naming
    the first of them, if files are missing or not what `hp` says: mono PCM16 at hp.sample_rate and
    frames of hp.n_mels float32.
    """
    with multiprocessing.pool.ThreadPool(8) as pool:  # waits for disks, not for processors
        found = pool.map(lambda name: _index_one(name, wave_dir, lc_dir, hp), names, chunksize=64)
    faults = [fault for fault in found if isinstance(fault, str)]
    if faults:
        raise UserError('%s%s; preprocess the corpus again, or correct --wave_dir and --lc_dir'
                        % (faults[0], ' (and %d more files like it)' % (len(faults) - 1)
                           if len(faults) > 1 else ''))
    return found


def _index_one(name, wave_dir, lc_dir, hp):
    """The Utterance `name`, or a text that tells what is wrong with its files."""
    wav, mel = wav_path(wave_dir, name), mel_path(lc_dir, name)
    try:
        with open(wav, 'rb') as f:
            offset = next((offset for chunk, offset, _ in audio_files.riff_chunks(f)
                           if chunk == b'data'), 0)
            f.seek(0)
            with wave.open(f) as header:
                channels, width, rate, samples = header.getparams()[:4]
        if (channels, width, rate) != (1, 2, hp.sample_rate):
            return ('%s has %d channels of %d bits at %d Hz, not one of 16 bits at %d Hz'
                    % (wav, channels, 8 * width, rate, hp.sample_rate))
        wav_bytes, mel_bytes = os.path.getsize(wav), os.path.getsize(mel)
    except Exception as error:      # of a damaged header `wave` raises anything
        return 'cannot read %s (%s)' % (getattr(error, 'filename', None) or wav,
                                        getattr(error, 'strerror', None) or error
                                        or type(error).__name__)
    if offset + 2 * samples > wav_bytes:
        return '%s is cut short' % wav
    if mel_bytes % (4 * hp.n_mels):
        return '%s does not hold whole frames of %d float32' % (mel, hp.n_mels)
    frames = min(samples // hp.hop_length, mel_bytes // (4 * hp.n_mels))
    return Utterance(name, frames, offset, wav_bytes, mel_bytes)


def long_enough(utterances: List[Utterance], hp: HParams) -> List[Utterance]:
    """Those of `utterances` that hold a training clip; UserError if none does."""
    kept = [u for u in utterances if u.frames >= hp.clip_frames]
    if not kept:
        longest = max(u.frames for u in utterances) * hp.hop_length
        raise UserError('no utterance is as long as a clip of clip_samples=%d; the longest has %d '
                        'samples: take --hparams clip_samples=%d'
                        % (hp.clip_samples, longest, longest))
    return kept


def training_clips(utterances: List[Utterance], wave_dir: str, lc_dir: str, hp: HParams, seed: int,
                   first_step: int = 0, parts: int = 1, num_hosts: int = 1,
                   task_index: int = 0) -> tf.data.Dataset:
    """A dataset of Clips, `parts` elements a training step, from `first_step` on, without end.

    An utterance is drawn in proportion to its length, then a clip of it at a uniformly random
    frame. An element has batch = hp.batch_size / (parts * num_hosts) clips of clip_frames frames,
    the share of host task_index of what all hosts draw, and noise if hp.stft_weight asks for it.

    Args:
      utterances: as `long_enough` leaves them.
      wave_dir: folder of NAME.wav.
      lc_dir: folder of NAME.mel.
      seed: random seed of the clips and the noise.
      first_step: training step of the first element.
      parts: elements that one training step takes.
      num_hosts: hosts that share the clips of a step.
      task_index: which of the hosts this one is, from 0.
    """
    table = _table(utterances)
    frames = table.frames
    ends = np.cumsum(frames)

    def clip(i):
        u = tf.random.stateless_uniform([2], seed=tf.stack([tf.constant(seed, tf.int64), i]),
                                        dtype=tf.float64)
        position = tf.cast(u[0] * float(ends[-1]), tf.int64)
        j = tf.searchsorted(tf.constant(ends), position[None], side='right')[0]
        positions = tf.gather(frames, j) - hp.clip_frames + 1
        start = tf.cast(u[1] * tf.cast(positions, tf.float64), tf.int64)
        utterance = Utterance(*(tf.gather(column, j) for column in table))
        read = _read(utterance, start, hp.clip_frames, wave_dir, lc_dir, hp)
        if hp.stft_weight:
            read = read._replace(noise=draw_noise(i, seed, hp))
        return read

    batch = hp.batch_size // (parts * num_hosts)

    def of_all(i):
        """Which of all hosts' clips this one's i-th is: the hosts take turns by batches."""
        return (i // batch * num_hosts + task_index) * batch + i % batch

    dataset = tf.data.Dataset.range(first_step * parts * batch,
                                    np.iinfo(np.int64).max // num_hosts)
    dataset = dataset.map(without_autograph(lambda i: clip(of_all(i))), num_parallel_calls=4)
    return dataset.batch(batch, drop_remainder=True).prefetch(4)


def whole_utterances(utterances: List[Utterance], wave_dir: str, lc_dir: str,
                     hp: HParams) -> tf.data.Dataset:
    """A dataset of Clips of one utterance each, in order, once: batches of 1.

    It has audio [1, samples] and mel [1, frames, n_mels]; of long utterances the first
    hp.eval_seconds.
    """
    def read(*columns):
        utterance = Utterance(*columns)
        frames = tf.minimum(utterance.frames, heldout_frames(hp))
        return _read(utterance, 0, frames, wave_dir, lc_dir, hp)

    dataset = tf.data.Dataset.from_tensor_slices(tuple(_table(utterances)))
    return dataset.map(without_autograph(read), num_parallel_calls=2).batch(1).prefetch(1)


def _table(utterances):
    """An Utterance of arrays, one element an utterance."""
    return Utterance._make([np.array([u.name for u in utterances])] + [
        np.array([u[i] for u in utterances], np.int64) for i in range(1, len(Utterance._fields))])


def _read(utterance, start, frames, wave_dir, lc_dir, hp):
    """Clips (without a batch) of `frames` frames of an Utterance (of scalars) from `start` on."""
    def read_bytes(name, wav_offset, wav_bytes, mel_bytes, start, frames):
        wav, mel = wav_path(wave_dir, os.fsdecode(name)), mel_path(lc_dir, os.fsdecode(name))

        def pcm_part(first, end):
            return np.frombuffer(_read_part(wav, wav_bytes, wav_offset + 2 * first,
                                            2 * (end - first)), '<i2')

        def mel_part(first, end):
            size = 4 * hp.n_mels    # of a frame
            return np.frombuffer(_read_part(mel, mel_bytes, size * first, size * (end - first)),
                                 '<f4').reshape([end - first, hp.n_mels])

        return cut_clip(pcm_part, mel_part, start, frames, hp)

    start = tf.cast(start, tf.int64)
    audio, mel = tf.numpy_function(
        read_bytes, [utterance.name, utterance.wav_offset, utterance.wav_bytes, utterance.mel_bytes,
                     start, tf.cast(frames, tf.int64)], [tf.float32, tf.float32])
    known = frames if isinstance(frames, int) else None
    audio.set_shape([known and known * hp.hop_length])
    mel.set_shape([known, hp.n_mels])
    return Clips(audio, mel, utterance.name, tf.cast(start, tf.int32))


def _read_part(path, size, offset, count):
    """`count` bytes from `offset` on of a file that had `size` bytes: no more of it is read.

    In Python, because no operation of TensorFlow begins to read in the middle of a file: a
    FixedLengthRecordDataset reads all that it skips.
    """
    with open(path, 'rb', buffering=0) as f:
        if os.fstat(f.fileno()).st_size != size:
            raise OSError('%s has changed since the training began' % path)
        f.seek(offset)
        return f.read(count)


def wav_path(wave_dir: str, name: str) -> str:
    """The path of an utterance's wav."""
    return os.path.join(wave_dir, name + '.wav')


def mel_path(lc_dir: str, name: str) -> str:
    """The path of an utterance's mel."""
    return os.path.join(lc_dir, name + '.mel')
