"""File lists: which utterances to train on or to measure, one a line. Knows no TensorFlow.

Ours hold names, paths under the folder of wavs without a suffix. The lists of other projects say
the same in other words: `wavs/LJ001-0001.wav|Printing, in the only sense.`
"""
import codecs
import os
from typing import Callable, List, Optional

from datasets.audio_files import AUDIO_EXTENSIONS
from errors import UserError, shown
from files import leaves_folder

HOLDS = 'a file list holds one utterance a line: a path under --wave_dir, without .wav'


def read_file_list(path: str, wave_dir: Optional[str] = None) -> List[str]:
    """The utterance names in the file list `path`; blank lines are passed over.

    Args:
      path: a text file in UTF-8 or, with a byte-order mark, UTF-16.
      wave_dir: where NAME.wav are. With it lines of other projects' forms are understood: see
        `utterance_names`.

    Raises UserError for a file that cannot be read, is no text or lists nothing.
    """
    lines = [line.strip() for line in _decoded(path).splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UserError('the file list %s is empty; preprocess a corpus with more speech' % path)
    for number, line in enumerate(lines, 1):
        if '\0' in line:
            raise UserError('the file list %s has a NUL byte in line %d; it is no text: %s'
                            % (path, number, HOLDS))
    if wave_dir is None:
        return lines

    def exists(name):
        return not leaves_folder(name) and os.path.isfile(os.path.join(wave_dir, name + '.wav'))

    names = utterance_names(lines, path, wave_dir, exists)
    outside = next((name for name in names if leaves_folder(name)), None)
    if outside is not None:
        raise UserError('the file list %s names %s, which is not under --wave_dir %s; %s'
                        % (path, shown(outside), wave_dir, HOLDS))
    return names


def utterance_names(lines: List[str], path: str, wave_dir: str,
                    exists: Callable[[str], bool]) -> List[str]:
    """The names that `lines` mean: the lines themselves, or what is left without what surrounds it.

    A transcript after `|`, the suffix of a sound file or a mel, `wave_dir` before it and leading
    folders are taken away, as much of it as leads to a wav, and from all lines alike: a line whose
    wav is missing keeps its name, for others to tell.

    Args:
      path: the file list, and
      wave_dir: the folder, that a message names.
      exists: whether there is a wav of a name.

    Raises UserError, showing the first line, if none of the ways leads to a wav.
    """
    tried = lines[:20] + lines[20::max(1, len(lines) // 20)]
    for way in _ways(lines[0], wave_dir):
        if any(exists(way(line)) for line in tried):
            return [way(line) for line in lines]
    if any(_is_plain(line) for line in tried):
        return lines    # of ours, and the wavs are missing: that is told with their paths
    raise UserError('the file list %s names no wav in %s; %s; its first line is %s'
                    % (path, wave_dir, HOLDS, shown(lines[0])))


def _ways(first, wave_dir):
    """Functions from a line to a name, the one that changes least first."""
    yield lambda line: line
    yield _without_suffix
    for text in (lambda line: line, lambda line: line.split('|')[0].strip()):
        yield lambda line, text=text: _under(_without_suffix(text(line)), wave_dir)
        folders = _without_suffix(text(first)).replace('\\', '/').count('/')
        for drop in range(1, folders + 1):
            yield lambda line, text=text, drop=drop: '/'.join(
                _without_suffix(text(line)).replace('\\', '/').split('/')[drop:])


def _without_suffix(line):
    stem, suffix = os.path.splitext(line)
    return stem if suffix.lower() in AUDIO_EXTENSIONS or suffix.lower() == '.mel' else line


def _under(name, wave_dir):
    """`name` as a path under wave_dir, if it is an absolute one below it."""
    root = os.path.join(os.path.abspath(wave_dir), '')
    return os.path.normpath(name)[len(root):] if os.path.normpath(name).startswith(root) else name


def _is_plain(line):
    return not os.path.isabs(line) and '|' not in line and _without_suffix(line) == line


def _decoded(path):
    try:
        with open(path, 'rb') as f:
            content = f.read()
        for mark, encoding in ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF16_LE, 'utf-16'),
                               (codecs.BOM_UTF16_BE, 'utf-16')):
            if content.startswith(mark):
                return content.decode(encoding)
        return content.decode('utf-8')
    except OSError as error:
        raise UserError('cannot read the file list %s (%s); preprocess_data.py writes it'
                        % (path, error.strerror)) from error
    except UnicodeDecodeError as error:
        raise UserError('the file list %s is not text in UTF-8 (byte %d); save it as UTF-8'
                        % (path, error.start)) from error
