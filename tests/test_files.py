"""files.py: files that appear when they are complete, and paths that must be free."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT

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


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path):
    code = """if True:
        import os, sys, files
        with files.atomic_directory(sys.argv[1]) as folder, files.atomic_open(sys.argv[2]) as f:
            open(os.path.join(folder, 'x'), 'w').close()
            print('here', flush=True)
            sys.stdin.readline()
    """
    model, text = str(tmp_path / 'model'), str(tmp_path / 'a.txt')
    with subprocess.Popen([sys.executable, '-c', code, model, text], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=ROOT)) as other:
        assert other.stdout.readline() == b'here\n'
        held = sorted(os.listdir(str(tmp_path)))
        assert len(held) == 2
        files.remove_leftovers(str(tmp_path))
        assert sorted(os.listdir(str(tmp_path))) == held
        other.kill()
    with files.atomic_directory(str(tmp_path / 'other')):
        pass        # of another name: not its to clear away
    assert set(held) < set(os.listdir(str(tmp_path)))
    with files.atomic_directory(model):
        pass
    assert sorted(name for name in os.listdir(str(tmp_path)) if name[0] != '.') == [
        'model', 'other']
    files.remove_leftovers(str(tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == ['model', 'other']


def test_a_folder_is_held_by_one_process(tmp_path):
    with files.lock_directory(str(tmp_path), 'taken'):
        with pytest.raises(UserError, match='^taken$'), files.lock_directory(
                str(tmp_path), 'taken'):
            pass
    with files.lock_directory(str(tmp_path), 'taken'):
        pass
