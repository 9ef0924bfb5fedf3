"""NVIDIA's WaveGlow in NumPy, float64, one utterance: what convert_nvidia.py is tested against.

Written from the published definition. Channels first, as there: audio [samples], mel
[bands, frames], groups [channels, steps]. A state dict holds arrays by NVIDIA's latest keys. The
last samples of an utterance, too few for a group, are left out, as there.
"""
import collections

import numpy as np
import ptfiles

HOP = 256


def channels_of(n_flows, n_group, every, size):
    return [n_group - size * (k // every) for k in range(n_flows)]


def state(rng, n_flows=12, n_group=8, every=4, size=2, units=256, layers=8, kernel=3, bands=80,
          width=1024):
    """A random state dict, float32, of an invertible flow whose every part affects the audio."""
    def normal(*shape, **scale):
        x = rng.standard_normal(shape).astype(np.float32)
        x *= np.float32(scale.get('scale', 1.0))
        return x

    def convolution(name, out, inputs, width):
        result[name + '.weight_v'] = normal(out, inputs, width)
        result[name + '.weight_g'] = 1 + normal(out, 1, 1, scale=0.2)
        result[name + '.bias'] = normal(out, scale=0.1)

    result = {'upsample.weight': normal(bands, bands, width, scale=bands ** -0.5 / 2),
              'upsample.bias': normal(bands, scale=0.1)}
    for k, c in enumerate(channels_of(n_flows, n_group, every, size)):
        rotation = np.linalg.qr(rng.standard_normal([c, c]))[0] + 0.05 * normal(c, c)
        result['convinv.%d.conv.weight' % k] = rotation[:, :, None].astype(np.float32)
        flow = 'WN.%d.' % k
        convolution(flow + 'start', units, c // 2, 1)
        convolution(flow + 'cond_layer', 2 * units * layers, bands * n_group, 1)
        for i in range(layers):
            convolution(flow + 'in_layers.%d' % i, 2 * units, units, kernel)
            convolution(flow + 'res_skip_layers.%d' % i,
                        2 * units if i < layers - 1 else units, units, 1)
        result[flow + 'end.weight'] = normal(c, units, 1, scale=0.1 * units ** -0.5)
        result[flow + 'end.bias'] = normal(c, scale=0.1)
    return result


def forward(state, audio, mel, every=4, size=2, sigma=1.0, hop=HOP):
    """(z [n_group, steps], loss): early outputs first, then what remains."""
    x, cond = _groups(audio, state), _condition(mel, state, hop)
    early, log_s_sum, log_det = [], 0.0, 0.0
    for k in range(_count(state, 'convinv.%d.conv.weight')):
        if k > 0 and k % every == 0:
            early.append(x[:size])
            x = x[size:]
        w = state['convinv.%d.conv.weight' % k][:, :, 0].astype(np.float64)
        x = w @ x
        log_det += x.shape[1] * np.log(abs(np.linalg.det(w)))
        half = len(x) // 2
        shift, log_s = _coupling(x[:half], cond, state, k)
        x = np.concatenate([x[:half], x[half:] * np.exp(log_s) + shift])
        log_s_sum += log_s.sum()
    z = np.concatenate(early + [x])
    return z, ((z ** 2).sum() / (2 * sigma ** 2) - log_s_sum - log_det) / z.size


def infer(state, z, mel, every=4, size=2, hop=HOP):
    """Audio [samples] from z [n_group, steps] in `forward`'s order."""
    cond, n_flows = _condition(mel, state, hop), _count(state, 'convinv.%d.conv.weight')
    n_early = size * ((n_flows - 1) // every)
    early, x = z[:n_early], z[n_early:].astype(np.float64)
    for k in reversed(range(n_flows)):
        half = len(x) // 2
        shift, log_s = _coupling(x[:half], cond, state, k)
        x = np.concatenate([x[:half], (x[half:] - shift) / np.exp(log_s)])
        x = np.linalg.solve(state['convinv.%d.conv.weight' % k][:, :, 0].astype(np.float64), x)
        if k > 0 and k % every == 0:
            x, early = np.concatenate([early[-size:], x]), early[:-size]
    return x.T.reshape(-1)


def _groups(audio, state):
    n_group = len(state['convinv.0.conv.weight'])
    whole = len(audio) // n_group * n_group
    return audio[:whole].reshape([-1, n_group]).T.astype(np.float64)


def _condition(mel, state, hop):
    """[bands * n_group, steps] of mel [bands, frames]: channel = band * n_group + sample."""
    (bands, frames), n_group = mel.shape, len(state['convinv.0.conv.weight'])
    weight = state['upsample.weight'].astype(np.float64)
    up = np.zeros([bands, (frames - 1) * hop + weight.shape[2]])
    for f in range(frames):
        up[:, f * hop:f * hop + weight.shape[2]] += np.tensordot(mel[:, f], weight, [0, 0])
    up = up[:, :frames * hop // n_group * n_group] + state['upsample.bias'][:, None]
    return up.reshape([bands, -1, n_group]).transpose(0, 2, 1).reshape([bands * n_group, -1])


def _coupling(a, cond, state, k):
    """(shift, log_s) of flow k."""
    flow = 'WN.%d.' % k
    layers = _count(state, flow + 'in_layers.%d.bias')
    h = _convolution(a, state, flow + 'start')
    units, output = len(h), 0.0
    conds = _convolution(cond, state, flow + 'cond_layer')
    for i in range(layers):
        act = (_convolution(h, state, flow + 'in_layers.%d' % i, 2 ** i)
               + conds[2 * units * i:2 * units * (i + 1)])
        act = np.tanh(act[:units]) / (1 + np.exp(-act[units:]))
        res_skip = _convolution(act, state, flow + 'res_skip_layers.%d' % i)
        if i < layers - 1:
            h = h + res_skip[:units]
            res_skip = res_skip[units:]
        output = output + res_skip
    end = state[flow + 'end.weight'][:, :, 0] @ output + state[flow + 'end.bias'][:, None]
    return end[:len(end) // 2], end[len(end) // 2:]


def _convolution(x, state, name, dilation=1):
    """x [in, steps] -> [out, steps], zeros beyond both ends."""
    v = state[name + '.weight_v'].astype(np.float64)
    w = v * (state[name + '.weight_g'] / np.sqrt((v ** 2).sum(axis=(1, 2), keepdims=True)))
    reach, steps = (w.shape[2] - 1) // 2 * dilation, x.shape[1]
    x = np.pad(x, [(0, 0), (reach, reach)], 'constant')
    y = sum(w[:, :, tap] @ x[:, tap * dilation:tap * dilation + steps]
            for tap in range(w.shape[2]))
    return y + state[name + '.bias'][:, None]


def _count(state, key):
    n = 0
    while key % n in state:
        n += 1
    return n


# --- The other spellings of a state dict ----------------------------------------------------------

def parametrized(state):
    """As PyTorch's newer weight norm names it."""
    return {key.replace('.weight_g', '.parametrizations.weight.original0')
            .replace('.weight_v', '.parametrizations.weight.original1'): value
            for key, value in state.items()}


def removed(state):
    """Without weight norm."""
    result = {}
    for key, value in state.items():
        if key.endswith('.weight_v'):
            norm = np.sqrt(np.square(value, dtype=np.float64).sum(axis=(1, 2), keepdims=True))
            result[key[:-len('_v')]] = (value * (state[key[:-1] + 'g'] / norm)).astype(np.float32)
        elif not key.endswith('.weight_g'):
            result[key] = value
    return result


def unfused(state):
    """As before the condition layers, and residual and skip layers, were made one."""
    result = {}
    for key, value in state.items():
        flow, _, rest = key.partition('.cond_layer.')
        if rest:
            layers = _count(state, flow + '.in_layers.%d.bias')
            for i, part in enumerate(np.split(value, layers)):
                result['%s.cond_layers.%d.%s' % (flow, i, rest)] = part
            continue
        flow, _, rest = key.partition('.res_skip_layers.')
        if rest:
            units = len(state[flow + '.start.bias'])
            if len(value) == 2 * units:
                result['%s.res_layers.%s' % (flow, rest)] = value[:units]
            else:  # there, and of no use
                result['%s.res_layers.%s' % (flow, rest)] = value + 1
            result['%s.skip_layers.%s' % (flow, rest)] = value[-units:]
            continue
        result[key] = value
    return result


def nemo(state):
    """As NeMo names them."""
    return {key.replace('WN.', 'wavenet.', 1): value for key, value in state.items()}


def pickled_module(state, name='glow.WaveGlow', part='torch.nn.modules.conv.Conv1d',
                   stride=HOP, **attributes):
    """The state dict as a module of modules, as `torch.save(model)` leaves it.

    name, part: the classes of the module and of those within it. stride: of the upsampling.
    """
    def build(entries, name, **attributes):
        own = {key: value for key, value in entries.items() if '.' not in key}
        below = collections.OrderedDict()
        for key, value in entries.items():
            if '.' in key:
                below.setdefault(key.split('.')[0], {})[key.split('.', 1)[1]] = value
        return ptfiles.module(name, parameters=own, modules=collections.OrderedDict(
            (key, build(value, part, **({'stride': (stride,)} if key == 'upsample' else {})))
            for key, value in below.items()),
            **dict(attributes, **({'weight': own['weight_v']} if 'weight_v' in own else {})))
    return build(state, name, **attributes)     # weight: what weight norm computes
