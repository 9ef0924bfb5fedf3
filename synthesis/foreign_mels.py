"""Mels of another definition than the model's, on their way through a vocoder.

A model vocodes mels of its own definition alone. So others are converted first
(datasets/mel_conversion.py). What the conversion loses comes back with mel correction, which takes
the mel as it was given: in its own definition, at its own sample rate.
"""
import itertools
from typing import Iterable, Iterator, Union

import numpy as np

from datasets.mel_conversion import MelConversion
from datasets.mel_definition import PROFILES, MelDefinition
from errors import UserError, nearest
from synthesis.mel_correction import MelCorrection

# Samples of the lower rate that soxr holds back on a way: 923 at most, from 16,000 to 22,050 Hz.
RESAMPLING = 1000


def definition_of(profile: Union[str, MelDefinition]) -> MelDefinition:
    """A mel profile's name or a definition, as the latter; UserError for a name that is none."""
    if isinstance(profile, MelDefinition):
        return profile
    if profile not in PROFILES:
        raise UserError('there is no mel profile %s; %s' % (profile, nearest(profile, PROFILES)))
    return PROFILES[profile]


class ForeignMel:
    """One mel on its way: a piece goes in, and so much of the model's mel comes out.

        own = foreign.convert(piece, ended)     # for the model
        for audio in foreign.placed(blocks):    # of what the model makes of it
    """

    def __init__(self, conversion: MelConversion):
        self._conversion, self._stream = conversion, conversion.start()
        self._frames = 0        # of the mel

    def convert(self, mel: np.ndarray, ended: bool) -> np.ndarray:
        """What the next frames [frames, n_mels] complete of the model's mel."""
        self._frames += len(mel)
        return self._stream.push(mel, ended)

    def placed(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields what lies in the time of the mel of the model's audio [samples], as it comes."""
        skip, done = self._conversion.skip, 0
        waiting = np.zeros(0, np.float32)       # perhaps beyond the end
        for audio in itertools.chain(blocks, [waiting]):
            waiting = np.concatenate([waiting, audio[skip:]])
            skip = max(0, skip - len(audio))
            audio, waiting = np.split(
                waiting, [self._conversion.n_samples(self._frames) - done])
            done += len(audio)
            if len(audio):
                yield audio


Correction = Union[MelCorrection, 'ResampledCorrection']


def correction(definition: MelDefinition, rounds: int, sample_rate: int) -> Correction:
    """Mel correction of audio at `sample_rate`, towards mels of a definition of any rate."""
    if rounds and definition.sample_rate != sample_rate:
        return ResampledCorrection(definition, rounds, sample_rate)
    return MelCorrection(definition, rounds)


class ResampledCorrection:
    """MelCorrection of audio at another sample rate than that of the mel.

    What correction changes at the rate of the mel is added to the audio. So what the mel's rate
    cannot hold stays as it is.
    """

    def __init__(self, definition: MelDefinition, rounds: int, sample_rate: int):
        self._correction = MelCorrection(definition, rounds)
        self.definition, self.rounds, self.sample_rate = definition, rounds, sample_rate

    @property
    def latency(self) -> int:
        """Samples of audio from a sample on that the corrected sample waits for, at most."""
        rate = self.definition.sample_rate
        seconds = self._correction.latency / rate + 2 * RESAMPLING / min(rate, self.sample_rate)
        return int(seconds * self.sample_rate)

    def __call__(self, audio: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """float32 audio [samples], corrected, of such and mel [frames, n_mels]."""
        stream = self.start()
        stream.expect(mel)
        blocks = [stream.push(audio[first:first + self.sample_rate])
                  for first in range(0, len(audio), self.sample_rate)]
        return np.concatenate(blocks + [stream.end()])

    def start(self) -> 'ResampledStream':
        """A ResampledStream, at the start of an utterance."""
        return ResampledStream(self, self._correction)


class ResampledStream:
    """One utterance on its way through a ResampledCorrection: as a CorrectionStream."""

    def __init__(self, resampled: ResampledCorrection, correction: MelCorrection):
        import soxr  # which no other vocoding needs

        rates = resampled.sample_rate, resampled.definition.sample_rate
        self._there, self._back = (soxr.ResampleStream(*way, 1, dtype='float32')
                                   for way in (rates, rates[::-1]))
        self._stream = correction.start()
        self._audio = np.zeros(0, np.float32)       # at its own rate, to be returned
        self._resampled = np.zeros(0, np.float32)   # at the mel's rate, in correction

    def expect(self, mel: np.ndarray) -> None:
        """Takes the next frames [frames, n_mels] of the mel."""
        self._stream.expect(mel)

    def push(self, audio: np.ndarray) -> np.ndarray:
        """The audio [samples] that the next audio [samples], of expected frames, completes."""
        return self._push(np.asarray(audio, np.float32), ended=False)

    def end(self) -> np.ndarray:
        """The audio [samples] that is left."""
        return self._push(np.zeros(0, np.float32), ended=True)

    def _push(self, audio, ended):
        self._audio = np.concatenate([self._audio, audio])
        resampled = self._there.resample_chunk(audio, last=ended)
        self._resampled = np.concatenate([self._resampled, resampled])
        corrected = self._stream.push(resampled)
        if ended:
            corrected = np.concatenate([corrected, self._stream.end()])
        before, self._resampled = np.split(self._resampled, [len(corrected)])
        change = self._back.resample_chunk(corrected - before, last=ended)
        if ended:       # rounded to whole samples, twice
            change = np.pad(change, (0, max(0, len(self._audio) - len(change))), mode='constant')
        audio, self._audio = np.split(self._audio, [len(change)])
        return audio + change[:len(audio)]
