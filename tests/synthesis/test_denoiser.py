"""The denoiser: nothing at strength 0, a stream like the whole, a tone of the model's own gone."""
import os

import numpy as np
import pytest
from speech import WAVS

import params
from datasets import audio_files
from synthesis import denoiser
from synthesis.denoiser import Denoiser
from synthesis.stft import window

HP = params.preset('small')
RNG = np.random.RandomState(0)
SPEECH = audio_files.read_wav(os.path.join(WAVS, 'conf-invalid.wav'), HP.sample_rate)


def tone(n):
    return 0.01 * np.sin(2 * np.pi * 1000 / HP.sample_rate * np.arange(n)).astype(np.float32)


class Humming:
    """A vocoder that adds a tone to what it vocodes."""
    hp = HP

    def vocode(self, mel, sigma, mel_correction):
        assert sigma == mel_correction == 0 and mel.shape[1] == HP.n_mels
        np.testing.assert_allclose(mel, np.log(1e-5), rtol=1e-6)        # silence, not zeros
        return tone(len(mel) * HP.hop_length)


@pytest.mark.parametrize('n', [0, 1, 255, 256, 1024, 5001])
def test_strength_0_changes_nothing(n):
    audio = RNG.randn(n).astype(np.float32)
    found = Denoiser(np.ones(513), 0)(audio)
    assert found.shape == audio.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, audio, atol=2e-6)


def test_a_stream_is_the_whole():
    denoise, audio = Denoiser(5 * RNG.rand(513), 1), RNG.randn(20001).astype(np.float32)
    whole, starts = denoise(audio), [0]
    while starts[-1] < len(audio):
        starts.append(starts[-1] + RNG.randint(0, 1500))
    blocks = list(denoise.stream(audio[a:b] for a, b in zip(starts, starts[1:])))
    assert len(blocks) > 5 and np.std(whole - audio) > 0.1
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_stream_is_three_hops_behind():
    came = []

    def blocks():
        for _ in range(20):
            came.append(256)
            yield np.ones(256, np.float32)

    gone = 0
    for block in Denoiser(np.zeros(513), 1).stream(blocks()):
        gone += len(block)
        if sum(came) < 20 * 256:
            assert gone == sum(came) - 768
    assert gone == 20 * 256


def test_takes_the_tone_of_a_model_out_and_leaves_the_speech():
    hum = tone(len(SPEECH))
    denoise = Denoiser.from_vocoder(Humming(), 1.0)
    left = denoise(hum)
    assert np.std(left[2000:-2000]) < 1e-3 * np.std(hum)
    clean = denoise(SPEECH + hum)
    assert np.std(clean - SPEECH) < 0.5 * np.std(hum)
    weak = Denoiser.from_vocoder(Humming(), 0.1)(hum)
    np.testing.assert_allclose(np.std(weak[2000:-2000]), 0.9 * np.std(hum[2000:-2000]), rtol=1e-3)


def test_subtracts_magnitudes_and_keeps_phases():
    audio = np.zeros(4096, np.float32)
    audio[2048] = 1
    found = Denoiser(np.full(513, 0.25), 1)(audio)
    # each frame of an impulse has magnitudes of its window there, and no others
    at = window(denoiser.SIZE)[2048 % denoiser.HOP::denoiser.HOP]
    expected = np.sum(at * np.maximum(at - 0.25, 0)) / denoiser.OVERLAP
    np.testing.assert_allclose(found[2048], expected, rtol=1e-5)
    assert np.abs(np.delete(found, 2048)).max() < 1e-6
