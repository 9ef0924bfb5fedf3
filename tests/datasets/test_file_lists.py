"""datasets/file_lists.py: our lists, those of other projects, and what is no list."""
import codecs

import pytest

from datasets.file_lists import read_file_list
from errors import UserError

NAMES = ['LJ001-0001', 'LJ001-0002', 'LJ001-0003']


@pytest.fixture
def wavs(tmp_path):
    folder = tmp_path / 'wavs'
    folder.mkdir()
    for name in NAMES:
        (folder / (name + '.wav')).write_bytes(b'RIFF')
    return folder


def write(tmp_path, content):
    path = tmp_path / 'list.txt'
    path.write_bytes(content if isinstance(content, bytes) else content.encode('utf-8'))
    return str(path)


def test_ours_is_taken_as_it_is(tmp_path):
    assert read_file_list(write(tmp_path, 'a/b\n\n  c \n')) == ['a/b', 'c']


@pytest.mark.parametrize('encode', [
    lambda text: codecs.BOM_UTF8 + text.encode('utf-8'), lambda text: text.encode('utf-16'),
    lambda text: codecs.BOM_UTF16_BE + text.encode('utf-16-be')])
def test_marks_of_byte_order_and_windows_line_ends(encode, tmp_path, wavs):
    assert read_file_list(write(tmp_path, encode('\r\n'.join(NAMES) + '\r\n')), str(wavs)) == NAMES


@pytest.mark.parametrize('line', [
    '{}', '{}.wav', '{}.mel', 'data/{}.wav', 'LJSpeech-1.1/wavs/{}.wav|Printing, in the sense.',
    '{}|Printing, in the only sense.|Printing', 'C:\\corpus\\wavs\\{}.wav', '{wavs}/{}.wav',
    '/elsewhere/deep/{}.wav', '{}.wav|a path/like this'])
def test_lines_of_other_projects(line, tmp_path, wavs):
    lines = [line.format(name, wavs=wavs) for name in NAMES]
    assert read_file_list(write(tmp_path, '\n'.join(lines)), str(wavs)) == NAMES


def test_folders_under_the_wavs_stay(tmp_path, wavs):
    (wavs / 'p225').mkdir()
    (wavs / 'p225' / 'p225_001.wav').write_bytes(b'RIFF')
    path = write(tmp_path, 'VCTK/p225/p225_001.wav|Please call Stella.\n')
    assert read_file_list(path, str(wavs)) == ['p225/p225_001']


def test_a_wav_that_is_missing_keeps_its_name(tmp_path, wavs):
    assert read_file_list(write(tmp_path, 'x/LJ001-0001.wav\nx/gone.wav\n'), str(wavs)) == [
        'LJ001-0001', 'gone']
    assert read_file_list(write(tmp_path, 'gone\n'), str(wavs)) == ['gone']


@pytest.mark.parametrize('content, words', [
    (b'', 'is empty'), (b' \n\n', 'is empty'), (b'a\0b\n', 'NUL byte in line 1'),
    (b'\xff\xfe\xfd', 'list.txt'), (b'LJ001-0001\n../x\n', "names '../x'"),
    (b'LJ001-0001\n/etc/x\n', 'not under --wave_dir'), (b'caf\xe9\n', 'not text in UTF-8 (byte 3)'),
    (b'/nowhere/x.wav|' + b'words ' * 5000, "its first line is '/nowhere/x.wav|words")])
def test_what_is_no_list_is_told_in_one_short_sentence(content, words, tmp_path, wavs):
    with pytest.raises(UserError) as error:
        read_file_list(write(tmp_path, content), str(wavs))
    said = str(error.value)
    assert words in said and len(said) < 500 and '\n' not in said
