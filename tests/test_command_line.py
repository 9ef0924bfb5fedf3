"""command_line.py: types of arguments, exit status, errors in one line."""
import argparse
import gc
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

import command_line
import params
from errors import UserError


def parse(kind, text):
    parser = argparse.ArgumentParser()
    parser.add_argument('--value', type=kind)
    return parser.parse_args(['--value', text]).value


@pytest.mark.parametrize('text, value', [('0', 0), ('4294967295', 2 ** 32 - 1)])
def test_random_seed(text, value):
    assert parse(command_line.random_seed, text) == value


@pytest.mark.parametrize('text', ['x', '=-1', '4294967296', '1.5'])
def test_random_seed_says_what_it_takes(text, capsys):
    with pytest.raises(SystemExit):
        parse(command_line.random_seed, text)
    assert 'whole number from 0 to 4294967295' in capsys.readouterr().err


@pytest.mark.parametrize('text, value', [('true', True), ('False', False), ('0', False),
                                         ('1', True)])
def test_boolean(text, value):
    assert parse(command_line.boolean, text) is value


def test_boolean_says_what_it_takes(capsys):
    with pytest.raises(SystemExit):
        parse(command_line.boolean, 'maybe')
    assert "true or false is expected, not 'maybe'" in capsys.readouterr().err


def test_backslashes_are_slashes_where_no_such_file_is(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    assert command_line.local_path('corpus\\wavs') == 'corpus/wavs'
    (tmp_path / 'a\\b').mkdir()
    assert command_line.local_path('a\\b') == 'a\\b'


def test_hyperparameters_of_a_command():
    parser = argparse.ArgumentParser()
    command_line.add_hyperparameters(parser)
    args = parser.parse_args(['--preset=small', '--hparams=lr=0.5'])
    assert params.resolve(args.preset, args.hparams) == params.preset('small').replace(lr=0.5)
    args = parser.parse_args([])
    assert params.resolve(args.preset, args.hparams) == params.preset(params.DEFAULT_PRESET)


def refuse():
    try:
        open('/nowhere/at all')
    except OSError as error:
        raise UserError('it is wrong; do it right') from error


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize('main, status, said', [
    (lambda: None, 0, ''), (lambda: 1, 1, ''), (refuse, 2, ': error: it is wrong; do it right\n'),
    (interrupt, 130, ': interrupted\n')])
def test_exit_status_and_one_line(main, status, said, monkeypatch, capsys):
    monkeypatch.delenv('WAVEGLOW_TRACEBACK', raising=False)
    with pytest.raises(SystemExit) as leaving:
        command_line.run_script(main)
    assert leaving.value.code == status
    err = capsys.readouterr().err
    assert err.endswith(said) and err.count('\n') == said.count('\n')


def test_traceback_on_demand(monkeypatch):
    """With its cause, which is what somebody who looks into the program wants to see."""
    program = 'import test_command_line as t; t.command_line.run_script(t.refuse)'
    monkeypatch.setenv('PYTHONPATH', ROOT + ':' + ROOT + '/tests')
    monkeypatch.setenv('WAVEGLOW_TRACEBACK', '1')
    done = subprocess.run([sys.executable, '-c', program], stderr=subprocess.PIPE,
                          universal_newlines=True)
    assert done.returncode == 2
    for words in ('Traceback (most recent call last)', 'FileNotFoundError', 'direct cause',
                  'in refuse', 'UserError: it is wrong'):
        assert words in done.stderr, words
    assert done.stderr.endswith('-c: error: it is wrong; do it right\n')


def test_garbage_is_collected_again_once_imports_are_done():
    code = ('import gc, command_line\n'
            'command_line.prepare_tensorflow_import()\n'
            'assert not gc.isenabled()\n'
            'command_line.run_script(lambda: 7 if gc.isenabled() and gc.get_freeze_count() else 1)')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 7


def test_what_calls_a_command_keeps_its_own_garbage():
    frozen = gc.get_freeze_count()
    with pytest.raises(SystemExit):
        command_line.run_script(lambda: 0)
    assert gc.isenabled() and gc.get_freeze_count() <= frozen


def test_a_path_that_is_not_utf_8_is_printed():
    code = ("import command_line\n"
            "command_line.run_script(lambda: print('na\\udcefve.npy', '\\u00ef'))")
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=dict(os.environ, PYTHONIOENCODING='ascii'))
    assert done.stdout.splitlines() == [b'na\\udcefve.npy \\xef'] and done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='Linux limits address space')
@pytest.mark.parametrize('work, status, told', [
    ('os.abort()', 2, 'ended by SIGABRT'),
    ('os.kill(os.getpid(), signal.SIGSEGV)', 2, 'ended by SIGSEGV'),
    ('ctypes.CDLL(None).exit(1)', 2, 'a library ended it'),
    ('raise ImportError("libx.so: failed to map segment from shared object")', 2, 'libx.so'),
    ('command_line.run_script(lambda: import_torch("libx.so: failed to map segment"))', 2,
     'libx.so'),
    ('sys.exit(1)', 1, None),
    ('command_line.run_script(lambda: bytearray(1 << 33))', 2, '(MemoryError), limited to'),
    ('command_line.run_script(lambda: 5)', 5, None),
    ('os.kill(os.getpid(), signal.SIGTERM)', -signal.SIGTERM, None),
    ('os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)', -signal.SIGTERM, None),
    ('held = [mmap.mmap(-1, 1 << 20) for _ in fill()]; time.sleep(60)', 2, 'stands still')])
def test_too_little_memory_is_told_in_a_sentence(work, status, told):
    code = """if 1:
        import ctypes, mmap, os, resource, signal, sys, time
        import command_line, errors
        from command_line import memory_limit
        sys.argv = ['x.py']
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
        memory_limit.STUCK_SECONDS = 0.5

        def fill():
            while memory_limit._virtual_memory(os.getpid()) < (1 << 30) - (4 << 20):
                yield

        def import_torch(said):
            try:
                raise ImportError(said)
            except ImportError as error:
                raise errors.UserError('this takes PyTorch') from error

        command_line.guard_memory()
        """ + work
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    assert done.returncode == status, done.stderr
    if told is None:
        assert not done.stderr
    else:
        assert done.stderr.startswith('x.py: error: out of memory')
        assert told in done.stderr and 'limited to 1024 MB' in done.stderr
        assert done.stderr.endswith('raise the limit (ulimit -v)\n')


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='Linux limits address space')
def test_a_reader_that_leaves_is_no_lack_of_memory():
    code = ("import resource, command_line\n"
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))\n"
            "command_line.guard_memory()\n"
            "command_line.run_script(lambda: [print('x' * 99) for _ in range(10 ** 6)])")
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout.read(1) == b'x'
    process.stdout.close()
    assert process.stderr.read() == b'' and process.wait(60) == -signal.SIGPIPE


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_a_reader_that_leaves_ends_a_script_without_a_word(stream):
    code = ("import sys, command_line\n"
            "command_line.run_script(lambda: [print('x' * 99, file=sys.%s) for _ in range(9999)])"
            % stream)
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    read = getattr(process, stream)
    assert read.read(1) == b'x'
    read.close()
    other = process.stdout if stream == 'stderr' else process.stderr
    assert other.read() == b'' and process.wait(60) == -signal.SIGPIPE


def test_a_worker_that_dies_does_not_end_a_script(capsys):
    """Its pipe breaks: an error that the executor handles, where SIGPIPE would end the process."""
    def write():
        reads, writes = os.pipe()
        os.close(reads)
        with pytest.raises(BrokenPipeError):
            os.write(writes, b'job')
        os.close(writes)
        return 7

    with pytest.raises(SystemExit) as ended:
        command_line.run_script(write)
    assert ended.value.code == 7 and capsys.readouterr().err == ''


def test_memory_that_runs_out_without_a_limit(monkeypatch, capsys):
    def fail():
        raise RuntimeError('cannot go on') from MemoryError()

    with pytest.raises(SystemExit) as ended:
        command_line.run_script(fail)
    assert ended.value.code == 2
    assert 'error: out of memory (cannot go on); close other' in capsys.readouterr().err
