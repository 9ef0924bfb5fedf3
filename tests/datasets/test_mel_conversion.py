"""Mels of other definitions as those of a model, against the mels of the same audio."""
import numpy as np
import pytest
import soxr
from speech import definition, speech

from datasets.mel_conversion import MelConversion
from datasets.mel_definition import PROFILES
from datasets.mel_transform import mel_magnitudes, mel_spectrogram, mel_values

MODEL = definition('tacotron2')


def at_rate(audio, rate):
    return audio if rate == 16000 else soxr.resample(audio, 16000, rate)


def both(audio, source, target=MODEL):
    """(the mel converted, the mel of the audio by the target), of the frames that both have."""
    mel = mel_spectrogram(at_rate(audio, source.sample_rate), source)
    converted = MelConversion(source, target)(mel)
    expected = mel_spectrogram(at_rate(audio, target.sample_rate), target)
    frames = min(len(converted), len(expected))
    assert frames >= len(expected) - 1
    return converted[:frames], expected[:frames]


def test_what_stands_after_the_bands_converts_exactly():
    statistics = dict(mean=tuple(np.linspace(-2, -1, 80)), scale=tuple(np.linspace(0.3, 0.8, 80)))
    source = MODEL.replace(log='10', gain=0.25, offset=1.0, floor=1e-7, fmax=0.0, **statistics)
    converted, expected = both(speech(2.0), source)
    np.testing.assert_allclose(converted, expected, atol=2e-5)


@pytest.mark.parametrize('source, distance', [
    (definition('vocos'), 0.08), (definition('nemo'), 0.05), (definition('weixsong'), 0.12),
    (PROFILES['tacotron2'], 0.18), (PROFILES['vocos'], 0.27),
    (definition('tacotron2').replace(power=2, floor=1e-10), 0.2)])
def test_speech(source, distance):
    """Log-mel L1; an interpolation without NNLS and level has .3, other mels 1 and more."""
    converted, expected = both(speech(3.0), source)
    assert np.mean(np.abs(converted - expected)) < distance


def test_power_two_is_a_target_too():
    target = definition('tacotron2').replace(power=2, floor=1e-10)
    for source in (MODEL, PROFILES['tacotron2']):
        converted, expected = both(speech(2.0), source, target)
        assert np.mean(np.abs(converted - expected)) < 0.45


@pytest.mark.parametrize('name', ['espnet_24k', 'tacotron2', 'tacotron', 'rayhane'])
def test_noise_keeps_its_level(name):
    source = PROFILES[name].replace(clip_min=0.0, clip_max=0.0)
    noise = 0.1 * np.random.RandomState(0).standard_normal(48000).astype(np.float32)
    converted, expected = both(noise, source)
    inner = slice(5, 70)            # within 80 to 7600 Hz
    found = (converted - expected)[4:-4, inner].mean(axis=0)
    assert np.abs(found).max() < 0.12       # 1 dB


def test_preemphasis_is_undone_and_done():
    emphasized = MODEL.replace(preemphasis=0.97)
    for source, target in ((emphasized, MODEL), (MODEL, emphasized)):
        converted, expected = both(speech(2.0), source, target)
        assert np.mean(np.abs(converted - expected)) < 0.12


@pytest.mark.parametrize('source', [
    PROFILES['tacotron2'], PROFILES['hifigan'], PROFILES['espnet_24k'], definition('hifigan'),
    PROFILES['bigvgan_44k'], definition('rayhane')])
@pytest.mark.parametrize('padding', ['center', 'same'])
def test_a_click_stays_where_it_is(source, padding):
    target = MODEL.replace(padding=padding)
    audio = np.zeros(16000, np.float32)
    click = 8128                                    # between the middles of two frames
    audio[click] = 0.9
    conversion = MelConversion(source, target)
    mel = mel_spectrogram(at_rate(audio, source.sample_rate), source)
    power = np.square(mel_magnitudes(conversion(mel), target)).sum(axis=1)
    middle = np.sum(np.arange(len(power)) * power) / power.sum()
    found = middle * target.hop_length + (128 if padding == 'same' else 0) - conversion.skip
    assert abs(found - click) < 32                  # 2 ms


def test_padding_alone_shifts_and_does_not_interpolate():
    same, center = definition('hifigan'), MODEL
    mel = np.random.RandomState(0).standard_normal([9, 80]).astype(np.float32) - 5
    later = MelConversion(same, center)
    assert later.skip == 128 and later.n_frames(9) == 10
    np.testing.assert_allclose(later(mel), np.concatenate([mel[:1], mel]), atol=1e-5)
    earlier = MelConversion(center, same)
    assert earlier.skip == 128 and earlier.n_frames(9) == 10
    np.testing.assert_allclose(earlier(mel), np.concatenate([mel, mel[-1:]]), atol=1e-5)


@pytest.mark.parametrize('source', [
    PROFILES['tacotron2'], definition('hifigan'), definition('vocos'), PROFILES['bigvgan_44k'],
    PROFILES['whisper'], PROFILES['rayhane']])
def test_pieces_are_the_whole(source):
    conversion = MelConversion(source, MODEL)
    mel = mel_spectrogram(at_rate(speech(1.5), source.sample_rate), source)
    whole = conversion(mel)
    assert len(whole) == conversion.n_frames(len(mel))
    samples = len(mel) * source.hop_length * 16000 / source.sample_rate
    assert abs(conversion.n_samples(len(mel)) - samples) < 1
    for size in (1, 7, 200):
        stream = conversion.start()
        pieces = [stream.push(mel[i:i + size]) for i in range(0, len(mel), size)]
        pieces.append(stream.push(mel[:0], ended=True))
        assert max(map(len, pieces[1:-1] or pieces)) <= 2 * size + 2    # they come as they can
        np.testing.assert_allclose(np.concatenate(pieces), whole, atol=2e-5)


def test_pieces_are_the_whole_of_a_target_with_a_range():
    mel = mel_spectrogram(speech(1.0), MODEL)
    mel[:20] -= 3
    conversion = MelConversion(MODEL, PROFILES['whisper'])
    stream = conversion.start()
    pieces = [stream.push(mel[:20]), stream.push(mel[20:], ended=True)]
    np.testing.assert_allclose(np.concatenate(pieces), conversion(mel), atol=2e-5)


def test_nothing_of_nothing():
    conversion = MelConversion(PROFILES['tacotron2'], MODEL)
    assert conversion(np.zeros([0, 80], np.float32)).shape == (0, 80)
    assert conversion(np.zeros([1, 80], np.float32)).shape == (1, 80)


def test_bands_that_are_missing_are_quieter_than_their_neighbours():
    converted, expected = both(speech(2.0), definition('espnet'))
    assert np.mean(converted[:, 0]) < np.mean(converted[:, 2]) - 2
    assert np.mean(np.abs(converted[:, 78:] - expected[:, 78:])) < 1.0
    silent = mel_values(np.zeros([3, 80]), definition('espnet'))
    np.testing.assert_allclose(MelConversion(definition('espnet'), MODEL)(silent), np.log(1e-5),
                               atol=1e-5)


@pytest.mark.parametrize('source, told', [
    (definition('tacotron2'), []), (PROFILES['tacotron2'], []), (definition('vocos'), []),
    (definition('coqui'), ['clipped range']), (definition('espnet'), ['missing bands'] * 2),
    (PROFILES['bigvgan_44k'].replace(hop_length=1024), ['coarser time']),
    (definition('tacotron2').replace(n_mels=40), ['wider bands']),
    (PROFILES['whisper'], ['coarser frequencies']),
    (PROFILES['tacotron2'].replace(fmax=4000.0), ['missing bands'])])
def test_what_a_conversion_loses(source, told):
    assert [loss.split(':')[0] for loss in MelConversion(source, MODEL).losses()] == told
