"""Sound files and mels against definitions of their own, on the bundled speech."""
import glob
import os
import re
import struct

import librosa
import numpy as np
import ptfiles
import pytest
import soundfile
from conftest import ROOT

import params
from datasets import audio_files, mel_files, mel_transform
from errors import UserError
from params import MEL_PROFILES
from synthesis.griffin_lim import griffin_lim

WAVS = os.path.join(ROOT, 'samples', 'wavs')
SPEECH = os.path.join(WAVS, 'pbx-invalidpark.wav')
PROFILES = sorted(MEL_PROFILES)


def speech(seconds=None):
    wave, rate = soundfile.read(SPEECH, dtype='float32')
    assert rate == 16000
    return wave[:int(seconds * rate)] if seconds else wave


def tone(frequency, rate, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


# --- The definition, in plain NumPy and double precision.

def slaney_mel(hertz):
    """Linear below 1 kHz (200/3 Hz a mel), logarithmic above (27 mels to a factor of 6.4)."""
    hertz = np.asarray(hertz, float)
    return np.where(hertz < 1000, hertz * 3 / 200,
                    15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def slaney_hertz(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def triangles(rate, n_fft, n_mels, fmin, fmax):
    """[1 + n_fft / 2, n_mels]: triangles of equal area over the bins."""
    edges = slaney_hertz(np.linspace(slaney_mel(fmin), slaney_mel(fmax), n_mels + 2))
    bins = np.arange(1 + n_fft // 2) * rate / n_fft
    basis = np.zeros((len(bins), n_mels))
    for band in range(n_mels):
        low, centre, high = edges[band:band + 3]
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        basis[:, band] = np.maximum(0, np.minimum(rise, fall)) * 2 / (high - low)
    return basis


def defined_mel(wave, rate, profile):
    """design: pre-emphasis, centred Hann frames with reflected edges, DFT, triangles, scale."""
    wave = np.asarray(wave, np.float64)
    wave = wave - profile.preemphasis * np.concatenate([[0], wave[:-1]])
    half = profile.n_fft // 2
    padded = np.concatenate([wave[half:0:-1], wave, wave[-2:-half - 2:-1]])
    starts = np.arange(1 + len(wave) // profile.hop_length) * profile.hop_length
    frames = np.stack([padded[s:s + profile.n_fft] for s in starts])
    window = np.zeros(profile.n_fft)
    first = (profile.n_fft - profile.win_length) // 2
    window[first:first + profile.win_length] = 0.5 - 0.5 * np.cos(
        2 * np.pi * np.arange(profile.win_length) / profile.win_length)
    angles = 2 * np.pi * np.outer(np.arange(profile.n_fft), np.arange(half + 1)) / profile.n_fft
    frames = frames * window
    magnitudes = np.hypot(frames @ np.cos(angles), frames @ np.sin(angles))
    mel = magnitudes @ triangles(rate, profile.n_fft, profile.n_mels, profile.fmin,
                                 profile.fmax or rate / 2)
    mel = np.maximum(mel, 1e-5)
    if profile.scale == 'log':
        return np.log(mel)
    return np.clip((20 * np.log10(mel) - 20 + 100) / 100, 0, 1)


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize('rate', [16000, 22050])
def test_mel_is_the_definition(name, rate):
    profile = MEL_PROFILES[name]
    wave = audio_files.read_wav(SPEECH, rate)[:3 * rate + 77]
    mel = mel_transform.mel_spectrogram(wave, rate, profile)
    assert mel.shape == (1 + len(wave) // profile.hop_length, 80) and mel.dtype == np.float32
    np.testing.assert_allclose(mel, defined_mel(wave, rate, profile), rtol=0, atol=1e-4)
    assert mel.std() > 0.1      # speech, not a constant


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize('samples', [0, 1, 100, 511, 512, 513, 1023, 1024, 1025, 1026])
def test_mel_of_short_audio_is_that_of_audio_and_silence(name, samples):
    profile = MEL_PROFILES[name]
    wave = speech()[8000:8000 + samples]
    mel = mel_transform.mel_spectrogram(wave, 16000, profile)
    assert mel.shape == (1 + samples // 256, 80) and np.isfinite(mel).all()
    filled = np.pad(wave, (0, max(0, profile.n_fft // 2 + 1 - samples)), mode='constant')
    np.testing.assert_allclose(mel, defined_mel(filled, 16000, profile)[:len(mel)], atol=1e-4)


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize('rate', [16000, 22050, 24000, 44100])
def test_mel_basis_has_the_bits_of_librosa(name, rate):
    profile = MEL_PROFILES[name]
    reference = librosa.filters.mel(sr=rate, n_fft=profile.n_fft, n_mels=profile.n_mels,
                                    fmin=profile.fmin, fmax=profile.fmax or rate / 2)
    basis = mel_transform.mel_basis(rate, profile)
    assert basis.dtype == np.float32 and basis.flags['C_CONTIGUOUS']
    np.testing.assert_array_equal(basis, reference.T)


def test_mel_leaves_its_input_alone():
    wave = speech(1)
    before = wave.copy()
    mel_transform.mel_spectrogram(wave, 16000, MEL_PROFILES['weixsong'])
    np.testing.assert_array_equal(wave, before)


# --- Sound files.

@pytest.mark.parametrize('rate, suffix, subtype', [
    (44100, 'flac', 'PCM_16'), (48000, 'wav', 'FLOAT'), (8000, 'wav', 'PCM_24'),
    (22050, 'wav', 'PCM_U8'), (96000, 'aiff', 'PCM_32'), (44100, 'ogg', 'VORBIS')])
def test_resampling_keeps_frequency_and_level(tmp_path, rate, suffix, subtype):
    path = str(tmp_path / ('tone.' + suffix))
    stereo = np.stack([tone(1000, rate), 0.5 * tone(1000, rate)], axis=1)
    soundfile.write(path, stereo, rate, subtype=subtype)
    wave = audio_files.read_wav(path, 16000)
    assert wave.dtype == np.float32 and wave.shape == (16000,)
    middle = wave[4000:12000]                       # whole periods, so one bin of the transform
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
    wave = np.random.RandomState(0).uniform(-1, 32767 / 32768, 10000).astype(np.float32)
    assert audio_files.write_wav(path, wave, 16000) == 0
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, 'PCM_16')
    assert np.abs(audio_files.read_wav(path, 16000) - wave).max() <= 0.5 / 32768 + 1e-7
    assert os.listdir(str(tmp_path / 'a')) == ['b.wav']
    again = str(tmp_path / 'again.wav')             # and what was PCM16 stays the same bits
    audio_files.write_wav(again, audio_files.read_wav(path, 16000), 16000)
    np.testing.assert_array_equal(soundfile.read(path, dtype='int16')[0],
                                  soundfile.read(again, dtype='int16')[0])


def test_writing_clips_and_counts(tmp_path):
    path = str(tmp_path / 'loud.wav')
    wave = np.array([0, 1.5, -1.5, 1.0, -1.0, 0.99999, 40.0])
    assert audio_files.write_wav(path, wave, 16000) == 3
    pcm = soundfile.read(path, dtype='int16')[0]
    assert pcm.tolist() == [0, 32767, -32768, 32767, -32768, 32767, 32767]


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_neither_reads_nor_writes_nan(tmp_path, bad):
    path = str(tmp_path / 'x.wav')
    wave = np.zeros(2000, np.float32)
    wave[1000] = bad
    with pytest.raises(UserError, match='NaN'):
        audio_files.write_wav(path, wave, 16000)
    assert os.listdir(str(tmp_path)) == []
    soundfile.write(path, wave, 16000, subtype='FLOAT')
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


# --- Mel files and Griffin-Lim.

def test_mel_files_hold_frames_by_bands(tmp_path):
    mel = mel_transform.mel_spectrogram(speech(), 16000, MEL_PROFILES['weixsong'])
    path = str(tmp_path / 'x.mel')
    mel_files.save_mel(path, mel)
    with open(path, 'rb') as f:
        assert f.read() == mel.astype('<f4').tobytes()
    for name, array in (('a', mel), ('b', mel.T), ('c', mel[None]), ('d', mel.T[None]),
                        ('e', mel.astype('>f8')), ('f', np.asfortranarray(mel))):
        np.save(str(tmp_path / name), array)
    for name in ['x.mel'] + [c + '.npy' for c in 'abcdef']:
        read = mel_files.read_mel(str(tmp_path / name), 80)
        assert read.dtype == np.float32 and read.flags.c_contiguous
        np.testing.assert_array_equal(read, mel)


@pytest.mark.parametrize('save', [ptfiles.save_zip, ptfiles.save_legacy])
def test_mels_of_nvidia_are_tensors_of_bands_by_frames(tmp_path, save):
    mel = mel_transform.mel_spectrogram(speech(), 16000, MEL_PROFILES['tacotron2'])
    path = str(tmp_path / 'x.pt')
    for array, meant in ((mel.T, mel), (mel.T[None], mel), (mel, mel), (mel[None], mel),
                         (mel.T.astype('f8'), mel), (mel[:80], mel[:80].T),
                         (mel.T.astype('f2'), mel.astype('f2'))):
        save(path, array)
        read = mel_files.read_mel(path, 80)
        assert read.dtype == np.float32 and read.flags.c_contiguous
        np.testing.assert_array_equal(read, meant)


def test_reading_a_mel_refuses(tmp_path):
    def refused(name, reason, array=None, content=None):
        path = str(tmp_path / name)
        if name.endswith('.pt'):
            ptfiles.save_zip(path, array)
        elif array is not None:
            np.save(path, array, allow_pickle=True)
        if content is not None:
            with open(path, 'wb') as f:
                f.write(content)
        with pytest.raises(UserError) as error:
            mel_files.read_mel(path, 80)
        assert str(error.value).startswith(path + ': ') and reason in str(error.value)

    refused('missing.mel', 'no such file')
    refused('x.wav', 'ends in .mel, .npy, .npz or .pt', content=b'RIFF')
    refused('empty.mel', 'is empty', content=b'')
    refused('ragged.mel', 'whole frames of 80', content=b'\0' * 324)
    refused('nan.mel', 'NaN', content=np.full(80, np.nan, '<f4').tobytes())
    refused('square.npy', 'frames from bands', np.zeros((80, 80)))
    refused('other.npy', 'neither frames x 80 nor 80 x frames', np.zeros((100, 128)))
    refused('flat.npy', 'neither', np.zeros(800))
    refused('batch.npy', 'neither', np.zeros((2, 100, 80)))
    refused('none.npy', 'is empty', np.zeros((0, 80)))
    refused('huge.npy', 'infinite', np.full((5, 80), 1e300))
    refused('words.npy', 'real numbers', np.array([['a'] * 80]))
    refused('complex.npy', 'real numbers', np.zeros((5, 80), complex))
    refused('state.pt', 'a checkpoint or another object', {'state_dict': {}})
    refused('module.pt', 'a checkpoint', ptfiles.module('glow.WaveGlow'))
    refused('list.pt', 'another object', [np.zeros((80, 5), 'f4')])
    refused('other.pt', 'neither frames x 80 nor 80 x frames', np.zeros((100, 128), 'f4'))
    refused('batch.pt', 'neither', np.zeros((2, 80, 100), 'f4'))
    refused('none.pt', 'is empty', np.zeros((80, 0), 'f4'))
    refused('nan.pt', 'NaN', np.full((80, 5), np.nan, 'f4'))
    refused('flags.pt', 'real numbers', np.zeros((80, 5), bool))
    refused('attack.pt', 'asks for os.system', ptfiles.Call(ptfiles.Name('os.system'), 'false'))
    refused('text.pt', 'not a file that PyTorch saved', content=b'text' * 100)
    refused('pickle.npy', 'pickle', np.array([[{}] * 80], dtype=object))
    refused('noise.npy', 'not an array', content=b'noise' * 100)
    refused('header.npy', 'cannot be read', content=b'\x93NUMPY\x01\x00\x20\x00{"descr" (((: ,' * 5)


@pytest.mark.parametrize('name, bound', [('tacotron2', 0.23), ('weixsong', 0.019)])
def test_griffin_lim_inverts_the_mel(name, bound):
    profile = MEL_PROFILES[name]
    mel = mel_transform.mel_spectrogram(speech(2.5), 16000, profile)
    wave = griffin_lim(mel, 16000, profile, n_iter=30)
    assert wave.shape == (len(mel) * 256,) and wave.dtype == np.float32
    again = mel_transform.mel_spectrogram(wave, 16000, profile)[:len(mel)]
    assert np.abs(again - mel)[2:-2].mean() < bound     # 0.20 and 0.0165 measured
    once = griffin_lim(mel, 16000, profile, n_iter=1)
    worse = mel_transform.mel_spectrogram(once, 16000, profile)[:len(mel)]
    assert np.abs(worse - mel)[2:-2].mean() > bound     # without iterating
    assert np.sqrt(np.mean(wave ** 2)) == pytest.approx(np.sqrt(np.mean(speech(2.5) ** 2)),
                                                        rel=0.15)


def test_griffin_lim_repeats_itself():
    profile = MEL_PROFILES['tacotron2']
    mel = mel_transform.mel_spectrogram(speech(1), 16000, profile)
    first = griffin_lim(mel, 16000, profile, n_iter=3, seed=5)
    np.testing.assert_array_equal(first, griffin_lim(mel, 16000, profile, 3, 5))
    assert np.abs(first - griffin_lim(mel, 16000, profile, 3, 6)).max() > 1e-3


@pytest.mark.parametrize('name', PROFILES)
def test_griffin_lim_of_a_frame_or_two(name):
    mel = mel_transform.mel_spectrogram(speech(1), 16000, MEL_PROFILES[name])
    for n in (1, 2, 7):
        wave = griffin_lim(mel[20:20 + n], 16000, MEL_PROFILES[name], n_iter=2)
        assert wave.shape == (n * 256,) and np.isfinite(wave).all()


def test_a_mel_of_the_other_profile_is_told():
    for path in glob.glob(os.path.join(WAVS, '*.wav')):
        wave = audio_files.read_wav(path, 16000)
        for name, other in (('weixsong', 'tacotron2'), ('tacotron2', 'weixsong')):
            mel = mel_transform.mel_spectrogram(wave, 16000, MEL_PROFILES[name])
            mel_files.check_mel_values(mel, name, path)
            with pytest.raises(UserError) as error:
                mel_files.check_mel_values(mel, other, 'x.mel')
            for word in ('x.mel', 'weixsong', 'tacotron2'):
                assert word in str(error.value)
    for name in MEL_PROFILES:
        with pytest.raises(UserError, match='no mel known here'):
            mel_files.check_mel_values(np.linspace(-80, 0, 800), name, 'decibels.mel')


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
