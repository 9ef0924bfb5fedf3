"""Files of statistics: the mean and the scale of each band, by which a mel is standardized."""
import os
from typing import Any, Dict, Tuple

import numpy as np

import errors
from errors import UserError
from interop import numpypickle

SUFFIXES = '.npy', '.npz', '.h5', '.hdf5'
FORMS = 'arrays "mean" and "scale", or one array 2 x n_mels of them'


def read(path: str) -> Dict[str, Any]:
    """{hyperparameter: value} that the statistics in a file stand for.

        .h5     datasets "mean" and "scale" (ParallelWaveGAN)
        .npy    [2, n_mels]: mean and scale (ParallelWaveGAN, TensorFlowTTS), or a dictionary with
                mel_mean and mel_std (Coqui TTS), whose pickle is read as data
        .npz    such arrays, or count, sum and sum_square (ESPnet)

    Coqui standardizes decibels as they are, so its file turns the affine map and the range off.

    Raises UserError for a file that cannot be read or holds something else.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise UserError('%s: a file of statistics ends in %s' % (path, ', '.join(SUFFIXES)))
    if not os.path.isfile(path):
        raise UserError('%s: no such file' % path)
    try:
        held = {'.npy': _read_npy, '.npz': _read_npz}.get(suffix, _read_h5)(path)
        mean, scale = _mean_and_scale(held)
    except UserError:
        raise
    except Exception as error:      # of a damaged header or archive anything
        raise UserError('%s cannot be read as statistics (%s); they are %s'
                        % (path, getattr(error, 'strerror', None) or errors.reason(error)
                           or type(error).__name__, FORMS)) from error
    changes: Dict[str, Any] = dict(mel_stats_mean=mean, mel_stats_scale=scale)
    if 'mel_mean' in held:
        changes.update(mel_gain=_gain(held.get('audio_config')), mel_offset=0.0, mel_clip_min=0.0,
                       mel_clip_max=0.0)
    return changes


def _read_npy(path):
    with open(path, 'rb') as f:
        if f.read(6) != b'\x93NUMPY':
            raise ValueError('not a file that numpy.save wrote')
        head = f.read(128)
    if b"'|O'" in head:
        return numpypickle.load(path)
    return {'': np.load(path, allow_pickle=False)}


def _read_npz(path):
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _read_h5(path):
    try:
        import h5py
    except ImportError as error:
        raise UserError('reading %s takes h5py: pip install h5py, or save [mean, scale] as .npy'
                        % path) from error
    with h5py.File(path, 'r') as f:
        return {name: f[name][()] for name in ('mean', 'scale') if name in f}


def _mean_and_scale(held: Dict[str, Any]) -> Tuple[tuple, tuple]:
    """Two tuples of n_mels floats; ValueError if `held` has none."""
    if {'mel_mean', 'mel_std'} <= set(held):            # Coqui
        rows = held['mel_mean'], held['mel_std']
    elif {'mean', 'scale'} <= set(held):
        rows = held['mean'], held['scale']
    elif {'count', 'sum', 'sum_square'} <= set(held):   # ESPnet
        count, total, squares = (np.asarray(held[name], np.float64)
                                 for name in ('count', 'sum', 'sum_square'))
        mean = total / count
        rows = mean, np.sqrt(np.maximum(squares / count - mean ** 2, 1e-20))
    elif len(held) == 1 and np.ndim(next(iter(held.values()))) == 2:
        rows = next(iter(held.values()))
    else:
        raise ValueError('it holds %s' % (', '.join(sorted(map(str, held))[:8]) or 'nothing'))
    array = np.stack([np.ravel(np.asarray(row, np.float64)) for row in rows])
    if len(array) != 2 or not np.isfinite(array).all() or not (array[1] > 0).all():
        raise ValueError('of shape %s, or with a scale that is not above zero'
                         % ' x '.join(map(str, array.shape)))
    return tuple(array[0].tolist()), tuple(array[1].tolist())


def _gain(config):
    """What Coqui multiplies the logarithm of base 10 by."""
    config = getattr(config, 'attributes', config)
    gain = config.get('spec_gain') if isinstance(config, dict) else None
    return float(gain) if isinstance(gain, (int, float)) and gain > 0 else 20.0
