"""Reads files that PyTorch saved (`.pt`), without PyTorch and without executing anything in them.

Such a file is a pickle: a program that may call any function of Python by name. Here nothing is
imported and nothing is called. A name in the file becomes a text (`_Name`); where the file asks to
call it, `_Unpickler.made` says which inert thing takes the result's place; and a name that no
WaveGlow checkpoint has refuses the file. Numbers stay in the file until `Tensor.numpy()` is called.

Both containers are read: the zip archive that PyTorch 1.6 introduced, and the row of pickles and
raw numbers before it. Whatever a file says is held against its size or against the bounds below, so
that a hostile one costs some seconds and some hundred megabytes at most.
"""
import os
import pickle
import struct
import zipfile

import numpy as np

from params import UserError

# WaveGlow with its optimizer's state has a pickle of 360 kilobytes, which takes 250 000 reads.
MAX_PICKLE = 32 << 20       # bytes
MAX_STEPS = 1 << 20         # reads of a pickle, each of which makes 250 bytes of objects at most
MAX_DIRECTORY = 4 << 20     # bytes of a zip's directory: some 40 000 entries
MAX_COUNT = 1 << 48         # of whatever the file counts
MAX_NESTING = 100           # containers within containers
MAX_ENTRIES = 20000         # modules, parameters and buffers of a module

# The kinds of numbers: in the file, and from numpy(). NumPy has no bfloat16, but that is the upper
# half of a float32.
STORAGES = {'torch.%sStorage' % name: (np.dtype(stored), np.dtype(given))
            for name, stored, given in (
    ('Double', 'f8', 'f8'), ('Float', 'f4', 'f4'), ('Half', 'f2', 'f2'), ('BFloat16', 'u2', 'f4'),
    ('Long', 'i8', 'i8'), ('Int', 'i4', 'i4'), ('Short', 'i2', 'i2'), ('Char', 'i1', 'i1'),
    ('Byte', 'u1', 'u1'), ('Bool', 'u1', '?'), ('storage.Untyped', 'u1', 'u1'))}
# These have an untyped storage, and the kind is named beside the tensor.
DTYPES = {'torch.uint16': np.dtype('u2'), 'torch.uint32': np.dtype('u4'),
          'torch.uint64': np.dtype('u8')}

# The names a file may ask for, as `_Unpickler.find_class` writes them.
TENSORS = ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2',
           'torch._utils._rebuild_tensor_v3')
PARAMETERS = ('torch._utils._rebuild_parameter', 'torch._utils._rebuild_parameter_with_state')
SUBCLASS = 'torch._tensor._rebuild_from_type_v2'
DICTS = ('collections.OrderedDict', 'collections.defaultdict')
SETS = ('builtins.set', 'builtins.frozenset')
BYTES = ('_codecs.encode', 'builtins.bytes', 'builtins.bytearray')
# Training states hold these beside the model. A Module stands for what becomes of them.
OTHERS = '''torch.Size torch.device torch.Tensor torch.nn.parameter.Parameter
    torch.float64 torch.float32 torch.float16 torch.bfloat16 torch.bool torch.uint8
    torch.int64 torch.int32 torch.int16 torch.int8 torch.nn.backends.thnn._get_thnn_function_backend
    builtins.dict builtins.list builtins.tuple builtins.int builtins.float builtins.complex
    numpy.core.multiarray.scalar numpy.core.multiarray._reconstruct numpy.dtype numpy.ndarray
    argparse.Namespace'''.split()
NAMES = frozenset(STORAGES).union(
    DTYPES, TENSORS, PARAMETERS, [SUBCLASS], DICTS, SETS, BYTES, OTHERS)
MODULES = ('torch.nn.modules.', 'torch.nn.parallel.', 'torch.nn.utils.weight_norm.',
           'torch.optim.', 'torch.utils.hooks.')
CLASSES = ('WaveGlow', 'WN', 'Invertible1x1Conv')   # of any module: people rename NVIDIA's glow.py

MAGIC = 0x1950a86a20f9469cfc6c
ATTACK = 'it may be an attack: do not load it elsewhere either'
TOO_MUCH = 'holds more than any WaveGlow checkpoint; save the state_dict() of the model alone'
SOURCE = 'take it from where it was first published'


class Tensor:
    """A tensor in a file.

    shape: tuple of int.
    dtype: the NumPy dtype of what numpy() returns; float32 for a tensor of bfloat16.
    """
    __slots__ = ('shape', 'dtype', '_strides', '_record', '_stored', '_start')

    def __init__(self, shape, strides, dtype, record, stored, start):
        """strides: in elements. stored: the dtype in the file, from byte `start` of the record."""
        self.shape, self.dtype, self._strides = shape, dtype, strides
        self._record, self._stored, self._start = record, stored, start

    def numpy(self):
        """A C-contiguous array [shape], read from the file now.

        Raises UserError if the file has become shorter or unreadable since it was loaded.
        """
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        extent = 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self._strides))
        flat = self._record.array(self._start, extent, self._stored)
        if self._stored.itemsize != self.dtype.itemsize:    # bfloat16
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        elif self.dtype.kind == 'b':                        # a bool of NumPy is 0 or 1
            flat = flat != 0
        else:
            flat = flat.astype(self.dtype, copy=False)      # the machine's byte order
        strides = [stride * flat.itemsize for stride in self._strides]
        return np.asarray(np.lib.stride_tricks.as_strided(flat, self.shape, strides), order='C')


class Module:
    """What stands for an object of a class in a file, a torch.nn.Module above all.

    name: of the class ('glow.WaveGlow').
    attributes: its __dict__ as it was saved; {} for an object that was saved in another form.
    """
    __slots__ = ('name', 'attributes', '_path')

    def __init__(self, name, path):
        self.name, self.attributes, self._path = name, {}, path


def state_dict(module):
    """{'WN.0.start.weight_g': Tensor, ...}: the parameters and buffers of a Module and its parts.

    Other attributes are left out, such as the `weight` that weight norm computes from parameters.
    Raises UserError for a module that is not made of these, or that has no end.
    """
    found, visited = {}, 0

    def refuse(reason):
        raise UserError('%s: its %s has %s; %s'
                        % (module._path, _short(module.name), reason, SOURCE))

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


def load(path):
    """The object in a file that torch.save wrote.

    It is made of dict, list, tuple, set, str, bytes, numbers, None, Tensor and Module; of classes
    and dtypes there are the names. Raises UserError ('PATH: what is wrong; what to do') for a file
    that cannot be read, that PyTorch did not write, that is damaged, or that wants to do anything
    but hold data.
    """
    try:
        if not os.path.isfile(path):     # a FIFO would block for ever
            raise _Refusal('is not a regular file; give a file that PyTorch saved'
                           if os.path.lexists(path) else 'no such file; check the path')
        with open(path, 'rb') as f:
            head = f.read(512)
            f.seek(0)
            if head.startswith(b'PK'):
                found = _load_zip(f, path)
            elif pickle.LONG1 + b'\x0a' + MAGIC.to_bytes(10, 'little') in head[:32]:
                found = _load_legacy(f, path)
            elif head[257:262] == b'ustar':
                raise _Refusal('is of PyTorch before 0.1.10 (tar); load it there and save it again '
                               'with a current PyTorch')
            else:
                raise _Refusal('is not a file that PyTorch saved; if it was downloaded, look into '
                               'it and download it again')
        _check_nesting(found)
        return found
    except _Refusal as error:
        reason = str(error)
    except OSError as error:
        reason = 'cannot be read (%s); check the file' % (error.strerror or type(error).__name__)
    except MemoryError:
        reason = 'needs more memory than there is; close other programs'
    except Exception:    # a damaged pickle or zip fails in any way there is
        reason = 'is damaged or cut off; copy or download it again'
    raise UserError('%s: %s' % (path, reason))


def _load_zip(f, path):
    """The object in an open zip file: a pickle, and a record of raw numbers for every storage."""
    records = _zip_records(f, path)
    pickles = [name for name in records if name.count('/') == 1 and name.endswith('/data.pkl')]
    if len(pickles) != 1:
        raise _Refusal('is a zip file without a data.pkl of its own, so PyTorch did not save it; '
                       'if a .pt file is inside, unpack it')
    root = pickles[0][:-len('data.pkl')]

    def find_record(key, nbytes, itemsize):
        record = records.get(root + 'data/' + key)
        if record is None or record.nbytes != nbytes:
            raise _Refusal('has no storage %s of %d bytes, which its pickle asks for; %s'
                           % (_short(key), nbytes, SOURCE))
        return record

    order = '<'
    if root + 'byteorder' in records:
        f.seek(records[root + 'byteorder'].position)
        order = '>' if f.read(3) == b'big' else '<'
    record = records[pickles[0]]
    if record.nbytes > MAX_PICKLE:
        raise _Refusal(TOO_MUCH)
    f.seek(record.position)
    return _Unpickler(_Bounded(f, record.nbytes), path, find_record, order).load()


def _zip_records(f, path):
    """{name: _Record} of an open zip file whose entries are stored, and lie one after another.

    No two of them share a byte, so together they are no larger than the file. The checksums are
    left alone, for PyTorch can be told not to compute them.
    """
    archive = zipfile.ZipFile(_Bounded(f, MAX_DIRECTORY))
    if any(name.endswith('/constants.pkl') or '/code/' in name for name in archive.namelist()):
        raise _Refusal('is a TorchScript program, not a checkpoint; save the state_dict() of the '
                       'model with torch.save')
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    records = {}
    for entry, end in zip(entries, ends):
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _Refusal('has compressed entries, which PyTorch never writes; ' + SOURCE)
        f.seek(entry.header_offset)
        # Its name and an extra field, of which PyTorch makes padding, follow the local header.
        position = entry.header_offset + 30 + sum(struct.unpack('<26x2H', f.read(30)))
        if position + entry.file_size > end:
            raise _Refusal('has entries that overlap, which PyTorch never writes; ' + SOURCE)
        records[entry.filename] = _Record(path, position, entry.file_size)
    return records


def _load_legacy(f, path):
    """The object in an open file of pickles, which ends with the storages: counts, raw numbers."""
    bounded, size, records = _Bounded(f, MAX_PICKLE), os.fstat(f.fileno()).st_size, {}

    def find_record(key, nbytes, itemsize):
        record = records.setdefault(key, _Record(path, None, nbytes, itemsize))
        if record.nbytes != nbytes:
            raise _Refusal('says two things of the size of storage %s; %s' % (_short(key), SOURCE))
        return record

    def read():
        return _Unpickler(bounded, path, find_record).load()

    if read() != MAGIC or read() != 1001:
        raise _Refusal('is of a version of PyTorch not known here; load it there and save it again '
                       'with a current PyTorch')
    read()    # the writer's machine; but on any the numbers are little-endian
    found, keys = read(), read()
    for key in keys:
        record = records[_key(key)]
        count, = struct.unpack('<q', f.read(8))
        if count * record.itemsize != record.nbytes:
            raise _Refusal('has no storage %s of %d bytes, which its pickle asks for; %s'
                           % (_short(key), record.nbytes, SOURCE))
        record.position = f.tell()
        if record.position + record.nbytes > size:
            raise _Refusal('is cut off in its numbers; copy or download it again')
        f.seek(record.position + record.nbytes)
    if any(record.position is None for record in records.values()):
        raise _Refusal('does not hold the numbers of all its tensors; ' + SOURCE)
    return found


class _Unpickler(pickle._Unpickler):
    """The machine for pickles, without the means to import, to call and to set attributes.

    It derives from the one written in Python. The one in C takes memory for its memo up to the
    index that a file names, 34 GB for nine bytes, and cannot be rid of instructions.
    """
    # What data takes in protocol 2, which is PyTorch's, and in 3. Beside those of other protocols
    # the registry of extensions is left out, and integers of thousands of digits.
    dispatch = {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
                for name in (
        'STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 BINFLOAT '
        'BINSTRING SHORT_BINSTRING BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 '
        'TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT BINGET LONG_BINGET BINPUT LONG_BINPUT '
        'GLOBAL BINPERSID').split()}

    def __init__(self, bounded, path, find_record, order='<'):
        """find_record(key, nbytes, itemsize) returns a _Record. order: '<' or '>', of its bytes."""
        super().__init__(bounded, encoding='utf-8', errors='replace')
        self.bounded, self.path, self.find_record, self.order = bounded, path, find_record, order

    def find_class(self, module, name):
        full = '%s.%s' % (module, name)
        for old, new in (('__builtin__.', 'builtins.'), ('numpy._core.', 'numpy.core.')):
            full = new + full[len(old):] if full.startswith(old) else full
        if full in NAMES or full.startswith(MODULES) or name in CLASSES:
            return _Name(full)
        raise _Refusal('asks for %s, which no WaveGlow checkpoint needs; %s'
                       % (_short(full), ATTACK))

    def persistent_load(self, pid):
        """What stands outside the pickle: a module's class with its source, or a storage.

        A storage is a Tensor of one dimension.
        """
        if pid[0] == 'module':
            return pid[1]
        if pid[0] != 'storage' or type(pid[1]) is not _Name or pid[1] not in STORAGES:
            raise _Refusal('has a storage of a kind that is not known here; save the tensors as '
                           'float32')
        if any(pid[5:]):
            raise _Refusal('has a storage within another, as before PyTorch 0.4; load it there and '
                           'save copies of the tensors')
        stored, given = STORAGES[pid[1]]
        count = _count(pid[4])
        record = self.find_record(_key(pid[2]), count * stored.itemsize, stored.itemsize)
        return Tensor((count,), (1,), given, record, stored.newbyteorder(self.order), 0)

    def tensor(self, args):
        """The Tensor that a function of TENSORS makes of a storage; refuses one that leaves it.

        args: storage, offset, shape, strides, requires_grad, hooks, dtype if new, metadata if any.
        """
        (storage, offset, shape, strides), more = args[:4], args[6:8]
        stored, given = storage._stored, storage.dtype
        if more and type(more[0]) is _Name:
            given, more = DTYPES[more[0]], more[1:]
            stored = given.newbyteorder(self.order)
        if storage._strides != (1,) or len(shape) != len(strides) or len(shape) > 16 or any(more):
            raise _Refusal('has a tensor of a form that is not known here; save the tensors as '
                           'float32')
        held = storage.shape[0] * storage._stored.itemsize // stored.itemsize
        count, last = 1, _count(offset)
        for n, stride in zip(shape, strides):
            count *= max(_count(n), 1)
            last += (n - 1) * _count(stride)
        if 0 in shape:
            last, held = 0, MAX_COUNT
        if last >= held or count > held:
            raise _Refusal('has a tensor of shape %s that %s its storage of %d values; %s' % (
                ' x '.join(str(n) for n in shape) or '()',
                'reaches beyond' if last >= held else 'repeats', held, SOURCE))
        return Tensor(tuple(shape), tuple(strides), given, storage._record, stored,
                      storage._start + offset * stored.itemsize)

    def made(self, name, args):
        """What takes the place of calling `name`(*args)."""
        if type(name) is not _Name:
            raise _Refusal('calls what is no function; ' + ATTACK)
        if name in TENSORS:
            return self.tensor(args)
        if name == SUBCLASS and args[0] in TENSORS:
            return self.tensor(args[2])
        if (name in PARAMETERS and type(args[0]) is Tensor
                or name == 'torch.Size' and type(args[0]) is tuple):
            return args[0]
        # What follows copies, and a short pickle may have a long thing copied often.
        if name in DICTS:       # from Python 2 with its items; with its factory a defaultdict
            items = args[0] if args and name == DICTS[0] else ()
            self.bounded.spend(len(items))
            return {_key(key): value for key, value in items}
        if name in SETS:
            self.bounded.spend(len(args[0]))
            return {_key(key) for key in args[0]}
        if name in BYTES:       # of which protocol 2 makes text
            text = args[0] if args else ''
            self.bounded.spend(len(text) // 100)
            return text if type(text) is bytes else text.encode('latin-1')
        return Module(name, self.path)

    def load_call(self):
        args = self.stack.pop()
        self.stack[-1] = self.made(self.stack[-1], args)

    def load_build(self):
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Module:
            target.attributes = state if type(state) is dict else {}
        elif type(target) is not dict:      # the attributes of an OrderedDict are let go
            raise _Refusal('sets attributes of what has none; ' + ATTACK)

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    def load_setitems(self):
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2]):
            self.stack[-1][_key(key)] = value

    def load_proto(self):
        if self.read(1) not in (b'\x02', b'\x03'):
            raise _Refusal('is of another pickle protocol than 2 and 3; leave out pickle_protocol '
                           'in the torch.save that writes it')

    dispatch.update({
        pickle.REDUCE[0]: load_call, pickle.NEWOBJ[0]: load_call, pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
        pickle.PROTO[0]: load_proto})


class _Refusal(Exception):
    """What is wrong with the file, and what to do."""


class _Name(str):
    """MODULE.NAME that a file asked for. A type of its own, because any text can be in a file."""
    __slots__ = ()


class _Record:
    """`nbytes` of raw numbers at `position` in a file, of `itemsize` bytes each where known."""
    __slots__ = ('path', 'position', 'nbytes', 'itemsize')

    def __init__(self, path, position, nbytes, itemsize=1):
        self.path, self.position, self.nbytes, self.itemsize = path, position, nbytes, itemsize

    def array(self, start, count, dtype):
        """[count] of dtype from byte `start` of the record; UserError if they are not there."""
        try:
            with open(self.path, 'rb') as f:
                f.seek(self.position + start)
                array = np.fromfile(f, dtype, count)
        except (OSError, MemoryError) as error:
            raise UserError('%s: its numbers cannot be read (%s); check the file'
                            % (self.path, getattr(error, 'strerror', None) or 'no memory'))
        if len(array) < count:
            raise UserError('%s: has become shorter since it was opened; copy or download it again'
                            % self.path)
        return array


class _Bounded:
    """An open file of which `left` bytes can be read, in MAX_STEPS reads, and no more."""

    def __init__(self, f, left):
        self.f, self.left, self.steps = f, left, MAX_STEPS
        self.seek, self.tell = f.seek, f.tell

    def spend(self, steps):
        self.steps -= steps
        if self.steps < 0:
            raise _Refusal(TOO_MUCH)

    def read(self, n=None):
        """n bytes, or all up to the end, which zipfile asks for; EOFError if they are too many."""
        self.spend(1)
        data = self.f.read(self.left + 1 if n is None else min(n, self.left + 1))
        if len(data) > self.left or n is not None and len(data) < n:
            raise EOFError
        self.left -= len(data)
        return data

    def readline(self):
        self.spend(1)
        line = self.f.readline(min(self.left, 1000))    # a long line may be a number to parse
        self.left -= len(line)
        if not line.endswith(b'\n'):
            raise EOFError
        return line


def _key(key):
    """`key`, if it can be looked up at no great cost; a nested tuple, say, can take for ever."""
    if (type(key) in (str, _Name, bytes, bool, type(None), Tensor, Module)
            or type(key) is int and abs(key) < MAX_COUNT):
        return key
    raise _Refusal('has dictionaries with keys that no WaveGlow checkpoint has; ' + ATTACK)


def _count(n):
    if type(n) is int and 0 <= n < MAX_COUNT:
        return n
    raise _Refusal('counts something with what is no count; ' + SOURCE)


def _short(text):
    """What a file says, fit for a sentence."""
    return ascii(text[:60])[1:-1] + '...' * (len(text) > 60)


def _check_nesting(found):
    """Raises _Refusal for containers nested so deep that walking through them would fail."""
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
        raise _Refusal('nests more deeply than any WaveGlow checkpoint; ' + ATTACK)
