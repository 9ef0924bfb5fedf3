"""What a training step minimizes: the flow's likelihood, and what its samples sound like."""
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import glow
from datasets.clip_files import Clips
from params import HParams
from training import spectral_loss


class Objective(NamedTuple):
    """What is minimized, and what it is the sum of: scalars."""
    total: tf.Tensor        # hp.nll_weight * nll + hp.stft_weight * stft
    nll: tf.Tensor          # the negative log-likelihood, nats a sample: z + log_s + log_det
    z: tf.Tensor            # the terms of glow.Loss
    log_s: tf.Tensor
    log_det: tf.Tensor
    stft: tf.Tensor         # spectral_loss.distance of samples; 0 if hp.stft_weight is


def objective(clips: Clips, hp: HParams, compute: glow.Compute = glow.Compute()) -> Objective:
    """The loss of a batch: hp.nll_weight * glow.loss + hp.stft_weight * the STFT distance.

    The distance is that of samples, drawn through the inverse of the flow, from clips.audio.

    Args:
      clips: a batch; noise is N(0, 1), [batch, steps, n_group], and read only if
        hp.stft_weight is not 0.
      compute: how both are computed; the distance is never computed reversibly.
    """
    audio, mel = clips.audio, clips.mel
    if hp.stft_weight and hp.nll_share < 1:
        count = max(1, round(hp.nll_share * audio.shape.as_list()[0]))
        audio, mel = audio[:count], mel[:count]
    loss = glow.loss(audio, mel, hp, compute)
    total, stft = hp.nll_weight * loss.total, tf.zeros([], clips.audio.dtype)
    if hp.stft_weight:
        drawn = glow.infer(hp.stft_sigma * clips.noise, clips.mel, hp, compute=compute)
        stft = spectral_loss.distance(glow.whole_groups(drawn, hp),
                                      glow.whole_groups(clips.audio, hp), hp)
        total += hp.stft_weight * stft
    return Objective(total=total, nll=loss.total, z=loss.z, log_s=loss.log_s,
                     log_det=loss.log_det, stft=stft)
