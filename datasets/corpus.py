"""A corpus on disk: which files are speech, what was made of them, which are held out.

What `preprocess_data.py` knows about folders, without any signal processing. An utterance goes by
its NAME: the path of its sound file under the corpus's folder, without the extension, with '/'.
"""
import collections
import contextlib
import hashlib
import json
import os
import shutil
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

import files
import params
from datasets.audio_files import AUDIO_EXTENSIONS
from errors import UserError, escape_unprintable
from files import atomic_open

MANIFEST = '.preprocessed.json'     # in data_dir: what was made of which version of which file
MOST_HELD_OUT = 20                  # utterances, unless more are asked for
MARKER = 'CONVERTED.txt'            # in a folder of converted wavs
MARKER_TEXT = ('Copies of a corpus for training, converted where need be and hard links where '
               'not.\npreprocess_data.py makes and removes them; keep nothing else here.\n')


def size_and_mtime(path: str) -> Optional[List[int]]:
    """[bytes, mtime in ns] of a file, by which a changed one is told; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it, links followed."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_audio(wave_dir: str) -> Tuple[Dict[str, str], List[Tuple[str, str]]]:
    """({NAME: path under wave_dir} of the sound files in wave_dir, [(path, reason)] of the others).

    What `find_files` finds.
    """
    found, skipped = find_files(wave_dir, AUDIO_EXTENSIONS)
    sources, unnamed = sources_by_name(found)
    return sources, skipped + unnamed


class Listing(NamedTuple):
    """What lies in a folder, names without it, in order."""
    identity: Any           # equal for two paths of one folder; None where there are no links
    folders: List[str]
    links: List[str]        # to folders
    names: List[str]        # of files


def list_folder(path: str) -> Listing:
    """The Listing of a folder of this machine. Raises OSError."""
    status = os.stat(path)
    entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    listing = Listing(identity=(status.st_dev, status.st_ino), folders=[], links=[], names=[])
    for entry in entries:
        if not os.path.isdir(entry.path):
            listing.names.append(entry.name)
        elif entry.is_symlink():
            listing.links.append(entry.name)
        else:
            listing.folders.append(entry.name)
    return listing


def find_files(top: str, suffixes: Iterable[str], listing: Callable[[str], Listing] = list_folder
               ) -> Tuple[List[str], List[Tuple[str, str]]]:
    """(paths under `top` of files with one of the suffixes, [(folder, why it cannot be listed)]).

    Each folder is visited once, however many links lead to it: a link to a parent ends there.
    Hidden files and folders are left out, and so are folders of converted wavs, which are this
    program's own output. Upper and lower case of a suffix are the same.
    """
    suffixes = tuple(suffixes)
    found, skipped, seen = [], [], set()
    waiting = collections.deque([''])
    while waiting:
        folder = waiting.popleft()
        try:
            listed = listing(os.path.join(top, folder))
        except OSError as error:
            skipped.append((folder, 'cannot be listed (%s)' % error.strerror))
            continue
        if listed.identity in seen or (folder and MARKER in listed.names):
            continue
        if listed.identity is not None:
            seen.add(listed.identity)
        for names, wait in ((listed.folders, waiting.appendleft), (listed.links, waiting.append)):
            for name in names:      # links last: a folder goes by its own name, not by a link's
                if not name.startswith('.'):
                    wait(os.path.join(folder, name))
        found += [os.path.join(folder, name) for name in listed.names
                  if not name.startswith('.') and name.lower().endswith(suffixes)]
    return found, skipped


def sources_by_name(paths: Iterable[str]) -> Tuple[Dict[str, str], List[Tuple[str, str]]]:
    """({NAME: path} of sound files, [(path, reason)] of those whose names are of no use)."""
    by_name = collections.defaultdict(list)
    for path in paths:
        by_name[os.path.splitext(path)[0].replace(os.sep, '/')].append(path)
    sources, skipped = {}, []
    for name, paths in by_name.items():
        problem = name_problem(name)
        if len(paths) > 1:
            problem = 'of one name, %s: keep one' % ' and '.join(sorted(paths))
        if problem:
            skipped += [(path, problem) for path in paths]
        else:
            sources[name] = paths[0]
    return sources, skipped


def name_problem(name: str) -> Optional[str]:
    """Why a name cannot stand on a line of a file list, or None."""
    if any(ord(character) < 32 for character in name):
        return 'its name holds a control character (tab, newline); rename it'
    if name != name.strip() or name.splitlines() != [name]:
        return 'its name begins or ends with a space; rename it'
    try:
        name.encode('utf-8')
    except UnicodeEncodeError:
        return 'its name is not UTF-8; rename it'
    return None


def converted_dir(data_dir: str, wave_dir: str, sample_rate: int) -> str:
    """The folder for converted wavs: data_dir/wavs, unless that is where the corpus itself lies."""
    for folder in ('wavs', 'wavs_%d' % sample_rate):
        path = os.path.join(data_dir, folder)
        free = (not os.path.isdir(path) or os.path.exists(os.path.join(path, MARKER))
                or all(name.startswith('.tmp-') for name in os.listdir(path)))
        if free and not is_within(wave_dir, path):
            return path
    raise UserError('%s holds files that are not of this program; take another --data_dir' % path)


def read_manifest(data_dir: str) -> Dict[str, Dict[str, Any]]:
    """{NAME: record} of earlier runs; empty if there was none that can be read.

    A record that cannot be one of `write_manifest` is left out: its utterance is computed anew. So
    is one whose name would lead out of the folders, in which stale files are removed.
    """
    try:
        with open(os.path.join(data_dir, MANIFEST), encoding='utf-8') as f:
            records = {name: dict(record) for name, record in json.load(f).items()
                       if _is_record(record) and not files.leaves_folder(name)}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}
    alike = {}      # parameters of many records, held once
    for record in records.values():
        data = record.get('data')
        if isinstance(data, dict):
            data = params.with_current_names(data)
        record['data'] = alike.setdefault(repr(data), data)
    return records


def _is_record(record):
    """Whether JSON is a record, begun or complete, of `preprocessing.plan`."""
    kinds: Dict[str, Any] = dict(source=str, stamp=list, data=dict, plain=bool, notes=list,
                 mel=(list, type(None)), wav=(list, type(None)))
    counts = [record[key] for key in ('samples', 'clipped', 'zeros') if key in record]
    return (all(isinstance(record[key], kind) for key, kind in kinds.items() if key in record)
            and all(isinstance(count, int) and 0 <= count < 2 ** 53 for count in counts)
            and all(isinstance(note, str) for note in record.get('notes', ())))


def write_manifest(data_dir: str, records: Mapping[str, Dict[str, Any]]) -> None:
    """Writes {NAME: record} as JSON for `read_manifest`, with one record in memory at a time."""
    with atomic_open(os.path.join(data_dir, MANIFEST)) as f:
        before = '{'
        for name, record in records.items():
            f.write('%s%s: %s' % (before, json.dumps(name), json.dumps(record)))
            before = ',\n'
        f.write('}' if records else '{}')


def remove_temporaries(folder: str, recurse: bool = True) -> None:
    """Removes what `atomic_open` leaves behind when it is killed."""
    for path, folders, _ in os.walk(folder):
        files.remove_leftovers(path)
        if not recurse:
            folders.clear()


def split(names: Iterable[str], test_size: Optional[int], seed: int
          ) -> Tuple[List[str], List[str]]:
    """(train, test), sorted; test_size names are held out, by default 5% but 1 to 20.

    Each name is hashed by itself, so a corpus that grows moves next to none between the two.
    Raises UserError if that leaves nothing to train on.
    """
    names = list(names)
    size = test_size_of(len(names), test_size)
    ordered = sorted(names, key=lambda name: split_key(name, seed))
    return sorted(ordered[size:]), sorted(ordered[:size])


def split_key(name: str, seed: int) -> bytes:
    """A hash of the name: the names with the least are held out."""
    return hashlib.sha256(('%d\n%s' % (seed, name)).encode('utf-8')).digest()


def test_size_of(count: int, test_size: Optional[int]) -> int:
    """How many of `count` utterances are held out; see `split`."""
    if test_size is None:
        return min(MOST_HELD_OUT, max(1, round(0.05 * count))) if count > 1 else 0
    if not 0 <= test_size < count:
        raise UserError('--test_size=%d of %d utterances leaves none to train on; take less'
                        % (test_size, count) if test_size >= 0 else
                        '--test_size=%d is less than 0' % test_size)
    return test_size


def skipped_table(skipped: Iterable[Tuple[str, str]]) -> str:
    """The text of skipped.tsv for [(path, reason)]: a spreadsheet runs nothing of it."""
    def cell(text):
        return ("'" if text[:1] in ('=', '+', '-', '@') else '') + escape_unprintable(text)

    return ''.join('%s\t%s\n' % (cell(path), cell(reason)) for path, reason in sorted(skipped))


def write_text(path: str, text: str) -> None:
    """Writes a text file in UTF-8, atomically, whatever the locale."""
    with atomic_open(path, 'wb') as f:
        f.write(text.encode('utf-8'))


def link_or_copy(source: str, target: str) -> None:
    """Makes `target` the file that `source` is: a hard link, or a copy where that cannot be."""
    if os.path.exists(target) and os.path.samefile(source, target):
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        with open(source, 'rb') as f, atomic_open(target, 'wb') as copy:
            shutil.copyfileobj(f, copy)


def remove_stale(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]],
                 mel_dir: str, wavs: str) -> None:
    """Removes mels and converted wavs that this program wrote and that no source stands for now."""
    for name, record in old.items():
        for kind, path in (('mel', os.path.join(mel_dir, name + '.mel')),
                           ('wav', os.path.join(wavs, name + '.wav'))):
            made = record.get(kind)
            if made and made == size_and_mtime(path) and not new.get(name, {}).get(kind):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def remove_converted(wavs: str) -> None:
    """Removes the folder of converted wavs, but for files that are not of this program."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(wavs, MARKER))
    for path, _, _ in os.walk(wavs, topdown=False):
        with contextlib.suppress(OSError):      # not empty
            os.rmdir(path)
