"""Mel files, and mels that belong to another profile."""
import glob
import os

import numpy as np
import ptfiles
import pytest
from speech import WAVS, definition, speech

from datasets import audio_files, mel_files, mel_transform
from errors import UserError


def test_mel_files_hold_frames_by_bands(tmp_path):
    mel = mel_transform.mel_spectrogram(speech(), definition('weixsong'))
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


def test_a_mel_is_read_in_pieces(tmp_path):
    mel = np.random.RandomState(0).standard_normal([50, 80]).astype(np.float32)
    mel_files.save_mel(str(tmp_path / 'x.mel'), mel)
    for name, array in (('a', mel), ('b', mel.T), ('c', mel.T[None].astype('>f8')),
                        ('d', np.asfortranarray(mel)), ('e', np.asfortranarray(mel.T))):
        np.save(str(tmp_path / name), array)
    for name in ['x.mel'] + [c + '.npy' for c in 'abcde']:
        opened = mel_files.open_mel(str(tmp_path / name), 80)
        assert opened.shape == (50, 80) and len(opened) == 50
        np.testing.assert_array_equal(opened[7:31], mel[7:31])
        np.testing.assert_array_equal(opened[40:99], mel[40:])
        assert opened.first(20)[:].shape == (20, 80)
        pieces = list(mel_files.mel_blocks(opened.first(20), 8))
        assert [len(piece) for piece in pieces] == [8, 8, 4]
        np.testing.assert_array_equal(np.concatenate(pieces), mel[:20])
    opened = mel_files.open_mel(str(tmp_path / 'a.npy'), 80)
    np.save(str(tmp_path / 'a.npy'), mel[:9])
    with pytest.raises(mel_files.UnreadableMel, match='a.npy has changed'):
        opened[:4]


@pytest.mark.parametrize('save', [ptfiles.save_zip, ptfiles.save_legacy])
def test_mels_of_nvidia_are_tensors_of_bands_by_frames(tmp_path, save):
    mel = mel_transform.mel_spectrogram(speech(), definition('tacotron2'))
    path = str(tmp_path / 'x.pt')
    for array, meant in ((mel.T, mel), (mel.T[None], mel), (mel, mel), (mel[None], mel),
                         (mel.T.astype('f8'), mel), (mel[:80], mel[:80].T),
                         (mel.T.astype('f2'), mel.astype('f2'))):
        save(path, array)
        read = mel_files.read_mel(path, 80)
        assert read.dtype == np.float32 and read.flags.c_contiguous
        np.testing.assert_array_equal(read, meant)


def test_mels_of_hdf5(tmp_path):
    h5py = pytest.importorskip('h5py')
    mel = mel_transform.mel_spectrogram(speech(1.0), definition('tacotron2'))
    path = str(tmp_path / 'x.h5')
    for held in ({'feats': mel, 'wave': np.zeros(5), 'more': mel}, {'mel': mel.T}, {'feats': mel}):
        with h5py.File(path, 'w') as f:
            f.update(held)
        np.testing.assert_array_equal(mel_files.read_mel(path, 80), mel)
    for held, reason in (({'a': mel, 'b': mel}, '2 arrays of two dimensions'), ({}, '0 arrays'),
                         ({'feats': np.zeros(80)}, 'neither'), ({'feats': mel[:, :70]}, 'neither'),
                         ({'feats': np.zeros((5, 80), complex)}, 'real numbers')):
        with h5py.File(path, 'w') as f:
            f.update(held)
        with pytest.raises(UserError, match=reason):
            mel_files.read_mel(path, 80)
    (tmp_path / 'x.h5').write_bytes(b'no such thing' * 100)
    with pytest.raises(UserError, match='x.h5: cannot be read'):
        mel_files.read_mel(path, 80)


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
    refused('x.wav', 'ends in .mel, .npy, .npz, .pt or .h5', content=b'RIFF')
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
    refused('cut.npy', 'has 400 bytes', content=(
        b'\x93NUMPY\x01\x00\x76\x00{\'descr\': \'<f4\', \'fortran_order\': False, '
        b'\'shape\': (300, 80), }'.ljust(127) + b'\n').ljust(400))
    refused('pickle.npy', 'pickle', np.array([[{}] * 80], dtype=object))
    refused('noise.npy', 'not an array', content=b'noise' * 100)
    refused('header.npy', 'cannot be read', content=b'\x93NUMPY\x01\x00\x20\x00{"descr" (((: ,' * 5)


def test_a_mel_of_the_other_profile_is_told():
    for path in glob.glob(os.path.join(WAVS, '*.wav')):
        audio = audio_files.read_wav(path, 16000)
        for name, other in (('weixsong', 'tacotron2'), ('tacotron2', 'weixsong')):
            mel = mel_transform.mel_spectrogram(audio, definition(name))
            mel_files.check_mel_values(mel, definition(name), path)
            with pytest.raises(UserError) as error:
                mel_files.check_mel_values(mel, definition(other), 'x.mel')
            for word in ('x.mel', 'weixsong', 'tacotron2'):
                assert word in str(error.value)
    for name in ('weixsong', 'tacotron2'):
        with pytest.raises(UserError, match='no mel known here'):
            mel_files.check_mel_values(np.linspace(-80, 0, 800), definition(name), 'decibels.mel')
