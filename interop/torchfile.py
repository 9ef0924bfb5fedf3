"""Reads files that PyTorch saved (`.pt`), without PyTorch and without executing anything in them.

Such a file holds a pickle, a program that may call any function of Python by name; torchpickle.py
reads it as data. Numbers stay in the file until `Tensor.numpy()` is called.

Both containers are read: the zip archive of PyTorch 1.6 and later, and the sequence of pickles and
raw numbers of earlier versions. Every size that a file names is checked against the size of the
file or the bounds below: a hostile file costs some seconds and some hundred megabytes at most.
"""
import os
import pickle
import struct
import zipfile
from typing import Any, Dict

from errors import UserError
from interop.torchpickle import (
    FROM_SOURCE,
    MAY_BE_ATTACK,
    TOO_LARGE,
    BoundedFile,
    Module,
    Record,
    Refusal,
    Tensor,
    Unpickler,
    check_key,
    excerpt,
)

MAX_PICKLE = 32 << 20       # bytes
MAX_DIRECTORY = 4 << 20     # bytes of a zip's directory: some 40 000 entries
MAX_NESTING = 100           # containers within containers
MAX_ENTRIES = 20000         # modules, parameters and buffers of a module
MAGIC = 0x1950a86a20f9469cfc6c


def load(path: str) -> Any:
    """The object in a file that torch.save wrote.

    It is made of dict, list, tuple, set, str, bytes, numbers, None, Tensor and Module; classes and
    dtypes are names. Raises UserError ('PATH: what is wrong; what to do') for a file that cannot be
    read, that PyTorch did not write, that is damaged, or that does more than hold data.
    """
    try:
        if not os.path.isfile(path):     # a FIFO would block for ever
            raise Refusal('is not a regular file; give a file that PyTorch saved'
                          if os.path.lexists(path) else 'no such file; check the path')
        with open(path, 'rb') as f:
            head = f.read(512)
            f.seek(0)
            if head.startswith(b'PK'):
                found = _load_zip(f, path)
            elif pickle.LONG1 + b'\x0a' + MAGIC.to_bytes(10, 'little') in head[:32]:
                found = _load_legacy(f, path)
            elif head[257:262] == b'ustar':
                raise Refusal('is of PyTorch before 0.1.10 (tar); load it there and save it again '
                              'with a current PyTorch')
            else:
                raise Refusal('is not a file that PyTorch saved; if it was downloaded, look into '
                              'it and download it again')
        _check_nesting(found)
        return found
    except Refusal as error:
        raise UserError('%s: %s' % (path, error)) from error
    except OSError as error:
        raise UserError('%s: cannot be read (%s); check the file'
                        % (path, error.strerror or type(error).__name__)) from error
    except MemoryError as error:
        raise UserError('%s: needs more memory than there is; close other programs'
                        % path) from error
    except Exception as error:    # a damaged pickle or zip fails in any way there is
        raise UserError('%s: is damaged or cut off; copy or download it again'
                        % path) from error


def _load_zip(f, path):
    """The object in an open zip file: a pickle, and a record of raw numbers for every storage."""
    records = _zip_records(f, path)
    pickles = [name for name in records if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
        raise Refusal('is a zip file without a data.pkl of its own, so PyTorch did not save it; '
                      'if a .pt file is inside, unpack it')
    root = pickles[0][:-len('data.pkl')]

    def find_record(key, nbytes, itemsize):
        record = records.get(root + 'data/' + key)
        if record is None or record.nbytes != nbytes:
            raise Refusal('has no storage %s of %d bytes, which its pickle asks for; %s'
                          % (excerpt(key), nbytes, FROM_SOURCE))
        return record

    order = '<'
    if root + 'byteorder' in records:
        f.seek(records[root + 'byteorder'].position)
        order = '>' if f.read(3) == b'big' else '<'
    record = records[pickles[0]]
    if record.nbytes > MAX_PICKLE:
        raise Refusal(TOO_LARGE)
    f.seek(record.position)
    return Unpickler(BoundedFile(f, record.nbytes), path, find_record, order).load()


def _zip_records(f, path):
    """{name: Record} of an open zip file whose entries are stored, and lie one after another.

    No two of them share a byte, so together they are no larger than the file. The checksums are
    left alone, for PyTorch can be told not to compute them.
    """
    archive = zipfile.ZipFile(BoundedFile(f, MAX_DIRECTORY))
    if any(name.endswith('/constants.pkl') or '/code/' in name for name in archive.namelist()):
        raise Refusal('is a TorchScript program, not a checkpoint; save the state_dict() of the '
                      'model with torch.save')
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    records = {}
    for entry, end in zip(entries, ends):
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Refusal('has compressed entries, which PyTorch never writes; ' + FROM_SOURCE)
        f.seek(entry.header_offset)
        # Its name and an extra field, of which PyTorch makes padding, follow the local header.
        position = entry.header_offset + 30 + sum(struct.unpack('<26x2H', f.read(30)))
        if position + entry.file_size > end:
            raise Refusal('has entries that overlap, which PyTorch never writes; ' + FROM_SOURCE)
        records[entry.filename] = Record(path, position, entry.file_size)
    return records


def _load_legacy(f, path):
    """The object in an open file of pickles, which ends with the storages: counts, raw numbers."""
    bounded, size, records = BoundedFile(f, MAX_PICKLE), os.fstat(f.fileno()).st_size, {}

    def find_record(key, nbytes, itemsize):
        record = records.setdefault(key, Record(path, None, nbytes, itemsize))
        if record.nbytes != nbytes:
            raise Refusal('gives two sizes of storage %s; %s' % (excerpt(key), FROM_SOURCE))
        return record

    def read():
        return Unpickler(bounded, path, find_record).load()

    if read() != MAGIC or read() != 1001:
        raise Refusal('is of a version of PyTorch not known here; load it there and save it again '
                      'with a current PyTorch')
    read()    # the writer's machine; but on any the numbers are little-endian
    found, keys = read(), read()
    for key in keys:
        record = records[check_key(key)]
        count, = struct.unpack('<q', f.read(8))
        if count * record.itemsize != record.nbytes:
            raise Refusal('has no storage %s of %d bytes, which its pickle asks for; %s'
                          % (excerpt(key), record.nbytes, FROM_SOURCE))
        record.position = f.tell()
        if record.position + record.nbytes > size:
            raise Refusal('is cut off in its numbers; copy or download it again')
        f.seek(record.position + record.nbytes)
    if any(record.position is None for record in records.values()):
        raise Refusal('does not hold the numbers of all its tensors; ' + FROM_SOURCE)
    return found


def _check_nesting(found):
    """Raises Refusal for containers nested so deep that walking through them would fail."""
    level, seen = [found], set()
    for _ in range(MAX_NESTING):
        deeper = []
        for thing in level:
            if type(thing) in (dict, list, tuple, set, Module) and id(thing) not in seen:
                seen.add(id(thing))
                deeper.extend(thing.values() if type(thing) is dict else
                              [thing.attributes] if type(thing) is Module else thing)
        level = deeper
    if level:
        raise Refusal('nests more deeply than any WaveGlow checkpoint; ' + MAY_BE_ATTACK)


def state_dict(module: Module) -> Dict[str, Tensor]:
    """{'WN.0.start.weight_g': Tensor, ...}: the parameters and buffers of a Module and its parts.

    Other attributes are left out, such as the `weight` that weight norm computes from parameters.
    Raises UserError for a module that has other parts, or contains itself.
    """
    found, visited = {}, 0

    def refuse(reason):
        raise UserError('%s: its %s has %s; %s'
                        % (module._path, excerpt(module.name), reason, FROM_SOURCE))

    def walk(part, prefix, depth):
        nonlocal visited
        for kind, wanted in (('_parameters', Tensor), ('_buffers', Tensor), ('_modules', Module)):
            entries = part.attributes.get(kind, {})
            if type(entries) is not dict:
                refuse('no dictionary for its ' + kind)
            for name, value in entries.items():
                visited += 1    # again for every use: one module may be part of many
                if visited > MAX_ENTRIES or depth > MAX_NESTING:
                    refuse('itself for a part, or more parts than any WaveGlow')
                if type(name) is not str or len(name) > 100:
                    refuse('a part without a proper name')
                if type(value) is not wanted and value is not None:
                    refuse('among its %s what does not belong there' % kind)
                if type(value) is Tensor:
                    found[prefix + name] = value
                elif type(value) is Module:
                    walk(value, prefix + name + '.', depth + 1)

    walk(module, '', 1)
    return found
