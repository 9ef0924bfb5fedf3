"""Mels that an acoustic model predicted, to train on in place of those of the recordings.

A vocoder that is fine-tuned on them learns what its acoustic model really makes. They must have the
time of the recordings: predicted with the recordings' own durations, or by teacher forcing.
"""
import functools
import hashlib
import os
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from datasets import mel_files
from datasets.mel_conversion import MelConversion
from datasets.mel_definition import MelDefinition
from errors import UserError

# Frames that a mel may be longer or shorter than the recording. A model that makes five frames at
# once, and padding, come to that.
MOST_FRAMES = 6


class PredictedMels(NamedTuple):
    """A folder of them: for each sound file, a mel of the same name and the suffix of a mel."""
    directory: str
    definition: MelDefinition


class PredictedMel(NamedTuple):
    """One of them."""
    path: str
    definition: MelDefinition


class Aligned(NamedTuple):
    """What training reads for a recording."""
    mel: np.ndarray         # float32 [frames, n_mels] by the model's definition
    first_sample: int       # of the recording, where frame 0 begins
    notes: List[str]        # what is worth telling


def find(predicted: PredictedMels, source: str) -> Optional[PredictedMel]:
    """That of a sound file, by its path under the folder of sound files; None if there is none."""
    name = os.path.splitext(source)[0]
    for stem in (name, source, name + '-feats'):        # NVIDIA has x.wav.pt, others x-feats.npy
        for suffix in mel_files.MEL_SUFFIXES:
            path = os.path.join(predicted.directory, stem + suffix)
            if os.path.isfile(path):
                return PredictedMel(path, predicted.definition)
    return None


def fingerprint(definition: MelDefinition) -> str:
    """What a manifest keeps of a definition."""
    return hashlib.sha256(repr(definition).encode()).hexdigest()[:16]


def align(predicted: PredictedMel, samples: int, target: MelDefinition) -> Aligned:
    """Reads a predicted mel for a recording of so many samples at the rate of `target`.

    Raises UserError if it cannot be read, is of another definition, or has another length.
    """
    source = predicted.definition
    mel = mel_files.read_mel(predicted.path, source.n_mels)
    mel_files.check_mel_values(mel, source, predicted.path)
    expected = source.n_frames(int(round(samples * source.sample_rate / target.sample_rate)))
    more = len(mel) - expected
    if abs(more) > MOST_FRAMES:
        raise UserError(
            '%s has %d frames, %.3f seconds, and the recording %d, %.3f seconds; predict it with '
            'the durations of the recording, or name its rate and hop'
            % (predicted.path, len(mel), len(mel) * source.hop_length / source.sample_rate,
               expected, samples / target.sample_rate))
    notes = []
    if more > 1:
        notes.append('its predicted mel is longer than it; the end of the mel was left out')
    elif more < -1:
        notes.append('its predicted mel is shorter than it; its end was left out')
    mel = mel[:expected]
    if source == target:
        return Aligned(mel, 0, notes)
    conversion = _conversion(source, target)
    mel = conversion(mel)
    if conversion.skip:     # the first frame begins before the recording
        return Aligned(mel[1:], target.hop_length - conversion.skip, notes)
    return Aligned(mel, 0, notes)


@functools.lru_cache(maxsize=2)
def _conversion(source, target):
    return MelConversion(source, target)


def moves(source: MelDefinition, target: MelDefinition) -> Tuple[bool, List[str]]:
    """(whether recordings begin later, to fit the frames, and what a conversion loses)."""
    if source == target:
        return False, []
    conversion = _conversion(source, target)
    return conversion.skip > 0, conversion.losses()
