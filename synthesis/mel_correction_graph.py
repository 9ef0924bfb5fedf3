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


def _corrected_once(audio, wanted, one, forward, backward):
    d = one.definition
    size, samples, n_frames = len(one.window), tf.shape(audio)[1], tf.shape(wanted)[1]
    beyond = tf.zeros([tf.shape(audio)[0], tf.maximum(one.shortest - samples, 0)], audio.dtype)
    after = size - one.before - (0 if one.extra_frame else d.hop_length)
    padded = tf.pad(tf.concat([audio, beyond], axis=1),
                    [[0, 0], [one.before, after]], mode=d.pad_mode.upper())
    places = d.hop_length * tf.range(n_frames)[:, None] + tf.range(size)[None]
    spectrum = ops.matmul(tf.gather(padded, places, axis=1), forward)
    power = sum(tf.square(part) for part in tf.split(spectrum, 2, axis=-1))
    found = ops.matmul(power if d.power == 2 else tf.sqrt(power), tf.constant(one.basis))
    ratio = wanted / tf.clip_by_value(found, one.least, one.most)
    gain = tf.clip_by_value(ratio, MOST_GAIN ** -d.power, MOST_GAIN ** d.power)
    gain = tf.exp(ops.matmul(OVERRELAXATION / d.power * tf.log(gain), tf.constant(one.spread)))
    added = ops.matmul(spectrum * tf.tile(gain, [1, 1, 2]), backward)
    weights = _overlap_add(tf.ones([1, n_frames, 1]) * np.square(one.window), d.hop_length)
    total = _overlap_add(added, d.hop_length) / tf.maximum(weights, 1e-12)
    return total[:, one.before:one.before + samples]


def _overlap_add(frames, hop):
    """[batch, at least (n - 1) * hop + size]: the sum of frames [batch, n, size], hop apart."""
    size = ops.static_channels(frames)
    hops = -(-size // hop)
    frames = tf.pad(frames, [[0, 0], [0, 0], [0, hops * hop - size]])
    total = sum(tf.pad(frames[:, :, k * hop:(k + 1) * hop], [[0, 0], [k, hops - 1 - k], [0, 0]])
                for k in range(hops))
    batch, n, _ = ops.shape_of(total)
    return tf.reshape(total, [batch, n * hop])
