"""Does a device compute a dilated convolution as it should? An impulse tells."""
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

import errors
import ops
from errors import UserError
from params import HParams


def require_dilated_convolution(hp: HParams, device_names: Sequence[str],
                                config: tf.ConfigProto) -> None:
    """Raises UserError if hp.conv_form computes something else on a device: see docs/nhwc.md."""
    def conv(x, filters, dilation, causal):
        return ops.dilated_conv(x, filters, dilation, causal, hp.conv_form)
    for device in device_names:
        fault = find_fault(conv, device, config, [2 ** i for i in range(hp.n_layers)],
                           hp.kernel_size, hp.causal)
        if fault:
            raise UserError('conv_form=%s does not compute a dilated convolution on %s under '
                            'TensorFlow %s: %s; take --hparams conv_form=time_to_batch'
                            % (hp.conv_form, device, tf.__version__, fault))


def find_fault(conv: Callable, device: str, config: Optional[tf.ConfigProto] = None,
               dilations: Sequence[int] = (1, 4), width: int = 3, causal: bool = False) -> str:
    """What `conv` computes wrongly on `device`, in words; '' if it is right.

    Runs a dilated convolution of an impulse and its two gradients, through the graph optimizer
    that training goes through, against their definition in NumPy. A convolution that loses its
    dilation trains without an error, and every loss falls: docs/nhwc.md.

    Args:
      conv: a function (x, filters, dilation, causal=...) like `ops.dilated_conv`.
      device: a TensorFlow device name.
      config: tf.ConfigProto of the session.
      dilations, width, causal: of the convolutions to check.
    """
    cases = [_impulse_response(dilation, width, causal) for dilation in dilations]
    with tf.Graph().as_default(), tf.device(device):
        fetches: List[List[tf.Tensor]] = []
        feeds: Dict[tf.Tensor, np.ndarray] = {}
        try:
            for dilation, (inputs, _) in zip(dilations, cases):
                x, filters, dy = (tf.placeholder(tf.float32, value.shape) for value in inputs)
                feeds.update(zip((x, filters, dy), inputs))
                y = conv(x, filters, dilation, causal=causal)
                # An optimizer may leave alone what is fetched: fetch copies.
                fetches.append([tf.identity(t) for t in [y] + tf.gradients(y, [x, filters], dy)])
            with tf.Session(config=config) as session:
                found = session.run(fetches, feeds)
        except (tf.errors.OpError, ValueError) as error:
            return 'it fails there (%s)' % errors.reason(error)
    names = 'its values', "its input's gradient", "its filters' gradient"
    wrong = ['%s for dilation %d' % (name, dilation)
             for dilation, results, (_, expected) in zip(dilations, found, cases)
             for name, a, b in zip(names, results, expected)
             if a.shape != b.shape
             or not np.allclose(a, b, rtol=1e-2, atol=1e-2 * np.abs(b).max())]
    return 'wrong: ' + ', '.join(wrong) if wrong else ''


def _impulse_response(dilation, width, causal):
    """((x, filters, dy), (y, dx, dfilters)) of a dilated convolution, by its definition."""
    channels, middle = 8, 2 * width * dilation
    rng = np.random.RandomState(dilation)
    x = np.zeros([1, 2 * middle, channels], np.float32)
    x[0, middle] = rng.randn(channels)
    filters = rng.randn(width, channels, channels).astype(np.float32)
    dy = np.zeros_like(x)
    dy[0, middle + dilation] = rng.randn(channels)
    y, dx, dfilters = np.zeros_like(x), np.zeros_like(x), np.zeros_like(filters)
    for tap in range(width):
        shift = (tap - (width - 1 if causal else (width - 1) // 2)) * dilation
        moved = np.roll(x, -shift, axis=1)
        y += moved.dot(filters[tap])
        dx += np.roll(dy, shift, axis=1).dot(filters[tap].T)
        dfilters[tap] = moved[0].T.dot(dy[0])
    return (x, filters, dy), (y, dx, dfilters)
