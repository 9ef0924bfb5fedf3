"""Reads the pickle in a file of PyTorch as data: nothing is imported and nothing is called.

A name in the pickle becomes a text (`_Name`). Where the pickle calls a name, `Unpickler.substitute`
puts an object without behaviour in place of the result. A name that no WaveGlow checkpoint has
makes the whole file refused. If it turns out to be the class of a module, the file is told to hold
another model, not to be an attack. `torchfile.load` is the function to call.
"""
import pickle
import re
from typing import Any, Callable, ClassVar, Dict, List, Tuple

import numpy as np

from errors import UserError
from interop import other_models

MAX_STEPS = 1 << 20         # reads of a pickle, each of which makes 250 bytes of objects at most
MAX_COUNT = 1 << 48         # largest number of elements, bytes or the like

# The kinds of numbers: in the file, and from numpy(). NumPy has no bfloat16, but that is the upper
# half of a float32.
STORAGES: Dict[str, Tuple[np.dtype, np.dtype]] = {
    'torch.%sStorage' % name: (np.dtype(stored), np.dtype(given)) for name, stored, given in (
        ('Double', 'f8', 'f8'), ('Float', 'f4', 'f4'), ('Half', 'f2', 'f2'),
        ('BFloat16', 'u2', 'f4'), ('Long', 'i8', 'i8'), ('Int', 'i4', 'i4'), ('Short', 'i2', 'i2'),
        ('Char', 'i1', 'i1'), ('Byte', 'u1', 'u1'), ('Bool', 'u1', '?'),
        ('storage.Untyped', 'u1', 'u1'))}
# Tensors of these kinds have an untyped storage; the pickle names the kind beside the tensor.
DTYPES: Dict[str, np.dtype] = {
    'torch.uint16': np.dtype('u2'), 'torch.uint32': np.dtype('u4'), 'torch.uint64': np.dtype('u8')}

# The names a file may ask for, as `Unpickler.find_class` writes them.
TENSORS = ('torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2',
           'torch._utils._rebuild_tensor_v3')
PARAMETERS = ('torch._utils._rebuild_parameter', 'torch._utils._rebuild_parameter_with_state')
SUBCLASS = 'torch._tensor._rebuild_from_type_v2'
DICTS = ('collections.OrderedDict', 'collections.defaultdict')
SETS = ('builtins.set', 'builtins.frozenset')
BYTES = ('_codecs.encode', 'builtins.bytes', 'builtins.bytearray')
# Training states hold these beside the model. A Module takes the place of each.
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
# Classes of any package, because people rename NVIDIA's glow.py; the last three are NeMo's.
CLASSES = ('WaveGlow', 'WN', 'Invertible1x1Conv', 'WaveGlowModule', 'WaveNet', 'OperationMode')
CLASS_NAME = re.compile('[A-Z][A-Za-z0-9_]*$')   # what may be a class of modules
HARMLESS = ('torch.', 'numpy.', 'pathlib.', 'collections.', 'datetime.')
SAVE_ALONE = 'save the state_dict() of the model, or the mel as float32, alone'
MAY_BE_ATTACK = 'it may be an attack: do not load it elsewhere either'
TOO_LARGE = 'holds more than any WaveGlow checkpoint; save the state_dict() of the model alone'
FROM_SOURCE = 'take it from where it was first published'


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
    """An object of a class in a file, such as a torch.nn.Module, as data.

    name: of the class ('glow.WaveGlow').
    attributes: its __dict__ as it was saved; {} for an object that was saved in another form.
    """
    __slots__ = ('name', 'attributes', '_path')

    def __init__(self, name, path):
        self.name, self.attributes, self._path = name, {}, path


class Refusal(Exception):
    """A file that is not read; says what is wrong with it, and what to do."""


class Record:
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
                            % (self.path, getattr(error, 'strerror', None) or 'no memory')
                            ) from error
        if len(array) < count:
            raise UserError('%s: has become shorter since it was opened; copy or download it again'
                            % self.path)
        return array


class Unpickler(pickle._Unpickler):
    """An unpickler that cannot import, call or set attributes.

    It derives from the unpickler written in Python. The one in C allocates its memo up to the index
    that a file names, 34 GB for nine bytes, and its instructions cannot be removed.
    """
    stack: List[Any]                        # the base class has these, and no stub tells
    read: Callable[[int], bytes]
    pop_mark: Callable[[], List[Any]]

    # The instructions that data needs in protocol 2, PyTorch's own, and in 3. Left out are those
    # of other protocols, the registry of extensions, and integers of thousands of digits.
    dispatch: ClassVar[Dict[int, Callable[..., Any]]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in (
            'STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 '
            'BINFLOAT BINSTRING SHORT_BINSTRING BINUNICODE BINBYTES SHORT_BINBYTES '
            'EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT '
            'BINGET LONG_BINGET BINPUT LONG_BINPUT GLOBAL BINPERSID').split()}

    def __init__(self, bounded_file, path, find_record, order='<'):
        """find_record(key, nbytes, itemsize) returns a Record. order: '<' or '>', of its bytes."""
        super().__init__(bounded_file, encoding='utf-8', errors='replace')
        self.file, self.path, self.find_record, self.order = bounded_file, path, find_record, order
        # names of classes that are not known here -> whether an object of it is a module
        self.unknown: Dict[str, bool] = {}

    def load(self):
        try:
            found = super().load()
        except (Refusal, EOFError):
            raise
        except Exception as error:      # perhaps because no object took the class's place
            for name in self.unknown:
                raise _unneeded(name) from error
            raise
        for name, is_module in self.unknown.items():
            raise _other_model(name) if is_module else _unneeded(name)
        return found

    def find_class(self, module, name):
        full = '%s.%s' % (module, name)
        for old, new in (('__builtin__.', 'builtins.'), ('numpy._core.', 'numpy.core.')):
            full = new + full[len(old):] if full.startswith(old) else full
        if name in CLASSES and 'glow_old' in module.split('.'):
            raise Refusal(other_models.FIRST_ARCHITECTURE)
        if not (full in NAMES or full.startswith(MODULES) or name in CLASSES):
            if full.startswith(HARMLESS) or not CLASS_NAME.match(name):
                raise _unneeded(full)
            self.unknown.setdefault(full, False)
        return _Name(full)

    def persistent_load(self, pid):
        """What stands outside the pickle: a module's class with its source, or a storage.

        A storage is a Tensor of one dimension.
        """
        if pid[0] == 'module':
            return pid[1]
        if pid[0] != 'storage' or type(pid[1]) is not _Name or pid[1] not in STORAGES:
            raise Refusal('has a storage of a kind that is not known here; save the tensors as '
                          'float32')
        if any(pid[5:]):
            raise Refusal('has a storage within another, as before PyTorch 0.4; load it there and '
                          'save copies of the tensors')
        stored, given = STORAGES[pid[1]]
        count = _check_count(pid[4])
        record = self.find_record(check_key(pid[2]), count * stored.itemsize, stored.itemsize)
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
            raise Refusal('has a tensor of a form that is not known here; save the tensors as '
                          'float32')
        available = storage.shape[0] * storage._stored.itemsize // stored.itemsize
        count, last = 1, _check_count(offset)
        for n, stride in zip(shape, strides):
            count *= max(_check_count(n), 1)
            last += (n - 1) * _check_count(stride)
        if 0 in shape:
            last, available = 0, MAX_COUNT
        if last >= available or count > available:
            raise Refusal('has a tensor of shape %s that %s its storage of %d values; %s' % (
                ' x '.join(str(n) for n in shape) or '()',
                'reaches beyond' if last >= available else 'repeats', available, FROM_SOURCE))
        return Tensor(tuple(shape), tuple(strides), given, storage._record, stored,
                      storage._start + offset * stored.itemsize)

    def substitute(self, name, args):
        """The object that takes the place of the result of `name`(*args)."""
        if type(name) is not _Name:
            raise Refusal('calls what is no function; ' + MAY_BE_ATTACK)
        if name in TENSORS:
            return self.tensor(args)
        if name == SUBCLASS and args[0] in TENSORS:
            return self.tensor(args[2])
        if (name in PARAMETERS and type(args[0]) is Tensor
                or name == 'torch.Size' and type(args[0]) is tuple):
            return args[0]
        # The rest copies, and a short pickle may have a long object copied often: count the items.
        if name in DICTS:       # from Python 2 with its items; with its factory a defaultdict
            items = args[0] if args and name == DICTS[0] else ()
            self.file.count_steps(len(items))
            return {check_key(key): value for key, value in items}
        if name in SETS:
            self.file.count_steps(len(args[0]))
            return {check_key(key) for key in args[0]}
        if name in BYTES:       # of which protocol 2 makes text
            text = args[0] if args else ''
            self.file.count_steps(len(text) // 100)
            return text if type(text) is bytes else text.encode('latin-1')
        if name in self.unknown and args != ():     # a module is made without
            raise _unneeded(name)
        return Module(name, self.path)

    def load_call(self):
        args = self.stack.pop()
        self.stack[-1] = self.substitute(self.stack[-1], args)

    def load_build(self):
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Module:
            target.attributes = state if type(state) is dict else {}
            if target.name in self.unknown and '_modules' in target.attributes:
                self.unknown[target.name] = True
        elif type(target) is not dict:      # the attributes of an OrderedDict are let go
            raise Refusal('sets attributes of what has none; ' + MAY_BE_ATTACK)

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][check_key(key)] = value

    def load_setitems(self):
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2]):
            self.stack[-1][check_key(key)] = value

    def load_proto(self):
        if self.read(1) not in (b'\x02', b'\x03'):
            raise Refusal('is of another pickle protocol than 2 and 3; leave out pickle_protocol '
                          'in the torch.save that writes it')

    dispatch.update({
        pickle.REDUCE[0]: load_call, pickle.NEWOBJ[0]: load_call, pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
        pickle.PROTO[0]: load_proto})


def _unneeded(name):
    """The Refusal of a file that asks for `name`."""
    return Refusal('asks for %s, which no model or mel needs; %s'
                   % (excerpt(name), SAVE_ALONE if name.startswith(HARMLESS) else MAY_BE_ATTACK))


def _other_model(name):
    """The Refusal of a file with a module of class `name`."""
    kind = other_models.kind_of_class(name)
    if kind:
        return Refusal('holds %s (class %s); %s' % (kind, excerpt(name), other_models.ADVICE))
    return Refusal('holds a model of class %s, which is not known here; %s, or the state_dict() of '
                   'the model if it is one' % (excerpt(name), other_models.ADVICE))


class _Name(str):
    """MODULE.NAME that a file asked for. A type of its own, because any text can be in a file."""
    __slots__ = ()


class BoundedFile:
    """An open file of which `left` bytes can be read, in MAX_STEPS reads, and no more."""

    def __init__(self, f, left):
        self.f, self.left, self.steps = f, left, MAX_STEPS
        self.seek, self.tell = f.seek, f.tell

    def count_steps(self, steps):
        self.steps -= steps
        if self.steps < 0:
            raise Refusal(TOO_LARGE)

    def read(self, n=None):
        """n bytes, or all up to the end, which zipfile asks for; EOFError if they are too many."""
        self.count_steps(1)
        data = self.f.read(self.left + 1 if n is None else min(n, self.left + 1))
        if len(data) > self.left or n is not None and len(data) < n:
            raise EOFError
        self.left -= len(data)
        return data

    def readline(self):
        self.count_steps(1)
        line = self.f.readline(min(self.left, 1000))    # a long line may be a number to parse
        self.left -= len(line)
        if not line.endswith(b'\n'):
            raise EOFError
        return line


def check_key(key):
    """`key`, if its hash is cheap; that of a nested tuple, for example, can take for ever."""
    if (type(key) in (str, _Name, bytes, bool, type(None), Tensor, Module)
            or type(key) is int and abs(key) < MAX_COUNT):
        return key
    raise Refusal('has dictionaries with keys that no WaveGlow checkpoint has; ' + MAY_BE_ATTACK)


def _check_count(n):
    if type(n) is int and 0 <= n < MAX_COUNT:
        return n
    raise Refusal('counts something with what is no count; ' + FROM_SOURCE)


def excerpt(text):
    """A text from a file, short and printable enough for a message."""
    return ascii(text[:60])[1:-1] + '...' * (len(text) > 60)
