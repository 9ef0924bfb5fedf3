"""errors.py: other exceptions, told in one sentence."""
import errno
import os
import resource
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import errors
from errors import UserError


def test_an_error_becomes_a_user_error_from_its_cause():
    with pytest.raises(UserError) as refusal, errors.as_user_error(
            'cannot write out/a.wav', 'give another --out_dir', OSError, ValueError):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'out/a.wav')
    assert str(refusal.value) == ('cannot write out/a.wav (No space left on device); give another '
                                  '--out_dir')
    assert isinstance(refusal.value.__cause__, OSError)


def test_a_path_that_the_message_does_not_name_is_told():
    with pytest.raises(UserError) as refusal, errors.as_user_error('cannot go on', '', OSError):
        open('/nowhere/at all')
    assert str(refusal.value) == 'cannot go on (/nowhere/at all: No such file or directory)'


def test_other_kinds_pass():
    with pytest.raises(KeyError), errors.as_user_error('x', 'y', OSError, ValueError):
        raise KeyError('z')
    with pytest.raises(UserError, match='^mine$'), errors.as_user_error('x', 'y', OSError):
        raise UserError('mine')


@pytest.mark.parametrize('error, said', [
    (OSError(2, 'No such file', 'a'), 'a: No such file'),
    (OSError(2, 'No such file'), 'No such file'),
    (OSError('a text'), 'a text'),
    (ValueError('one\ntwo'), 'one'),
    (tf.errors.NotFoundError(None, None, 'Graph execution error:\n\nDetected at node x\nno file y'),
     'no file y'),
])
def test_reason_is_the_telling_line(error, said):
    assert errors.reason(error) == said


@pytest.fixture
def saver():
    """(session, tf.train.Saver) of a graph of one variable of a megabyte."""
    with tf.Graph().as_default(), tf.Session() as session:
        v = tf.get_variable('v', initializer=np.ones(2 ** 18, np.float32))
        session.run(v.initializer)
        yield session, tf.train.Saver()


def failure(function, *arguments):
    with pytest.raises(tf.errors.OpError) as error:
        function(*arguments)
    return error.value


def test_an_error_of_a_graph_is_told_with_its_reason(saver, tmp_path):
    """Of TensorFlow itself: a checkpoint that is cut short, changed, or does not fit the disk."""
    session, saver = saver
    path = str(tmp_path / 'model')
    saver.save(session, path)
    data = path + '.data-00000-of-00001'
    os.truncate(data, 1000)
    assert errors.reason(failure(saver.restore, session, path)) == 'Read less bytes than requested'
    with open(data, 'wb') as f:
        f.write(bytes(2 ** 20))
    assert 'Checksum does not match' in errors.reason(failure(saver.restore, session, path))

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 16, limits[1]))
    try:
        error = failure(saver.save, session, str(tmp_path / 'other'))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert 'File too large' in errors.reason(error) and errors.is_no_room(error)


def test_the_first_of_several_reasons():
    text = ('Graph execution error:\n\nDetected at node a\nDetected at node b\nNode: \'a\'\n'
            '2 root error(s) found.\n  (0) NOT_FOUND:  no file y\n\t [[{{node a}}]]')
    assert errors.reason(tf.errors.NotFoundError(None, None, text)) == 'NOT_FOUND:  no file y'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_full_disk_is_not_memory():
    with tf.Graph().as_default(), tf.Session() as session:
        write = tf.raw_ops.WriteFile(filename='/dev/full', contents='x' * 9999)
        error = failure(session.run, write)
    assert isinstance(error, tf.errors.ResourceExhaustedError)
    assert errors.is_no_room(error) and not errors.is_no_memory(error)
    full = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert errors.is_no_room(full)
    many = tf.errors.ResourceExhaustedError(None, None, 'a.mel; Too many open files')
    memory = tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor of shape [9]')
    assert not errors.is_no_memory(many) and not errors.is_no_room(many)
    assert errors.is_no_memory(memory) and not errors.is_no_room(memory)


def test_a_message_does_not_repeat_thousands_of_characters():
    assert str(UserError('a' * 900)) == 'a' * 900
    said = str(UserError('lr=%s is too much; take less' % ('9' * 100000)))
    assert len(said) < 1100 and said.startswith('lr=999') and said.endswith('9 is too much; take '
                                                                            'less')
    assert errors.cut('a' * 81) == 'a' * 80 + '...' and errors.cut(17) == '17'
    assert errors.cut('a\n\x1b[31m') == 'a\\n\\x1b[31m'
