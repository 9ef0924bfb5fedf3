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
def mel_basis(sample_rate, profile: MelProfile):
    """float32 [1 + n_fft // 2, n_mels]: magnitudes @ basis = mel magnitudes. Read-only."""
    import librosa  # here, because importing it takes longer than most scripts need it for
    basis = librosa.filters.mel(sr=sample_rate, n_fft=profile.n_fft, n_mels=profile.n_mels,
                                fmin=profile.fmin, fmax=profile.fmax or sample_rate / 2)
    basis = np.ascontiguousarray(basis.T, dtype=np.float32)
    basis.setflags(write=False)
    return basis


def mel_spectrogram(audio, sample_rate, profile: MelProfile):
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


def mel_magnitudes(mel, profile):
    """Mel magnitudes: the inverse of `_scaled`."""
    mel = np.asarray(mel, np.float32)
    if profile.scale == 'log':
        return np.exp(mel)
    return np.float32(10) ** ((mel - np.float32(0.8)) / np.float32(0.2))
