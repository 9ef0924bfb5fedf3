"""What a training step minimizes: the flow's likelihood, and what its samples sound like."""
import collections

import tensorflow.compat.v1 as tf

import glow
from training import spectral_loss

# total: what is minimized; nll and its three terms: a glow.Loss; stft: spectral.distance of
# samples drawn through the inverse, 0 where it is not asked for.
Objective = collections.namedtuple('Objective', 'total nll z log_s log_det stft')


def objective(clips, hp, compute=glow.Compute()):
    """hp.nll_weight * glow.loss + hp.stft_weight * spectral.distance(samples, clips.audio).

    Args:
      clips: dataset.Clips of a batch; noise is N(0, 1), [batch, steps, n_group], and read only if
        hp.stft_weight is not 0.
      compute: of both; --reversible of the first alone.

    Returns: an Objective of scalars.
    """
    loss = glow.loss(clips.audio, clips.mel, hp, compute)
    total, stft = hp.nll_weight * loss.total, tf.zeros([], clips.audio.dtype)
    if hp.stft_weight:
        drawn = glow.infer(hp.stft_sigma * clips.noise, clips.mel, hp, compute=compute)
        stft = spectral_loss.distance(drawn, clips.audio, hp)
        total += hp.stft_weight * stft
    return Objective(total, *loss, stft=stft)
