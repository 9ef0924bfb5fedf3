"""Converts checkpoints of NVIDIA's WaveGlow to this program's, and back.

Both NVIDIA/waveglow and NVIDIA/DeepLearningExamples (PyTorch). Their model and that of the preset
`nvidia` are the same function: tensors are only transposed and reordered. A model goes there and
back to the bit, and its weight norm stays (g, v) for further training.
"""
import collections
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

import params
from errors import UserError
from interop import architecture, nvidia_mel, nvidia_state, torchfile

UPSAMPLE_WIDTH = nvidia_mel.WIDTH_IN_HOPS * nvidia_mel.UPSAMPLE_STRIDE  # in NVIDIA's own code

# --- Which variable is which tensor ---------------------------------------------------------------

class Match(NamedTuple):
    """A variable of glow.py and the tensor of NVIDIA's that holds the same numbers."""
    variable: str
    key: str                # of the tensor in the state dict
    shape: tuple            # of the tensor
    to_variable: Callable   # makes the variable's array of the tensor's
    to_tensor: Callable     # makes the tensor's array of the variable's


def matches(hp: params.HParams) -> List[Match]:
    """All variables of a model with the tensors of NVIDIA's that they correspond to."""
    mels, units, kernel = hp.n_mels, hp.residual_channels, hp.kernel_size

    def sample_major(v):  # condition channels: theirs are mel * n_group + sample
        return _channels_last(v).reshape([mels, hp.n_group, -1]).swapaxes(0, 1).reshape(
            [1, hp.n_group * mels, -1])

    def mel_major(v):
        return _channels_last(v.reshape([hp.n_group, mels, -1]).swapaxes(0, 1).reshape(
            [1, mels * hp.n_group, -1]))

    def convolution(ours, theirs, shape, to_variable=_channels_last, to_tensor=_channels_last):
        return [Match(ours + '/v', theirs + '.weight_v', shape, to_variable, to_tensor),
                Match(ours + '/g', theirs + '.weight_g', (shape[0], 1, 1), _flatten, _to_column),
                Match(ours + '/bias', theirs + '.bias', shape[:1], _identity, _identity)]

    result = [Match('waveglow/upsampling/filter', 'upsample.weight',
                   (mels, mels, hp.upsample_width), _channels_last, _channels_last),
              Match('waveglow/upsampling/bias', 'upsample.bias', (mels,), _identity, _identity)]
    for k in range(hp.n_flows):
        ours, theirs, c = 'waveglow/flow_%d/' % k, 'WN.%d.' % k, hp.flow_channels(k)
        result.append(Match(ours + 'W', 'convinv.%d.conv.weight' % k, (c, c, 1),
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
        result += [Match(ours + 'end/filter', theirs + 'end.weight', (c, units, 1),
                        lambda w: _swap_halves(_channels_last(w)),
                        lambda w: _channels_last(_swap_halves(w))),
                   Match(ours + 'end/bias', theirs + 'end.bias', (c,), _swap_halves,
                        _swap_halves)]
    return result


def _channels_last(w):
    """(out, in, width) <-> [width, in, out]; of a transposed convolution (in, out, width)."""
    return w.transpose(2, 1, 0)


def _swap_halves(w):
    """Of the last axis: NVIDIA's has t before log_s."""
    return np.roll(w, w.shape[-1] // 2, axis=-1)


def _identity(x):
    return x


def _flatten(g):
    return g.reshape(-1)


def _to_column(g):
    return g.reshape(-1, 1, 1)


# --- From NVIDIA's format -------------------------------------------------------------------------

def read(path: str, overrides: str = '', config: Optional[str] = None
         ) -> Tuple[params.HParams, Dict[str, np.ndarray]]:
    """The model in NVIDIA's checkpoint `path`: (HParams, {variable of glow.py: float32 array}).

    Either container, a pickled module or a state dict; weight norm as weight_g and weight_v, as
    parametrizations, or removed; condition and res-skip layers fused or, in older files, not.

    Args:
      overrides: of hyperparameters that the weights do not tell, as on the command line. They win
        over what is stated, and that over the mels of NVIDIA's own model.
      config: NVIDIA's config.json, which wins over what the checkpoint states.

    Raises UserError for a file that is not one, or holds a model that is none of ours.
    """
    changes = params.parse_overrides(overrides)
    about = {} if config is None else nvidia_mel.read_config(config)
    stored = torchfile.load(path)
    try:
        state = nvidia_state.find_state_dict(stored, os.path.getsize(path))
        state.about.update(about)
        hp = _hyperparameters(state, changes)
        weights = {match.variable: np.ascontiguousarray(match.to_variable(state.get(match)))
                   for match in matches(hp)}
        unused = state.unused_keys()
        if unused:
            raise UserError('holds %s, and its other weights are those of %d flows of %d layers; '
                            'take a complete checkpoint'
                            % (torchfile.excerpt(unused[0]), hp.n_flows, hp.n_layers))
        return hp, weights
    except UserError as error:
        raise UserError('%s: %s' % (path, str(error).replace(path + ': ', '', 1))) from error


def _hyperparameters(state, changes):
    """The HParams of a model: what shapes tell, then `changes`, then what is stated beside it."""
    def count(key):
        n = 0
        while key % n in state:
            n += 1
        return n

    mels, _, width = state.shape('upsample.weight')
    n_flows = max(1, count('convinv.%d.conv.weight'))
    channels = [state.shape('convinv.%d.conv.weight' % k)[0] for k in range(n_flows)]
    every, size = architecture.early_outputs(channels)
    if size == 0 and type(state.about.get('n_early_every')) is int:  # too few flows to tell
        every = max(n_flows, state.about['n_early_every'])
    units = state.shape('WN.0.start.bias', axes=1)[0]
    stated = nvidia_mel.stated_hyperparameters(state.about)
    if stated.get('n_mels', mels) != mels:
        raise UserError('states n_mel_channels of %d, and its weights take mels of %d bands; give '
                        'the config.json of this model' % (stated['n_mels'], mels))
    hop = nvidia_mel.hop_of(state, changes.get('hop_length'))
    told = dict(
        n_mels=mels, hop_length=hop, n_flows=n_flows, n_group=channels[0], n_early_every=every,
        n_early_size=size, n_layers=max(1, count('WN.0.in_layers.%d.bias')),
        residual_channels=units, skip_channels=units,
        kernel_size=state.filter_width('WN.0.in_layers.0'),
        upsample_width=width)
    values = dict(dict(stated, **changes), **told)
    nvidia_mel.require_range(values)
    return params.preset('nvidia').replace(**values)


# --- To NVIDIA's format ---------------------------------------------------------------------------

def to_state_dict(hp: params.HParams, weights: Dict[str, np.ndarray]
                  ) -> Tuple[Dict[str, np.ndarray], dict]:
    """A model in NVIDIA's format: (state dict of float32 arrays, config).

    The state dict has the keys of a model with weight norm; `config` is what NVIDIA's WaveGlow is
    constructed with. Some models have another architecture than NVIDIA's and are the same function
    as a model of that architecture: see `_widen` and `_with_transposed_upsampling`. Every 1x1
    convolution has a positive determinant: see `_without_reflections`.

    Args:
      weights: {variable: float32 array}, as `read` returns them.

    Raises UserError as `require_expressible` does.
    """
    require_expressible(hp)
    hp, weights = _with_transposed_upsampling(*_widen(hp, dict(weights)))
    weights['waveglow/flow_0/W'] = weights['waveglow/flow_0/W'] * np.float32(hp.audio_scale)
    weights = _without_reflections(hp, weights)
    state = collections.OrderedDict(
        (match.key, np.ascontiguousarray(match.to_tensor(weights[match.variable])))
        for match in matches(hp))
    config = dict(n_mel_channels=hp.n_mels, n_flows=hp.n_flows, n_group=hp.n_group,
                  n_early_every=hp.n_early_every, n_early_size=hp.n_early_size,
                  WN_config=dict(n_layers=hp.n_layers, n_channels=hp.residual_channels,
                                 kernel_size=hp.kernel_size))
    return state, config


def require_expressible(hp: params.HParams):
    """UserError, naming the hyperparameter, if NVIDIA's architecture cannot compute the model."""
    if hp.encoder != 'none':
        _refuse('encoder=%s: it has no encoder' % hp.encoder)
    if hp.cond_terms > 1:
        _refuse('cond_terms=%d: its condition has no curve within a frame' % hp.cond_terms)
    if hp.upsampling == 'two_transposed':
        _refuse('upsampling=two_transposed: it has one transposed convolution, without ReLU')
    if hp.hop_length == nvidia_mel.UPSAMPLE_STRIDE and upsample_width(hp) > UPSAMPLE_WIDTH:
        _refuse('upsample_width=%d: its transposed convolution has %d taps'
                % (hp.upsample_width, UPSAMPLE_WIDTH))
    if hp.upsampling == 'transposed' and hp.mel_mean:
        _refuse('mel_mean=%g with upsampling=transposed: its edges would sound otherwise'
                % hp.mel_mean)


def upsample_width(hp: params.HParams) -> int:
    """Taps of the transposed convolution in NVIDIA's format: four hops, or as many as it has."""
    own = hp.upsample_width if hp.upsampling == 'transposed' else 0
    return max(nvidia_mel.WIDTH_IN_HOPS * hp.hop_length, own)


def _refuse(what):
    raise UserError("NVIDIA's architecture cannot express %s; export a model without" % what)


def _widen(hp, weights):
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
                [_pad_axis(part, -1, units, filler) for part in parts], axis=-1)

    def input_channels(name):
        weights[name] = _pad_axis(weights[name], 1, units, 0)

    for k in range(hp.n_flows):
        flow = 'waveglow/flow_%d/' % k
        output_channels(flow + 'start', residual)
        output_channels(flow + 'cond', *[residual] * (2 * hp.n_layers))
        for i in range(hp.n_layers):
            layer = flow + 'layer_%d/' % i
            output_channels(layer + 'dilated', residual, residual)
            input_channels(layer + 'dilated/v')
            if hp.causal:
                weights[layer + 'dilated/v'] = _pad_axis(weights[layer + 'dilated/v'], 0,
                                                       2 * hp.kernel_size - 1, 0)
            output_channels(layer + 'res_skip',
                            *([residual, skip] if i < hp.n_layers - 1 else [skip]))
            input_channels(layer + 'res_skip/v')
        input_channels(flow + 'end/filter')
    return hp.replace(residual_channels=units, skip_channels=units, causal=False,
                      kernel_size=hp.kernel_size + (hp.kernel_size - 1) * hp.causal), weights


def _pad_axis(x, axis, size, filler):
    """x, lengthened to `size` with `filler` behind it on one axis."""
    if x.shape[axis] == size:
        return x
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, size - x.shape[axis])
    return np.pad(x, pads, 'constant', constant_values=filler)


def _with_transposed_upsampling(hp, weights):
    """The same function with a transposed convolution of `upsample_width` taps on the plain mel.

    Repetition is one whose first `hop_length` taps pass a channel through. It also scales the mel.
    """
    width = upsample_width(hp)
    if hp.upsampling == 'repeat':
        taps = np.zeros([width, hp.n_mels, hp.n_mels], np.float32)
        taps[:hp.hop_length] = np.eye(hp.n_mels)
        bias = np.full([hp.n_mels], -hp.mel_mean / hp.mel_std, np.float32)
        for k in range(hp.n_flows):
            cond = 'waveglow/flow_%d/cond/' % k
            if hp.cycle_frames > 1:     # some groups begin in one frame and end in the next
                weights[cond + 'v'] = _pad_axis(weights[cond + 'v'], 1, hp.n_group * hp.n_mels, 0)
                continue
            # every sample of a group gets the same frame, and an equal share of the filter
            weights[cond + 'v'] = np.tile(weights[cond + 'v'], [1, hp.n_group, 1])
            weights[cond + 'g'] = weights[cond + 'g'] / np.float32(hp.n_group ** 0.5)
    else:
        taps = _pad_axis(weights['waveglow/upsampling/filter'], 0, width, 0)
        bias = weights['waveglow/upsampling/bias']
    weights['waveglow/upsampling/filter'] = taps / np.float32(hp.mel_std)
    weights['waveglow/upsampling/bias'] = bias
    return hp.replace(upsampling='transposed', upsample_width=width, mel_mean=0.0,
                      mel_std=1.0), weights


def _without_reflections(hp, weights):
    """The same function with positive determinants, whose logarithm NVIDIA's loss takes.

    The last channel of a flow stays to the end, as early outputs are the first channels. Where a
    determinant is negative, that channel leaves the flow with the other sign: the last column of W
    and the last t are negated, and in the next flow the last row of W, whose determinant thereby
    changes its sign too. If the number of negative determinants is odd, the last channel of z has
    the other sign in the end: noise is the same with either. Signs are exact, so the numbers are.
    """
    weights, reversed_sign = dict(weights), False
    for k in range(hp.n_flows):
        flow = 'waveglow/flow_%d/' % k
        w = weights[flow + 'W'].copy()
        if reversed_sign:
            w[-1] = -w[-1]
        reversed_sign = bool(np.linalg.slogdet(w.astype(np.float64))[0] < 0)
        if reversed_sign:
            w[:, -1] = -w[:, -1]
            for name in ('end/filter', 'end/bias'):  # log_s, then t
                weights[flow + name] = weights[flow + name].copy()
                weights[flow + name][..., -1] *= -1
        weights[flow + 'W'] = w
    return weights
