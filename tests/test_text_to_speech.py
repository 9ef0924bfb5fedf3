"""Text to speech: a front end of other people's making, through the bundled voice.

Needs hibari-tts, which requirements-test.txt asks for from Python 3.10 on.
"""
import os
import sys

import numpy as np
import pystoi
import pytest
import soundfile
import soxr
from conftest import ROOT
from speech import refusal

from datasets.mel_transform import mel_spectrogram
from errors import UserError
from vocoder import load_model

pytest.importorskip('hibari')      # the recipe exits without it
from recipes import text_to_speech  # noqa: E402

SENTENCE = 'Please enter your phone number, starting with the area code.'


@pytest.fixture(scope='module')
def front_end():
    hp, _ = load_model(os.path.join(ROOT, 'samples', 'model'))
    return text_to_speech.FrontEnd(hp.mel)


def own_audio(front_end, text=SENTENCE):
    """What hibari itself makes of a text, at 24 kHz."""
    return front_end._tts(text, seed=0)


@pytest.mark.slow
def test_mel_is_that_of_the_audio_that_the_front_end_makes(front_end):
    mel, audio = front_end.mel(SENTENCE), own_audio(front_end)
    expected = mel_spectrogram(audio, front_end.definition)
    assert mel.shape == expected.shape and mel.dtype == np.float32
    assert np.mean(np.abs(mel - expected)) < 0.36       # .52 of the network's frames as they are
    assert abs(np.mean(mel - expected)) < 0.15
    slower = front_end.mel(SENTENCE, speed=0.8)
    assert 1.1 < len(slower) / len(mel) < 1.4
    two = front_end.mel('Hello there. ' + SENTENCE)
    assert len(two) == len(front_end.mel('Hello there.')) + len(mel)


@pytest.mark.slow
def test_a_sentence_is_intelligible(front_end, monkeypatch, tmp_path, capsys):
    out = tmp_path / 'hello.wav'
    monkeypatch.setattr(sys, 'argv', ['text_to_speech.py', SENTENCE, '--out', str(out)])
    text_to_speech.main()
    audio, rate = soundfile.read(str(out), dtype='float32')
    expected = soxr.resample(own_audio(front_end), 24000, 16000)
    assert rate == 16000 and abs(len(audio) - len(expected)) < 400
    length = min(len(audio), len(expected))
    assert pystoi.stoi(expected[:length], audio[:length], rate) > 0.88
    assert '3.6 s of speech' in capsys.readouterr().out


def test_refusals(front_end, monkeypatch, capsys):
    for nothing in ('', '  ', '...', '!?'):
        with pytest.raises(UserError, match='has nothing that can be said'):
            front_end.mel(nothing)
    assert ('--speed is from 0.5 to 2, not 3'
            in refusal(monkeypatch, capsys, text_to_speech, 'Hello.', '--speed=3'))
