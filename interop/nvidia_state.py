"""NVIDIA's state dicts in all forms that they have had, by the keys of the latest.

Pickled modules or dicts of tensors; weight norm as weight_g and weight_v, as parametrizations, or
removed; condition and res-skip layers fused or, in older files, not; `wavenet.K.`, as NeMo has it,
for `WN.K.`.
"""
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

import params
from errors import UserError
from interop import other_models, torchfile

# Names of dictionaries beside a model that state its hyperparameters, also within one another.
CONFIGS = ('config', 'hparams', 'data_config', 'waveglow_config')
# What they may state that is of use. A hostile file may have many large ones: none is copied.
STATED = ('n_early_every', 'sampling_rate', 'filter_length', 'hop_length', 'win_length',
          'n_mel_channels', 'mel_fmin', 'mel_fmax')
UPSAMPLE = 'upsample.weight'  # a key that every model has
NEMO = 'wavenet.'             # NeMo's name for WN
MAX_DEPTH = 4                 # of what lies around a model in a checkpoint


def find_state_dict(stored: Any, file_size: int) -> 'StateDict':
    """The StateDict of the model in an object that `torchfile.load` returned.

    The model is the first part of it that has an `upsample.weight`, under whatever prefix. Raises
    UserError if there is none, or the model is one of `other_models`.

    Args:
      file_size: bytes of the file that the object is from.
    """
    for model, about, module in _nested_dicts(stored):
        prefixes = [key[:-len(UPSAMPLE)] for key, value in model.items()
                    if isinstance(key, str) and isinstance(value, torchfile.Tensor)
                    and ('.' + key).endswith('.' + UPSAMPLE)]
        if prefixes:
            prefix = min(prefixes, key=len)
            tensors = {_current_key(key[len(prefix):]): value for key, value in model.items()
                       if isinstance(key, str) and isinstance(value, torchfile.Tensor)
                       and key.startswith(prefix)}
            if other_models.kind_of_keys(tensors) == other_models.SQUEEZEWAVE:
                _refuse_other(other_models.SQUEEZEWAVE)
            return StateDict(tensors, about, file_size, _stride(module, prefix))
    kind = other_models.kind_of_keys(_dotted_keys(stored))
    if kind:
        _refuse_other(kind)
    found = stored if isinstance(stored, dict) else {}
    raise UserError('holds no model (no %s) but %s; take a checkpoint of WaveGlow'
                    % (UPSAMPLE, ', '.join(torchfile.excerpt(str(key)) for key in list(found)[:5])
                       or 'something else'))


def _refuse_other(kind):
    raise UserError('holds %s; %s' % (kind, other_models.ADVICE))


def _current_key(key):
    return 'WN.' + key[len(NEMO):] if key.startswith(NEMO) else key


def _dotted_keys(stored):
    """Keys of the tensors in nested dictionaries: 'model.generator.first_conv.bias'."""
    level, seen = [('', stored)], set()
    for _ in range(MAX_DEPTH):
        below = []
        for prefix, thing in level:
            if not isinstance(thing, dict) or id(thing) in seen:
                continue
            seen.add(id(thing))
            for key, value in thing.items():
                if isinstance(key, str) and isinstance(value, torchfile.Tensor):
                    yield prefix + key
                elif isinstance(key, str):
                    below.append((prefix + key[:other_models.MAX_KEY] + '.', value))
        level = below


def _nested_dicts(stored):
    """(dict, hyperparameters stated beside it, Module or None) of a checkpoint and its parts."""
    level: List[Tuple[Any, dict]] = [(stored, {})]
    seen = set()
    for _ in range(MAX_DEPTH):
        below = []
        for thing, about in level:
            if id(thing) in seen:  # a hostile file may hold one thing often
                continue
            seen.add(id(thing))
            if isinstance(thing, torchfile.Module):
                module = _unwrap(thing)
                yield torchfile.state_dict(module), dict(about, **_known(module.attributes)), module
            elif isinstance(thing, dict):
                about = dict(about, **stated(thing))
                yield thing, about, None
                below += [(value, about) for value in thing.values()]
        level = below


def _known(entries):
    return {name: entries[name] for name in STATED if name in entries}


def stated(thing: dict, depth: int = 1) -> Dict[str, Any]:
    """{name of STATED: value} of all dictionaries of CONFIGS in a dictionary."""
    found: Dict[str, Any] = {}
    for name in CONFIGS:
        config = thing.get(name)
        if isinstance(config, torchfile.Module):    # an argparse.Namespace
            config = config.attributes
        if isinstance(config, dict):
            found.update(_known(config))
            found.update(stated(config, depth + 1) if depth < MAX_DEPTH else {})
    return found


def _stride(module, prefix):
    """The stride of the transposed convolution in a pickled module; None if it is not there."""
    for name in prefix.split('.')[:-1] + [UPSAMPLE.split('.')[0]]:
        parts = module.attributes.get('_modules') if isinstance(module, torchfile.Module) else None
        module = parts.get(name) if isinstance(parts, dict) else None
    stride = module.attributes.get('stride') if isinstance(module, torchfile.Module) else None
    if isinstance(stride, (tuple, list)) and len(stride) == 1:
        stride = stride[0]
    return stride if type(stride) is int else None


def _unwrap(module):
    """What is in DataParallel and its like."""
    for _ in range(MAX_DEPTH):
        parts = module.attributes.get('_modules')
        inner = parts.get('module') if isinstance(parts, dict) else None
        module = inner if isinstance(inner, torchfile.Module) else module
    return module


class StateDict:
    """The tensors of a state dict by the keys of its latest form, whatever form it has.

    about: what the checkpoint states of STATED beside it, {name: anything}.
    stride: samples a frame of the upsampling, of a pickled module; None if it is not told.
    """

    # the names of g and v of weight norm: PyTorch's before 2.0 and since
    SPELLINGS = (('.weight_g', '.weight_v'),
                 ('.parametrizations.weight.original0', '.parametrizations.weight.original1'))

    def __init__(self, tensors, about, file_size, stride=None):
        """file_size: bytes; the tensors that are read may not come to more."""
        self.about, self.stride = about, stride
        self._tensors, self._names = tensors, set()
        self._elements, self._file_size = 0, file_size
        # the convolution that was asked for last, and its (g, v)
        self._last: Tuple[Optional[str], list] = (None, [])

    def __contains__(self, key):
        return key in self._tensors

    def shape(self, key, axes=3):
        """Of tensor `key`; UserError if it has another number of axes, or there is none."""
        shape = self._tensor(key).shape
        if len(shape) != axes:
            raise UserError('%s has %d axes instead of %d; take a complete checkpoint'
                            % (key, len(shape), axes))
        return shape

    def filter_width(self, convolution):
        """Taps of a convolution, however its weight norm is spelt."""
        for _, v in self.SPELLINGS:
            if convolution + v in self:
                return self.shape(convolution + v)[2]
        return self.shape(convolution + '.weight')[2]

    def get(self, match):
        """float32 array of match.shape; UserError for another shape, NaN and infinity."""
        convolution, _, kind = match.key.rpartition('.')
        if kind in ('weight_g', 'weight_v'):
            x = self._weight_norm(convolution)[kind == 'weight_v']
        elif kind == 'bias':
            x = _concatenate([self._array(part + '.bias') for part in self._parts(convolution)],
                        convolution)
        else:
            x = self._array(match.key)
        if x.shape != match.shape:
            raise UserError('%s has shape %s, where the rest of the model needs %s; take a '
                            'complete checkpoint' % (match.key, x.shape, match.shape))
        return x

    def _parts(self, convolution):
        """The convolutions that older files have in place of one, in order."""
        if convolution.endswith('.cond_layer') and convolution + '.bias' not in self:
            unfused = convolution + 's.%d'
            return [unfused % i for i in range(params.MAX_LAYERS) if unfused % i + '.bias' in self
                    ] or [convolution]
        flow, marker, i = convolution.partition('.res_skip_layers.')
        if marker and convolution + '.bias' not in self:
            residual, skip = flow + '.res_layers.' + i, flow + '.skip_layers.' + i
            last = flow + '.in_layers.%d.bias' % (int(i) + 1) not in self
            return [skip] if last else [residual, skip]  # the last residual goes nowhere
        return [convolution]

    def _weight_norm(self, convolution):
        """(g, v) of a convolution, (out, 1, 1) and (out, in, width)."""
        if self._last[0] != convolution:
            both = [self._weight_norm_of(part) for part in self._parts(convolution)]
            self._last = convolution, [_concatenate(arrays, convolution) for arrays in zip(*both)]
        return self._last[1]

    def _weight_norm_of(self, convolution):
        g, v = None, convolution + '.weight'
        for g_name, v_name in self.SPELLINGS:
            if convolution + v_name in self:
                g, v = self._array(convolution + g_name), convolution + v_name
        self.shape(v)
        v = self._array(v)
        norm = np.sqrt(np.square(v, dtype=np.float64).sum(axis=(1, 2), keepdims=True))
        zero = norm < 1e-15  # its square would be lost in float32
        if g is None:  # removed: the weight is its own direction
            return np.where(zero, 0, norm).astype(np.float32), np.where(zero, np.float32(1), v)
        if zero.any():
            raise UserError('%s.weight_v holds a filter of length zero, which weight norm cannot '
                            'scale; take another checkpoint' % convolution)
        return g, v

    def _array(self, key):
        tensor = self._tensor(key)
        self._elements += int(np.prod(tensor.shape, dtype=np.int64))
        if 2 * self._elements > self._file_size:  # a number has two bytes at least
            raise UserError('its tensors add up to more than the file, because many share their '
                            'numbers; take a checkpoint of a trained model')
        if tensor.dtype.kind != 'f':
            raise UserError('%s holds %s instead of floating-point numbers; take a checkpoint '
                            'that is not quantized' % (key, tensor.dtype))
        with np.errstate(over='ignore'):  # what float32 cannot hold becomes infinite
            x = tensor.numpy().astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise UserError('%s holds values that are NaN or infinite; take an earlier checkpoint'
                            % key)
        return x

    def _tensor(self, key):
        if key not in self._tensors:
            raise UserError('has no %s; take a complete checkpoint of WaveGlow' % key)
        self._names.add(key)
        return self._tensors[key]

    def unused_keys(self):
        """The keys of the model that nobody has asked for."""
        return sorted(key for key in set(self._tensors) - self._names
                      if key.startswith(('WN.', 'convinv.')) and '.res_layers.' not in key)


def _concatenate(arrays, convolution):
    """Of the parts of a fused convolution, one behind the other on the output channels."""
    if len({x.shape[1:] for x in arrays}) != 1 or not all(x.ndim for x in arrays):
        raise UserError('the parts of %s have shapes %s, which do not fit together; take a '
                        'complete checkpoint'
                        % (convolution, ', '.join(str(x.shape) for x in arrays[:4])))
    return np.concatenate(arrays)
