"""Every mel profile against what its project publishes, computed another way and in float64.

The references are written from the projects' own descriptions of their code (docs/mels.md names
them), with NumPy and librosa, and use none of ours.
"""
import librosa
import numpy as np
import pytest
from speech import SPEECH, definition, speech

from datasets import audio_files, mel_transform
from datasets.mel_definition import PROFILES

# --- What the projects compute --------------------------------------------------------------------

def periodic(n):
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)


def symmetric(n):
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / (n - 1))


def spectrum(audio, n_fft, hop, win=None, window=periodic):
    """[bins, frames]: |STFT| of audio that is padded already; a short window in the middle."""
    win = win or n_fft
    padded_window = np.zeros(n_fft)
    first = (n_fft - win) // 2
    padded_window[first:first + win] = window(win)
    starts = range(0, len(audio) - n_fft + 1, hop)
    angles = -2j * np.pi * np.outer(np.arange(1 + n_fft // 2), np.arange(n_fft)) / n_fft
    frames = np.stack([audio[s:s + n_fft] * padded_window for s in starts], axis=1)
    return np.abs(np.exp(angles) @ frames)


def centred(audio, n_fft, mode='reflect'):
    return np.pad(audio, n_fft // 2, mode)


def between(audio, n_fft, hop):
    """HiFi-GAN's padding."""
    return np.pad(audio, (n_fft - hop) // 2, 'reflect')


def emphasized(audio):
    return np.concatenate([audio[:1], audio[1:] - 0.97 * audio[:-1]])


def slaney(rate, n_fft, bands, fmin=0, fmax=None):
    """[bands, bins], as librosa: areas of 1, Slaney's scale."""
    return librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=fmin,
                               fmax=fmax or rate / 2, dtype=np.float64)


def htk(rate, n_fft, bands):
    """[bands, bins], as torchaudio's default: heights of 1, HTK's scale."""
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)
    bins = np.linspace(0, rate / 2, 1 + n_fft // 2)
    return np.stack([np.interp(bins, edges[b:b + 3], [0, 1, 0]) for b in range(bands)])


def weixsong(x):
    mel = slaney(22050, 2048, 80) @ spectrum(centred(emphasized(x), 2048), 2048, 256, 1024)
    return np.clip((20 * np.log10(np.maximum(1e-5, mel)) - 20 + 100) / 100, 0, 1)


def tacotron2(x):
    mel = slaney(22050, 1024, 80, 0, 8000) @ spectrum(centred(x, 1024), 1024, 256)
    return np.log(np.maximum(mel, 1e-5))


def hifigan(x):
    mel = slaney(22050, 1024, 80, 0, 8000) @ spectrum(between(x, 1024, 256), 1024, 256)
    return np.log(np.maximum(mel, 1e-5))


def bigvgan_24k(x):
    mel = slaney(24000, 1024, 100, 0, 12000) @ spectrum(between(x, 1024, 256), 1024, 256)
    return np.log(np.maximum(mel, 1e-5))


def bigvgan_44k(x):
    mel = slaney(44100, 2048, 128) @ spectrum(between(x, 2048, 512), 2048, 512)
    return np.log(np.maximum(mel, 1e-5))


def vocos(x, floor=1e-7):
    mel = htk(24000, 1024, 100) @ spectrum(centred(x, 1024), 1024, 256)
    return np.log(np.maximum(mel, floor))


def f5(x):
    return vocos(x, 1e-5)


def espnet(x):
    mel = slaney(22050, 1024, 80, 80, 7600) @ spectrum(centred(x, 1024), 1024, 256)
    return np.log10(np.maximum(1e-10, mel))


def espnet_24k(x):
    mel = slaney(24000, 2048, 80, 80, 7600) @ spectrum(centred(x, 2048), 2048, 300, 1200)
    return np.log10(np.maximum(1e-10, mel))


def tacotron(x):
    mel = slaney(20000, 2048, 80) @ spectrum(centred(emphasized(x), 2048), 2048, 250, 1000)
    decibels = 20 * np.log10(np.maximum(1e-5, mel)) - 20
    return np.clip((decibels + 100) / 100, 0, 1)


def rayhane(x):
    energies = spectrum(centred(emphasized(x), 2048, 'constant'), 2048, 275, 1100) ** 2
    decibels = 20 * np.log10(np.maximum(1e-5, slaney(22050, 2048, 80, 55, 7600) @ energies)) - 20
    return np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)


def coqui(x):
    mel = slaney(22050, 1024, 80) @ spectrum(centred(x, 1024), 1024, 256)
    decibels = 20 * np.log10(np.maximum(1e-8, mel)) - 20
    return np.clip(8 * (decibels + 100) / 100 - 4, -4, 4)


def nemo(x):
    mel = slaney(22050, 1024, 80, 0, 8000) @ spectrum(centred(x, 1024), 1024, 256,
                                                     window=symmetric)
    return np.log(mel + 1e-5)


def whisper(x):
    energies = spectrum(centred(x, 400), 400, 160)[:, :-1] ** 2
    logs = np.log10(np.maximum(slaney(16000, 400, 80, 0, 8000) @ energies, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


# profile: (its reference, sample rate, hop, whether a frame has its middle half a hop later)
REFERENCES = {
    'weixsong': (weixsong, 22050, 256, False), 'tacotron2': (tacotron2, 22050, 256, False),
    'hifigan': (hifigan, 22050, 256, True), 'bigvgan_24k': (bigvgan_24k, 24000, 256, True),
    'bigvgan_44k': (bigvgan_44k, 44100, 512, True), 'vocos': (vocos, 24000, 256, False),
    'f5': (f5, 24000, 256, False), 'espnet': (espnet, 22050, 256, False),
    'espnet_24k': (espnet_24k, 24000, 300, False), 'tacotron': (tacotron, 20000, 250, False),
    'rayhane': (rayhane, 22050, 275, False), 'coqui': (coqui, 22050, 256, False),
    'nemo': (nemo, 22050, 256, False), 'whisper': (whisper, 16000, 160, False)}


def test_every_profile_has_a_reference():
    assert sorted(REFERENCES) == sorted(PROFILES)


@pytest.mark.parametrize('name', sorted(REFERENCES))
def test_a_profile_is_what_its_project_computes(name):
    """To 1e-4 where the mel is above the floor, and in most of it."""
    reference, rate, hop, _ = REFERENCES[name]
    audio = audio_files.read_wav(SPEECH, rate)[rate // 4:rate + 77]      # no multiple of a hop
    expected = reference(audio.astype(np.float64)).T
    mel = mel_transform.mel_spectrogram(audio, PROFILES[name])
    assert mel.shape == expected.shape and mel.dtype == np.float32
    np.testing.assert_allclose(mel, expected, rtol=0, atol=1e-4)
    assert np.mean(expected > expected.min()) > 0.7 and expected.std() > 0.1


@pytest.mark.parametrize('name', sorted(REFERENCES))
def test_a_frame_stands_where_its_definition_says(name):
    """A click is loudest in the frame whose middle is nearest."""
    _, rate, hop, later = REFERENCES[name]
    d = PROFILES[name]
    assert d.sample_rate == rate and d.hop_length == hop
    audio = np.zeros(40 * hop, np.float32)
    for frame in (9, 21):
        audio[:] = 0
        audio[frame * hop + (hop // 2 if later else 0)] = 0.5
        mel = mel_transform.mel_magnitudes(mel_transform.mel_spectrogram(audio, d), d)
        assert np.argmax(mel.sum(axis=1)) == frame
    assert d.edge == d.n_fft // 2 - (hop // 2 if later else 0)


# --- What is left to the reader -------------------------------------------------------------------

@pytest.mark.parametrize('name', ['weixsong', 'tacotron2', 'hifigan', 'rayhane', 'whisper'])
@pytest.mark.parametrize('samples', [0, 1, 100, 511, 512, 513, 1023, 1024, 1025, 1026])
def test_mel_of_short_audio_is_that_of_audio_and_silence(name, samples):
    profile = definition(name)
    audio = speech()[8000:8000 + samples]
    mel = mel_transform.mel_spectrogram(audio, profile)
    assert mel.shape == (profile.n_frames(samples), 80) and np.isfinite(mel).all()
    filled = np.pad(audio, (0, max(0, profile.edge + 1 - samples)), mode='constant')
    longer = mel_transform.mel_spectrogram(filled, profile.replace(dynamic_range=0.0))
    plain = mel_transform.mel_spectrogram(audio, profile.replace(dynamic_range=0.0))
    np.testing.assert_allclose(plain, longer[:len(mel)], atol=1e-4)


@pytest.mark.parametrize('name, frames', [
    ('tacotron2', [1, 1, 2, 2, 5]), ('hifigan', [0, 0, 1, 1, 4]), ('rayhane', [1, 1, 1, 2, 4])])
def test_numbers_of_frames(name, frames):
    d = definition(name)
    assert [d.n_frames(n) for n in (0, 255, 256, 511, 1024)] == frames
    assert [d.replace(drop_last_frame=True).n_frames(n) for n in (0, 1024)] == [
        0, 1024 // d.hop_length]


@pytest.mark.parametrize('hop', [200, 275, 441])
@pytest.mark.parametrize('padding', ['center', 'same'])
def test_any_hop(hop, padding):
    """Also where padding is no whole number of samples a side."""
    d = definition('tacotron2').replace(hop_length=hop, padding=padding)
    audio = speech(1).astype(np.float64)
    left = 512 if padding == 'center' else (1024 - hop) // 2
    padded = np.pad(audio, (left, 1024), 'reflect')
    expected = np.log(np.maximum(1e-5, slaney(16000, 1024, 80, 0, 8000)
                                 @ spectrum(padded, 1024, hop))).T
    mel = mel_transform.mel_spectrogram(audio, d)
    assert len(mel) == len(audio) // hop + (padding == 'center')
    inner = len(audio) // hop - 512 // hop - 1          # those that no padding after the end enters
    np.testing.assert_allclose(mel[:inner], expected[:inner], atol=1e-4)


@pytest.mark.parametrize('name', sorted(PROFILES))
def test_magnitudes_are_the_inverse_of_values(name):
    """Also with statistics; what the floor and the range cut off stays cut off."""
    rng = np.random.RandomState(0)
    d = PROFILES[name]
    d = d.replace(mean=tuple(rng.randn(d.n_mels)), scale=tuple(0.5 + rng.rand(d.n_mels)))
    magnitudes = np.exp(rng.uniform(-4, 0, [50, d.n_mels])) ** d.power
    values = mel_transform.mel_values(magnitudes, d)
    np.testing.assert_allclose(mel_transform.mel_magnitudes(values, d), magnitudes, rtol=1e-4)
    plain = mel_transform.mel_values(magnitudes, d.replace(mean=(), scale=()))
    np.testing.assert_allclose(values, (plain - np.array(d.mean)) / np.array(d.scale), atol=1e-5)
    again = mel_transform.mel_magnitudes(mel_transform.silence(3, d), d)
    assert again.shape == (3, d.n_mels) and np.ptp(again, axis=0).max() == 0
    assert again.max() <= max(d.floor, 1e-4) * 1.001


@pytest.mark.slow     # librosa takes seconds to be imported
@pytest.mark.parametrize('rate', [16000, 22050, 24000, 44100])
@pytest.mark.parametrize('name', ['weixsong', 'tacotron2', 'vocos', 'whisper'])
def test_mel_basis_is_that_of_librosa(name, rate):
    d = definition(name, rate)
    reference = librosa.filters.mel(sr=rate, n_fft=d.n_fft, n_mels=d.n_mels, fmin=d.fmin,
                                    fmax=d.fmax or rate / 2, htk=d.mel_scale == 'htk',
                                    norm='slaney' if d.mel_norm == 'slaney' else None)
    basis = mel_transform.mel_basis(d)
    assert basis.dtype == np.float32 and basis.flags['C_CONTIGUOUS']
    # to a rounding or two: NumPy's logarithm of one number and of many may differ in the last bit
    np.testing.assert_allclose(basis, reference.T, rtol=1e-6, atol=1e-9)


def test_mel_leaves_its_input_alone():
    audio = speech(1)
    before = audio.copy()
    mel = mel_transform.mel_spectrogram(audio, definition('weixsong'))
    np.testing.assert_array_equal(audio, before)
    kept = mel.copy()
    mel_transform.mel_magnitudes(mel, definition('weixsong'))
    mel_transform.mel_values(mel, definition('weixsong'))
    np.testing.assert_array_equal(mel, kept)
