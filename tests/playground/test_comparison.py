"""What a page computes of an input: the audio of both systems, progress, and where it stops."""
import io

import numpy as np
import pytest
from graphs import TINY, random_weights
from speech import definition, speech

from datasets.mel_transform import mel_spectrogram
from errors import UserError
from metrics import pictures
from playground import comparison
from playground.comparison import Comparison, Settings
from playground.inputs import Given
from synthesis.denoiser import Denoiser
from synthesis.griffin_lim import griffin_lim
from vocoder import Vocoder

SETTINGS = Settings(sigma=0.5, seed=3, mel_correction=1, denoiser_strength=0.0)


@pytest.fixture(scope='module')
def vocoder():
    return Vocoder(TINY, random_weights(TINY), chunk_frames=20)


def given_speech(seconds, of=TINY.mel):
    audio = speech(seconds)
    return Given('a', mel_spectrogram(audio, of), of, audio)


def test_audio_is_that_of_the_library(vocoder):
    given = given_speech(1.5)
    *progress, found = comparison.compare(given, vocoder, SETTINGS)
    expected = vocoder.vocode(given.mel, 0.5, 3, 1)
    assert np.abs(found.waveglow.audio - expected).max() < 1e-5
    assert np.array_equal(found.griffin_lim.audio, griffin_lim(given.mel, TINY.mel, seed=3))
    assert found.original.audio is given.audio
    done = [each.seconds for each in progress if each.system == comparison.WAVEGLOW]
    assert len(done) > 3 and done[0] == 0 and done == sorted(done)
    assert done[-1] == progress[0].total == given.seconds
    assert progress[-1].system == comparison.GRIFFIN_LIM
    assert progress[-1].seconds == progress[-1].total


@pytest.mark.slow
def test_settings_reach_the_model(vocoder):
    given = given_speech(0.5)

    def audio(**changes):
        return list(comparison.compare(given, vocoder, SETTINGS._replace(**changes)))[-1][2].audio

    usual = audio()
    denoiser = Denoiser.from_vocoder(vocoder, 2.0)
    for changes, expected in (
            (dict(sigma=0.2), vocoder.vocode(given.mel, 0.2, 3, 1)),
            (dict(seed=4), vocoder.vocode(given.mel, 0.5, 4, 1)),
            (dict(mel_correction=0), vocoder.vocode(given.mel, 0.5, 3, 0)),
            (dict(denoiser_strength=2.0), vocoder.vocode(given.mel, 0.5, 3, 1, denoiser))):
        found = audio(**changes)
        assert np.abs(found - expected).max() < 1e-5 < 1e-3 < np.abs(found - usual).max(), changes


def test_a_mel_of_another_rate(vocoder):
    other = definition('hifigan', 22050)
    given = Given('a', mel_spectrogram(speech(1), other), other)
    found = list(comparison.compare(given, vocoder, SETTINGS))[-1]
    assert found.original.audio is None
    assert found.waveglow.sample_rate == 16000 and found.griffin_lim.sample_rate == 22050
    assert abs(len(found.waveglow.audio) / 16000 - given.seconds) < 1e-3
    assert len(found.griffin_lim.audio) == len(given.mel) * other.hop_length


def test_it_stops_where_nobody_asks_for_more(vocoder, monkeypatch):
    asked = []
    run_block = vocoder._run_block
    monkeypatch.setattr(vocoder, '_run_block', lambda *args: asked.append(1) or run_block(*args))
    running = comparison.compare(given_speech(2), vocoder, SETTINGS)
    next(running), next(running)
    before = len(asked)
    running.close()
    assert len(asked) == before < 4


def test_griffin_lim_in_pieces_has_the_mel_of_the_whole(monkeypatch):
    mel = mel_spectrogram(speech(2), TINY.mel)
    monkeypatch.setattr(comparison, 'PIECE_SECONDS', 0.5)
    pieces = list(comparison.griffin_lim_pieces(mel, TINY.mel, 0))
    assert len(pieces) == 4
    audio = np.concatenate(pieces)
    assert len(audio) == len(mel) * TINY.hop_length

    def distance(audio):
        return np.mean(np.abs(mel_spectrogram(audio, TINY.mel)[:len(mel)] - mel))

    assert distance(audio) < 1.25 * distance(griffin_lim(mel, TINY.mel))
    monkeypatch.setattr(comparison, 'PIECE_SECONDS', 2.0)
    whole, = comparison.griffin_lim_pieces(mel, TINY.mel, 0)
    assert np.array_equal(whole, griffin_lim(mel, TINY.mel))


def test_pictures_share_their_colours():
    import matplotlib.image
    mel = mel_spectrogram(speech(1), TINY.mel)
    levels = pictures.colour_range(mel)

    def brightness(mel):
        png = matplotlib.image.imread(io.BytesIO(pictures.panel_png(mel, levels, 0.016)))
        return png[40:240, 60:580, :3].mean()

    assert brightness(mel + 1) > brightness(mel) + 0.05 > brightness(mel - 1) + 0.1


def test_refusals(vocoder):
    for changes, said in ((dict(sigma=-1), 'sigma must be at least 0'),
                          (dict(sigma=float('nan')), 'sigma must be at least 0'),
                          (dict(seed=-1), 'the seed must be at least 0'),
                          (dict(mel_correction=10 ** 6), 'rounds of mel correction must be'),
                          (dict(denoiser_strength=None), 'strength of the denoiser must be')):
        with pytest.raises(UserError, match=said):
            list(comparison.compare(given_speech(0.3), vocoder, SETTINGS._replace(**changes)))


def test_audio_that_is_not_finite(vocoder, monkeypatch):
    monkeypatch.setattr(vocoder, '_run_block', lambda z, cond, position, last, states: (
        np.full(z.size, np.nan, np.float32), states))
    with pytest.raises(UserError, match='samples that are not finite'):
        list(comparison.compare(given_speech(0.3), vocoder, SETTINGS))


def test_a_comparison_tells_what_was_clipped(vocoder):
    found = list(comparison.compare(given_speech(0.5), vocoder, SETTINGS._replace(sigma=9)))[-1]
    assert isinstance(found, Comparison)
    assert found.clipped == np.count_nonzero(np.abs(found.waveglow.audio) > 1)
