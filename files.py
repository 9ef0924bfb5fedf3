"""Files and directories that appear when they are complete. Knows no TensorFlow."""
import contextlib
import os
import shutil
import tempfile

from errors import UserError

ROOT = os.path.dirname(os.path.abspath(__file__))     # of this repository


@contextlib.contextmanager
def atomic_open(path: str, mode: str = 'w'):
    """Opens a file that appears at `path` only when it is complete.

    It is written under a temporary name beside `path` and renamed, so that a reader, or a kill at
    any moment, never meets half a file. An exception inside the block leaves `path` as it was.
    """
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, exist_ok=True)
    try:
        handle, temporary = tempfile.mkstemp(
            prefix='.tmp-', suffix='-' + os.path.basename(path)[-60:], dir=directory)
    except OSError as error:
        error.filename = path   # nobody knows the temporary name
        raise
    try:
        with os.fdopen(handle, mode) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        _permit(temporary, 0o666)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def atomic_directory(path: str):
    """Makes a directory that appears at `path`, which is free or empty, only when it is complete.

    The block gets the path of a temporary directory and fills it. An exception in the block leaves
    `path` as it was.
    """
    path = os.path.realpath(path)  # of a link, the directory that it points to
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix='.tmp-', dir=parent)
    try:
        yield temporary
        _permit(temporary, 0o777)
        if os.path.isdir(path):
            os.rmdir(path)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def require_new_directory(path: str, advice: str = 'give a new folder'):
    """Raises UserError unless `path` is free, or an empty directory."""
    if os.path.exists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UserError('%s is there already; %s' % (path, advice))


def require_new_file(path: str, advice: str = 'give a new file'):
    """Raises UserError if `path` is that of a folder, or a file is there."""
    if not os.path.basename(path) or os.path.exists(path):
        raise UserError('%s is a folder, or there already; %s' % (path, advice))


def _permit(path, mode):
    """Gives a temporary file, which only its owner may read, the permissions of other new files."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, mode & ~umask)
