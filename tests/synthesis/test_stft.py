"""The transform and its inverse: librosa's, and each the inverse of the other."""
import librosa
import numpy as np
import pytest

from synthesis.stft import istft, overlap_add, stft

FRAMES = [(1024, 256, 1024), (2048, 256, 1024), (1024, 160, 640), (512, 200, 512)]
RNG = np.random.RandomState(0)


@pytest.mark.parametrize('n_fft, hop_length, win_length', FRAMES)
@pytest.mark.parametrize('center', [True, False])
def test_spectrum_is_that_of_librosa(n_fft, hop_length, win_length, center):
    audio = RNG.randn(10007).astype(np.float32)
    reference = librosa.stft(audio, n_fft=n_fft, hop_length=hop_length, win_length=win_length,
                             center=center, pad_mode='reflect')
    spectrum = stft(audio, n_fft, hop_length, win_length, center)
    assert spectrum.dtype == np.complex64
    np.testing.assert_allclose(spectrum, reference.T, atol=3e-5)


@pytest.mark.parametrize('n_fft, hop_length, win_length', FRAMES)
def test_inverse_of_any_spectrum_is_that_of_librosa(n_fft, hop_length, win_length):
    spectrum = np.zeros([20, 1 + n_fft // 2], np.complex64)
    spectrum += RNG.randn(*spectrum.shape) + 1j * RNG.randn(*spectrum.shape)
    length = 19 * hop_length
    reference = librosa.istft(spectrum.T, hop_length=hop_length, win_length=win_length,
                              length=length)
    audio = istft(spectrum, hop_length, win_length, length)
    assert audio.dtype == np.float32 and audio.shape == (length,)
    np.testing.assert_allclose(audio, reference, atol=1e-4 * np.abs(reference).max())


@pytest.mark.parametrize('dtype, atol', [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize('n_fft, hop_length, win_length', FRAMES)
def test_the_inverse_gives_the_audio_back(n_fft, hop_length, win_length, dtype, atol):
    audio = RNG.randn(10007).astype(dtype)
    found = istft(stft(audio, n_fft, hop_length, win_length), hop_length, win_length,
                  length=len(audio))
    assert found.dtype == dtype and found.shape == audio.shape
    whole = len(audio) // hop_length * hop_length       # behind it no frame has its middle
    np.testing.assert_allclose(found[:whole], audio[:whole], atol=atol)


def test_audio_shorter_than_a_frame():
    assert stft(np.zeros(1023, np.float32), 1024, 256, center=False).shape == (0, 513)
    assert stft(np.zeros(1024, np.float32), 1024, 256, center=False).shape == (1, 513)
    assert istft(np.zeros([3, 513], np.complex64), 256, length=5000).shape == (5000,)


@pytest.mark.parametrize('size, hop_length', [(8, 2), (8, 3), (4, 8), (5, 5)])
def test_overlap_add_by_hand(size, hop_length):
    frames, start = RNG.randn(6, size), RNG.randn(3)
    expected = np.zeros(5 * hop_length + size)
    expected[:3] = start
    for i, frame in enumerate(frames):
        expected[i * hop_length:i * hop_length + size] += frame
    np.testing.assert_allclose(overlap_add(frames, hop_length, start), expected, atol=1e-12)
