"""The mel correction: nothing in 0 rounds or where nothing is wrong, nearer with every round.

It is the same of streams, and as a graph.
"""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from speech import WAVS

from datasets import audio_files, mel_transform
from datasets.mel_definition import PROFILES, MelDefinition
from errors import UserError
from synthesis import mel_correction_graph
from synthesis.mel_correction import MelCorrection, round_of

# Every kind of padding, floor, scale and power, hops that do not divide the window, statistics.
KINDS = {name: PROFILES[name] for name in ('weixsong', 'tacotron2', 'rayhane', 'nemo', 'whisper')}
KINDS.update(hifigan=PROFILES['hifigan'].replace(sample_rate=16000),
             odd=MelDefinition(sample_rate=16000, win_length=999, hop_length=300, padding='same',
                               mean=(-5.0,) * 80, scale=(2.0,) * 80))


def speech(kind):
    definition = KINDS[kind].replace(sample_rate=16000)
    if definition.fmax > 8000:
        definition = definition.replace(fmax=0.0)
    audio = audio_files.read_wav(os.path.join(WAVS, 'conf-invalid.wav'), 16000)
    mel = mel_transform.mel_spectrogram(audio, definition)
    frames = min(len(mel), len(audio) // definition.hop_length)
    return definition, audio[:frames * definition.hop_length], mel[:frames]


def distance(audio, mel, definition):
    """Mean distance of natural logarithms of mel magnitudes."""
    again = mel_transform.mel_spectrogram(audio, definition)[:len(mel)]
    found, wanted = (np.log(np.maximum(mel_transform.mel_magnitudes(m, definition),
                                       round_of(definition).least)) / definition.power
                     for m in (again, mel))
    return np.mean(np.abs(found - wanted))


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_what_has_its_mel_stays(kind):
    definition, audio, mel = speech(kind)
    np.testing.assert_array_equal(MelCorrection(definition, 0)(audio, mel), audio)
    found = MelCorrection(definition, 3)(audio, mel)
    assert found.dtype == np.float32 and found.shape == audio.shape
    assert np.sum((found - audio) ** 2) < 2e-3 * np.sum(audio ** 2)


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_every_few_rounds_come_nearer(kind):
    definition, audio, mel = speech(kind)
    noise = 0.1 * np.random.RandomState(0).randn(len(audio)).astype(np.float32)
    found = [distance(MelCorrection(definition, n)(noise, mel), mel, definition)
             for n in (0, 1, 4, 16)]
    assert found[0] > 1.5 and found[1] < 1.7 and found[2] < 0.25 and found[3] < 0.13, found


def test_pitch_and_phase_stay_those_of_the_audio():
    """A tone between the bands' centres, asked for 6 dB louder, gets louder, and stays a tone."""
    definition = KINDS['tacotron2'].replace(sample_rate=16000)
    t = np.arange(100 * definition.hop_length) / definition.sample_rate
    tone = 0.1 * np.sin(2 * np.pi * 1010 * t).astype(np.float32)
    mel = mel_transform.mel_spectrogram(2 * tone, definition)[:100]
    inner = slice(3000, -3000)
    found = MelCorrection(definition, 4)(tone, mel)
    np.testing.assert_allclose(found[inner], 2 * tone[inner], atol=4e-3)


@pytest.mark.parametrize('kind', sorted(KINDS))
@pytest.mark.parametrize('frames', [1, 2, 3, 100])
def test_blocks_of_any_sizes_give_what_the_whole_gives(frames, kind):
    definition, audio, mel = speech(kind)
    hop = definition.hop_length
    noise = 0.1 * np.random.RandomState(1).randn(frames * hop).astype(np.float32)
    correction = MelCorrection(definition, 3)
    whole = correction(noise, mel[:frames])
    assert whole.shape == noise.shape and np.isfinite(whole).all()
    assert np.abs(whole - noise).max() > 0.01
    for size in 13, 256, 1500:
        stream, found, expected = correction.start(), [], 0
        for start in range(0, len(noise), size):
            end = min(start + size, len(noise))
            frame = -(-end // hop)                          # its mel comes when its audio does
            stream.expect(mel[expected:frame])
            expected = frame
            found.append(stream.push(noise[start:end]))
            assert end - sum(map(len, found)) < correction.latency + size, start
        found.append(stream.end())
        np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-6)


def test_an_empty_utterance_stays_empty():
    assert len(MelCorrection(KINDS['tacotron2'], 3).start().end()) == 0


@pytest.mark.slow
@pytest.mark.parametrize('kind', sorted(KINDS))
def test_the_graph_gives_the_same_audio(kind):
    definition, audio, mel = speech(kind)
    noise = 0.1 * np.random.RandomState(2).randn(2, len(audio)).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        audio_in = tf.placeholder(tf.float32, [None, None])
        mel_in = tf.placeholder(tf.float32, [None, None, definition.n_mels])
        graph = mel_correction_graph.corrected(audio_in, mel_in, definition, 3)
        for frames in 1, 2, 5, len(mel):
            given = noise[:, :frames * definition.hop_length]
            mels = np.stack([mel[:frames]] * 2)
            found = session.run(graph, {audio_in: given, mel_in: mels})
            for row, start, wanted in zip(found, given, mels):
                # of noise, whose gains are large; of speech the two differ by 2e-6
                np.testing.assert_allclose(row, MelCorrection(definition, 3)(start, wanted),
                                           atol=1e-4)


def test_what_is_under_the_floor_stays():
    """A mel at its floor says nothing of how silent a band is."""
    definition = KINDS['tacotron2'].replace(sample_rate=16000)
    quiet = 1e-7 * np.random.RandomState(3).randn(20 * 256).astype(np.float32)
    mel = mel_transform.mel_spectrogram(quiet, definition)[:20]
    np.testing.assert_allclose(MelCorrection(definition, 3)(quiet, mel), quiet, atol=1e-10)


def test_frames_that_overlap_too_little_are_refused():
    definition = MelDefinition(hop_length=600)
    MelCorrection(definition, 0)
    with pytest.raises(UserError, match='gen_correction_rounds=0'):
        MelCorrection(definition, 1)
