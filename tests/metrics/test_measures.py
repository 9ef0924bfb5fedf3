"""The measures of evaluate.py against answers known beforehand."""
import os

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from speech import WAVS

import params
from datasets import audio_files
from metrics import measures

HP = params.preset('small')
RATE = HP.sample_rate
SPEECH = audio_files.read_wav(os.path.join(WAVS, 'conf-invalid.wav'), RATE)
NOISE = 0.1 * np.random.RandomState(0).randn(20 * RATE).astype(np.float32)


def tones(n, size):
    """Sines of amplitude `size` at every multiple of RATE / n_group below half the rate."""
    t = np.arange(n) / RATE
    return size * sum(np.sin(2 * np.pi * k * RATE / HP.n_group * t + k)
                      for k in range(1, HP.n_group // 2)).astype(np.float32)


@pytest.mark.slow
def test_the_original_is_perfect():
    found = measures.compare(SPEECH, SPEECH, HP)
    assert found['pesq'] > 4.6 and abs(found['stoi'] - 1) < 1e-6
    assert found['mcd'] == found['log_mel_l1'] == found['f0_cents'] == found['voicing'] == 0


@pytest.mark.slow
def test_white_noise_is_no_speech():
    found = measures.compare(NOISE[:len(SPEECH)], SPEECH, HP)
    assert found['pesq'] < 1.2 and found['stoi'] < 0.5
    assert found['mcd'] > 10 and found['log_mel_l1'] > 1 and found['voicing'] > 20


@pytest.mark.slow
def test_worse_is_worse():
    """Noise of two levels below speech: every measure of quality orders them."""
    little, much = (measures.compare(SPEECH + gain * NOISE[:len(SPEECH)], SPEECH, HP)
                    for gain in (0.02, 0.2))
    assert little['pesq'] > much['pesq'] and little['stoi'] > much['stoi']
    assert little['mcd'] < much['mcd'] and little['log_mel_l1'] < much['log_mel_l1']


def test_silence_cannot_be_measured():
    silence = np.zeros_like(SPEECH)
    assert np.isnan(measures.pesq(SPEECH, silence, RATE))
    assert np.isnan(measures.stoi(SPEECH[:1000], SPEECH[:1000], RATE))


def test_pesq_resamples():
    other = scipy.signal.resample_poly(SPEECH, 441, 320).astype(np.float32)
    assert measures.pesq(other, other, 22050) > 4.6


@pytest.mark.parametrize('size', [0.0, 0.003, 0.01, 0.1])
def test_line_noise_of_tones_in_white_noise(size):
    """A tone of amplitude A has A^2 / 2 in its 5 bins of RATE / 2048; white noise of deviation s
    has 2 s^2 / RATE everywhere."""
    expected = 10 * np.log10(1 + size ** 2 / 2 / 5 * 2048 / (2 * 0.1 ** 2))
    found = measures.line_noise(NOISE + tones(len(NOISE), size), RATE, HP.n_group)
    assert abs(found - expected) < 0.3


def test_line_noise_of_tones_in_speech():
    clean, dirty = (measures.line_noise(SPEECH + tones(len(SPEECH), size), RATE, HP.n_group)
                    for size in (0, 0.003))
    assert abs(clean) < 2 and dirty > clean + 5
    assert np.isnan(measures.line_noise(SPEECH, RATE, 2))


def test_a_shift_in_pitch():
    """A voice of pulses a semitone higher; of 40 Hz, below any voice, in one half."""
    t = np.arange(2 * RATE) / RATE
    voice = [0.3 * scipy.signal.sawtooth(2 * np.pi * f * t).astype(np.float32)
             for f in (120, 120 * 2 ** (1 / 12))]
    low, high = (measures.f0(v, RATE) for v in voice)
    cents, voicing = measures.f0_errors(high, low)
    assert abs(cents - 100) < 5 and voicing < 5
    half = voice[0].copy()
    half[RATE:] = NOISE[:RATE]
    cents, voicing = measures.f0_errors(measures.f0(half, RATE), low)
    assert cents < 20 and abs(voicing - 50) < 10


def test_f0_errors_by_hand():
    nan = float('nan')
    cents, voicing = measures.f0_errors(np.array([100, 200, nan, 150]),
                                        np.array([200, 200, 90, nan]))
    assert abs(cents - 1200 / 2 ** 0.5) < 1e-9 and voicing == 50
    assert np.isnan(measures.f0_errors(np.array([nan]), np.array([nan]))[0])


def test_mel_distances_of_louder_audio():
    """Loudness is all in the coefficient that mel-cepstral distortion leaves out."""
    loud = NOISE[:RATE]
    assert abs(measures.log_mel_l1(2 * loud, loud, HP) - np.log(2)) < 1e-4
    assert measures.mel_cepstral_distortion(2 * loud, loud, HP) < 1e-4


@pytest.mark.parametrize('order', [1, 5, 24, 25])
def test_mel_cepstral_distortion_of_a_ripple(monkeypatch, order):
    """A ripple of 3 dB: its root mean square, for the orders compared."""
    ripple = 3 * np.log(10) / 20 * np.cos(np.pi * order * (np.arange(80) + 0.5) / 80)
    monkeypatch.setattr(measures, 'log_mel', lambda audio, hp: np.outer(np.ones(4), audio * ripple))
    found = measures.mel_cepstral_distortion(1.0, 0.0, HP)
    assert abs(found - (3 / 2 ** 0.5 if order <= measures.CEPSTRA else 0)) < 1e-6


def test_seed_mels_are_compared_as_natural_logarithms():
    hp = params.preset('weixsong')
    loud = 0.1 * np.random.RandomState(1).randn(hp.sample_rate).astype(np.float32)
    assert abs(measures.log_mel_l1(0.5 * loud, loud, hp) - np.log(2)) < 1e-2


def test_interval_of_a_mean():
    values = np.random.RandomState(0).randn(50) + 3
    mean, low, high = measures.interval(list(values) + [float('nan')])
    expected = scipy.stats.t.interval(0.95, 49, values.mean(), values.std(ddof=1) / 50 ** 0.5)
    assert mean == values.mean()
    np.testing.assert_allclose([low, high], expected, atol=0.03)
    assert measures.interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert np.isnan(measures.interval([float('nan')])[0])


@pytest.mark.parametrize('size, expected', [(0.0, 0.0), (0.5, 0.5)])
def test_comb_is_the_share_that_repeats_each_hop(size, expected):
    """Noise whose every hop is `size` of the one before and the rest anew."""
    fresh = np.random.RandomState(1).randn(500, HP.hop_length)
    hops = [fresh[0]]
    for each in fresh[1:]:
        hops.append(size * hops[-1] + np.sqrt(1 - size ** 2) * each)
    audio = np.concatenate(hops).astype(np.float32)
    assert measures.comb(audio, RATE, HP.hop_length) == pytest.approx(expected, abs=0.02)
    assert abs(measures.comb(audio, RATE, HP.hop_length + 37)) < 0.02
    assert np.isnan(measures.comb(audio, 6000, HP.hop_length))


def test_opinions_without_their_package_are_left_out(monkeypatch):
    monkeypatch.setattr(measures, 'dnsmos', None)
    assert not measures.has_mos() and measures.mos(SPEECH, RATE) == {}


@pytest.mark.slow
@pytest.mark.skipif(not measures.has_mos(), reason='speechmos is not installed')
def test_opinions_of_speech_and_of_noise():
    state = np.random.get_state()[1].copy()
    speech, again = (measures.mos(SPEECH, RATE) for _ in range(2))
    noise = measures.mos(NOISE[:len(SPEECH)], RATE)
    assert speech == again and sorted(speech) == sorted(measures.MOS)
    assert all(speech[key] > noise[key] + 0.5 for key in measures.MOS), (speech, noise)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
