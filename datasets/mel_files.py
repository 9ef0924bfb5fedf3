"""Files of mel spectrograms: ours, NumPy's and PyTorch's. Knows no TensorFlow."""
import os

import numpy as np

from errors import UserError
from files import atomic_open
from interop import torchfile
from params import MEL_PROFILES

MEL_SUFFIXES = ('.mel', '.npy', '.npz', '.pt')      # what `read_mel` reads


def save_mel(path, mel):
    """Writes a mel, [frames, n_mels], as little-endian float32 without a header, atomically."""
    with atomic_open(path, 'wb') as f:
        f.write(np.ascontiguousarray(mel, dtype='<f4').tobytes())


def read_mel(path, n_mels):
    """float32 [frames, n_mels] from a `.mel` (see `save_mel`), `.npy`, `.npz` or `.pt` file.

    A `.npy` array is [frames, n_mels] or [n_mels, frames], with or without a leading batch of 1;
    its shape tells which. A `.npz` holds one such array. So is a `.pt` tensor, but those of
    NVIDIA's scripts are [n_mels, frames], so one of n_mels by n_mels is taken for that.

    Raises UserError ('PATH: what is wrong') for a shape that does not tell, and for a file that is
    missing, of another kind, empty, or holds NaN or infinity.
    """
    def refuse(reason):
        raise UserError('%s: %s' % (path, reason))

    if not os.path.isfile(path):
        refuse('no such file')
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in MEL_SUFFIXES:
        refuse('a mel spectrogram ends in %s or %s'
               % (', '.join(MEL_SUFFIXES[:-1]), MEL_SUFFIXES[-1]))
    load = {'.mel': lambda path: np.fromfile(path, '<f4'), '.npy': _load_npy,
            '.npz': _load_npz, '.pt': _load_pt}
    try:
        mel = load[suffix](path)
        if suffix == '.mel' and os.path.getsize(path) % (4 * n_mels):
            refuse('%d bytes are not whole frames of %d float32 values'
                   % (os.path.getsize(path), n_mels))
    except (OSError, ValueError, MemoryError) as error:
        refuse('cannot be read (%s)' % (getattr(error, 'strerror', None) or error))
    if not mel.size:
        refuse('is empty')
    mel = (mel.reshape([-1, n_mels]) if suffix == '.mel'
           else _oriented(mel, n_mels, refuse, bands_first=suffix == '.pt'))
    with np.errstate(over='ignore'):     # what float32 cannot hold becomes infinite
        mel = np.ascontiguousarray(mel, dtype=np.float32)
    if not np.isfinite(mel).all():
        refuse('holds values that are NaN or infinite')
    return mel


def _load_npy(path):
    """The real-valued array in a .npy file; ValueError for anything else, pickles above all."""
    with open(path, 'rb') as f:
        if f.read(6) != b'\x93NUMPY':
            raise ValueError('not an array that numpy.save wrote')
        f.seek(0)
        try:
            array = np.load(f, allow_pickle=False)
        except (OSError, MemoryError):
            raise
        except Exception as error:   # a damaged header fails in the tokenizer, in eval, anywhere
            raise ValueError(str(error).split('\n')[0]) from error
    return _real(array)


def _load_npz(path):
    """The one real-valued array in a .npz file; ValueError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if len(held.files) != 1:
                raise ValueError('%d arrays and not one: %s' % (
                    len(held.files), ', '.join(sorted(held.files)[:5])))
            return _real(held[held.files[0]])
    except (OSError, MemoryError, ValueError):
        raise
    except Exception as error:      # of a damaged archive anything
        raise ValueError(str(error).split('\n')[0]) from error


def _real(array):
    if array.dtype.kind not in 'fiu':
        raise ValueError('an array of %s, not of real numbers' % array.dtype)
    return array


def _load_pt(path):
    """The real-valued tensor in a .pt file; ValueError for another object, a checkpoint above all.

    UserError for a file that PyTorch did not save.
    """
    tensor = torchfile.load(path)
    if not isinstance(tensor, torchfile.Tensor):
        raise ValueError('a checkpoint or another object, not one tensor')
    if tensor.dtype.kind not in 'fiu':
        raise ValueError('a tensor of %s, not of real numbers' % tensor.dtype)
    return tensor.numpy()


def _oriented(array, n_mels, refuse, bands_first):
    """`array` as [frames, n_mels]; calls `refuse(reason)` if its shape leaves that open.

    It does not leave it open if `bands_first` says that [n_mels, frames] is what to expect.
    """
    shape = ' x '.join(str(n) for n in array.shape) or 'no dimensions'
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2 or n_mels not in array.shape:
        refuse('its shape, %s, is neither frames x %d nor %d x frames' % (shape, n_mels, n_mels))
    if array.shape[0] == n_mels and bands_first:
        return array.T
    if array.shape == (n_mels, n_mels):
        refuse('its shape, %s, does not tell frames from bands; save it as .mel, frames x %d'
               % (shape, n_mels))
    return array if array.shape[1] == n_mels else array.T


def cut_padding(mel, profile_name):
    """(mel without the frames of zeros at its end, how many these were).

    A batch pads its shorter mels with zeros. On a logarithmic scale they are louder than speech;
    0 of the weixsong profile is silence, and stays.
    """
    if MEL_PROFILES[profile_name].scale == 'decibel':
        return mel, 0
    kept = len(mel)
    while kept and not mel[kept - 1].any():
        kept -= 1
    return mel[:kept], len(mel) - kept


def check_mel_values(mel, profile_name, where):
    """Raises UserError, naming `where` and what they look like, for values not of `profile_name`.

    Values of the weixsong profile lie in 0..1, those of tacotron2 are natural logarithms down to
    ln(FLOOR), and no speech keeps those within 0..1. A quarter to either side is for mels that a
    network predicted. What cannot be told for certain, such as another base of the logarithm or
    another hop, passes.
    """
    low, high = float(np.min(mel)), float(np.max(mel))
    unit = -0.25 <= low and high <= 1.25
    if MEL_PROFILES[profile_name].scale == 'decibel':
        if unit:
            return
        alike = _foreign_scale(mel, low, high) or (
            'mel profile tacotron2' if -16 <= low and high <= 6 else '')
    else:
        alike = 'mel profile weixsong' if unit else _foreign_scale(mel, low, high)
        if not alike and -16 <= low and high <= 6:
            return
    raise UserError('%s holds values from %.4g to %.4g, which mel profile %s does not; %s' % (
        where, low, high, profile_name,
        'they look like %s, so compute the mels anew or take a model trained on those' % alike
        if alike else 'they look like no mel known here, so compute the mels anew'))


def _foreign_scale(mel, low, high):
    """What mels on a scale of other projects are called, or ''."""
    if low >= 0:
        return 'magnitudes without a logarithm'
    if low == -4 and high <= 4 and np.count_nonzero(mel == low) > 1:
        return 'decibels scaled to -4..4 (Coqui TTS, Rayhane-mamah/Tacotron-2)'
    # The mean of natural logarithms of speech is near -5. Even a loud vowel stays below -1.
    if len(mel) >= 8 and -6 < low and np.mean(mel) > -1 and 0.4 < np.std(mel) < 1.8:
        return 'standardized bands (ParallelWaveGAN, ESPnet, TensorFlowTTS)'
    return ''
