"""Mel spectrograms of audio. Knows no TensorFlow.

Audio is float32 [samples], mono, -1 to 1; a mel is float32 [frames, n_mels] by one of
`params.MEL_PROFILES`.
"""
import functools

import numpy as np
import scipy.fft
import scipy.signal

from params import MelProfile

FLOOR = 1e-5            # of the mel magnitudes, in both profiles


@functools.lru_cache(maxsize=16)
def mel_basis(sample_rate: int, profile: MelProfile) -> np.ndarray:
    """float32 [1 + n_fft // 2, n_mels]: magnitudes @ basis = mel magnitudes. Read-only.

    Each band is a triangle of area 1 in Hz between the centres of its neighbours. The centres
    have equal distances on Slaney's mel scale (Auditory Toolbox, 1998), from fmin to fmax or half
    the sample rate. The bits are those of librosa.filters.mel, whose order of rounding this keeps.
    """
    bins = np.fft.rfftfreq(profile.n_fft, 1.0 / sample_rate)
    centres = _mel_to_hz(np.linspace(_hz_to_mel(profile.fmin),
                                     _hz_to_mel(profile.fmax or sample_rate / 2),
                                     profile.n_mels + 2))
    widths = np.diff(centres)
    rising = (bins - centres[:-2, None]) / widths[:-1, None]
    falling = (centres[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    triangles *= (2.0 / (centres[2:] - centres[:-2]))[:, None]
    basis = np.ascontiguousarray(triangles.T)
    basis.setflags(write=False)
    return basis


# Slaney's mel scale: linear up to 1000 Hz, 200 / 3 Hz a mel; from there on 27 mels a factor of 6.4.
HZ_A_MEL = 200.0 / 3
LOG_START = 1000.0                      # Hz
LOG_STEP = np.log(6.4) / 27.0           # of ln(Hz) a mel


def _hz_to_mel(hz):
    if hz < LOG_START:
        return hz / HZ_A_MEL
    return LOG_START / HZ_A_MEL + np.log(hz / LOG_START) / LOG_STEP


def _mel_to_hz(mel):
    start = LOG_START / HZ_A_MEL
    return np.where(mel < start, HZ_A_MEL * mel, LOG_START * np.exp(LOG_STEP * (mel - start)))


def mel_spectrogram(audio: np.ndarray, sample_rate: int, profile: MelProfile) -> np.ndarray:
    """float32 [1 + samples // hop_length, n_mels], by `profile`, of float32 audio [samples].

    Audio of n_fft / 2 samples or fewer, which has too little to reflect at its edges, is
    continued with silence first.
    """
    audio = np.asarray(audio, np.float32)
    n_frames = 1 + len(audio) // profile.hop_length
    edge = profile.n_fft // 2
    if len(audio) <= edge:
        audio = np.pad(audio, (0, edge + 1 - len(audio)), mode='constant')
    if profile.preemphasis:
        emphasized = audio.copy()
        emphasized[1:] -= np.float32(profile.preemphasis) * audio[:-1]
        audio = emphasized
    padded = np.pad(audio, edge, mode='reflect')
    # librosa centres a short window in n_fft samples. Where it stands changes the phases alone,
    # so the transform is told of the win_length samples under the window and no more.
    first = (profile.n_fft - profile.win_length) // 2
    frames = np.lib.stride_tricks.as_strided(
        padded[first:], (n_frames, profile.win_length),
        (profile.hop_length * padded.itemsize, padded.itemsize), writeable=False)
    # In double precision: of loud frames the rounding of a float32 transform is above FLOOR.
    window = scipy.signal.get_window('hann', profile.win_length)
    basis = mel_basis(sample_rate, profile)
    mel = np.empty((n_frames, profile.n_mels), np.float32)
    block = 128     # frames that stay in the processor's cache: twice as fast as all at once
    for start in range(0, n_frames, block):
        spectrum = scipy.fft.rfft(frames[start:start + block] * window, profile.n_fft)
        np.matmul(np.abs(spectrum.astype(np.complex64)), basis, out=mel[start:start + block])
    return _scaled(mel, profile)


def _scaled(mel, profile):
    """Mel magnitudes on the scale of the profile, in place."""
    np.maximum(mel, FLOOR, out=mel)
    if profile.scale == 'log':
        return np.log(mel, out=mel)
    # (20 log10(m) - 20 + 100) / 100
    np.log10(mel, out=mel)
    mel *= 0.2
    mel += 0.8
    return np.clip(mel, 0, 1, out=mel)


def mel_magnitudes(mel: np.ndarray, profile: MelProfile) -> np.ndarray:
    """Mel magnitudes: the inverse of `_scaled`."""
    mel = np.asarray(mel, np.float32)
    if profile.scale == 'log':
        return np.exp(mel)
    return np.float32(10) ** ((mel - np.float32(0.8)) / np.float32(0.2))
