"""How mels become audio: by a model or by Griffin-Lim, one by one or in batches."""
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy as np

from datasets.mel_definition import MelDefinition
from datasets.mel_files import Mel, mel_blocks
from errors import UserError
from synthesis.denoiser import Denoiser
from synthesis.griffin_lim import griffin_lim
from synthesis.mel_correction import MelCorrection
from vocoder import Vocoder


class BrokenAudio(UserError):
    """Samples that are not finite."""


class WithModel(NamedTuple):
    """How mels become audio: what `Vocoder.stream` takes beside them."""
    vocoder: Vocoder
    sigma: Optional[float] = None           # standard deviation of the noise; None: gen_sigma
    seed: int = 0                           # random seed of the noise of each utterance
    mel_correction: Optional[int] = None    # rounds; None: gen_correction_rounds
    denoiser: Optional[Denoiser] = None
    profile: Optional[MelDefinition] = None     # of the mels; None for the model's

    @property
    def definition(self) -> MelDefinition:
        return self.profile or self.vocoder.hp.mel

    @property
    def sample_rate(self) -> int:
        """Hz, of the audio."""
        return self.vocoder.hp.sample_rate

    def batch(self, mels: List[Mel]) -> Iterator[Iterator[np.ndarray]]:
        """Yields the audio of each mel: blocks of [samples], computed as they are asked for.

        What `vocoder.vocode_batch` takes at once is computed at once.
        """
        vocoder, sigma, seed, rounds, denoiser, profile = self
        if len(mels) > 1 and vocoder.fits_batch([len(mel) for mel in mels], profile):
            for audio in vocoder.vocode_batch([mel[:] for mel in mels], sigma, seed, rounds,
                                              denoiser, profile):
                yield iter([audio])
        else:
            for mel in mels:
                yield vocoder.stream(mel_blocks(mel), sigma, seed, rounds, denoiser, profile)


class WithoutModel(NamedTuple):
    """How mels become audio by Griffin-Lim."""
    definition: MelDefinition
    seed: int = 0                           # random seed of the phases
    mel_correction: int = 0                 # rounds

    @property
    def sample_rate(self) -> int:
        """Hz, of the audio."""
        return self.definition.sample_rate

    def batch(self, mels: List[Mel]) -> Iterator[Iterator[np.ndarray]]:
        """Yields the audio of each mel, in one block."""
        correct = MelCorrection(self.definition, self.mel_correction)
        for mel in mels:
            audio = griffin_lim(mel[:], self.definition, seed=self.seed)
            yield iter([correct(audio, mel[:])])


Processing = Union[WithModel, WithoutModel]


def batches(lengths: Sequence[int], batch_size: int) -> List[List[int]]:
    """The indices of mels of so many frames, in batches of similar length, the shortest first.

    Mels of one length stay in their order. What is in a batch depends on the lengths alone, so
    that the same mels give the same samples wherever they are vocoded.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i:i + batch_size] for i in range(0, len(order), batch_size)]


def finite(blocks: Iterable[np.ndarray], path: str) -> Iterator[np.ndarray]:
    """The blocks of audio [samples] that `path` is to hold; BrokenAudio if one is not finite."""
    for audio in blocks:
        if not np.isfinite(audio).all():
            raise BrokenAudio('%s would hold samples that are not finite; the model is broken, or '
                              'untrained' % path)
        yield audio
