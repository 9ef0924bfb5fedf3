"""Mels of other definitions through a vocoder, and mel correction at the rate of the mel."""
import os

import numpy as np
import pytest
import soxr
from conftest import ROOT
from graphs import TINY, random_weights
from speech import definition, speech

from datasets.mel_definition import PROFILES
from datasets.mel_transform import mel_spectrogram
from errors import UserError
from synthesis import foreign_mels
from vocoder import Vocoder

RATE = 16000        # Hz, of the speech and of TINY


def at_rate(audio, rate):
    return audio if rate == RATE else soxr.resample(audio, RATE, rate)


def mel_of(audio, profile):
    return mel_spectrogram(at_rate(audio, profile.sample_rate), profile)


def spoilt(audio):
    """Audio with another spectrum and another level."""
    return 0.25 * (audio + 0.8 * np.roll(audio, 1)).astype(np.float32)


@pytest.mark.parametrize('profile', [
    PROFILES['tacotron2'], PROFILES['hifigan'], PROFILES['espnet_24k'], PROFILES['whisper']])
def test_correction_at_the_rate_of_the_mel(profile):
    audio = speech(1.5)
    mel = mel_of(audio, profile)
    correction = foreign_mels.correction(profile, 3, RATE)

    def distance(audio):
        inner = mel[:, :int(0.9 * profile.n_mels)]
        return np.abs(mel_of(audio, profile)[:, :inner.shape[1]] - inner).mean()

    corrected = correction(spoilt(audio), mel)
    assert corrected.shape == audio.shape
    assert distance(corrected) < 0.3 * distance(spoilt(audio))


@pytest.mark.parametrize('profile', [PROFILES['tacotron2'], definition('tacotron2', 8000).replace(
    fmax=4000.0)])
def test_correction_of_blocks_is_that_of_the_whole(profile):
    audio = spoilt(speech(1.2))
    mel = mel_of(speech(1.2), profile)
    correction = foreign_mels.correction(profile, 2, RATE)
    whole = correction(audio, mel)
    for size in (333, 5000):
        stream, done = correction.start(), []
        stream.expect(mel)
        for first in range(0, len(audio), size):
            done.append(stream.push(audio[first:first + size]))
            assert first + size - sum(map(len, done)) <= correction.latency + size
        done.append(stream.end())
        np.testing.assert_allclose(np.concatenate(done), whole, atol=2e-6)


def test_correction_keeps_what_the_rate_of_the_mel_cannot_hold():
    profile = definition('tacotron2', 8000).replace(fmax=4000.0)
    audio = speech(1.0)
    corrected = foreign_mels.correction(profile, 3, RATE)(spoilt(audio), mel_of(audio, profile))
    before, after = (np.abs(np.fft.rfft(x))[:len(x) // 2] for x in (spoilt(audio), corrected))
    half = len(before) // 2
    above = slice(half + half // 10, None)
    np.testing.assert_allclose(after[above], before[above], atol=1e-3 * before.max())
    assert after[:half].sum() > 1.3 * before[:half].sum()


def test_correction_of_nothing_and_at_the_same_rate():
    assert not isinstance(foreign_mels.correction(definition('vocos'), 3, RATE),
                          foreign_mels.ResampledCorrection)
    audio = speech(0.5)
    none = foreign_mels.correction(PROFILES['tacotron2'], 0, RATE)
    assert none(audio, mel_of(audio, PROFILES['tacotron2'])) is audio


@pytest.mark.slow
@pytest.mark.parametrize('changes', [dict(gen_correction_rounds=2),
                                     dict(causal=True, kernel_size=2)])
def test_streams_and_batches_are_the_whole(changes):
    hp = TINY.replace(**changes)
    vocoder = Vocoder(hp, random_weights(hp), chunk_frames=3)
    for profile in (PROFILES['tacotron2'], definition('hifigan'), PROFILES['vocos'],
                    PROFILES['bigvgan_44k']):
        mel = mel_of(speech(0.6), profile)
        whole = vocoder.vocode(mel, profile=profile)
        samples = len(mel) * profile.hop_length * RATE // profile.sample_rate
        assert whole.shape == (samples,)
        for pieces in ([mel[:1], mel[1:9], mel[9:]], [mel[i:i + 1] for i in range(len(mel))]):
            found = np.concatenate(list(vocoder.stream(pieces, profile=profile)))
            assert np.abs(found - whole).max() < 2e-5 * np.abs(whole).max()
        batch = vocoder.vocode_batch([mel, mel[:7]], profile=profile)
        assert np.abs(batch[0] - whole).max() < 2e-5 * np.abs(whole).max()
        assert len(batch[1]) == 7 * profile.hop_length * RATE // profile.sample_rate


@pytest.mark.slow
def test_the_bundled_voice_speaks_mels_of_others():
    """At the time of the front end, and as near to its mel as to one of its own."""
    vocoder = Vocoder.load(os.path.join(ROOT, 'samples', 'model'))
    audio = speech(2.0)

    def distance(found):
        found = np.pad(found, (0, max(0, len(audio) - len(found))), mode='constant')[:len(audio)]
        mels = [mel_spectrogram(x, vocoder.hp.mel) for x in (found, audio)]
        return np.abs(mels[0] - mels[1])[2:-3].mean()

    own = distance(vocoder.vocode(mel_of(audio, vocoder.hp.mel)))
    for name in ('tacotron2', 'hifigan', 'espnet_24k', 'vocos'):
        mel = mel_of(audio, PROFILES[name])
        found = vocoder.vocode(mel, profile=name)
        assert distance(found) < own + 0.1
        assert distance(np.roll(found, 128)) > own + 0.1       # half a frame late


def test_a_profile_that_is_none():
    vocoder = Vocoder(TINY, random_weights(TINY))
    mel = np.full([4, 80], -5, np.float32)
    with pytest.raises(UserError, match="no mel profile tacotron3; did you mean 'tacotron'"):
        vocoder.vocode(mel, profile='tacotron3')
    with pytest.raises(UserError, match='frames x 100, not of 4 x 80'):
        vocoder.vocode(mel, profile='vocos')
    # the model's own, by name or not
    np.testing.assert_array_equal(vocoder.vocode(mel, profile=TINY.mel), vocoder.vocode(mel))
