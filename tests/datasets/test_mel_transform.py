"""The mel spectrogram against its definition."""

import librosa
import numpy as np
import pytest
from speech import SPEECH, definition, speech

from datasets import audio_files, mel_transform

PROFILES = 'weixsong', 'tacotron2'


# --- The definition, in plain NumPy and double precision.

def slaney_mel(hertz):
    """Linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels to a factor of 6.4)."""
    hertz = np.asarray(hertz, float)
    return np.where(hertz < 1000, hertz * 3 / 200,
                    15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def slaney_hertz(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def triangles(rate, n_fft, n_mels, fmin, fmax):
    """[1 + n_fft / 2, n_mels]: triangles of equal area over the bins."""
    edges = slaney_hertz(np.linspace(slaney_mel(fmin), slaney_mel(fmax), n_mels + 2))
    bins = np.arange(1 + n_fft // 2) * rate / n_fft
    basis = np.zeros((len(bins), n_mels))
    for band in range(n_mels):
        low, centre, high = edges[band:band + 3]
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        basis[:, band] = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    return basis


def defined_mel(audio, profile):
    """design: pre-emphasis, centred Hann frames with reflected edges, DFT, triangles, scale."""
    audio = np.asarray(audio, np.float64)
    audio = audio - profile.preemphasis * np.concatenate([[0], audio[:-1]])
    half = profile.n_fft // 2
    padded = np.concatenate([audio[half:0:-1], audio, audio[-2:-half - 2:-1]])
    starts = np.arange(1 + len(audio) // profile.hop_length) * profile.hop_length
    frames = np.stack([padded[s:s + profile.n_fft] for s in starts])
    window = np.zeros(profile.n_fft)
    first = (profile.n_fft - profile.win_length) // 2
    window[first:first + profile.win_length] = 0.5 - 0.5 * np.cos(
        2 * np.pi * np.arange(profile.win_length) / profile.win_length)
    angles = 2 * np.pi * np.outer(np.arange(profile.n_fft), np.arange(half + 1)) / profile.n_fft
    frames = frames * window
    magnitudes = np.hypot(frames @ np.cos(angles), frames @ np.sin(angles))
    mel = magnitudes @ triangles(profile.sample_rate, profile.n_fft, profile.n_mels, profile.fmin,
                                 profile.fmax or profile.sample_rate / 2)
    mel = np.maximum(mel, 1e-5)
    if profile.log == 'e':
        return np.log(mel)
    return np.clip((20 * np.log10(mel) - 20 + 100) / 100, 0, 1)


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize('rate', [16000, 22050])
def test_mel_is_the_definition(name, rate):
    profile = definition(name, rate)
    audio = audio_files.read_wav(SPEECH, rate)[:3 * rate + 77]
    mel = mel_transform.mel_spectrogram(audio, profile)
    assert mel.shape == (1 + len(audio) // profile.hop_length, 80) and mel.dtype == np.float32
    np.testing.assert_allclose(mel, defined_mel(audio, profile), rtol=0, atol=1e-4)
    assert mel.std() > 0.1      # speech, not a constant


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize('samples', [0, 1, 100, 511, 512, 513, 1023, 1024, 1025, 1026])
def test_mel_of_short_audio_is_that_of_audio_and_silence(name, samples):
    profile = definition(name)
    audio = speech()[8000:8000 + samples]
    mel = mel_transform.mel_spectrogram(audio, profile)
    assert mel.shape == (1 + samples // 256, 80) and np.isfinite(mel).all()
    filled = np.pad(audio, (0, max(0, profile.n_fft // 2 + 1 - samples)), mode='constant')
    np.testing.assert_allclose(mel, defined_mel(filled, profile)[:len(mel)], atol=1e-4)


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize('rate', [16000, 22050, 24000, 44100])
def test_mel_basis_is_that_of_librosa(name, rate):
    profile = definition(name, rate)
    reference = librosa.filters.mel(sr=rate, n_fft=profile.n_fft, n_mels=profile.n_mels,
                                    fmin=profile.fmin, fmax=profile.fmax or rate / 2)
    basis = mel_transform.mel_basis(profile)
    assert basis.dtype == np.float32 and basis.flags['C_CONTIGUOUS']
    # to a rounding or two: NumPy's logarithm of one number and of many may differ in the last bit
    np.testing.assert_allclose(basis, reference.T, rtol=1e-6, atol=1e-9)


def test_mel_leaves_its_input_alone():
    audio = speech(1)
    before = audio.copy()
    mel_transform.mel_spectrogram(audio, definition('weixsong'))
    np.testing.assert_array_equal(audio, before)
