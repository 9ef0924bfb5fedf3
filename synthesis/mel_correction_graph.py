"""Mel correction as a TensorFlow graph, for what is exported: the audio of MelCorrection.

Fourier transforms are products with matrices, which every runtime has, ONNX's too.
"""
import math
from typing import Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import ops
from datasets.mel_definition import MelDefinition
from synthesis.mel_correction import MOST_GAIN, OVERRELAXATION, Round, round_of


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
    matrices = [tf.constant(m) for m in fourier_matrices(one)]
    for _ in range(rounds):
        audio = _corrected_once(audio, wanted, one, *matrices)
    return audio


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
        self._round = round_of(definition) if rounds else None
        self._lates = [late]        # of the audio before and after each round
        self._firsts = []           # of each round: its first frame, of this block's
        for _ in range(rounds):
            one, hop = self._round, definition.hop_length
            # one sample more than the last frame has, for the reflection at the start
            first = (one.before - len(one.window) - 1 - self._lates[-1]) // hop + 1
            self._firsts.append(first)
            self._lates.append(one.before - first * hop)

    @property
    def late(self) -> int:
        """Samples that the corrected audio is behind the block."""
        return self._lates[-1]

    @property
    def frames_before(self) -> int:
        """Mel frames before the block's that it needs; the last one stands for one behind it."""
        return max([1 - first for first in self._firsts], default=0)

    @property
    def state_size(self) -> int:
        """Numbers that it keeps from block to block."""
        return sum(self._state_sizes(i)[0] + self._state_sizes(i)[1]
                   for i in range(len(self._firsts)))

    def _state_sizes(self, i):
        """Of a round: (samples of its input, samples of unfinished sums)."""
        hop = self._round.definition.hop_length
        # a hop more than the frames reach back, for the reflection at the end
        return (self._lates[i + 1] - self._lates[i] + hop,
                (-(-len(self._round.window) // hop) - 1) * hop)

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
        magnitudes = tf.clip_by_value(_mel_magnitudes(mel, one.definition), one.least, one.most)
        matrices = [tf.constant(m) for m in fourier_matrices(one)]
        kept = []
        for i in range(len(self._firsts)):
            n_samples, n_sums = self._state_sizes(i)
            before = tf.reshape(state[:n_samples], [n_samples])
            sums = tf.reshape(state[n_samples:n_samples + n_sums], [n_sums])
            state = state[n_samples + n_sums:]
            audio = tf.concat([before, audio], axis=0)
            kept.append(audio[-n_samples:])
            audio, sums = self._corrected_once(i, audio, magnitudes, position, frames, sums,
                                               matrices)
            kept.append(sums)
        return audio, tf.concat(kept, axis=0)

    def _corrected_once(self, i, audio, magnitudes, position, frames, sums, matrices):
        one, d = self._round, self._round.definition
        size, hop, first = len(one.window), d.hop_length, self._firsts[i]
        n_frames = magnitudes.shape.as_list()[0] - self.frames_before
        hops = -(-size // hop)
        # the frames of this block, and those before that overlap with its samples
        numbers = position + first + tf.range(1 - hops, n_frames)
        exists = tf.cast(tf.logical_and(numbers >= 0, numbers < frames + one.extra_frame),
                         tf.float32)
        start = (position + first) * hop - one.before       # sample of the first frame's first
        samples = self._with_padding(audio, start, (n_frames - 1) * hop + size, frames * hop)
        places = hop * np.arange(n_frames)[:, None] + np.arange(size)[None]
        wanted = tf.gather(magnitudes, tf.clip_by_value(
            tf.minimum(numbers[hops - 1:], frames - 1) - position + self.frames_before, 0,
            n_frames + self.frames_before - 1))
        added = _gained(tf.gather(samples, places), wanted, one, *matrices)
        total = _overlap_add((added * exists[hops - 1:, None])[None], hop)[0]
        total += tf.pad(sums, [[0, n_frames * hop]])
        weights = _overlap_add((exists[:, None] * np.square(one.window))[None], hop)[0]
        done = n_frames * hop
        corrected = total[:done] / tf.maximum(weights[(hops - 1) * hop:][:done], 1e-12)
        return corrected, total[done:]

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


def _corrected_once(audio, wanted, one, forward, backward):
    d = one.definition
    size, samples, n_frames = len(one.window), tf.shape(audio)[1], tf.shape(wanted)[1]
    beyond = tf.zeros([tf.shape(audio)[0], tf.maximum(one.shortest - samples, 0)], audio.dtype)
    after = size - one.before - (0 if one.extra_frame else d.hop_length)
    padded = tf.pad(tf.concat([audio, beyond], axis=1),
                    [[0, 0], [one.before, after]], mode=d.pad_mode.upper())
    places = d.hop_length * tf.range(n_frames)[:, None] + tf.range(size)[None]
    added = _gained(tf.gather(padded, places, axis=1), wanted, one, forward, backward)
    weights = _overlap_add(tf.ones([1, n_frames, 1]) * np.square(one.window), d.hop_length)
    total = _overlap_add(added, d.hop_length) / tf.maximum(weights, 1e-12)
    return total[:, one.before:one.before + samples]


def _gained(frames, wanted, one, forward, backward):
    """[..., n, win_length]: what frames of audio add to it, with the gains to the wanted mel."""
    d = one.definition
    spectrum = ops.matmul(frames, forward)
    power = sum(tf.square(part) for part in tf.split(spectrum, 2, axis=-1))
    found = ops.matmul(power if d.power == 2 else tf.sqrt(power), tf.constant(one.basis))
    ratio = wanted / tf.clip_by_value(found, one.least, one.most)
    gain = tf.clip_by_value(ratio, MOST_GAIN ** -d.power, MOST_GAIN ** d.power)
    gain = tf.exp(ops.matmul(OVERRELAXATION / d.power * tf.log(gain), tf.constant(one.spread)))
    return ops.matmul(spectrum * tf.concat([gain, gain], axis=-1), backward)


def _overlap_add(frames, hop):
    """[batch, at least (n - 1) * hop + size]: the sum of frames [batch, n, size], hop apart."""
    size = ops.static_channels(frames)
    hops = -(-size // hop)
    frames = tf.pad(frames, [[0, 0], [0, 0], [0, hops * hop - size]])
    total = sum(tf.pad(frames[:, :, k * hop:(k + 1) * hop], [[0, 0], [k, hops - 1 - k], [0, 0]])
                for k in range(hops))
    batch, n, _ = ops.shape_of(total)
    return tf.reshape(total, [batch, n * hop])
