"""errors.py: other exceptions, told in one sentence."""
import errno
import os

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
