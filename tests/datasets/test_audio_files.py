"""Sound files that are read and written."""
import glob
import os
import re
import struct

import numpy as np
import pytest
import soundfile
from speech import SPEECH, WAVS, speech

import params
from datasets import audio_files
from errors import UserError


def tone(frequency, rate, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize('rate, suffix, subtype', [
    (44100, 'flac', 'PCM_16'), (48000, 'wav', 'FLOAT'), (8000, 'wav', 'PCM_24'),
    (22050, 'wav', 'PCM_U8'), (96000, 'aiff', 'PCM_32'), (44100, 'ogg', 'VORBIS')])
def test_resampling_keeps_frequency_and_level(tmp_path, rate, suffix, subtype):
    path = str(tmp_path / ('tone.' + suffix))
    stereo = np.stack([tone(1000, rate), 0.5 * tone(1000, rate)], axis=1)
    soundfile.write(path, stereo, rate, subtype=subtype)
    audio = audio_files.read_wav(path, 16000)
    assert audio.dtype == np.float32 and audio.shape == (16000,)
    middle = audio[4000:12000]                      # whole periods, so one bin of the transform
    spectrum = np.abs(np.fft.rfft(middle)) * 2 / len(middle)
    assert np.argmax(spectrum) == 500               # 1000 Hz
    assert spectrum[500] == pytest.approx(0.375, rel=0.02)      # the mean of 0.5 and 0.25
    assert np.delete(spectrum, 500).max() < 0.01


def test_resampling_does_not_alias(tmp_path):
    path = str(tmp_path / 'high.wav')
    soundfile.write(path, tone(15000, 44100), 44100)
    assert np.abs(audio_files.read_wav(path, 16000)[1000:-1000]).max() < 1e-3


def test_pcm16_round_trip_is_within_half_a_step(tmp_path):
    path = str(tmp_path / 'a' / 'b.wav')
    audio = np.random.RandomState(0).uniform(-1, 32767 / 32768, 10000).astype(np.float32)
    assert audio_files.write_wav(path, audio, 16000) == 0
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, 'PCM_16')
    assert np.abs(audio_files.read_wav(path, 16000) - audio).max() <= 0.5 / 32768 + 1e-7
    assert os.listdir(str(tmp_path / 'a')) == ['b.wav']
    again = str(tmp_path / 'again.wav')             # and what was PCM16 stays the same bits
    audio_files.write_wav(again, audio_files.read_wav(path, 16000), 16000)
    np.testing.assert_array_equal(soundfile.read(path, dtype='int16')[0],
                                  soundfile.read(again, dtype='int16')[0])


def test_writing_clips_and_counts(tmp_path):
    path = str(tmp_path / 'loud.wav')
    audio = np.array([0, 1.5, -1.5, 1.0, -1.0, 0.99999, 40.0])
    assert audio_files.write_wav(path, audio, 16000) == 3
    pcm = soundfile.read(path, dtype='int16')[0]
    assert pcm.tolist() == [0, 32767, -32768, 32767, -32768, 32767, 32767]


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_neither_reads_nor_writes_nan(tmp_path, bad):
    path = str(tmp_path / 'x.wav')
    audio = np.zeros(2000, np.float32)
    audio[1000] = bad
    with pytest.raises(UserError, match='NaN'):
        audio_files.write_wav(path, audio, 16000)
    assert os.listdir(str(tmp_path)) == []
    soundfile.write(path, audio, 16000, subtype='FLOAT')
    with pytest.raises(UserError, match='NaN or infinite'):
        audio_files.read_wav(path, 22050)


def test_reading_refuses_in_one_sentence(tmp_path):
    def refused(name, reason, content=None):
        path = str(tmp_path / name)
        if content is not None:
            with open(path, 'wb') as f:
                f.write(content)
        with pytest.raises(UserError) as error:
            audio_files.read_wav(path, 16000)
        assert str(error.value).startswith(path + ': ') and reason in str(error.value)
        assert '\n' not in str(error.value)

    refused('missing.wav', 'no such file')
    refused('text.wav', 'not audio', b'Not a WAV at all, but a note.\n' * 100)
    refused('nothing.wav', 'not audio', b'')
    with open(SPEECH, 'rb') as f:
        content = f.read()
    refused('half.wav', 'truncated', content[:len(content) // 2])
    flac = str(tmp_path / 'half.flac')
    soundfile.write(flac, speech(), 16000)
    with open(flac, 'rb') as f:
        content = f.read()
    refused('half.flac', '', content[:len(content) // 2])
    soundfile.write(str(tmp_path / 'empty.wav'), np.zeros(0), 16000)
    refused('empty.wav', 'no samples')
    soundfile.write(str(tmp_path / 'integers.wav'), 3000 * speech(), 16000, subtype='FLOAT')
    refused('integers.wav', 'full scale')
    os.mkfifo(str(tmp_path / 'pipe.wav'))
    refused('pipe.wav', 'not a regular file')


def test_plain_wav_is_what_a_strict_reader_takes(tmp_path):
    def chunk(name, content):
        return name + struct.pack('<I', len(content)) + content

    def judged(*chunks, rate=16000):
        body = b'WAVE' + b''.join(chunks)
        path = str(tmp_path / 'x.wav')
        with open(path, 'wb') as f:
            f.write(b'RIFF' + struct.pack('<I', len(body)) + body)
        return audio_files.is_plain_wav(path, rate)

    def form(tag=1, channels=1, rate=16000, bits=16, extra=b''):
        width = channels * bits // 8
        return chunk(b'fmt ', struct.pack('<HHIIHH', tag, channels, rate, rate * width, width,
                                          bits) + extra)

    data, note = chunk(b'data', b'\0' * 200), chunk(b'LIST', b'INFO')
    assert judged(form(), data) and judged(form(), note, data) and judged(form(), data, note)
    assert audio_files.is_plain_wav(SPEECH, 16000)
    assert not audio_files.is_plain_wav(SPEECH, 22050)
    for wrong in ([form(channels=2), data], [form(bits=8), data], [form(rate=8000), data],
                  [form(tag=3, bits=32), data], [form(tag=0xfffe, extra=b'\0' * 24), data],
                  [note, form(), data], [form(), chunk(b'LIST', b'INFOx') + b'\0', data],
                  [form(), data[:-10]], [form(), data, b'xyz'], [form()], [data], [],
                  [form(), data, data], [form(), b'data' + b'\xff' * 4 + b'\0' * 200]):
        assert not judged(*wrong)


def test_bundled_speech_is_what_its_page_says():
    infos = {os.path.basename(path)[:-len('.wav')]: soundfile.info(path)
             for path in glob.glob(os.path.join(WAVS, '*.wav'))}
    assert {(i.samplerate, i.channels, i.subtype) for i in infos.values()} == {(16000, 1, 'PCM_16')}
    with open(os.path.join(WAVS, os.pardir, 'README.md')) as f:
        page = f.read()
    rows = re.findall(r'^\| `([^`/]+)` \| ([0-9.]+) \| .*\w.* \|$', page, re.MULTILINE)
    assert {name: seconds for name, seconds in rows} == {
        name: '%.1f' % i.duration for name, i in infos.items()}
    assert '%d telephone prompts in English, %.0f seconds' % (
        len(infos), sum(i.duration for i in infos.values())) in page
    assert params.preset('small').sample_rate == 16000


def test_a_wav_is_written_block_by_block(tmp_path):
    path, audio = str(tmp_path / 'x.wav'), speech()
    with audio_files.wav_writer(path, 16000) as writer:
        for block in np.array_split(audio, 7):
            writer.write(block)
            assert not os.path.exists(path)
    soundfile.write(str(tmp_path / 'y.wav'), audio, 16000, subtype='PCM_16')
    assert (tmp_path / 'x.wav').read_bytes() == (tmp_path / 'y.wav').read_bytes()
    assert audio_files.is_plain_wav(path, 16000) and writer.samples == len(audio)
    with pytest.raises(UserError, match='z.wav: audio with NaN'):
        with audio_files.wav_writer(str(tmp_path / 'z.wav'), 16000) as writer:
            writer.write(audio)
            writer.write(np.array([np.nan]))
    with pytest.raises(UserError, match='no more than 4 GB'):
        with audio_files.wav_writer(str(tmp_path / 'z.wav'), 16000) as writer:
            writer.samples = audio_files.MOST_WAV_BYTES // 2
            writer.write(audio[:1])
    assert sorted(os.listdir(str(tmp_path))) == ['x.wav', 'y.wav']


def test_a_wav_in_one_piece_is_that_of_the_writer(tmp_path):
    audio = np.linspace(-1.1, 1, 333).astype(np.float32)
    path = str(tmp_path / 'x.wav')
    audio_files.write_wav(path, audio, 16000)
    with open(path, 'rb') as f:
        content = f.read()
    assert content == audio_files.wav_bytes(audio_files.to_pcm16(audio)[0], 16000)
    assert audio_files.is_whole_wav(content[:44], len(content), 16000)
    for head, size, rate in ((content[:44], len(content) - 2, 16000), (content[:20], 20, 16000),
                             (content[:44], len(content), 22050), (b'', 0, 16000)):
        assert not audio_files.is_whole_wav(head, size, rate)
