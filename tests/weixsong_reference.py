"""weixsong/WaveGlow in NumPy, float64: what its checkpoints mean, written from their description.

`weights` makes a checkpoint's variables, {name: float32 array}; `forward` and `infer` are the model
with them. All sizes are read off the shapes.
"""
import numpy as np

HOP_LENGTH = 256  # samples a frame, unless another hop is given
N_MELS = 80
LSTM = 'lc_blstm_embedding/layer_%d/bidirectional_rnn/%s/lstm_cell/'


# --- Variables ------------------------------------------------------------------------------------

def weights(rng, encoder='none', transposed=False, n_flows=4, n_group=8, n_early_every=2,
            n_early_size=2, n_layers=3, residual_channels=12, skip_channels=10, kernel_size=3,
            encoder_layers=2, encoder_width=5, encoder_channels=7, upsample_width=40,
            upsample_channels=6, n_mels=N_MELS):
    """Random variables of a model of these sizes, none of them zero.

    encoder: none, conv or blstm; transposed: whether two transposed convolutions follow it.
    """
    w, channels = {}, n_mels

    def filters(name, *shape):
        w['Waveglow/' + name] = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))

    def bias(name, size):
        w['Waveglow/' + name] = 0.2 * rng.standard_normal(size)

    def weight_norm(scope, name, *shape):
        filters(scope + 'w_' + name, *shape)
        bias(scope + 'b_' + name, shape[-1])
        w['Waveglow/' + scope + 'g_' + name] = (rng.uniform(0.5, 1.5, shape[-1])
                                                * rng.choice([-1, 1], shape[-1]))

    for i in range(encoder_layers):
        if encoder == 'conv':
            filters('lc_conv1d/layer_%d/filter' % i, encoder_width, channels, encoder_channels)
            bias('lc_conv1d/layer_%d/bias' % i, encoder_channels)
            channels = encoder_channels
        elif encoder == 'blstm':
            for way in ('fw', 'bw'):
                filters(LSTM % (i, way) + 'kernel', channels + encoder_channels,
                        4 * encoder_channels)
                bias(LSTM % (i, way) + 'bias', 4 * encoder_channels)
            channels = 2 * encoder_channels
    if transposed:
        for name in ('layer1', 'layer2'):  # [width, out, in]
            filters('transpoed_conv/' + name, upsample_width, upsample_channels, channels)
            w['Waveglow/transpoed_conv/' + name] *= 4 * upsample_channels ** 0.5
            channels = upsample_channels
    c = n_group
    for k in range(n_flows):
        if k and k % n_early_every == 0:
            c -= n_early_size
        flow, wavenet = 'glow_%d/' % k, 'glow_%d/wavenet/' % k
        w['Waveglow/' + flow + 'inv1x1conv/W'] = (np.linalg.qr(rng.standard_normal((c, c)))[0]
                                                  + 0.05 * rng.standard_normal((c, c)))
        weight_norm(wavenet, 's', 1, c // 2, residual_channels)
        for i in range(n_layers):
            layer = wavenet + 'dilation_%d/' % 2 ** i
            weight_norm(layer, 'g_f', kernel_size, residual_channels, 2 * residual_channels)
            weight_norm(layer, 'lc', 1, n_group * channels, 2 * residual_channels)
            weight_norm(layer, 'skip', 1, residual_channels, skip_channels)
            weight_norm(layer, 'res', 1, residual_channels, residual_channels)
            # the norm is of the whole tensor: this makes the convolution one of length 1
            w['Waveglow/' + layer + 'g_res'] *= residual_channels ** 0.5
        filters(wavenet + 'w_e', 1, skip_channels, c)
        w['Waveglow/' + wavenet + 'w_e'] *= 0.3 / n_layers ** 0.5
        bias(wavenet + 'b_e', c)
    return {name: value.astype(np.float32) for name, value in w.items()}


# --- The model ------------------------------------------------------------------------------------

def forward(weights, audio, mel, sigma=0.707, hop=HOP_LENGTH):
    """(z [batch, steps, n_group], loss) of audio [batch, samples] and mel [batch, frames, bands].

    The loss is the negative log-likelihood in nats a sample, its constant left out.
    """
    w = _Scope(weights)
    matrices = _matrices(w)
    audio = audio[:, :audio.shape[1] // len(matrices[0]) * len(matrices[0])]    # whole groups
    x = audio.astype(np.float64).reshape(len(audio), -1, len(matrices[0]))
    steps = x.shape[0] * x.shape[1]
    cond = _condition(w, mel, len(matrices[0]), hop)
    out, log_det = [], 0.0
    for k, matrix in enumerate(matrices):
        leaving = x.shape[2] - len(matrix)
        out.append(x[..., :leaving])
        x = x[..., leaving:] @ matrix
        half = len(matrix) // 2
        log_s, t = _wavenet(w.at('glow_%d/wavenet/' % k), x[..., :half], cond)
        x = np.concatenate([x[..., :half], x[..., half:] * np.exp(log_s) + t], axis=-1)
        log_det += log_s.sum() + steps * np.log(abs(np.linalg.det(matrix)))
    z = np.concatenate(out + [x], axis=-1)
    return z, (np.sum(z ** 2) / (2 * sigma ** 2) - log_det) / audio.size


def infer(weights, z, mel, hop=HOP_LENGTH):
    """Audio [batch, samples] of z [batch, steps, n_group]: what `forward` made z of."""
    w = _Scope(weights)
    matrices = _matrices(w)
    z = z.astype(np.float64)
    cond = _condition(w, mel, z.shape[2], hop)
    waiting, x = np.split(z, [z.shape[2] - len(matrices[-1])], axis=-1)
    for k in reversed(range(len(matrices))):
        half = len(matrices[k]) // 2
        log_s, t = _wavenet(w.at('glow_%d/wavenet/' % k), x[..., :half], cond)
        x = np.concatenate([x[..., :half], (x[..., half:] - t) / np.exp(log_s)], axis=-1)
        x = x @ np.linalg.inv(matrices[k])
        entering = len(matrices[k - 1]) - len(matrices[k]) if k else 0
        waiting, early = np.split(waiting, [waiting.shape[2] - entering], axis=-1)
        x = np.concatenate([early, x], axis=-1)
    return x.reshape(len(x), -1)


class _Scope:
    """The variables below a prefix, as float64."""

    def __init__(self, variables, prefix='Waveglow/'):
        self._variables, self._prefix = variables, prefix

    def __getitem__(self, name):
        return self._variables[self._prefix + name].astype(np.float64)

    def __contains__(self, name):
        return self._prefix + name in self._variables

    def at(self, prefix):
        return _Scope(self._variables, self._prefix + prefix)


def _matrices(w):
    """[W of flow 0, W of flow 1, ...]."""
    matrices = []
    while 'glow_%d/inv1x1conv/W' % len(matrices) in w:
        matrices.append(w['glow_%d/inv1x1conv/W' % len(matrices)])
    return matrices


def _condition(w, mel, n_group, hop):
    """[batch, steps, n_group * channels], channel = sample * channels + channel."""
    x, i = mel.astype(np.float64), 0
    while 'lc_conv1d/layer_%d/filter' % i in w:
        layer = w.at('lc_conv1d/layer_%d/' % i)
        x = np.maximum(0, convolve(x, layer['filter']) + layer['bias'])
        i += 1
    while LSTM % (i, 'fw') + 'kernel' in w:
        there, back = w.at(LSTM % (i, 'fw')), w.at(LSTM % (i, 'bw'))
        x = np.concatenate([_lstm(x, there['kernel'], there['bias']),
                            _lstm(x[:, ::-1], back['kernel'], back['bias'])[:, ::-1]], axis=-1)
        i += 1
    if 'transpoed_conv/layer1' in w:
        stride = round(hop ** 0.5)
        for name in ('layer1', 'layer2'):
            x = np.maximum(0, convolve_transposed(x, w['transpoed_conv/' + name], stride))
    else:
        x = np.repeat(x, hop, axis=1)
    x = x[:, :x.shape[1] // n_group * n_group]
    return x.reshape(len(x), -1, n_group * x.shape[2])


def _wavenet(w, a, cond):
    """(log_s, t) of the half a."""
    x = a @ _normalized(w, 's')[0] + w['b_s']
    skips, dilation = 0.0, 1
    while 'dilation_%d/w_g_f' % dilation in w:
        layer = w.at('dilation_%d/' % dilation)
        y = convolve(x, _normalized(layer, 'g_f'), dilation)
        y = y + cond @ _normalized(layer, 'lc')[0] + layer['b_lc']
        through, gate = np.split(y, 2, axis=-1)
        y = np.tanh(through) * _sigmoid(gate)
        skips = skips + y @ _normalized(layer, 'skip')[0] + layer['b_skip']
        x = x + y @ _normalized(layer, 'res', axis=None)[0] + layer['b_res']
        dilation *= 2
    return np.split(skips @ w['w_e'][0] + w['b_e'], 2, axis=-1)


def _normalized(w, name, axis=(0, 1)):
    """Weight norm, with the 1e-12 below which TensorFlow lets no squared length fall."""
    v = w['w_' + name]
    return w['g_' + name] * v / np.sqrt(np.maximum(1e-12, np.sum(v ** 2, axis=axis)))


def _lstm(x, kernel, bias):
    """x [batch, frames, in] -> h [batch, frames, units]."""
    units = len(bias) // 4
    c = h = np.zeros([len(x), units])
    outputs = []
    for t in range(x.shape[1]):
        gates = np.concatenate([x[:, t], h], axis=-1) @ kernel + bias
        i, j, f, o = np.split(gates, 4, axis=-1)
        c = c * _sigmoid(f + 1.0) + _sigmoid(i) * np.tanh(j)
        h = _sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def convolve(x, filters, dilation=1):
    """x [batch, steps, in] with filters [width, in, out]: as many steps, zeros beyond the ends."""
    span = (len(filters) - 1) * dilation
    padded = np.pad(x, [[0, 0], [span // 2, span - span // 2], [0, 0]])
    return sum(padded[:, j * dilation:j * dilation + x.shape[1]] @ taps
               for j, taps in enumerate(filters))


def convolve_transposed(x, filters, stride):
    """x [batch, steps, in] with filters [width, out, in] -> [batch, steps * stride, out].

    The transpose of the convolution with stride and padding SAME, from steps * stride to steps.
    """
    batch, steps, _ = x.shape
    width = len(filters)
    left = max(0, width - stride) // 2
    y = np.zeros([batch, steps * stride + width, filters.shape[1]])
    for t in range(steps):
        for j in range(width):
            y[:, t * stride + j] += x[:, t] @ filters[j].T
    return y[:, left:left + steps * stride]
