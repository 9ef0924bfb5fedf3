"""The mel correction: nothing in 0 rounds or where nothing is wrong, nearer with every round."""
import os

import numpy as np
import pytest
from speech import WAVS

import params
from datasets import audio_files, mel_transform
from synthesis import mel_correction
from synthesis.mel_correction import MelCorrection

PROFILES = 'weixsong', 'tacotron2'


def speech(mel_profile):
    hp = params.preset('small').replace(mel_profile=mel_profile)
    audio = audio_files.read_wav(os.path.join(WAVS, 'conf-invalid.wav'), hp.sample_rate)
    mel = mel_transform.mel_spectrogram(audio, hp.mel)
    frames = min(len(mel), len(audio) // hp.hop_length)
    return hp, audio[:frames * hp.hop_length], mel[:frames]


def distance(audio, mel, hp):
    again = mel_transform.mel_spectrogram(audio, hp.mel)[:len(mel)]
    found, wanted = (np.log(np.maximum(mel_transform.mel_magnitudes(m, hp.mel),
                                       1e-5)) for m in (again, mel))
    return np.mean(np.abs(found - wanted))


@pytest.mark.parametrize('profile', PROFILES)
def test_what_has_its_mel_stays(profile):
    hp, audio, mel = speech(profile)
    np.testing.assert_array_equal(MelCorrection(hp, 0)(audio, mel), audio)
    found = MelCorrection(hp, 3)(audio, mel)
    assert found.dtype == np.float32 and found.shape == audio.shape
    assert np.sum((found - audio) ** 2) < 1e-3 * np.sum(audio ** 2)


@pytest.mark.parametrize('profile', PROFILES)
def test_every_few_rounds_come_nearer(profile):
    hp, audio, mel = speech(profile)
    noise = 0.1 * np.random.RandomState(0).randn(len(audio)).astype(np.float32)
    found = [distance(MelCorrection(hp, n)(noise, mel), mel, hp) for n in (0, 1, 4, 16)]
    assert found[0] > 2 and found[1] < 1.7 and found[2] < 0.25 and found[3] < 0.13, found


def test_pitch_and_phase_stay_those_of_the_audio():
    """A tone between the bands' centres, asked for 6 dB louder, gets louder, and stays a tone."""
    hp = params.preset('small')
    t = np.arange(100 * hp.hop_length) / hp.sample_rate
    tone = 0.1 * np.sin(2 * np.pi * 1010 * t).astype(np.float32)
    mel = mel_transform.mel_spectrogram(2 * tone, hp.mel)[:100]
    inner = slice(3000, -3000)
    found = MelCorrection(hp, 4)(tone, mel)
    np.testing.assert_allclose(found[inner], 2 * tone[inner], atol=4e-3)


@pytest.mark.parametrize('frames', [1, 2, 5, 30])
def test_short_audio(frames):
    hp, audio, mel = speech('tacotron2')
    audio = audio[:frames * hp.hop_length]
    found = MelCorrection(hp, 2)(audio, mel[:frames])
    assert found.shape == audio.shape and np.isfinite(found).all()


def test_blocks_give_what_the_whole_gives(monkeypatch):
    hp, audio, mel = speech('tacotron2')
    noise = 0.1 * np.random.RandomState(1).randn(len(audio)).astype(np.float32)
    whole = MelCorrection(hp, 3)(noise, mel)
    monkeypatch.setattr(mel_correction, 'BLOCK_FRAMES', 37)
    np.testing.assert_allclose(MelCorrection(hp, 3)(noise, mel), whole, atol=1e-5)
