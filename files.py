"""Files and directories that appear when they are complete. Knows no TensorFlow."""
import contextlib
import glob
import os
import shutil
import tempfile
import uuid
from typing import Dict, Iterable

from errors import UserError

try:
    import fcntl
except ImportError:     # Windows has no such locks
    fcntl = None        # type: ignore[assignment]

LOCK = '.lock'     # in a directory that one process holds
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
            _lock(f.fileno())
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
    `path` as it was. What a killed process left of the same directory is removed.
    """
    path = os.path.realpath(path)  # of a link, the directory that it points to
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    suffix = '-' + os.path.basename(path)[-60:]
    remove_leftovers(parent, suffix)
    temporary = tempfile.mkdtemp(prefix='.tmp-', suffix=suffix, dir=parent)
    with _opened(temporary) as handle:
        try:
            _lock(handle)
            yield temporary
            _permit(temporary, 0o777)
            if os.path.isdir(path):
                os.rmdir(path)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_leftovers(directory: str, suffix: str = ''):
    """Removes temporary files and directories in `directory` that a killed process left.

    Args:
      suffix: the end of their names; those that a living process holds stay.
    """
    pattern = os.path.join(glob.escape(directory), '.tmp-' + '?' * 8 + '*' + glob.escape(suffix))
    for path in glob.glob(pattern):
        with contextlib.suppress(OSError), _opened(path) as handle:
            if not _lock(handle):
                continue
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


@contextlib.contextmanager
def lock_directory(directory: str, message: str):
    """Holds `directory` for one process, which ends with it.

    The block gets a function that tells whether `directory` is still the one that is held: it is
    not when it was removed or renamed, whatever is in its place now.

    Raises UserError(message) if another process holds it, and OSError if it cannot be written.
    """
    path = os.path.join(directory, LOCK)
    with open(path, 'a') as f:
        if not _lock(f.fileno()):
            raise UserError(message)
        word = uuid.uuid4().hex     # inode numbers change under a process on some file systems
        f.truncate(0)
        f.write(word)
        f.flush()

        def is_held() -> bool:
            try:
                with open(path) as found:
                    return found.read() in (word, '')   # '': an earlier version, which was refused
            except (FileNotFoundError, NotADirectoryError):
                return False
            except OSError:         # a file system that is out of order for a while
                return True

        yield is_held


@contextlib.contextmanager
def _opened(path):
    """A descriptor of a file or directory to lock; None where there are no locks."""
    if fcntl is None:
        yield None
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle):
    """Locks an open file or directory for this process; False if another one holds it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:     # some network file systems lock nothing
        return True
    return True


def leaves_folder(name: str) -> bool:
    """Whether `name`, joined to a folder, is a path outside of it."""
    return os.path.isabs(name) or '..' in name.replace('\\', '/').split('/')


def require_new_directory(path: str, advice: str = 'give a new folder'):
    """Raises UserError unless `path` is free, or an empty directory."""
    if os.path.exists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UserError('%s is there already; %s' % (path, advice))


def require_new_file(path: str, advice: str = 'give a new file'):
    """Raises UserError if `path` is that of a folder, or a file is there."""
    if not os.path.basename(path) or os.path.exists(path):
        raise UserError('%s is a folder, or there already; %s' % (path, advice))


def refuse_overwriting(inputs: Iterable[str], outputs: Iterable[str], advice: str):
    """Raises UserError if one of the files to write is, through links too, one of those read.

    Also if two of those to write are one file.
    """
    read = {os.path.realpath(path): path for path in inputs}
    written: Dict[str, str] = {}
    for path in outputs:
        real = os.path.realpath(path)
        if real in read:
            raise UserError('%s, which is read, would be overwritten; %s' % (read[real], advice))
        if real in written:
            raise UserError('%s and %s are one file, and both would be written; %s'
                            % (written[real], path, advice))
        written[real] = path


def _permit(path, mode):
    """Gives a temporary file, which only its owner may read, the permissions of other new files."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, mode & ~umask)
