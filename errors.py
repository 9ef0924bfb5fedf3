"""Bad input, told in one sentence, and what other errors say."""
import contextlib
import difflib
import errno
import os
import re
from typing import Iterable, Optional

MOST_SAID = 1000
# what TensorFlow, too, tells as a word of the system: it has one code for these and for memory
NO_ROOM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
NO_MEMORY = (os.strerror(errno.ENOMEM), 'std::bad_alloc', "can't start new thread",
             'failed to map segment', 'cannot allocate memory')     # the last two are the linker's
NO_DESCRIPTORS = tuple(os.strerror(code) for code in (errno.EMFILE, errno.ENFILE))


class UserError(Exception):
    """Bad input, told in one sentence: what is wrong, where, and what to do about it.

    A sentence of over MOST_SAID characters, which repeats what somebody wrote, loses its middle.
    """

    def __init__(self, said: str):
        if len(said) > MOST_SAID:
            said = '%s [...] %s' % (said[:MOST_SAID // 2], said[-MOST_SAID // 2:])
        super().__init__(said)


@contextlib.contextmanager
def as_user_error(what, advice, *kinds):
    """Turns an exception of `kinds` in the block into UserError('WHAT (REASON); ADVICE').

    Args:
      what: what fails, with the path: 'cannot write out/a.wav'.
      advice: what to do about it; '' for nothing.
    """
    try:
        yield
    except kinds as error:
        said = reason(error)
        if isinstance(error, OSError) and error.strerror and str(error.filename) in what:
            said = error.strerror   # the path is in `what` already
        raise UserError('%s (%s)%s' % (what, said, advice and '; ' + advice)) from error


def shown(value: object, most: int = 80) -> str:
    """A value as messages show it: in quotes if it is text, and not for ever."""
    if isinstance(value, int) and abs(value) >= 10 ** most:
        return 'a number of more than %d digits' % most
    text = repr(value[:most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most + 2 else text[:most] + '...'


def nearest(name: object, choices: Iterable) -> str:
    """'did you mean X?' of the one of `choices` that is near to `name`, or all that there are."""
    near = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1, cutoff=0.5)
    if near:
        return 'did you mean %r?' % near[0]
    return 'there are ' + ', '.join(str(c) for c in choices)


def cut(value: object, most: int = 80) -> str:
    """A value as text for a message: printable, and not for ever."""
    text = str(value)
    return escape_unprintable(text if len(text) <= most else text[:most] + '...')


def escape_unprintable(text: str) -> str:
    """`text` with what a terminal or a table cannot show (tabs, newlines, broken UTF-8) escaped."""
    return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def reason(error: BaseException) -> str:
    """The line of an exception, an OSError's or TensorFlow's, that tells what happened."""
    if isinstance(error, OSError):
        if error.strerror and error.filename is not None:
            return '%s: %s' % (error.filename, error.strerror)
        return error.strerror or str(error)
    lines = [line.strip() for line in str(getattr(error, 'message', error)).splitlines()]
    for i, line in enumerate(lines):
        if line.startswith('Node: '):       # TensorFlow 2: the reason comes after it
            lines = lines[i + 1:] or lines
            break
    boilerplate = ('Graph execution error', 'Detected at', 'File "', 'Restoring from checkpoint',
                   'Original stack', '<stack', '[[', 'Hint', 'Errors may', 'Input Source',
                   'Node: ', 'Original ')
    telling = [line for line in lines if line and not line.startswith(boilerplate)
               and not re.match(r'\d+ root error', line)]
    return re.sub(r'^\(\d+\) ', '', (telling or lines or [''])[0])[:300]


def is_no_room(error: Exception) -> bool:
    """Whether an exception, the system's or TensorFlow's, is of a full disk or a used-up quota."""
    return _tells(error, NO_ROOM)


def is_no_memory(error: BaseException) -> bool:
    """Whether TensorFlow's ResourceExhaustedError, which has many causes, is of memory."""
    return not _tells(error, NO_ROOM + NO_DESCRIPTORS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it came of, is of memory: Python's, TensorFlow's, any."""
    found: Optional[BaseException] = error
    for _ in range(20):     # a chain may end in itself
        if found is None:
            return False
        if isinstance(found, MemoryError) or any(word in str(found) for word in NO_MEMORY):
            return True
        if type(found).__name__ == 'ResourceExhaustedError' and is_no_memory(found):
            return True
        found = found.__cause__ or found.__context__
    return False


def _tells(error, words):
    text = reason(error)
    return any(word in text for word in words)
