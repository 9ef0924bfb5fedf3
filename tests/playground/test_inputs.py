"""What a page vocodes, and what it refuses: too long, too large, of another kind."""
import zipfile

import numpy as np
import pytest
import soundfile
from graphs import TINY
from speech import SPEECH, speech

from datasets import mel_files
from datasets.mel_definition import PROFILES
from datasets.mel_transform import mel_spectrogram
from errors import UserError
from playground import inputs


def test_a_sound_and_its_mel():
    given = inputs.read_sound(SPEECH, TINY, 10)
    assert given.name == 'pbx-invalidpark' and given.definition == TINY.mel
    assert np.array_equal(given.audio, speech())
    assert np.array_equal(given.mel, mel_spectrogram(speech(), TINY.mel))
    assert abs(given.seconds - len(speech()) / 16000) < 0.02


def test_a_mel_of_a_named_definition(tmp_path):
    path = str(tmp_path / 'a.npy')
    definition = PROFILES['hifigan']
    mel = mel_spectrogram(speech(1), definition)
    np.save(path, mel.T)
    given = inputs.read_mel(path, TINY, 10, 'hifigan')
    assert given.definition == definition and np.array_equal(given.mel[:], mel)
    changed = inputs.read_mel(path, TINY, 10, 'hifigan', 'sample_rate=16000')
    assert changed.definition == definition.replace(sample_rate=16000)
    with pytest.raises(UserError, match='mel_profile=hifi is not a choice'):
        inputs.read_mel(path, TINY, 10, 'hifi')
    with pytest.raises(UserError, match='n_flows is no hyperparameter of mels'):
        inputs.read_mel(path, TINY, 10, None, 'n_flows=3')


@pytest.mark.parametrize('rate, channels', [(16000, 1), (11025, 2), (96000, 8), (1, 1)])
def test_a_sound_is_decoded_up_to_the_limit(tmp_path, rate, channels):
    path = str(tmp_path / 'long.flac' if rate > 1 else tmp_path / 'long.wav')
    samples = max(8 * 65536, 3 * rate)      # of several blocks, and over two seconds
    soundfile.write(path, np.zeros([samples, channels], np.int16), rate)
    with pytest.raises(UserError, match='longer than 2 s, or with more than 96000 values'):
        inputs.read_sound(path, TINY, 2)


def test_a_mel_is_read_up_to_the_limit(tmp_path, monkeypatch):
    path = str(tmp_path / 'long.mel')
    mel_files.save_mel(path, mel_spectrogram(speech(), TINY.mel))
    seconds = inputs.read_mel(path, TINY, 10).seconds
    with pytest.raises(UserError, match='frames, 5 s of speech, and 1.5 s are the most'):
        inputs.read_mel(path, TINY, 1.5)
    assert inputs.read_mel(path, TINY, seconds).seconds == seconds
    packed = str(tmp_path / 'bomb.npz')
    np.savez_compressed(packed, np.zeros([1 << 16, 80], np.float32))
    monkeypatch.setattr(inputs, 'MOST_UNPACKED', 1 << 20)
    with pytest.raises(UserError, match='unpacks to 20 MB, and 1 MB are the most'):
        inputs.read_mel(packed, TINY, 10)
    assert zipfile.is_zipfile(packed)


def test_refusals(tmp_path):
    short, text = str(tmp_path / 'short.wav'), str(tmp_path / 'notes.txt')
    soundfile.write(short, np.zeros(100, np.int16), 16000)
    with open(text, 'w') as f:
        f.write('no sound')
    with pytest.raises(UserError, match='is shorter than a frame, 256 samples'):
        inputs.read_sound(short, TINY, 10)
    with pytest.raises(UserError, match='not audio that can be read'):
        inputs.read_sound(text, TINY, 10)
    with pytest.raises(UserError, match='is no mel by its name'):
        inputs.read_mel(text, TINY, 10)
    with pytest.raises(UserError, match='the text has 2000 characters, and 1000 are the most'):
        inputs.Speaker().say('x' * 2000, TINY, 10)
