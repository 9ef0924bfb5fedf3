"""NVIDIA's WaveGlow checkpoints, to ours and back.

Those of NVIDIA/waveglow and NVIDIA/DeepLearningExamples (PyTorch). Their model and that of the
preset `nvidia` are the same function: tensors are only transposed and reordered, so that a model
goes there and back to the bit, and its weight norm stays (g, v) for further training.
"""
import collections
import os
from typing import Callable, NamedTuple

import numpy as np

import params
import torchfile
from params import UserError

# What NVIDIA's code has as constants: the transposed convolution that upsamples the mel.
UPSAMPLE_WIDTH, UPSAMPLE_STRIDE = 1024, 256

UPSAMPLE = 'upsample.weight'    # a key that every model has
MAX_DEPTH = 4                   # of what lies around a model in a checkpoint


# --- What corresponds to what ---------------------------------------------------------------------

class Pair(NamedTuple):
    ours: str            # variable
    theirs: str          # key of the state dict
    shape: tuple         # of theirs
    to_ours: Callable
    to_theirs: Callable


def pairs(hp):
    """[Pair]: every variable of ours beside the tensor of NVIDIA's that it is."""
    mels, units, kernel = hp.n_mels, hp.residual_channels, hp.kernel_size

    def sample_major(v):  # condition channels: theirs are mel * n_group + sample
        return _channels_last(v).reshape([mels, hp.n_group, -1]).swapaxes(0, 1).reshape(
            [1, hp.n_group * mels, -1])

    def mel_major(v):
        return _channels_last(v.reshape([hp.n_group, mels, -1]).swapaxes(0, 1).reshape(
            [1, mels * hp.n_group, -1]))

    def convolution(ours, theirs, shape, to_ours=_channels_last, to_theirs=_channels_last):
        return [Pair(ours + '/v', theirs + '.weight_v', shape, to_ours, to_theirs),
                Pair(ours + '/g', theirs + '.weight_g', (shape[0], 1, 1), _flat, _column),
                Pair(ours + '/bias', theirs + '.bias', shape[:1], _same, _same)]

    result = [Pair('waveglow/upsampling/filter', UPSAMPLE,
                   (mels, mels, hp.upsample_width), _channels_last, _channels_last),
              Pair('waveglow/upsampling/bias', 'upsample.bias', (mels,), _same, _same)]
    for k in range(hp.n_flows):
        ours, theirs, c = 'waveglow/flow_%d/' % k, 'WN.%d.' % k, hp.flow_channels(k)
        result.append(Pair(ours + 'W', 'convinv.%d.conv.weight' % k, (c, c, 1),
                           lambda w: w[:, :, 0].T, lambda w: w.T[:, :, None]))
        result += convolution(ours + 'start', theirs + 'start', (units, c // 2, 1))
        result += convolution(ours + 'cond', theirs + 'cond_layer',
                              (2 * units * hp.n_layers, mels * hp.n_group, 1),
                              sample_major, mel_major)
        for i in range(hp.n_layers):
            result += convolution(ours + 'layer_%d/dilated' % i, theirs + 'in_layers.%d' % i,
                                  (2 * units, units, kernel))
            rows = 2 * units if i < hp.n_layers - 1 else units
            result += convolution(ours + 'layer_%d/res_skip' % i,
                                  theirs + 'res_skip_layers.%d' % i, (rows, units, 1))
        result += [Pair(ours + 'end/filter', theirs + 'end.weight', (c, units, 1),
                        lambda w: _halves_swapped(_channels_last(w)),
                        lambda w: _channels_last(_halves_swapped(w))),
                   Pair(ours + 'end/bias', theirs + 'end.bias', (c,), _halves_swapped,
                        _halves_swapped)]
    return result


def _channels_last(w):
    """(out, in, width) <-> [width, in, out]; of a transposed convolution (in, out, width)."""
    return w.transpose(2, 1, 0)


def _halves_swapped(w):
    """On the last axis: theirs is the shift, then log_s."""
    return np.roll(w, w.shape[-1] // 2, axis=-1)


def _same(x):
    return x


def _flat(g):
    return g.reshape(-1)


def _column(g):
    return g.reshape(-1, 1, 1)


# --- Theirs to ours -------------------------------------------------------------------------------

def read(path):
    """The model in NVIDIA's checkpoint `path`: (HParams, {our variable: float32 array}).

    Either container, a pickled module or a state dict; weight norm as weight_g and weight_v, as
    parametrizations, or removed; condition and res-skip layers fused or, in older files, not.
    Raises UserError for a file that is not one, or holds a model that is none of ours.
    """
    stored = torchfile.load(path)
    try:
        tensors, config = _state_dict(stored)
        state = _State(tensors, os.path.getsize(path))
        hp = _hyperparameters(state, config)
        weights = {pair.ours: np.ascontiguousarray(pair.to_ours(state.get(pair)))
                   for pair in pairs(hp)}
        over = state.unread()
        if over:
            raise UserError('holds %s beside %d flows of %d layers; take a checkpoint that is whole'
                            % (torchfile.short(over[0]), hp.n_flows, hp.n_layers))
        return hp, weights
    except UserError as error:
        raise UserError('%s: %s' % (path, str(error).replace(path + ': ', '', 1)))


def _state_dict(stored):
    """({key: torchfile.Tensor}, what a checkpoint says of its model's hyperparameters).

    The model is the first thing within that has an `upsample.weight`, under whatever prefix.
    """
    for model, about in _dicts(stored):
        prefixes = [key[:-len(UPSAMPLE)] for key, value in model.items()
                    if isinstance(key, str) and isinstance(value, torchfile.Tensor)
                    and ('.' + key).endswith('.' + UPSAMPLE)]
        if prefixes:
            prefix = min(prefixes, key=len)
            tensors = {key[len(prefix):]: value for key, value in model.items()
                       if isinstance(key, str) and isinstance(value, torchfile.Tensor)
                       and key.startswith(prefix)}
            return tensors, about
    held = stored if isinstance(stored, dict) else {}
    raise UserError('holds no model (no %s) but %s; take a checkpoint of WaveGlow'
                    % (UPSAMPLE, ', '.join(torchfile.short(str(key)) for key in list(held)[:5])
                       or 'something else'))


def _dicts(stored):
    """(dict, what is said of hyperparameters beside it) of a checkpoint and of what it holds."""
    level, seen = [(stored, {})], set()
    for _ in range(MAX_DEPTH):
        below = []
        for thing, about in level:
            if id(thing) in seen:  # a hostile file may hold one thing often
                continue
            seen.add(id(thing))
            if isinstance(thing, torchfile.Module):
                module = _unwrapped(thing)
                yield torchfile.state_dict(module), module.attributes
            elif isinstance(thing, dict):
                config = thing.get('config')
                about = config if isinstance(config, dict) else about
                yield thing, about
                below += [(value, about) for value in thing.values()]
        level = below


def _unwrapped(module):
    """What is in DataParallel and its like."""
    for _ in range(MAX_DEPTH):
        parts = module.attributes.get('_modules')
        inner = parts.get('module') if isinstance(parts, dict) else None
        module = inner if isinstance(inner, torchfile.Module) else module
    if module.name.startswith('glow_old.'):
        raise UserError("is of NVIDIA's first architecture (glow_old), whose flows take their "
                        'halves in turn; none of ours does: take a later checkpoint')
    return module


class _State:
    """The tensors of a state dict by the keys of its latest form, whatever form it has."""

    # of a weight: weight norm, as PyTorch spells it since 2.0, and removed
    SPELLINGS = (('.weight_g', '.weight_v'),
                 ('.parametrizations.weight.original0', '.parametrizations.weight.original1'))

    def __init__(self, tensors, file_size):
        self._tensors, self._names = tensors, set()
        self._elements, self._file_size = 0, file_size
        self._last = None, None  # the convolution that was asked for last, and its (g, v)

    def __contains__(self, key):
        return key in self._tensors

    def shape(self, key, axes=3):
        """Of tensor `key`; UserError if it has another number of axes, or there is none."""
        shape = self._tensor(key).shape
        if len(shape) != axes:
            raise UserError('%s has %d axes in place of %d; take a checkpoint that is whole'
                            % (key, len(shape), axes))
        return shape

    def filter_width(self, convolution):
        """Taps of a convolution, however its weight norm is spelt."""
        for _, v in self.SPELLINGS:
            if convolution + v in self:
                return self.shape(convolution + v)[2]
        return self.shape(convolution + '.weight')[2]

    def get(self, pair):
        """float32 array of pair.shape; UserError for another shape, NaN and infinity."""
        convolution, _, kind = pair.theirs.rpartition('.')
        if kind in ('weight_g', 'weight_v'):
            x = self._weight_norm(convolution)[kind == 'weight_v']
        elif kind == 'bias':
            x = _joined([self._array(part + '.bias') for part in self._parts(convolution)],
                        convolution)
        else:
            x = self._array(pair.theirs)
        if x.shape != pair.shape:
            raise UserError('%s has shape %s, where the rest of the model needs %s; take a '
                            'checkpoint that is whole' % (pair.theirs, x.shape, pair.shape))
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
            self._last = convolution, [_joined(arrays, convolution) for arrays in zip(*both)]
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
            raise UserError('its tensors add up to more than the file, because many are the same; '
                            'take a checkpoint of a model that trained')
        if tensor.dtype.kind != 'f':
            raise UserError('%s holds %s in place of floating-point numbers; take a checkpoint '
                            'that is not quantized' % (key, tensor.dtype))
        with np.errstate(over='ignore'):  # what float32 cannot hold becomes infinite
            x = tensor.numpy().astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise UserError('%s holds values that are NaN or infinite; take an earlier checkpoint'
                            % key)
        return x

    def _tensor(self, key):
        if key not in self._tensors:
            raise UserError('has no %s; take a checkpoint of WaveGlow that is whole' % key)
        self._names.add(key)
        return self._tensors[key]

    def unread(self):
        """The keys of the model that nobody has asked for."""
        return sorted(key for key in set(self._tensors) - self._names
                      if key.startswith(('WN.', 'convinv.')) and '.res_layers.' not in key)


def _joined(arrays, convolution):
    """Of the parts of a fused convolution, one behind the other on the output channels."""
    if len({x.shape[1:] for x in arrays}) != 1 or not all(x.ndim for x in arrays):
        raise UserError('the parts of %s have shapes %s, which do not fit together; take a '
                        'checkpoint that is whole'
                        % (convolution, ', '.join(str(x.shape) for x in arrays[:4])))
    return np.concatenate(arrays)


def _hyperparameters(state, config):
    """The HParams of a model, from its shapes; `config` settles what they leave open."""
    def count(key):
        n = 0
        while key % n in state:
            n += 1
        return n

    mels, _, width = state.shape(UPSAMPLE)
    n_flows = max(1, count('convinv.%d.conv.weight'))
    channels = [state.shape('convinv.%d.conv.weight' % k)[0] for k in range(n_flows)]
    every, size = params.early_outputs(channels)
    if size == 0 and type(config.get('n_early_every')) is int:  # too few flows to tell
        every = max(n_flows, config['n_early_every'])
    hp = params.preset('nvidia')
    if mels != hp.n_mels:
        raise UserError('hears mels of %d bands, those of mel profile %s have %d; no profile here '
                        'fits it' % (mels, hp.mel_profile, hp.n_mels))
    units = state.shape('WN.0.start.bias', axes=1)[0]
    return hp.replace(
        n_flows=n_flows, n_group=channels[0], n_early_every=every, n_early_size=size,
        n_layers=max(1, count('WN.0.in_layers.%d.bias')), residual_channels=units,
        skip_channels=units, kernel_size=state.filter_width('WN.0.in_layers.0'),
        upsample_width=width)


# --- Ours to theirs -------------------------------------------------------------------------------

def export(hp, weights):
    """A model of ours in NVIDIA's format: (state dict of float32 arrays, config).

    The state dict has the keys of a model with weight norm; `config` is what NVIDIA's WaveGlow is
    constructed with. What NVIDIA's architecture has no word for, but can compute, is expressed:
    see `_widened` and `_upsampled`.

    Args:
      weights: {variable: float32 array}, as `read` returns them.

    Raises UserError as `require_expressible` does.
    """
    require_expressible(hp)
    hp, weights = _upsampled(*_widened(hp, dict(weights)))
    weights['waveglow/flow_0/W'] = weights['waveglow/flow_0/W'] * np.float32(hp.audio_scale)
    state = collections.OrderedDict(
        (pair.theirs, np.ascontiguousarray(pair.to_theirs(weights[pair.ours])))
        for pair in pairs(hp))
    config = dict(n_mel_channels=hp.n_mels, n_flows=hp.n_flows, n_group=hp.n_group,
                  n_early_every=hp.n_early_every, n_early_size=hp.n_early_size,
                  WN_config=dict(n_layers=hp.n_layers, n_channels=hp.residual_channels,
                                 kernel_size=hp.kernel_size))
    return state, config


def require_expressible(hp):
    """UserError, naming the hyperparameter, if NVIDIA's architecture cannot compute the model."""
    if hp.encoder != 'none':
        _refuse('encoder=%s: it has no encoder' % hp.encoder)
    if hp.upsampling == 'two_transposed':
        _refuse('upsampling=two_transposed: it has one transposed convolution, without ReLU')
    if hp.upsampling == 'transposed' and hp.upsample_width > UPSAMPLE_WIDTH:
        _refuse('upsample_width=%d: its transposed convolution has %d taps'
                % (hp.upsample_width, UPSAMPLE_WIDTH))
    if hp.upsampling == 'transposed' and hp.mel_mean:
        _refuse('mel_mean=%g with upsampling=transposed: its edges would sound otherwise'
                % hp.mel_mean)
    if hp.hop_length != UPSAMPLE_STRIDE:
        _refuse('a hop of %d samples: its own is %d' % (hp.hop_length, UPSAMPLE_STRIDE))


def _refuse(what):
    raise UserError("NVIDIA's architecture cannot express %s; export a model without" % what)


def _widened(hp, weights):
    """The same function with as many residual as skip channels, an even number, and centred.

    Channels are added whose filters are zero (g = 0); a causal filter becomes the first half of a
    centred one.
    """
    units = max(hp.residual_channels, hp.skip_channels)
    units += units % 2
    residual, skip = hp.residual_channels, hp.skip_channels

    def output_channels(convolution, *blocks):
        """Widens each block of output channels to `units`, with filters that give zero."""
        if set(blocks) == {units}:
            return
        for kind, filler in (('/v', 1), ('/g', 0), ('/bias', 0)):
            x = weights[convolution + kind]
            parts = np.split(x, np.cumsum(blocks)[:-1], axis=-1)
            weights[convolution + kind] = np.concatenate(
                [_padded(part, -1, units, filler) for part in parts], axis=-1)

    def input_channels(name):
        weights[name] = _padded(weights[name], 1, units, 0)

    for k in range(hp.n_flows):
        flow = 'waveglow/flow_%d/' % k
        output_channels(flow + 'start', residual)
        output_channels(flow + 'cond', *[residual] * (2 * hp.n_layers))
        for i in range(hp.n_layers):
            layer = flow + 'layer_%d/' % i
            output_channels(layer + 'dilated', residual, residual)
            input_channels(layer + 'dilated/v')
            if hp.causal:
                weights[layer + 'dilated/v'] = _padded(weights[layer + 'dilated/v'], 0,
                                                       2 * hp.kernel_size - 1, 0)
            output_channels(layer + 'res_skip',
                            *([residual, skip] if i < hp.n_layers - 1 else [skip]))
            input_channels(layer + 'res_skip/v')
        input_channels(flow + 'end/filter')
    return hp.replace(residual_channels=units, skip_channels=units, causal=False,
                      kernel_size=hp.kernel_size + (hp.kernel_size - 1) * hp.causal), weights


def _padded(x, axis, size, filler):
    """x, lengthened to `size` with `filler` behind it on one axis."""
    if x.shape[axis] == size:
        return x
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, size - x.shape[axis])
    return np.pad(x, pads, 'constant', constant_values=filler)


def _upsampled(hp, weights):
    """The same function with a transposed convolution of UPSAMPLE_WIDTH taps on the plain mel.

    Repetition is one whose first `hop_length` taps pass a channel through. It also scales the mel.
    """
    if hp.upsampling == 'repeat':
        taps = np.zeros([UPSAMPLE_WIDTH, hp.n_mels, hp.n_mels], np.float32)
        taps[:hp.hop_length] = np.eye(hp.n_mels)
        bias = np.full([hp.n_mels], -hp.mel_mean / hp.mel_std, np.float32)
        for k in range(hp.n_flows):
            cond = 'waveglow/flow_%d/cond/' % k
            # every sample of a group hears the same frame: a share of the filter each
            weights[cond + 'v'] = np.tile(weights[cond + 'v'], [1, hp.n_group, 1])
            weights[cond + 'g'] = weights[cond + 'g'] / np.float32(hp.n_group ** 0.5)
    else:
        taps = _padded(weights['waveglow/upsampling/filter'], 0, UPSAMPLE_WIDTH, 0)
        bias = weights['waveglow/upsampling/bias']
    weights['waveglow/upsampling/filter'] = taps / np.float32(hp.mel_std)
    weights['waveglow/upsampling/bias'] = bias
    return hp.replace(upsampling='transposed', upsample_width=UPSAMPLE_WIDTH, mel_mean=0.0,
                      mel_std=1.0), weights
