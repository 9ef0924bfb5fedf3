"""Mel correction as a TensorFlow graph, for what is exported: the audio of MelCorrection.

Fourier transforms are products with matrices, which every runtime has, ONNX's too.
"""
import math
from typing import Any, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from datasets.mel_definition import MelDefinition
from synthesis.mel_correction import (
    LEAST_WEIGHT,
    MOST_GAIN,
    OVERRELAXATION,
    PASSES,
    Round,
    round_of,
)


def corrected(audio: tf.Tensor, mel: tf.Tensor, definition: MelDefinition, rounds: int
              ) -> tf.Tensor:
    """Audio [batch, frames * hop_length], corrected towards mel [batch, frames, n_mels].

    Raises UserError for a mel whose frames overlap too little.
    """
    if not rounds:
        return audio
    one = round_of(definition)
    wanted = tf.clip_by_value(_mel_magnitudes(mel, definition), one.least, one.most)
    if one.extra_frame:
        wanted = tf.concat([wanted, wanted[:, -1:]], axis=1)
    n_frames, samples, hop = tf.shape(wanted)[1], tf.shape(audio)[1], definition.hop_length
    squared = tf.ones([1, n_frames, 1]) * np.square(one.window)
    beyond = [[0, 0], [one.behind, one.ahead], [0, 0]]
    weights = tf.maximum(_neighbours(tf.pad(squared, beyond), n_frames, one), LEAST_WEIGHT)
    matrices = [tf.constant(m) for m in fourier_matrices(one) + (one.basis, one.spread)]
    frames = _frames(audio, n_frames, one)
    for _ in range(rounds - 1):
        added = _gained(frames, wanted, one, OVERRELAXATION, *matrices)
        frames = _neighbours(tf.pad(added, beyond), n_frames, one) / weights
    added = _gained(frames, wanted, one, 1.0, *matrices)
    total = _overlap_add(added, hop) / tf.maximum(_overlap_add(squared, hop), LEAST_WEIGHT)
    return total[:, one.before:one.before + samples]


def fourier_matrices(one: Round) -> Tuple[np.ndarray, np.ndarray]:
    """float32 [win_length, 2 * bins] and [2 * bins, win_length]: of a frame under the window.

    The first gives the real and the imaginary parts of its spectrum. The second gives of them what
    the frame adds to the audio, under the window again.
    """
    n_fft = one.definition.n_fft                            # which is even
    turns = np.outer(np.arange(len(one.window)), np.arange(n_fft // 2 + 1)) % n_fft
    angles = 2 * np.pi / n_fft * turns
    forward = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) * one.window[:, None]
    mirrored = np.full(n_fft // 2 + 1, 2.0)                 # how often a bin is in the whole one
    mirrored[[0, -1]] = 1
    backward = forward.T * np.tile(mirrored, 2)[:, None] / n_fft
    return forward.astype(np.float32), backward.astype(np.float32)


def _mel_magnitudes(mel, d):
    """datasets.mel_transform.mel_magnitudes of a tensor."""
    if d.mean:
        mel = mel * np.array(d.scale, np.float32) + np.array(d.mean, np.float32)
    mel = (mel - d.offset) / d.gain
    magnitudes = tf.exp(mel * (1 if d.log == 'e' else math.log(10)))
    return magnitudes - d.floor if d.floor_mode == 'add' else magnitudes


class BlockCorrection:
    """Mel correction of a stream, in blocks of a fixed number of frames: all shapes are static.

    Args:
      definition: of the mel.
      rounds: of mel correction.
      late: samples that the audio which comes in is behind the block.

    Raises UserError for a mel whose frames overlap too little.
    """

    def __init__(self, definition: MelDefinition, rounds: int, late: int):
        self._round: Any = round_of(definition) if rounds else None
        self._late = late
        self._firsts = []           # of each round: its first frame, of this block's
        if self._round:
            one, hop = self._round, definition.hop_length
            # one sample more than the last frame has, for the reflection at the start
            first = (one.before - len(one.window) - 1 - late) // hop + 1
            self._firsts = [first - i * one.ahead for i in range(rounds)]

    @property
    def late(self) -> int:
        """Samples that the corrected audio is behind the block."""
        if not self._firsts:
            return self._late
        return self._round.before - self._firsts[-1] * self._round.definition.hop_length

    @property
    def frames_before(self) -> int:
        """Mel frames before the block's that it needs; the last one stands for one behind it."""
        return 1 - self._firsts[-1] if self._firsts else 0

    @property
    def state_size(self) -> int:
        """Numbers that it keeps from block to block."""
        return sum(self._state_sizes()) if self._firsts else 0

    def _state_sizes(self):
        """[samples of the audio, of `added` of each round but the last, of unfinished sums]."""
        one, hop, size = self._round, self._round.definition.hop_length, len(self._round.window)
        # a hop more than the frames reach back, for the reflection at the end
        audio = one.before - self._firsts[0] * hop - self._late + hop
        rounds = [(one.behind + one.ahead) * size] * (len(self._firsts) - 1)
        return [audio] + rounds + [one.behind * hop]

    def build(self, audio: tf.Tensor, mel: tf.Tensor, position: tf.Tensor, frames: tf.Tensor,
              state: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        """(audio [samples] of a block, corrected; the next state [state_size]).

        Args:
          audio: [samples], `late` behind the block.
          mel: [frames, n_mels], `frames_before` frames and those of the block.
          position: scalar, the block's first frame.
          frames: scalar, of the utterance; any large number until its end is known.
          state: [state_size], zeros before the first block.
        """
        if not self._firsts:
            return audio, tf.zeros([0])
        one = self._round
        size, hop, last = len(one.window), one.definition.hop_length, len(self._firsts) - 1
        n = mel.shape.as_list()[0] - self.frames_before
        magnitudes = tf.clip_by_value(_mel_magnitudes(mel, one.definition), one.least, one.most)
        matrices = [tf.constant(m) for m in fourier_matrices(one) + (one.basis, one.spread)]
        sizes = self._state_sizes()
        ends = np.cumsum(sizes)
        states = [tf.reshape(state[end - each:end], [each]) for each, end in zip(sizes, ends)]

        audio = tf.concat([states[0], audio], axis=0)
        kept = [audio[-sizes[0]:]]
        start = (position + self._firsts[0]) * hop - one.before     # of the first frame
        samples = self._with_padding(audio, start, (n - 1) * hop + size, frames * hop)
        rows = tf.gather(samples, hop * np.arange(n)[:, None] + np.arange(size)[None])
        for i in range(last + 1):
            numbers = position + self._firsts[i] + tf.range(n)
            wanted = tf.gather(magnitudes, tf.clip_by_value(
                tf.minimum(numbers, frames - 1) - position + self.frames_before, 0,
                n + self.frames_before - 1))
            rows = _gained(rows, wanted, one, OVERRELAXATION if i < last else 1.0, *matrices)
            rows *= self._exist(numbers, frames)
            if i < last:
                before = tf.reshape(states[1 + i], [one.behind + one.ahead, size])
                rows = tf.concat([before, rows], axis=0)
                kept.append(tf.reshape(rows[n:], [-1]))
                numbers = tf.range(-one.behind - one.ahead, n) + numbers[0]
                squared = self._exist(numbers, frames) * np.square(one.window)
                weights = tf.maximum(_neighbours(squared[None], n, one), LEAST_WEIGHT)
                rows = (_neighbours(rows[None], n, one) / weights)[0]
        total = _overlap_add(rows[None], hop)[0] + tf.pad(states[-1], [[0, n * hop]])
        numbers = position + self._firsts[last] + tf.range(-one.behind, n)
        weights = _overlap_add((self._exist(numbers, frames) * np.square(one.window))[None], hop)[0]
        weights = weights[one.behind * hop:][:n * hop]
        return (total[:n * hop] / tf.maximum(weights, LEAST_WEIGHT),
                tf.concat(kept + [total[n * hop:]], axis=0))

    def _exist(self, numbers, frames):
        """[n, 1]: 1 for the numbers of frames that an utterance of so many has, 0 for others."""
        there = tf.logical_and(numbers >= 0, numbers < frames + self._round.extra_frame)
        return tf.cast(there, tf.float32)[:, None]

    def _with_padding(self, audio, start, length, end):
        """[length] samples from `start` on, with the padding of an utterance of `end` samples.

        The last of them but one is the last of `audio` at most.
        """
        one = self._round
        places = start + tf.range(length)
        held = start - one.definition.hop_length            # sample of the first of `audio`
        mirrored = places
        if one.definition.pad_mode == 'reflect':
            last = tf.maximum(end, one.shortest) - 1
            mirrored = tf.abs(places)
            mirrored = tf.where_v2(mirrored > last, 2 * last - mirrored, mirrored)
        size = audio.shape.as_list()[0]
        values = tf.gather(audio, tf.clip_by_value(mirrored - held, 0, size - 1))
        known = tf.logical_and(mirrored >= 0, mirrored < end)
        return tf.where_v2(known, values, tf.zeros([], values.dtype))


def _frames(audio, n_frames, one):
    """[batch, n_frames, win_length] of audio [batch, samples], padded."""
    d, size = one.definition, len(one.window)
    beyond = tf.maximum(one.shortest - tf.shape(audio)[1], 0)
    audio = tf.concat([audio, tf.zeros([tf.shape(audio)[0], beyond], audio.dtype)], axis=1)
    after = size - one.before - (0 if one.extra_frame else d.hop_length)
    padded = tf.pad(audio, [[0, 0], [one.before, after]], mode=d.pad_mode.upper())
    places = d.hop_length * tf.range(n_frames)[:, None] + tf.range(size)[None]
    return tf.gather(padded, places, axis=1)


def _gained(frames, wanted, one, relaxation, forward, backward, basis, spread):
    """MelCorrection.gained of frames [..., n, win_length]."""
    power = one.definition.power
    spectrum = ops.matmul(frames, forward)
    energies = sum(tf.square(part) for part in tf.split(spectrum, 2, axis=-1))
    magnitudes = energies if power == 2 else tf.sqrt(energies)
    log_gain: Any = None        # of bands, the sum of those of all passes
    for _ in range(PASSES):
        scaled = magnitudes if log_gain is None else magnitudes * tf.exp(
            ops.matmul(log_gain, spread))
        found = tf.clip_by_value(ops.matmul(scaled, basis), one.least, one.most)
        more = tf.log(tf.clip_by_value(wanted / found, MOST_GAIN ** -power, MOST_GAIN ** power))
        log_gain = more if log_gain is None else log_gain + more
    gain = tf.exp(ops.matmul(relaxation / power * log_gain, spread))
    return ops.matmul(spectrum * tf.concat([gain, gain], axis=-1), backward)


def _neighbours(rows, n, one):
    """[batch, n, size]: the sums of rows [batch, behind + n + ahead, size] around each."""
    hop, size = one.definition.hop_length, ops.static_channels(rows)
    total = 0.0
    for k in range(-one.behind, one.ahead + 1):         # the neighbour k frames later
        part = rows[:, one.behind + k:one.behind + k + n]
        part = part[:, :, -k * hop:] if k < 0 else part[:, :, :size - k * hop]
        missing = abs(k) * hop
        total += tf.pad(part, [[0, 0], [0, 0], [0, missing] if k < 0 else [missing, 0]])
    return total


def _overlap_add(frames, hop):
    """[batch, at least (n - 1) * hop + size]: the sum of frames [batch, n, size], hop apart."""
    size = ops.static_channels(frames)
    hops = -(-size // hop)
    frames = tf.pad(frames, [[0, 0], [0, 0], [0, hops * hop - size]])
    total = sum(tf.pad(frames[:, :, k * hop:(k + 1) * hop], [[0, 0], [k, hops - 1 - k], [0, 0]])
                for k in range(hops))
    batch, n, _ = ops.shape_of(total)
    return tf.reshape(total, [batch, n * hop])
