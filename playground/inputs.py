"""What a page vocodes: a sound, a mel or a sentence, none of which may exceed its limits."""
import os
import zipfile
from typing import Any, NamedTuple, Optional

import numpy as np

import params
from datasets import audio_files, mel_inputs, mel_transform
from datasets.mel_definition import MelDefinition
from datasets.mel_files import Mel
from datasets.mel_inputs import Source
from errors import UserError
from params import HParams

MOST_CHARACTERS = 1000      # of a sentence
MOST_UNPACKED = 256 << 20   # bytes of a compressed mel


class Given(NamedTuple):
    """An input."""
    name: str                       # for the files that are made of it
    mel: Mel                        # [frames, n_mels]
    definition: MelDefinition       # that of the mel
    audio: Optional[np.ndarray] = None      # [samples] at the definition's rate; None without one

    @property
    def seconds(self) -> float:
        return len(self.mel) * self.definition.hop_length / self.definition.sample_rate


def read_sound(path: str, hp: HParams, most_seconds: float) -> Given:
    """A sound file and its mel by the model's definition.

    Raises UserError for what is no sound, or longer than most_seconds.
    """
    audio = audio_files.read_wav(path, hp.sample_rate, most_seconds)
    if len(audio) < hp.hop_length:
        raise UserError('%s is shorter than a frame, %d samples at %d Hz; give a longer sound'
                        % (path, hp.hop_length, hp.sample_rate))
    name = os.path.splitext(os.path.basename(path))[0]
    return Given(name, mel_transform.mel_spectrogram(audio, hp.mel), hp.mel, audio)


def read_mel(path: str, hp: HParams, most_seconds: float, profile: Optional[str] = None,
             changes: str = '') -> Given:
    """A mel in a file: .mel, .npy, .npz, .pt or .h5.

    Args:
      hp: of the model.
      profile, changes: the mel profile, None for the model's definition, and what is not as in it
        ('sample_rate=24000,fmin=0').

    Raises UserError for what is no such mel, or longer than most_seconds.
    """
    definition = params.mel_hparams(profile, changes, {}, hp) if profile or changes else hp
    source = Source(path, mel_inputs.output_name(os.path.basename(path)), os.path.dirname(path))
    if not mel_inputs.is_mel(source):
        raise UserError('%s is no mel by its name; there are .mel, .npy, .npz, .pt and .h5' % path)
    _refuse_large(path)
    mel, _ = mel_inputs.read_source(source, definition)
    given = Given(source.name, mel, definition.mel)
    if given.seconds > most_seconds:
        raise UserError('%s holds %d frames, %.0f s of speech, and %g s are the most here; cut it'
                        % (path, len(mel), given.seconds, most_seconds))
    return given


def _refuse_large(path):
    """Raises UserError for a compressed file that would take much memory."""
    size = 0
    if zipfile.is_zipfile(path):                        # .npz and .pt
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    elif path.lower().endswith('.h5'):
        size = _h5_size(path)
    if size > MOST_UNPACKED:
        raise UserError('%s unpacks to %d MB, and %d MB are the most here; cut it'
                        % (path, size >> 20, MOST_UNPACKED >> 20))


def _h5_size(path):
    try:
        import h5py
        with h5py.File(path, 'r') as f:
            return max((f[name].nbytes for name in f if hasattr(f[name], 'nbytes')), default=0)
    except Exception:       # whoever reads it tells what is wrong
        return 0


class Speaker:
    """Sentences, by hibari-tts."""

    def __init__(self) -> None:
        self._definition: Optional[MelDefinition] = None
        self._front_end: Any = None         # its module is imported where it is used

    def say(self, text: str, hp: HParams, most_seconds: float) -> Given:
        """The mel of a text in English, with the bands of the model's definition.

        Raises UserError for a text that has nothing to say, or too much.
        """
        if len(text) > MOST_CHARACTERS:
            raise UserError('the text has %d characters, and %d are the most here; give a few '
                            'sentences' % (len(text), MOST_CHARACTERS))
        if self._definition != hp.mel:
            from synthesis.text_front_end import FrontEnd
            self._front_end, self._definition = FrontEnd(hp.mel), hp.mel
        mel = self._front_end.mel(text)
        given = Given('sentence', mel, self._front_end.definition)
        if given.seconds > most_seconds:
            raise UserError('the text takes %.0f s to say, and %g s are the most here; give less'
                            % (given.seconds, most_seconds))
        return given
