"""Writes `.pt` files as PyTorch does, without PyTorch; and broken ones, as it does not.

Arrays stand for tensors. `Name`, `Tensor`, `thing` and `module` stand for what has no like here.
"""
import collections
import io
import pickle
import struct
import zipfile

import numpy as np

KINDS = {'f8': 'Double', 'f4': 'Float', 'f2': 'Half', 'i8': 'Long', 'i4': 'Int', 'i2': 'Short',
         'i1': 'Char', 'u1': 'Byte', 'b1': 'Bool'}
MAGIC, PROTOCOL = 0x1950a86a20f9469cfc6c, 1001
SYSTEM = {'protocol_version': PROTOCOL, 'little_endian': True,
          'type_sizes': {'short': 2, 'int': 4, 'long': 4}}


class Name:
    """A class or function that the reader of the file is to import.

    source: the text of a class of modules, which the legacy format keeps.
    """

    def __init__(self, name, source=None):
        self.name, self.source = name, source


class Call:
    """The result of calling `function`, a Name or a real one, when the file is read."""

    def __init__(self, function, *args):
        self.function, self.args = function, args


class Tensor:
    """A view of an array's elements, with sizes and strides as told, be they sound or not.

    kind: of the storage; 'BFloat16' makes one of uint16. count, key: what the pickle says of it.
    """

    def __init__(self, array, shape=None, strides=None, offset=0, kind=None, count=None, key=None):
        self.array, self.offset, self.count, self.key = array, offset, count, key
        self.kind = kind or KINDS[array.dtype.str[1:]]
        self.shape = array.shape if shape is None else shape
        # In elements, of which bytes are as many; of the array as it is written, in C order.
        written = np.empty(self.shape if strides is None else 0, 'i1')
        self.strides = written.strides if strides is None else strides


class _Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class _Object:
    def __init__(self, name, state):
        self.name, self.state = name, state


def thing(name, attributes):
    """An object of the class called `name`."""
    return _Object(name, attributes)


def module(name, parameters={}, buffers={}, modules={}, **attributes):
    """A torch.nn.Module of the class called `name`; modules are made of this function too."""
    ordered = collections.OrderedDict
    state = {'training': True, '_parameters': ordered(), '_buffers': ordered(buffers),
             '_backward_hooks': ordered(), '_forward_hooks': ordered(),
             '_forward_pre_hooks': ordered(), '_modules': ordered(modules)}
    for key, array in parameters.items():
        state['_parameters'][key] = array if array is None else parameter(array)
    state.update(attributes)
    return _Object(name, state)


def parameter(array):
    """A torch.nn.Parameter."""
    return Call(Name('torch._utils._rebuild_parameter'), array, True, collections.OrderedDict())


class _Pickler(pickle._Pickler):
    """Protocol 2, the one of PyTorch. Only the pickler in Python writes names without importing."""
    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, legacy):
        super().__init__(file, 2)
        self.legacy, self.sourced, self.keys, self.storages = legacy, set(), {}, {}

    def persistent_id(self, obj):
        if type(obj) is Name and obj.source and self.legacy and obj.name not in self.sourced:
            self.sourced.add(obj.name)
            return 'module', obj, obj.name + '.py', obj.source
        if type(obj) is _Storage:
            tensor = obj.tensor
            # As in the files of PyTorch: numbers from 0, or addresses.
            number = (94000000000000 + 64 * len(self.keys)) if self.legacy else len(self.keys)
            key = self.keys.setdefault(id(tensor.array), str(number))
            self.storages[key] = tensor.array
            count = tensor.array.size if tensor.count is None else tensor.count
            kind = Name('torch.%sStorage' % tensor.kind)
            pid = 'storage', kind, key if tensor.key is None else tensor.key, 'cpu', count
            return pid + (None,) if self.legacy else pid
        return None

    def save_name(self, obj):
        module, _, name = obj.name.rpartition('.')
        self.write(pickle.GLOBAL + ('%s\n%s\n' % (module, name)).encode())
        self.memoize(obj)

    def save_call(self, obj):
        self.save(obj.function)
        self.save(obj.args)
        self.write(pickle.REDUCE)
        self.memoize(obj)

    def save_object(self, obj):
        self.save(Name(obj.name, None if obj.name.startswith('torch.') else 'class ...:\n'))
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(obj)
        self.save(obj.state)
        self.write(pickle.BUILD)

    def save_tensor(self, obj):
        tensor = obj if type(obj) is Tensor else Tensor(obj)
        self.save(Name('torch._utils._rebuild_tensor_v2'))
        self.save((_Storage(tensor), tensor.offset, tensor.shape, tensor.strides, False,
                   collections.OrderedDict()))
        self.write(pickle.REDUCE)
        self.memoize(obj)

    dispatch.update({Name: save_name, Call: save_call, _Object: save_object, Tensor: save_tensor,
                     np.ndarray: save_tensor})


def dumps(obj, legacy=False):
    """(bytes, {key: array}): the pickle of `obj`, and the storages that stand outside it."""
    content = io.BytesIO()
    pickler = _Pickler(content, legacy)
    pickler.dump(obj)
    return content.getvalue(), pickler.storages


def save_zip(path, obj, byteorder='little', entries={}):
    """Writes `obj` as PyTorch does since 1.6. entries: {name: bytes} beside what it writes."""
    pickled, storages = dumps(obj)
    write_zip(path, pickled, storages, byteorder, entries)


def write_zip(path, pickled, storages={}, byteorder='little', entries={}):
    """Writes a pickle, or none for None, and its storages; see `dumps`."""
    with zipfile.ZipFile(str(path), 'w') as archive:    # which stores unless told to compress
        if pickled is not None:
            archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/byteorder', byteorder)
        for key, array in storages.items():
            order = '>' if byteorder == 'big' else '<'
            array = array.astype(array.dtype.newbyteorder(order), copy=False)
            archive.writestr('archive/data/' + key, array.tobytes())
        archive.writestr('archive/version', '3\n')
        for name, content in entries.items():
            archive.writestr(name, content)


def save_legacy(path, obj):
    """Writes `obj` as PyTorch did before 1.6, and does if it is told to."""
    pickled, storages = dumps(obj, legacy=True)
    write_legacy(path, pickled, storages)


def write_legacy(path, pickled, storages={}, magic=MAGIC, protocol=PROTOCOL):
    """Writes a pickle and its storages; see `dumps`."""
    with open(str(path), 'wb') as f:
        for header in (magic, protocol, SYSTEM):
            pickle.dump(header, f, 2)
        f.write(pickled)
        pickle.dump(sorted(storages), f, 2)
        for key in sorted(storages):
            f.write(struct.pack('<q', storages[key].size))
            f.write(storages[key].tobytes())
