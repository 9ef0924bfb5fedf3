"""Reads the pickle in a .npy file of Python objects as data: nothing is imported or called.

`numpy.save` writes a dictionary as an array of one object, and that as a pickle, which is a
program. torchpickle.Unpickler runs none of it; here it also knows NumPy's arrays and protocol 4.
"""
import pickle
from typing import Any, Callable, ClassVar, Dict

import numpy as np

from interop import torchpickle

MAX_BYTES = 1 << 20         # of a pickle: statistics and a configuration have some 10,000
# What a file may ask for, as `_Unpickler.find_class` writes it.
ARRAY, SCALAR, DTYPE = ('numpy.core.multiarray._reconstruct', 'numpy.core.multiarray.scalar',
                        'numpy.dtype')
OTHERS = 'numpy.ndarray', '_codecs.encode', 'collections.OrderedDict'
PACKAGES = 'TTS', 'coqpit'  # of the configuration that Coqui's statistics hold


def load(path: str) -> Dict[str, Any]:
    """The dictionary in a .npy file, with its arrays of numbers as arrays.

    An object of a class is a torchpickle.Module. Raises ValueError, which says why, for a file
    that holds something else, is damaged or asks for more than data; OSError if it cannot be read.
    """
    with open(path, 'rb') as f:
        try:
            version = np.lib.format.read_magic(f)
            read_header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                           else np.lib.format.read_array_header_2_0)
            shape, _, dtype = read_header(f)
            found = _Unpickler(torchpickle.BoundedFile(f, MAX_BYTES), path, None).load()
            items = found.value[0] if dtype.hasobject and shape == () else None
        except torchpickle.Refusal as error:
            raise ValueError(str(error)) from error
        except OSError:
            raise
        except Exception as error:      # of a damaged pickle anything
            raise ValueError('damaged, or larger than any statistics') from error
    if type(items) is not dict:
        raise ValueError('an array of objects and not one dictionary')
    return {key: value.value if type(value) is _Array else value for key, value in items.items()}


class _Array:
    """An array, a scalar or a dtype, of which `value` becomes known when it is built."""
    __slots__ = ('value',)

    def __init__(self, value=None):
        self.value = value


class _Unpickler(torchpickle.Unpickler):
    dispatch: ClassVar[Dict[int, Callable[..., Any]]] = {
        **torchpickle.Unpickler.dispatch,
        **{getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
           for name in ('FRAME', 'MEMOIZE', 'SHORT_BINUNICODE', 'STACK_GLOBAL')}}

    def find_class(self, module, name):
        full = ('%s.%s' % (module, name)).replace('numpy._core.', 'numpy.core.')
        if (full not in OTHERS + (ARRAY, SCALAR, DTYPE)
                and full.split('.')[0] not in PACKAGES):
            raise torchpickle.Refusal('it asks for %s, which no statistics need; %s' % (
                torchpickle.excerpt(full), torchpickle.MAY_BE_ATTACK))
        return torchpickle._Name(full)

    def substitute(self, name, args):
        if name == ARRAY:
            return _Array()
        if name == DTYPE:
            return _Array(np.dtype(args[0]))
        if name == SCALAR:
            return np.frombuffer(args[1], args[0].value)[0]
        return super().substitute(name, args)

    def load_build(self):
        state, target = self.stack[-1], self.stack[-2]
        if type(target) is not _Array:
            return super().load_build()
        self.stack.pop()
        if target.value is not None:            # a dtype: only its byte order is left to say
            target.value = target.value.newbyteorder(state[1])
        elif state[2].value.hasobject:
            target.value = state[4]             # a list
        else:
            _, shape, dtype, by_columns, content = state
            target.value = np.frombuffer(content, dtype.value).reshape(
                shape, order='F' if by_columns else 'C')

    def load_proto(self):
        if not 2 <= self.read(1)[0] <= 4:
            raise torchpickle.Refusal('its pickle has another protocol than 2, 3 and 4')

    dispatch.update({pickle.BUILD[0]: load_build, pickle.PROTO[0]: load_proto})
