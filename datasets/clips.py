"""What both input pipelines give: aligned clips of audio and mel."""
from typing import Any, Callable, NamedTuple, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from datasets import digital_silence
from params import HParams

# For functions that a dataset maps. AutoGraph would rewrite their source, which takes a second of
# each start, and there is nothing in them for it to do.
without_autograph = tf.autograph.experimental.do_not_convert


class Clips(NamedTuple):
    """Clips of one length, tensors or arrays; an element of a dataset has `batch` of them."""
    audio: Any                  # float32 [batch, samples], -1 to 1
    mel: Any                    # float32 [batch, frames, n_mels]
    name: Any                   # string [batch], of the utterance
    start_frame: Any            # int32 [batch], of the clip in the utterance
    noise: Any = ()             # float32 [batch, groups, n_group] from N(0, 1), or ()
    shard_position: Any = ()    # int64 [batch, 3], see clip_shards.training_clips, or ()


def cut_clip(pcm: Callable[[int, int], np.ndarray], mel: Callable[[int, int], np.ndarray],
             first_frame: int, frames: int, hp: HParams) -> Tuple[np.ndarray, np.ndarray]:
    """Aligned audio float32 [frames * hop_length] and mel float32 [frames, n_mels] of an utterance.

    Digital silence has dither, by its place in the utterance.

    Args:
      pcm: gives the int16 samples from a first one up to an end.
      mel: gives the frames from a first one up to an end.
    """
    start, end = first_frame * hp.hop_length, (first_frame + frames) * hp.hop_length
    return (digital_silence.to_float(pcm(start, end), start, hp.dither),
            mel(first_frame, first_frame + frames))


def draw_noise(serial, seed: int, hp: HParams):
    """N(0, 1) for clip number `serial` (int64): [groups of a clip, n_group]."""
    return tf.random.stateless_normal([hp.groups(hp.clip_frames), hp.n_group],
                                      seed=tf.stack([tf.constant(seed, tf.int64), -1 - serial]))


def heldout_frames(hp: HParams) -> int:
    """Frames of a held-out utterance that are measured: hp.eval_seconds of it, at most."""
    return max(1, int(hp.eval_seconds * hp.sample_rate) // hp.hop_length)
