"""Bad input, told in one sentence, and what other errors say."""


class UserError(Exception):
    """Bad input, told in one sentence: what is wrong, where, and what to do about it."""


def explain(error):
    """The line of a TensorFlow error, or of an OSError, that tells what happened."""
    if isinstance(error, OSError):
        return '%s: %s' % (error.filename, error.strerror) if error.filename else str(error)
    lines = [line.strip() for line in str(getattr(error, 'message', error)).splitlines()]
    boilerplate = ('Graph execution error', 'Detected at', 'File "', 'Restoring from checkpoint',
                   'Original stack', '<stack', '[[', 'Hint', 'Errors may', 'Input Source')
    telling = [line for line in lines if line and not line.startswith(boilerplate)]
    return (telling or lines or [''])[0][:300]
