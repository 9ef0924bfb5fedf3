"""Sound files as telephones, pipes, recorders and field kits leave them."""
import io
import os
import struct

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from datasets import audio_files
from errors import UserError

RATE = 16000
WAV = os.path.join(ROOT, 'samples', 'wavs', 'tt-weasels.wav')


@pytest.fixture(scope='module')
def speech():
    return audio_files.read_wav(WAV, RATE)


def write(path, audio, **options):
    soundfile.write(str(path), audio, RATE, **options)
    return str(path)


def with_length(path, length):
    """Gives the WAV `path` a header that announces `length` bytes of samples."""
    with open(path, 'r+b') as f:
        content = f.read()
        f.seek(content.index(b'data') + 4)
        f.write(struct.pack('<I', length))
    return path


def test_a_codec_that_cannot_seek(tmp_path, speech):
    path = write(tmp_path / 'gsm.wav', speech, subtype='GSM610')
    audio, notes = audio_files.read_audio(path, RATE)
    assert notes == [] and abs(len(audio) - len(speech)) < 320
    assert np.corrcoef(audio[:len(speech)], speech[:len(audio)])[0, 1] > 0.9


def test_a_flac_of_unknown_length(tmp_path, speech):
    content = io.BytesIO()
    soundfile.write(content, speech, RATE, format='FLAC')
    flac = bytearray(content.getvalue())
    flac[21:26] = bytes([flac[21] & 0xf0, 0, 0, 0, 0])      # the 36 bits of its total of samples
    path = tmp_path / 'piped.flac'
    path.write_bytes(bytes(flac))
    audio, notes = audio_files.read_audio(str(path), RATE)
    np.testing.assert_array_equal(audio, speech)
    assert 'does not say its length' in notes[0]


@pytest.mark.parametrize('length', [0, 0x40000001, 0x7ffff000, 0x7fffffff, 0x80000000,
                                    0xffffffff])
def test_a_header_without_its_length(length, tmp_path, speech):
    path = with_length(write(tmp_path / 'x.wav', speech), length)
    audio, notes = audio_files.read_audio(path, RATE)
    np.testing.assert_array_equal(audio, speech)
    assert 'does not say its length' in notes[0]


def test_a_copy_that_was_cut_short_is_still_refused(tmp_path, speech):
    path = with_length(write(tmp_path / 'x.wav', speech), 4 * len(speech))
    with pytest.raises(UserError, match='truncated'):
        audio_files.read_audio(path, RATE)
    path = with_length(write(tmp_path / 'empty.wav', speech[:0]), 0)
    with open(path, 'ab') as f:     # a chunk after no samples is no speech
        f.write(b'LIST' + struct.pack('<I', 4) + b'INFO')
    with pytest.raises(UserError, match='holds no samples'):
        audio_files.read_audio(path, RATE)


@pytest.mark.parametrize('channels, gain, note', [
    (lambda x: [x, x], 1, None), (lambda x: [x, 0.5 * x], 0.75, None),
    (lambda x: [x, -x], 1, 'channel 1 of 2'), (lambda x: [-0.9 * x, x], 1, 'channel 2 of 2'),
    (lambda x: [0 * x, 0 * x, x, 0 * x, 0 * x, 0 * x], 1, 'of its 6 channels 1, 2, 4, 5, 6 are'),
    (lambda x: [x, 1e-4 * x], 1, 'of its 2 channels 2 is silence')])
def test_channels_are_mixed_so_that_speech_stays(channels, gain, note, speech):
    audio, said = audio_files.mix_channels(np.stack(channels(speech), axis=1))
    np.testing.assert_allclose(audio, gain * speech, atol=1e-6)
    assert note in said if note else said == ''


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError('array is too big')
    monkeypatch.setattr(audio_files, '_decode', fail)
    with pytest.raises(UserError, match='x.wav: not audio that can be read .array is too big'):
        audio_files.read_audio(write(tmp_path / 'x.wav', np.zeros(9)), RATE)
