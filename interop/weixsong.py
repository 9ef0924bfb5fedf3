"""Reads checkpoints of weixsong/WaveGlow, the TensorFlow 1 program whose commands this one has.

Its model differs from glow.py, besides the names of variables, in these points:
- A filter is g v / ||v||, where no ||v|| counts as less than 1e-6: filters of zeros are allowed.
  w_res has the norm of the whole tensor in place of an output channel's.
- With upsampling by repetition it convolves n_group rows, channel = sample * c + channel. Where
  n_group divides the hop they are equal, and the sum of the n_group blocks of filters does the
  same. Elsewhere a transposed convolution repeats the frames here.
- The gate has one bias, that of the condition. Its own, b_g_f, was added until commit 6936512 of
  15 March 2019, which left the variable in place. The last layer's residual leads nowhere.
"""
import re
from typing import Dict, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import params
import utils
from errors import UserError
from interop import architecture

SCOPE = 'Waveglow/'
LSTM = 'lc_blstm_embedding/layer_%d/bidirectional_rnn/%s/lstm_cell/'
UPSAMPLING = 'transpoed_conv/'  # so spelled there
LEAST_NORM = 1e-6  # the root of the epsilon of tf.nn.l2_normalize
ADVICE = "take a checkpoint that weixsong/WaveGlow's master branch saved after 15 March 2019"


def read(path: str, overrides: str = '') -> Tuple[params.HParams, Dict[str, np.ndarray]]:
    """The model in a checkpoint of weixsong/WaveGlow, ready for glow.py to vocode and to train.

    Args:
      path: a checkpoint's path, or a folder, of which the newest is taken.
      overrides: of hyperparameters that the checkpoint does not tell, as on the command line: the
        sample rate, the hop, the mels.

    Returns:
      hp: the preset `weixsong`, changed to `overrides` and to what the shapes tell.
      weights: {name: float32 array} of the trainable variables of glow.py for `hp`.

    Prints a line if there is a b_g_f other than zero. Raises UserError if the checkpoint cannot be
    read, is not one of such a model, or holds weights that are not finite.
    """
    try:
        path = utils.find_checkpoint(path)
    except UserError as error:
        raise UserError('there is no checkpoint at %s; give a run of weixsong/WaveGlow, or one of '
                        'its model.ckpt-STEP' % path) from error
    changes = params.parse_overrides(overrides)
    try:
        stored = _Checkpoint(path)
        hp = _hyperparameters(stored, changes)
        weights, channels = _condition(stored, hp)
        for k in range(hp.n_flows):
            weights.update(_flow(stored, hp, k, channels))
        gate_biases = [stored.read_unchecked(name) for name in stored.shapes
                       if name.endswith('/b_g_f')]
        stored.refuse_unknown()
    except UserError as error:
        raise UserError('%s: %s' % (path, error)) from error
    if any(bias.any() for bias in gate_biases):
        print('%s: the biases b_g_f are not zero and are ignored, as weixsong/WaveGlow itself '
              'ignores them since 15 March 2019' % path)
    return hp, {'waveglow/' + name: value for name, value in weights.items()}


class _Checkpoint:
    """The variables under `Waveglow/`, by their names there, read one at a time.

    shapes: {name: shape}.
    known: the names that have a meaning, in use or not.
    """

    def __init__(self, path):
        with utils.reading_checkpoint('it'):
            self._reader = tf.train.load_checkpoint(path)
            stored = self._reader.get_variable_to_shape_map()
        self.shapes = {name[len(SCOPE):]: shape for name, shape in stored.items()
                       if name.startswith(SCOPE)}
        self.known = set()
        if not self.shapes and any(name.startswith('waveglow/flow_') for name in stored):
            raise UserError('is a checkpoint of this program; give it to inference.py as it is: '
                            'it needs no conversion')
        if not self.shapes:
            raise UserError('holds no variable under %s; %s' % (SCOPE, ADVICE))

    def count(self, scopes):
        """How many scopes there are whose names match a pattern."""
        return len({match.group() for match in map(re.compile(scopes).match, self.shapes) if match})

    def shape(self, name, axes):
        """Of variable `name`; UserError if there is none with so many axes."""
        if name not in self.shapes:
            raise UserError('has no %s%s; %s' % (SCOPE, name, ADVICE))
        if len(self.shapes[name]) != axes:
            raise UserError('%s%s has %d axes instead of %d; %s'
                            % (SCOPE, name, len(self.shapes[name]), axes, ADVICE))
        return self.shapes[name]

    def read(self, name, *shape):
        """float32 array of `shape`; UserError for another shape, NaN and infinity."""
        if self.shape(name, len(shape)) != list(shape):
            raise UserError('%s%s has shape %s, where the rest of the model needs %s; %s'
                            % (SCOPE, name, self.shapes[name], list(shape), ADVICE))
        value = self.read_unchecked(name)
        if not np.isfinite(value).all():
            raise UserError('%s%s holds values that are NaN or infinite; take an earlier checkpoint'
                            % (SCOPE, name))
        return value

    def read_unchecked(self, name):
        self.known.add(name)
        with utils.reading_checkpoint('it'):
            return np.asarray(self._reader.get_tensor(SCOPE + name), np.float32)

    def refuse_unknown(self):
        """UserError for a variable that is neither known nor an optimizer's slot of a known one."""
        for name in sorted(self.shapes):
            if name not in self.known and name.rpartition('/')[0] not in self.known:
                raise UserError('holds %s%s, which does not belong to the rest of the model; %s'
                                % (SCOPE, name, ADVICE))


def _hyperparameters(stored, changes):
    """The HParams that the shapes tell, and `changes`."""
    hp = params.preset('weixsong')
    layer = 'glow_0/wavenet/dilation_1/'
    channels = [stored.shape('glow_%d/inv1x1conv/W' % k, 2)[0]
                for k in range(max(1, stored.count(r'glow_\d+/')))]
    every, size = architecture.early_outputs(channels)
    kernel_size, units, _ = stored.shape(layer + 'w_g_f', 3)
    told = dict(n_flows=len(channels), n_group=channels[0], n_early_every=every,
                n_early_size=size or hp.n_early_size, kernel_size=kernel_size,
                n_layers=stored.count(r'glow_0/wavenet/dilation_\d+/'), residual_channels=units,
                encoder='none', upsampling='repeat',
                skip_channels=stored.shape(layer + 'w_skip', 3)[2])
    mels = stored.shape(layer + 'w_lc', 3)[1] // channels[0]  # unless something lies between
    if stored.count(UPSAMPLING):
        width, units, mels = stored.shape(UPSAMPLING + 'layer1', 3)
        told.update(upsampling='two_transposed', upsample_width=width, upsample_channels=units)
    if stored.count('lc_conv1d/'):
        width, mels, units = stored.shape('lc_conv1d/layer_0/filter', 3)
        told.update(encoder='conv', encoder_layers=stored.count(r'lc_conv1d/layer_\d+/'),
                    encoder_width=width, encoder_channels=units)
    elif stored.count('lc_blstm_embedding/'):
        rows, gates = stored.shape(LSTM % (0, 'fw') + 'kernel', 2)
        mels = rows - gates // 4
        told.update(encoder='blstm', encoder_channels=gates // 4,
                    encoder_layers=stored.count(r'lc_blstm_embedding/layer_\d+/'))
    hp = hp.replace(**dict(changes, n_mels=mels, **told))
    if hp.upsampling == 'repeat' and hp.cycle_frames > 1:
        hp = hp.replace(upsampling='transposed', upsample_width=hp.hop_length)
    return hp


def _condition(stored, hp):
    """{name: value} of the encoder and the upsampling, and how many channels leave them."""
    weights, channels, units = {}, hp.n_mels, hp.encoder_channels
    for i in range(hp.encoder_layers if hp.encoder == 'conv' else 0):
        ours, theirs = 'encoder/layer_%d/' % i, 'lc_conv1d/layer_%d/' % i
        weights[ours + 'filter'] = stored.read(theirs + 'filter', hp.encoder_width, channels, units)
        weights[ours + 'bias'] = stored.read(theirs + 'bias', units)
        channels = units
    for i in range(hp.encoder_layers if hp.encoder == 'blstm' else 0):
        for way in ('fw', 'bw'):
            ours, theirs = 'encoder/layer_%d/%s/' % (i, way), LSTM % (i, way)
            weights[ours + 'kernel'] = stored.read(theirs + 'kernel', channels + units, 4 * units)
            weights[ours + 'bias'] = stored.read(theirs + 'bias', 4 * units)
        channels = 2 * units
    for name in ('layer1', 'layer2') if hp.upsampling == 'two_transposed' else ():
        weights['upsampling/' + name] = stored.read(UPSAMPLING + name, hp.upsample_width,
                                                  hp.upsample_channels, channels)
        channels = hp.upsample_channels
    if hp.upsampling == 'transposed':       # each of its taps passes a channel through
        weights['upsampling/filter'] = np.tile(np.eye(channels, dtype=np.float32),
                                               [hp.upsample_width, 1, 1])
        weights['upsampling/bias'] = np.zeros([channels], np.float32)
    return weights, channels


def _flow(stored, hp, k, cond_channels):
    """{name: value} of flow k."""
    c, units, skip = hp.flow_channels(k), hp.residual_channels, hp.skip_channels
    flow, wavenet = 'flow_%d/' % k, 'glow_%d/wavenet/' % k
    blocks = hp.n_group if hp.upsampling == 'repeat' else 1
    weights = {flow + 'W': stored.read('glow_%d/inv1x1conv/W' % k, c, c),
               flow + 'end/filter': stored.read(wavenet + 'w_e', 1, skip, c),
               flow + 'end/bias': stored.read(wavenet + 'b_e', c)}
    convolutions = {'start': [_convolution(stored, wavenet, 's', 1, c // 2, units)], 'cond': []}
    for i in range(hp.n_layers):
        layer, theirs = 'layer_%d/' % i, wavenet + 'dilation_%d/' % 2 ** i
        convolutions[layer + 'dilated'] = [
            _convolution(stored, theirs, 'g_f', hp.kernel_size, units, 2 * units)]
        convolutions['cond'].append(
            _convolution(stored, theirs, 'lc', 1, hp.n_group * cond_channels, 2 * units,
                         blocks=blocks))
        res_skip = [_convolution(stored, theirs, 'skip', 1, units, skip)]
        if i < hp.n_layers - 1:
            res_skip.insert(0, _convolution(stored, theirs, 'res', 1, units, units, norm_axes=None))
        else:
            stored.known.update(theirs + name for name in ('w_res', 'g_res', 'b_res'))
        convolutions[layer + 'res_skip'] = res_skip
    for name, parts in convolutions.items():
        for kind, arrays in zip(('/v', '/g', '/bias'), zip(*parts)):
            weights[flow + name + kind] = np.concatenate(arrays, axis=-1)
    return weights


def _convolution(stored, scope, name, *shape, blocks=1, norm_axes=(0, 1)):
    """(v, g, bias) for ops.weight_norm of the filters w_name [width, in, out], g_name and b_name.

    blocks: how many blocks of input channels to sum up.
    norm_axes: the axes of the seed's norm; None for all.
    """
    v = stored.read(scope + 'w_' + name, *shape).astype(np.float64)
    norm = np.maximum(LEAST_NORM, np.sqrt(np.square(v).sum(axis=norm_axes)))
    v = v.reshape(shape[0], blocks, -1, shape[2]).sum(axis=1)
    length = np.sqrt(np.square(v).sum(axis=(0, 1)))
    g = stored.read(scope + 'g_' + name, shape[2]) * length / norm
    zero = length < 1e-15  # its square would be lost in float32
    v[:, :, zero], g[zero] = 0.0, 0.0
    v[0, 0, zero] = 1.0  # any direction will do
    bias = (np.zeros(shape[2]) if name == 'g_f'  # whatever b_g_f holds
            else stored.read(scope + 'b_' + name, shape[2]))
    return [array.astype(np.float32) for array in (v, g, bias)]
