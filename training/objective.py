"""What a training step minimizes: the flow's likelihood, and what its samples sound like."""
from typing import List, NamedTuple

import tensorflow.compat.v1 as tf

import glow
import ops
from datasets.clip_files import Clips
from flows import grouping
from params import HParams
from training import discriminators, spectral_loss


class Objective(NamedTuple):
    """What is minimized, and what it is the sum of: scalars."""
    total: tf.Tensor        # the sum of the weighted losses
    nll: tf.Tensor          # the negative log-likelihood, nats a sample: z + log_s + log_det
    z: tf.Tensor            # the terms of glow.Loss
    log_s: tf.Tensor
    log_det: tf.Tensor
    stft: tf.Tensor         # spectral_loss.distance of samples; 0 if hp.stft_weight is
    adversarial: tf.Tensor  # what discriminators tell samples by; 0 if hp.adversarial_weight is
    discriminators: tf.Tensor       # the loss of the discriminators themselves; 0 like it


def weights(hp: HParams) -> List[ops.Weight]:
    """The weights that `objective` has gradients to."""
    found = glow.weights(hp)
    if hp.stft_weight and hp.adversarial_weight:
        found += ops.list_weights(discriminators.build_filters)
    return found


def objective(clips: Clips, hp: HParams, compute: glow.Compute = glow.Compute()) -> Objective:
    """The loss of a batch: hp.nll_weight * glow.loss + hp.stft_weight * the STFT distance.

    The distance is that of samples, drawn through the inverse of the flow, from clips.audio. With
    hp.adversarial_weight, that times what discriminators tell these samples by is added, and the
    loss of the discriminators themselves, which has gradients to their weights alone.

    Args:
      clips: a batch; noise is N(0, 1), [batch, steps, n_group], and read only if
        hp.stft_weight is not 0.
      compute: how both are computed; the distance is never computed reversibly.
    """
    audio, mel = clips.audio, clips.mel
    if hp.stft_weight and hp.nll_share < 1:
        count = max(1, round(hp.nll_share * audio.shape.as_list()[0]))
        audio, mel = audio[:count], mel[:count]
    flows = glow.model_flows(hp, audio.dtype)
    loss = glow.loss(audio, mel, hp, compute, flows)
    total, zero = hp.nll_weight * loss.total, tf.zeros([], clips.audio.dtype)
    stft, adversarial, own = zero, zero, zero
    if hp.stft_weight:
        drawn = glow.infer(hp.stft_sigma * clips.noise, clips.mel, hp, compute=compute, flows=flows)
        spectra = spectral_loss.Spectra(*(grouping.whole_groups(x, hp)
                                          for x in (drawn, clips.audio)))
        stft = spectral_loss.distance(spectra, hp)
        total += hp.stft_weight * stft
        if hp.adversarial_weight:
            found = discriminators.losses(spectra, glow.PRECISIONS[compute.precision])
            adversarial, own = found.samples + found.features, found.own
            total += hp.adversarial_weight * adversarial + own
    return Objective(total=total, nll=loss.total, z=loss.z, log_s=loss.log_s,
                     log_det=loss.log_det, stft=stft, adversarial=adversarial,
                     discriminators=own)
