"""files.py: files that appear when they are complete, and paths that must be free."""
import os

import pytest

import errors
import files
from errors import UserError


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with files.atomic_open(str(path)) as f:
        f.write('text')
        assert not path.exists()
    assert path.read_text() == 'text' and os.listdir(str(path.parent)) == ['a.txt']


def test_an_exception_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('before')
    with pytest.raises(ValueError), files.atomic_open(str(path)) as f:
        f.write('after')
        raise ValueError
    with pytest.raises(ValueError), files.atomic_directory(str(tmp_path / 'b')) as folder:
        open(os.path.join(folder, 'x'), 'w').close()
        raise ValueError
    assert path.read_text() == 'before' and os.listdir(str(tmp_path)) == ['a.txt']


def test_a_refusal_does_not_name_the_temporary_file(tmp_path, monkeypatch):
    def refuse(prefix, suffix, dir):
        raise PermissionError(13, 'Permission denied', os.path.join(dir, prefix + 'x' + suffix))
    monkeypatch.setattr(files.tempfile, 'mkstemp', refuse)
    path = str(tmp_path / 'a.txt')
    with pytest.raises(UserError) as error, errors.as_user_error(
            'cannot write ' + path, '', OSError), files.atomic_open(path):
        pass
    assert str(error.value) == 'cannot write %s (Permission denied)' % path


def test_new_directories_and_files(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').write_text('x')
    for name in ('empty', 'nothing'):
        files.require_new_directory(str(tmp_path / name))
    for name in ('full', 'full/file'):
        with pytest.raises(UserError, match='is there already; give a new folder as --out_dir'):
            files.require_new_directory(str(tmp_path / name), 'give a new folder as --out_dir')
    files.require_new_file(str(tmp_path / 'nothing'))
    for name in ('full', 'full/file', 'nothing/'):
        with pytest.raises(UserError, match='is a folder, or there already; give a new file'):
            files.require_new_file(os.path.join(str(tmp_path), name))
