"""Griffin-Lim inverts the mel spectrogram, as librosa's does."""
import librosa
import numpy as np
import pytest
from speech import definition, speech

from datasets import mel_transform
from synthesis.griffin_lim import griffin_lim, with_magnitudes

# every kind of padding, power, hop, scale and logarithm
PROFILES = 'weixsong', 'tacotron2', 'hifigan', 'vocos', 'rayhane', 'nemo', 'whisper'


@pytest.mark.parametrize('name, bound', [
    ('tacotron2', 0.23), ('weixsong', 0.019), ('hifigan', 0.23)])
def test_griffin_lim_inverts_the_mel(name, bound):
    profile = definition(name)
    mel = mel_transform.mel_spectrogram(speech(2.5), profile)
    audio = griffin_lim(mel, profile, n_iter=30)
    assert audio.shape == (len(mel) * 256,) and audio.dtype == np.float32
    again = mel_transform.mel_spectrogram(audio, profile)[:len(mel)]
    assert np.abs(again - mel)[2:-2].mean() < bound     # 0.20 and 0.0165 measured
    once = griffin_lim(mel, profile, n_iter=1)
    worse = mel_transform.mel_spectrogram(once, profile)[:len(mel)]
    assert np.abs(worse - mel)[2:-2].mean() > bound     # without iterating
    assert np.sqrt(np.mean(audio ** 2)) == pytest.approx(np.sqrt(np.mean(speech(2.5) ** 2)),
                                                        rel=0.15)


def test_griffin_lim_repeats_itself():
    profile = definition('tacotron2')
    mel = mel_transform.mel_spectrogram(speech(1), profile)
    first = griffin_lim(mel, profile, n_iter=3, seed=5)
    np.testing.assert_array_equal(first, griffin_lim(mel, profile, 3, 5))
    assert np.abs(first - griffin_lim(mel, profile, 3, 6)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('name', PROFILES)
def test_griffin_lim_of_a_frame_or_two(name):
    mel = mel_transform.mel_spectrogram(speech(1), definition(name))
    for n in (1, 2, 7):
        audio = griffin_lim(mel[20:20 + n], definition(name), n_iter=2)
        assert audio.shape == (n * definition(name).hop_length,) and np.isfinite(audio).all()


@pytest.mark.parametrize('name', PROFILES)
def test_griffin_lim_keeps_time_and_loudness(name):
    """A burst comes back where it was, and as loud, whatever the padding and the power."""
    d = definition(name)
    audio = np.zeros(16000, np.float32)
    audio[7000:7400] = 0.3 * np.sin(2 * np.pi * 700 / 16000 * np.arange(400))
    found = griffin_lim(mel_transform.mel_spectrogram(audio, d), d, n_iter=30)[:16000]
    energy = np.square(found, dtype=np.float64)
    middle = np.sum(energy * np.arange(len(found))) / np.sum(energy)
    assert abs(middle - 7200) < 40
    assert 0.5 < np.sqrt(energy.sum() / np.sum(np.square(audio, dtype=np.float64))) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize('n_fft', [1024, 2048])
def test_griffin_lim_is_that_of_librosa(n_fft):
    audio = speech(1)
    magnitudes = np.abs(librosa.stft(audio, n_fft=n_fft, hop_length=256, win_length=1024,
                                     pad_mode='reflect'))

    def distance(audio):
        """Of magnitudes, relative to those that were asked for."""
        again = np.abs(librosa.stft(audio, n_fft=n_fft, hop_length=256, win_length=1024,
                                    pad_mode='reflect'))
        return np.linalg.norm(again - magnitudes) / np.linalg.norm(magnitudes)

    first, reference = (librosa.griffinlim(
        magnitudes, n_iter=n, hop_length=256, win_length=1024, pad_mode='reflect',
        length=len(audio), random_state=3) for n in (1, 60))
    found = {n: with_magnitudes(magnitudes.T, 256, 1024, len(audio), n, seed=3) for n in (1, 60)}
    np.testing.assert_allclose(found[1], first, atol=1e-5)
    # rounding grows with every round, the quality stays
    assert distance(found[60]) == pytest.approx(distance(reference), rel=0.02)
    assert distance(found[60]) < 0.3 * distance(found[1])
