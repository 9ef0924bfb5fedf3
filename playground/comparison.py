"""An input beside Griffin-Lim and a model: computed piece by piece, with progress, and drawn."""
import time
from typing import Generator, Iterator, NamedTuple, Optional, Tuple, Union

import numpy as np
import soxr

from datasets import audio_files, mel_transform
from datasets.mel_definition import MelDefinition
from datasets.mel_files import Mel, mel_blocks
from errors import UserError
from metrics import pictures
from playground.inputs import Given
from synthesis.denoiser import Denoiser
from synthesis.griffin_lim import griffin_lim
from vocoder import Vocoder

WAVEGLOW, GRIFFIN_LIM = 'WaveGlow', 'Griffin-Lim'
PIECE_SECONDS = 20.0    # of Griffin-Lim: 1.4 s of two cores
FADED_FRAMES = 8        # that two pieces of it have in common
PLOTTED_SECONDS = 20.0


class Settings(NamedTuple):
    """How a model vocodes."""
    sigma: float                # standard deviation of the noise
    seed: int                   # random seed of the noise, and of Griffin-Lim's phases
    mel_correction: int         # rounds
    denoiser_strength: float    # 0 for none


class Progress(NamedTuple):
    """How far a system is."""
    system: str                 # WAVEGLOW or GRIFFIN_LIM
    seconds: float              # of speech that are done
    total: float                # of them all


class System(NamedTuple):
    """What one system gives."""
    audio: Optional[np.ndarray]     # [samples]; None where there is no original
    sample_rate: int                # Hz, of the audio
    compute_seconds: float          # 0 for the original
    picture: bytes                  # PNG of the mel of its first PLOTTED_SECONDS


class Comparison(NamedTuple):
    """What the page shows of an input."""
    original: System
    griffin_lim: System
    waveglow: System
    clipped: int                    # samples of the model's beyond full scale


def compare(given: Given, vocoder: Vocoder, settings: Settings
            ) -> Generator[Union[Progress, Comparison], None, None]:
    """Yields Progress, about once a second of speech, and at the end a Comparison.

    Whoever stops iterating stops the computation. Raises UserError for settings that cannot be and
    for audio that is not finite.
    """
    _check(settings)
    mel, definition = given.mel, given.definition
    waveglow, vocoding_seconds = yield from _collect(
        WAVEGLOW, _vocoded(given, vocoder, settings), vocoder.hp.sample_rate, given.seconds)
    if not np.isfinite(waveglow).all():
        raise UserError('the model gives samples that are not finite; it is broken, or untrained: '
                        'take another checkpoint, or a lower sigma')
    without, without_seconds = yield from _collect(
        GRIFFIN_LIM, griffin_lim_pieces(mel, definition, settings.seed), definition.sample_rate,
        given.seconds)
    shown = mel[:max(1, int(PLOTTED_SECONDS * definition.sample_rate / definition.hop_length))]
    levels = pictures.colour_range(shown)

    def system(audio, rate, seconds):
        picture = pictures.panel_png(_mel_of(audio, rate, definition, len(shown)), levels,
                                     definition.hop_length / definition.sample_rate)
        return System(audio, rate, seconds, picture)

    original = System(given.audio, definition.sample_rate, 0.0, pictures.panel_png(
        shown, levels, definition.hop_length / definition.sample_rate))
    yield Comparison(original, system(without, definition.sample_rate, without_seconds),
                     system(waveglow, vocoder.hp.sample_rate, vocoding_seconds),
                     audio_files.to_pcm16(waveglow)[1])


def griffin_lim_pieces(mel: Mel, definition: MelDefinition, seed: int) -> Iterator[np.ndarray]:
    """Yields Griffin-Lim's audio [samples] of a mel, PIECE_SECONDS at a time, faded into another.

    So the memory and the time until it can be stopped are those of a piece.
    """
    hop = definition.hop_length
    step = max(FADED_FRAMES, int(PIECE_SECONDS * definition.sample_rate / hop))
    rising = np.linspace(0, 1, FADED_FRAMES * hop, dtype=np.float32)
    first, tail = 0, np.zeros(0, np.float32)
    while first < len(mel):
        end = min(first + step + FADED_FRAMES, len(mel))
        audio = griffin_lim(mel[first:end], definition, seed=seed)
        if first:
            audio[:len(tail)] = rising * audio[:len(tail)] + (1 - rising) * tail
        if end == len(mel):
            yield audio
            return
        yield audio[:step * hop]
        tail, first = audio[step * hop:], first + step


def _check(settings):
    for what, value, most in (('sigma', settings.sigma, 10), ('the seed', settings.seed, 2 ** 32),
                              ('the rounds of mel correction', settings.mel_correction, 1000),
                              ('the strength of the denoiser', settings.denoiser_strength, 100)):
        if value is None or not 0 <= value < most:
            raise UserError('%s must be at least 0 and below %d, not %s' % (what, most, value))


def _vocoded(given, vocoder, settings):
    """Yields a model's audio [samples], block by block."""
    profile = None if given.definition == vocoder.hp.mel else given.definition
    denoiser = (Denoiser.from_vocoder(vocoder, settings.denoiser_strength)
                if settings.denoiser_strength else None)
    yield from vocoder.stream(mel_blocks(given.mel), settings.sigma, settings.seed,
                              settings.mel_correction, denoiser, profile)


def _collect(system: str, blocks: Iterator[np.ndarray], sample_rate: int, total: float
             ) -> Generator[Progress, None, Tuple[np.ndarray, float]]:
    """Yields Progress; returns (audio [samples], seconds of computing)."""
    audio, samples, seconds = [np.zeros(0, np.float32)], 0, 0.0
    while True:
        yield Progress(system, min(total, samples / sample_rate), total)
        started = time.time()
        block = next(blocks, None)
        seconds += time.time() - started
        if block is None:
            return np.concatenate(audio), seconds
        audio.append(block)
        samples += len(block)


def _mel_of(audio, rate, definition, frames):
    """The mel [frames, n_mels] of the beginning of audio at a rate, by a definition."""
    needed = frames * definition.hop_length + definition.n_fft
    audio = audio[:int(needed * rate / definition.sample_rate)]
    if rate != definition.sample_rate:
        audio = soxr.resample(audio, rate, definition.sample_rate)
    return mel_transform.mel_spectrogram(audio, definition)[:frames]
