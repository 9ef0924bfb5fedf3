"""What becomes of one sound file, however it is processed: samples to train on, and their mel."""
from typing import List, NamedTuple, Optional

import numpy as np

from datasets import audio_files, mel_transform, predicted_mels
from datasets.digital_silence import zero_runs
from datasets.mel_definition import MelDefinition
from datasets.predicted_mels import PredictedMel
from errors import UserError

SILENCE = 1e-3          # audio that varies by less (full scale is 1) is silent: 33 steps of PCM16


class Features(NamedTuple):
    """What training reads of one utterance."""
    audio: np.ndarray       # int16 [samples]
    mel: np.ndarray         # float32 [frames, n_mels] of audio
    clipped: int            # samples that overshot full scale
    zeros: int              # samples of digital silence
    notes: List[str]        # what is worth telling of the file


def compute(path: str, definition: MelDefinition, min_samples: int,
            predicted: Optional[PredictedMel] = None) -> Features:
    """The Features of the sound file `path`; UserError, saying why, for one of no use.

    predicted: a mel to take in place of that of the audio.
    """
    sample_rate = definition.sample_rate
    try:
        audio, notes = audio_files.read_audio(path, sample_rate)
    except UserError as error:
        raise UserError(str(error)[len(path) + 2:]) from error
    if len(audio) < min_samples:
        raise UserError('too short: %.3f seconds, less than %.3f'
                        % (len(audio) / sample_rate, min_samples / sample_rate))
    if np.ptp(audio) < SILENCE:
        raise UserError('silent')
    try:
        pcm, clipped = audio_files.to_pcm16(audio)
        read_back = pcm / np.float32(32768)     # what training reads
        if predicted:
            mel, first_sample, more = predicted_mels.align(predicted, len(pcm), definition)
            pcm, notes = pcm[first_sample:], notes + more
        else:
            mel = mel_transform.mel_spectrogram(read_back, definition)
    except MemoryError as error:
        raise UserError('too long for the memory there is; cut it') from error
    zeros = int(sum(end - first for first, end in zero_runs(pcm)))
    return Features(pcm, mel, clipped, zeros, notes)
