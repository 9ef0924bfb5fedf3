"""The input pipeline: random aligned clips of wav and mel, read and decoded inside the graph.

Which clip is the j-th of step i is a pure function of (seed, i * batch_size + j), so that a training
that starts at step i gets what one that came there from step 0 would have got.
"""
import collections
import multiprocessing.pool
import os
import wave

import numpy as np
import tensorflow.compat.v1 as tf

from errors import UserError

# frames: whole frames that both the wav and the mel have.
Utterance = collections.namedtuple('Utterance', 'name frames')

# noise: see `training_clips`; shard_position: see clip_shards.training_clips. What there is none of
# is ().
Clips = collections.namedtuple('Clips', 'audio mel name start_frame noise shard_position')
Clips.__new__.__defaults__ = ((), ())


def index(names, wave_dir, lc_dir, hp):
    """[Utterance] for `names`, from the headers of wave_dir/NAME.wav and the sizes of lc_dir/NAME.mel.

    A wav and a mel that disagree in length are trimmed to the shorter. Raises UserError, naming
    the first of them, if files are missing or not what `hp` says: mono PCM16 at hp.sample_rate and
    frames of hp.n_mels float32.
    """
    with multiprocessing.pool.ThreadPool(8) as pool:  # waits for disks, not for processors
        found = pool.map(lambda name: _frames(name, wave_dir, lc_dir, hp), names, chunksize=64)
    faults = [fault for _, fault in found if fault]
    if faults:
        raise UserError('%s%s; preprocess the corpus again, or correct --wave_dir and --lc_dir'
                        % (faults[0], ' (and %d more files like it)' % (len(faults) - 1)
                           if len(faults) > 1 else ''))
    return [Utterance(name, frames) for name, (frames, _) in zip(names, found)]


def _frames(name, wave_dir, lc_dir, hp):
    """(frames of utterance `name`, what is wrong with its files or None)."""
    wav, mel = wav_path(wave_dir, name), mel_path(lc_dir, name)
    try:
        with wave.open(wav, 'rb') as f:
            channels, width, rate, samples = f.getparams()[:4]
        if (channels, width, rate) != (1, 2, hp.sample_rate):
            return 0, ('%s has %d channels of %d bits at %d Hz, not one of 16 bits at %d Hz'
                       % (wav, channels, 8 * width, rate, hp.sample_rate))
        if 2 * samples > os.path.getsize(wav):
            return 0, '%s is cut short' % wav
        size = os.path.getsize(mel)
    except (OSError, EOFError, wave.Error) as error:
        return 0, 'cannot read %s (%s)' % (getattr(error, 'filename', None) or wav,
                                           getattr(error, 'strerror', None) or error)
    if size % (4 * hp.n_mels):
        return 0, '%s does not hold whole frames of %d float32' % (mel, hp.n_mels)
    return min(samples // hp.hop_length, size // (4 * hp.n_mels)), None


def long_enough(utterances, hp):
    """Those of `utterances` that hold a training clip; UserError if none does."""
    kept = [u for u in utterances if u.frames >= hp.clip_frames]
    if not kept:
        longest = max(u.frames for u in utterances) * hp.hop_length
        raise UserError('no utterance is as long as a clip of clip_samples=%d; the longest has %d '
                        'samples: take --hparams clip_samples=%d'
                        % (hp.clip_samples, longest, longest))
    return kept


def training_clips(utterances, wave_dir, lc_dir, hp, seed, first_step=0, parts=1,
                   num_hosts=1, task_index=0):
    """A tf.data.Dataset of Clips, `parts` elements a training step, from `first_step` on, no end.

    An utterance is drawn in proportion to its length, then a clip of it at a uniformly random
    frame. Elements, of batch = hp.batch_size / (parts * num_hosts), the share of host
    task_index of what all hosts draw: audio [batch, clip_frames * hop_length] in -1..1, mel [batch, clip_frames,
    n_mels], name and start_frame [batch], and, if hp.stft_weight asks for samples, noise
    [batch, clip_frames * groups_per_frame, n_group] from N(0, 1).

    Args:
      utterances: as `long_enough` leaves them.
    """
    names = np.array([u.name for u in utterances])
    frames = np.array([u.frames for u in utterances], np.int64)
    ends = np.cumsum(frames)

    def clip(i):
        u = tf.random.stateless_uniform([2], seed=tf.stack([tf.constant(seed, tf.int64), i]),
                                        dtype=tf.float64)
        position = tf.cast(u[0] * float(ends[-1]), tf.int64)
        j = tf.searchsorted(tf.constant(ends), position[None], side='right')[0]
        positions = tf.gather(frames, j) - hp.clip_frames + 1
        start = tf.cast(u[1] * tf.cast(positions, tf.float64), tf.int64)
        read = _read(tf.gather(names, j), start, hp.clip_frames, wave_dir, lc_dir, hp)
        if hp.stft_weight:
            read = read._replace(noise=noise(i, seed, hp))
        return read

    batch = hp.batch_size // (parts * num_hosts)

    def of_all(i):
        """Which of all hosts' clips this one's i-th is: the hosts take turns by batches."""
        return (i // batch * num_hosts + task_index) * batch + i % batch

    dataset = tf.data.Dataset.range(first_step * parts * batch,
                                    np.iinfo(np.int64).max // num_hosts)
    dataset = dataset.map(lambda i: clip(of_all(i)), num_parallel_calls=4)
    return dataset.batch(batch, drop_remainder=True).prefetch(4)


def noise(i, seed, hp):
    """N(0, 1) for the i-th clip (int64): [clip_frames * groups_per_frame, n_group]."""
    return tf.random.stateless_normal([hp.clip_frames * hp.groups_per_frame, hp.n_group],
                                      seed=tf.stack([tf.constant(seed, tf.int64), -1 - i]))


def whole_utterances(utterances, wave_dir, lc_dir, hp):
    """A tf.data.Dataset of Clips of one utterance each, in order, once: batches of 1.

    Of long utterances the first hp.eval_seconds.
    """
    most = max(1, int(hp.eval_seconds * hp.sample_rate) // hp.hop_length)
    dataset = tf.data.Dataset.from_tensor_slices(
        (np.array([u.name for u in utterances]),
         np.array([min(u.frames, most) for u in utterances], np.int64)))
    dataset = dataset.map(lambda name, frames: _read(name, 0, frames, wave_dir, lc_dir, hp),
                          num_parallel_calls=2)
    return dataset.batch(1).prefetch(1)


def _read(name, start, frames, wave_dir, lc_dir, hp):
    """Clips (without a batch) of `frames` frames of utterance `name` from frame `start` on."""
    audio = tf.audio.decode_wav(
        tf.io.read_file(tf.strings.join([wave_dir, '/', name, '.wav']))).audio[:, 0]
    mel = tf.io.decode_raw(tf.io.read_file(tf.strings.join([lc_dir, '/', name, '.mel'])),
                           tf.float32)
    start = tf.cast(start, tf.int32)
    samples = tf.cast(frames, tf.int32) * hp.hop_length
    audio = tf.slice(audio, [start * hp.hop_length], [samples])
    mel = tf.slice(tf.reshape(mel, [-1, hp.n_mels]), [start, 0], [frames, hp.n_mels])
    if isinstance(frames, int):
        audio.set_shape([frames * hp.hop_length])
    return Clips(audio, mel, name, start)


def wav_path(wave_dir, name):
    return os.path.join(wave_dir, name + '.wav')


def mel_path(lc_dir, name):
    return os.path.join(lc_dir, name + '.mel')
