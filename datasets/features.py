"""What becomes of one sound file, however it is processed: samples to train on, and their mel."""
from typing import NamedTuple

import numpy as np

from datasets import audio_files, mel_transform
from errors import UserError

SILENCE = 1e-3          # audio that varies by less (full scale is 1) is silent: 33 steps of PCM16


class Features(NamedTuple):
    """audio: int16 [samples]; clipped: how many overshot; mel: float32 [frames, n_mels] of audio."""
    audio: np.ndarray
    clipped: int
    mel: np.ndarray


def compute(path, sample_rate, profile, min_samples):
    """The Features of the sound file `path`; UserError, saying why, for one of no use."""
    try:
        wave = audio_files.read_wav(path, sample_rate)
    except UserError as error:
        raise UserError(str(error)[len(path) + 2:])
    if len(wave) < min_samples:
        raise UserError('too short: %.3f seconds, less than %.3f'
                        % (len(wave) / sample_rate, min_samples / sample_rate))
    if np.ptp(wave) < SILENCE:
        raise UserError('silent')
    try:
        pcm, clipped = audio_files.to_pcm16(wave)
        heard = pcm / np.float32(32768)     # what training hears
        return Features(pcm, clipped, mel_transform.mel_spectrogram(heard, sample_rate, profile))
    except MemoryError:
        raise UserError('too long for the memory there is; cut it')
