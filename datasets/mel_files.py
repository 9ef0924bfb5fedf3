"""Files of mel spectrograms: ours, NumPy's, PyTorch's and HDF5. Knows no TensorFlow."""
import copy
import os
from typing import Callable, Dict, Iterator, NoReturn, Tuple, Union

import numpy as np

import errors
from datasets import mel_definition
from datasets.mel_definition import MelDefinition
from datasets.mel_transform import mel_basis, mel_values
from errors import UserError
from files import atomic_open
from interop import torchfile

MEL_SUFFIXES = ('.mel', '.npy', '.npz', '.pt', '.h5')      # what `read_mel` reads
BLOCK_FRAMES = 1024     # of a mel that is read piece by piece


class UnreadableMel(UserError):
    """A file that was a mel when it was opened."""


class MelFile:
    """A mel in a file that is read piece by piece: mel[first:end] is float32 [frames, n_mels].

    It holds no file open, so there can be any number of them.
    """
    ndim = 2

    def __init__(self, path: str, offset: int, dtype: np.dtype, frames: int, n_mels: int,
                 bands_first: bool = False):
        """
        Args:
          offset: bytes before the first value.
          frames, n_mels: in the file.
          bands_first: whether it holds [n_mels, frames].
        """
        self._path, self._offset, self._dtype = path, offset, dtype
        self._stored_frames, self._bands_first = frames, bands_first
        self._size = os.path.getsize(path)
        self.shape = frames, n_mels

    def __len__(self) -> int:
        return self.shape[0]

    def first(self, frames: int) -> 'MelFile':
        """Its beginning."""
        cut = copy.copy(self)
        cut.shape = frames, self.shape[1]
        return cut

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Raises UnreadableMel if the file is not what it was."""
        first, end, _ = frames.indices(len(self))
        count, n_mels = max(0, end - first), self.shape[1]
        try:
            with open(self._path, 'rb', buffering=0) as f:
                if os.fstat(f.fileno()).st_size != self._size:
                    raise UnreadableMel('%s has changed since it was opened' % self._path)
                if self._bands_first:
                    values = np.stack([self._values(f, band * self._stored_frames + first, count)
                                       for band in range(n_mels)], axis=1)
                else:
                    values = self._values(f, first * n_mels, count * n_mels).reshape(count, n_mels)
        except (OSError, ValueError) as error:
            raise UnreadableMel('%s cannot be read any more (%s)'
                                % (self._path, error)) from error
        with np.errstate(over='ignore'):     # what float32 cannot hold becomes infinite
            return np.ascontiguousarray(values, np.float32)

    def _values(self, f, first, count):
        f.seek(self._offset + first * self._dtype.itemsize)
        return np.frombuffer(f.read(count * self._dtype.itemsize), self._dtype)


Mel = Union[np.ndarray, MelFile]        # float32 [frames, n_mels]
Refuse = Callable[[str], NoReturn]      # raises the UserError of a file


def mel_blocks(mel: Mel, frames: int = BLOCK_FRAMES) -> Iterator[np.ndarray]:
    """Yields a mel in pieces of so many frames, the last perhaps shorter."""
    for first in range(0, len(mel), frames):
        yield mel[first:first + frames]


def save_mel(path: str, mel: np.ndarray) -> None:
    """Writes a mel, [frames, n_mels], as little-endian float32 without a header, atomically."""
    with atomic_open(path, 'wb') as f:
        f.write(np.ascontiguousarray(mel, dtype='<f4').tobytes())


def read_mel(path: str, n_mels: int) -> np.ndarray:
    """float32 [frames, n_mels] of a `.mel` (see `save_mel`), `.npy`, `.npz`, `.pt` or `.h5` file.

    A `.npy` array is [frames, n_mels] or [n_mels, frames], with or without a leading batch of 1;
    its shape tells which. A `.npz` holds one such array. So is a `.pt` tensor, but those of
    NVIDIA's scripts are [n_mels, frames], so one of n_mels by n_mels is taken for that.

    Raises UserError ('PATH: what is wrong') for a shape that does not tell, and for a file that is
    missing, of another kind, empty, or holds NaN or infinity.
    """
    return open_mel(path, n_mels)[:]


def open_mel(path: str, n_mels: int) -> Mel:
    """`read_mel`, but a MelFile of `.mel` and `.npy`. Raises the same errors at once."""
    def refuse(reason: str) -> NoReturn:
        raise UserError('%s: %s' % (path, reason))

    if not os.path.isfile(path):
        refuse('no such file')
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in MEL_SUFFIXES:
        refuse('a mel spectrogram ends in %s or %s'
               % (', '.join(MEL_SUFFIXES[:-1]), MEL_SUFFIXES[-1]))
    open_kind: Dict[str, Callable[[str, int, Refuse], Mel]] = {
        '.mel': _open_mel, '.npy': _open_npy, '.npz': _open_npz, '.pt': _open_pt,
        '.h5': _open_h5}
    try:
        mel = open_kind[suffix](path, n_mels, refuse)
    except (OSError, ValueError, MemoryError) as error:
        refuse('cannot be read (%s)' % (getattr(error, 'strerror', None) or errors.reason(error)
                                        or 'no memory'))
    if not all(np.isfinite(block).all() for block in mel_blocks(mel)):
        refuse('holds values that are NaN or infinite')
    return mel


def _open_mel(path: str, n_mels: int, refuse: Refuse) -> MelFile:
    size = os.path.getsize(path)
    if size % (4 * n_mels):
        refuse('%d bytes are not whole frames of %d float32 values' % (size, n_mels))
    if not size:
        refuse('is empty')
    return MelFile(path, 0, np.dtype('<f4'), size // (4 * n_mels), n_mels)


def _open_npy(path: str, n_mels: int, refuse: Refuse) -> MelFile:
    shape, columns_first, dtype, offset = _npy_header(path)
    bands_first = _is_bands_first(shape, n_mels, refuse)
    frames = shape[-1 if bands_first else -2]
    if os.path.getsize(path) < offset + dtype.itemsize * frames * n_mels:
        raise ValueError('its header announces %s values, and it has %d bytes'
                         % (' x '.join(map(str, shape)), os.path.getsize(path)))
    return MelFile(path, offset, dtype, frames, n_mels, bands_first != columns_first)


def _npy_header(path):
    """(shape, whether columns come first, dtype, its own bytes) of a .npy file's header.

    ValueError for anything else, pickles above all.
    """
    with open(path, 'rb') as f:
        if f.read(6) != b'\x93NUMPY':
            raise ValueError('not an array that numpy.save wrote')
        f.seek(0)
        try:
            version = np.lib.format.read_magic(f)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                           (2, 0): np.lib.format.read_array_header_2_0}.get(version)
            if read_header is None:     # 3.0 is for names of columns
                raise ValueError('an array of records, not of real numbers')
            shape, columns_first, dtype = read_header(f)
        except (OSError, MemoryError):
            raise
        except Exception as error:   # a damaged header fails in the tokenizer, in eval, anywhere
            raise ValueError(str(error).split('\n')[0]) from error
        if dtype.hasobject:
            raise ValueError('pickled objects, not real numbers')
        return shape, columns_first, _real(dtype), f.tell()


def _open_npz(path: str, n_mels: int, refuse: Refuse) -> np.ndarray:
    """The one real-valued array in a .npz file; ValueError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if len(held.files) != 1:
                raise ValueError('%d arrays and not one: %s' % (
                    len(held.files), ', '.join(sorted(held.files)[:5])))
            array = held[held.files[0]]
            _real(array.dtype)
    except (OSError, MemoryError, ValueError):
        raise
    except Exception as error:      # of a damaged archive anything
        raise ValueError(str(error).split('\n')[0]) from error
    return _as_frames(array, n_mels, _is_bands_first(array.shape, n_mels, refuse))


def _open_pt(path: str, n_mels: int, refuse: Refuse) -> np.ndarray:
    """The real-valued tensor in a .pt file; ValueError for another object, a checkpoint above all.

    UserError for a file that PyTorch did not save.
    """
    tensor = torchfile.load(path)
    if not isinstance(tensor, torchfile.Tensor):
        raise ValueError('a checkpoint or another object, not one tensor')
    if tensor.dtype.kind not in 'fiu':
        raise ValueError('a tensor of %s, not of real numbers' % tensor.dtype)
    array = tensor.numpy()
    return _as_frames(array, n_mels, _is_bands_first(array.shape, n_mels, refuse, True))


def _open_h5(path: str, n_mels: int, refuse: Refuse) -> np.ndarray:
    """The dataset `feats` of an HDF5 file (ParallelWaveGAN), or its one array of two dimensions."""
    try:
        import h5py
    except ImportError as error:
        raise UserError('reading %s takes h5py: pip install h5py, or save the mel as .npy'
                        % path) from error
    try:
        with h5py.File(path, 'r') as f:
            names = [name for name in f if np.ndim(f[name]) == 2] if 'feats' not in f else ['feats']
            if len(names) != 1:
                raise ValueError('%d arrays of two dimensions and not one, or one called feats'
                                 % len(names))
            array = f[names[0]][()]
    except (OSError, MemoryError, ValueError):
        raise
    except Exception as error:      # of a damaged file anything
        raise ValueError(errors.reason(error)) from error
    _real(array.dtype)
    return _as_frames(array, n_mels, _is_bands_first(array.shape, n_mels, refuse))


def _real(dtype):
    if dtype.kind not in 'fiu':
        raise ValueError('an array of %s, not of real numbers' % dtype)
    return dtype


def _is_bands_first(shape: Tuple[int, ...], n_mels: int, refuse: Refuse, expected: bool = False
                    ) -> bool:
    """Whether a shape is [n_mels, frames]; calls `refuse` if it leaves that open, or is no mel's.

    It does not leave it open if [n_mels, frames] is what is `expected`.
    """
    said = ' x '.join(str(n) for n in shape) or 'no dimensions'
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if 0 in shape:
        refuse('is empty')
    if len(shape) != 2 or n_mels not in shape:
        refuse('its shape, %s, is neither frames x %d nor %d x frames' % (said, n_mels, n_mels))
    if shape == (n_mels, n_mels) and not expected:
        refuse('its shape, %s, does not tell frames from bands; save it as .mel, frames x %d'
               % (said, n_mels))
    return shape[0] == n_mels if expected else shape[1] != n_mels


def _as_frames(array, n_mels, bands_first):
    array = array.reshape(array.shape[-2:])
    with np.errstate(over='ignore'):     # what float32 cannot hold becomes infinite
        return np.ascontiguousarray(array.T if bands_first else array, np.float32)


def cut_padding(mel: Mel, definition: MelDefinition) -> Tuple[Mel, int]:
    """(mel without the frames of zeros at its end, how many these were).

    A batch pads its shorter mels with zeros. On a logarithmic scale they are louder than speech;
    where 0 is the lowest value of a clipped range they are silence, and stay.
    """
    if 0 == definition.clip_min < definition.clip_max:
        return mel, 0
    kept = len(mel)
    while kept:
        first = max(0, kept - BLOCK_FRAMES)
        sounding = np.flatnonzero(mel[first:kept].any(axis=1))
        if len(sounding):
            kept = first + int(sounding[-1]) + 1
            break
        kept = first
    return mel.first(kept) if isinstance(mel, MelFile) else mel[:kept], len(mel) - kept


def check_mel_values(mel: Mel, definition: MelDefinition, where: str) -> None:
    """Raises UserError, naming `where` and what they look like, for values not of `definition`.

    They must lie between silence and a tone of full scale, or within the range that the definition
    clips to; a third of that to either side, or a quarter, is for mels that a network predicted.
    And they must not look like a scale of other projects. What cannot be told for certain, such as
    another base of the logarithm or another hop, passes.
    """
    values = _Values(mel)
    low, high = value_range(definition)
    fits, scale = low <= values.low and values.high <= high, _scale(definition)
    alike = _foreign_scale(values, definition, scale) if scale or not fits else ''
    if fits and not alike:
        return
    if not alike and -16 <= values.low and values.high <= 6:
        alike = 'logarithms of magnitudes, as by mel profile tacotron2'
    raise UserError('%s holds values from %.4g to %.4g, which mel profile %s does not; %s' % (
        where, values.low, values.high, mel_definition.name_of(definition),
        'they look like %s; name their mel profile (docs/mels.md), or compute the mels anew' % alike
        if alike else 'they look like no mel known here, so compute the mels anew'))


def value_range(definition: MelDefinition) -> Tuple[float, float]:
    """The lowest and the highest value that mels by `definition` can have, predicted ones too."""
    d = definition
    if d.clip_min < d.clip_max:
        low, high, beyond = d.clip_min, d.clip_max, 1 / 4
    else:
        tone = (d.win_length / 2 * float(mel_basis(d).max())) ** d.power
        plain = d.replace(dynamic_range=0.0, mean=(), scale=())
        (low,), (high,) = mel_values(np.array([[0], [tone]]), plain)
        beyond = 1 / 3
    beyond *= high - low
    low, high = low - beyond, high + beyond
    if d.mean:
        mean, scale = np.array(d.mean), np.array(d.scale)
        low, high = np.min((low - mean) / scale), np.max((high - mean) / scale)
    return float(low), float(high)


class _Values:
    """What the values of a mel tell, gathered piece by piece."""

    def __init__(self, mel: Mel):
        self.frames, self.low, self.high = len(mel), np.inf, -np.inf
        self.at_low = 0         # how many are the lowest
        count, total, squares = 0, 0.0, 0.0
        for block in mel_blocks(mel):
            low = float(block.min())
            self.at_low = ((0 if low < self.low else self.at_low)
                           + (int(np.count_nonzero(block == low)) if low <= self.low else 0))
            self.low, self.high = min(self.low, low), max(self.high, float(block.max()))
            count += block.size
            total += block.sum(dtype=np.float64)
            squares += np.square(block, dtype=np.float64).sum()
        self.mean = total / count
        self.deviation = max(0.0, squares / count - self.mean ** 2) ** 0.5


def _scale(definition):
    """'logarithm', 'symmetric' or 'standardized'; '' for a scale that others could be taken for."""
    d = definition
    if d.mean:
        return 'standardized'
    if d.clip_min < d.clip_max:
        return 'symmetric' if d.clip_min < 0 else ''
    return 'logarithm' if d.gain == 1 and d.offset == 0 else ''


def _foreign_scale(values, definition, scale):
    """What values are called that are not of `scale`, the definition's, but of another; or ''."""
    if scale and -0.25 <= values.low and values.high <= 1.25:
        return 'mel profile weixsong'
    if values.low >= 0:
        return 'magnitudes without a logarithm'
    if scale == 'symmetric':
        return ''
    if values.low == -4 and values.high <= 4 and values.at_low > 1:
        return 'decibels scaled to -4..4 (mel profiles coqui and rayhane: Coqui TTS, Tacotron-2)'
    if scale == 'standardized':
        return 'logarithms without statistics' if values.mean < -3 else ''
    # The mean of natural logarithms of speech is near -5. Even a loud vowel stays below -1. Not so
    # triangles of height 1, whose sums are larger.
    loud = -definition.power / (np.log(10) if definition.log == '10' else 1)
    if (definition.mel_norm == 'slaney' and values.frames >= 8 and -6 < values.low
            and values.mean > loud and 0.4 < values.deviation < 1.8):
        return ('standardized bands (ParallelWaveGAN, ESPnet, TensorFlowTTS), which take '
                '--mel_stats')
    return ''
