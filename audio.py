"""Audio: reading and writing sound files, mel spectrograms, and Griffin-Lim to hear them.

Knows no TensorFlow. Audio is float32 [samples], mono, -1 to 1; a mel is float32 [frames, n_mels]
by one of `params.MEL_PROFILES`.
"""
import functools
import io
import os
import struct

import numpy as np
import scipy.fft
import scipy.signal
import soundfile
import soxr

from errors import UserError
from files import atomic_open
from interop import torchfile
from params import MEL_PROFILES, MelProfile

# What a file name may end in to be taken for audio. Those that libsndfile cannot read are here so
# that a corpus of them is told why it is of no use.
AUDIO_EXTENSIONS = frozenset(
    '.' + name.lower() for name in soundfile.available_formats() if name not in (
        'RAW', 'HTK', 'MAT4', 'MAT5', 'MPC2K', 'WAVEX', 'XI')) | frozenset(
            '.aif .aifc .oga .opus .snd .sph .wave .aac .amr .m4a .wma .webm'.split())

MEL_SUFFIXES = ('.mel', '.npy', '.pt')      # what `read_mel` reads

FLOOR = 1e-5            # of the mel magnitudes, in both profiles
LOUDEST = 16.0          # beyond it (full scale is 1) a float file surely holds integers
STREAMED = 0x7fffff00   # a RIFF chunk announced as larger was written without knowing its size


def read_wav(path, sample_rate):
    """The sound in a file of any rate, width, channel count and container that soundfile reads.

    Returns float32 [samples] at `sample_rate` Hz, channels averaged. Its full scale is -1 to 1;
    resampling, and float files, may overshoot a little.
    Raises UserError ('PATH: what is wrong') for a file that is missing, not audio, truncated,
    empty, or holds NaN, infinity or values far beyond full scale.
    """
    def refuse(reason):
        raise UserError('%s: %s' % (path, reason))

    if not os.path.isfile(path):     # a FIFO would block for ever
        refuse('not a regular file' if os.path.lexists(path) else 'no such file')
    try:
        with soundfile.SoundFile(path) as f:
            audio, rate, announced = f.read(dtype='float32'), f.samplerate, f.frames
        missing = _missing_bytes(path)
    except (RuntimeError, OSError, TypeError, MemoryError) as error:
        if not os.access(path, os.R_OK):
            refuse('no permission to read it')
        refuse('not audio that can be read (%s)'
               % (str(getattr(error, 'error_string', error)).strip().rstrip('.') or 'no memory'))
    if missing or len(audio) < 0.95 * announced:     # the length of an MP3 is only an estimate
        refuse('truncated: its header announces more samples than there are')
    if not len(audio):
        refuse('holds no samples')
    if audio.ndim == 2:
        audio = audio.mean(axis=1)
    peak = max(float(audio.max()), -float(audio.min()))    # NaN anywhere makes it NaN
    if not np.isfinite(peak):
        refuse('holds samples that are NaN or infinite')
    if peak > LOUDEST:
        refuse('its samples reach %g where full scale is 1; rescale it' % peak)
    if rate != sample_rate:
        audio = soxr.resample(audio, rate, sample_rate)
        if not len(audio):
            refuse('holds no samples at %d Hz' % sample_rate)
    return audio


def to_pcm16(audio):
    """(int16 [samples], the number of clipped samples) of float audio [samples].

    Rounds to the nearest step of 1 / 32768, as every reader of PCM16 scales it back, and clips
    what lies beyond full scale. Raises UserError for NaN or infinity.
    """
    audio = np.asarray(audio)
    if not np.isfinite(audio).all():
        raise UserError('audio with NaN or infinite samples cannot be written as PCM16')
    clipped = int(np.count_nonzero(np.abs(audio) > 1))
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16), clipped


def write_wav(path, audio, sample_rate):
    """Writes audio [samples] as mono PCM16 WAV, atomically; returns the number of clipped samples.

    Raises UserError for NaN or infinity.
    """
    try:
        pcm, clipped = to_pcm16(np.reshape(audio, [-1]))
    except UserError as error:
        raise UserError('%s: %s' % (path, error))
    content = io.BytesIO()      # so that a full disk is Python's to tell, not a C callback's
    soundfile.write(content, pcm, sample_rate, subtype='PCM_16', format='WAV')
    with atomic_open(path, 'wb') as f:
        f.write(content.getbuffer())
    return clipped


def is_plain_wav(path, sample_rate):
    """Whether a file is mono PCM16 WAV at `sample_rate` that the strictest reader takes as it is.

    TensorFlow's decode_wav, which training reads with, wants the plain format chunk first and
    then whole chunks of even size, one of them of samples, up to the end of the file.
    """
    try:
        with open(path, 'rb') as f:
            chunks = _riff_chunks(f)
            names = [name for name, _, _ in chunks]
            if names[:1] != [b'fmt '] or names.count(b'fmt ') != 1 or names.count(b'data') != 1:
                return False
            if any(size % 2 for _, _, size in chunks):
                return False
            _, offset, size = chunks[-1]
            if offset + size != os.fstat(f.fileno()).st_size or chunks[0][2] not in (16, 18):
                return False
            f.seek(chunks[0][1])
            return struct.unpack('<HHIIHH', f.read(16)) == (1, 1, sample_rate, 2 * sample_rate,
                                                            2, 16)
    except (OSError, struct.error):
        return False


def _riff_chunks(f):
    """[(name, offset, announced bytes)] of the chunks of an open RIFF WAVE file; [] of others."""
    header, chunks, offset = f.read(12), [], 12
    if header[:4] != b'RIFF' or header[8:] != b'WAVE':
        return chunks
    while True:
        f.seek(offset)
        head = f.read(8)
        if not head:
            return chunks
        # Bytes after the last chunk count as a chunk that is not there.
        name, size = struct.unpack('<4sI', head) if len(head) == 8 else (head, 0)
        chunks.append((name, offset + 8, size))
        offset += 8 + size + size % 2


def _missing_bytes(path):
    """How many bytes of samples the header of a WAV announces that the file does not hold.

    soundfile passes over that, but half a file is a failed copy.
    """
    with open(path, 'rb') as f:
        chunks = _riff_chunks(f)
        end = os.fstat(f.fileno()).st_size
    return sum(max(0, offset + size - end) for name, offset, size in chunks
               if name == b'data' and size < STREAMED)


@functools.lru_cache(maxsize=16)
def mel_basis(sample_rate, profile: MelProfile):
    """float32 [1 + n_fft // 2, n_mels]: magnitudes @ basis = mel magnitudes. Read-only."""
    import librosa  # here, because importing it takes longer than most scripts need it for
    basis = librosa.filters.mel(sr=sample_rate, n_fft=profile.n_fft, n_mels=profile.n_mels,
                                fmin=profile.fmin, fmax=profile.fmax or sample_rate / 2)
    basis = np.ascontiguousarray(basis.T, dtype=np.float32)
    basis.setflags(write=False)
    return basis


def mel_spectrogram(audio, sample_rate, profile: MelProfile):
    """float32 [1 + samples // hop_length, n_mels], by `profile`, of float32 audio [samples].

    Audio of n_fft / 2 samples or fewer, which has too little to reflect at its edges, is
    continued with silence first.
    """
    audio = np.asarray(audio, np.float32)
    n_frames = 1 + len(audio) // profile.hop_length
    edge = profile.n_fft // 2
    if len(audio) <= edge:
        audio = np.pad(audio, (0, edge + 1 - len(audio)), mode='constant')
    if profile.preemphasis:
        emphasized = audio.copy()
        emphasized[1:] -= np.float32(profile.preemphasis) * audio[:-1]
        audio = emphasized
    padded = np.pad(audio, edge, mode='reflect')
    # librosa centres a short window in n_fft samples. Where it stands changes the phases alone,
    # so the transform is told of the win_length samples under the window and no more.
    first = (profile.n_fft - profile.win_length) // 2
    frames = np.lib.stride_tricks.as_strided(
        padded[first:], (n_frames, profile.win_length),
        (profile.hop_length * padded.itemsize, padded.itemsize), writeable=False)
    # In double precision: of loud frames the rounding of a float32 transform is above FLOOR.
    window = scipy.signal.get_window('hann', profile.win_length)
    basis = mel_basis(sample_rate, profile)
    mel = np.empty((n_frames, profile.n_mels), np.float32)
    block = 128     # frames that stay in the processor's cache: twice as fast as all at once
    for start in range(0, n_frames, block):
        spectrum = scipy.fft.rfft(frames[start:start + block] * window, profile.n_fft)
        np.matmul(np.abs(spectrum.astype(np.complex64)), basis, out=mel[start:start + block])
    return _scaled(mel, profile)


def _scaled(mel, profile):
    """Mel magnitudes on the scale of the profile, in place."""
    np.maximum(mel, FLOOR, out=mel)
    if profile.scale == 'log':
        return np.log(mel, out=mel)
    # (20 log10(m) - 20 + 100) / 100
    np.log10(mel, out=mel)
    mel *= 0.2
    mel += 0.8
    return np.clip(mel, 0, 1, out=mel)


def mel_magnitudes(mel, profile):
    """Mel magnitudes: the inverse of `_scaled`."""
    mel = np.asarray(mel, np.float32)
    if profile.scale == 'log':
        return np.exp(mel)
    return np.float32(10) ** ((mel - np.float32(0.8)) / np.float32(0.2))


def griffin_lim(mel, sample_rate, profile: MelProfile, n_iter=60, seed=0):
    """float32 [frames * hop_length]: audio whose mel spectrogram comes near `mel` [frames, n_mels].

    No model, so a floor for what a vocoder must beat and a way to hear what is in a mel. The same
    `seed` gives the same audio. Griffin and Lim 1984, with the momentum of Perraudin et al. 2013.
    """
    import librosa
    n_frames = len(mel)
    magnitudes = mel_magnitudes(mel, profile)
    # One frame more, for a centred transform of n samples has 1 + n // hop_length frames; and
    # enough of them to fill a transform.
    shortest = profile.n_fft // profile.hop_length + 1
    extra = max(1, shortest - n_frames)
    magnitudes = np.pad(magnitudes, ((0, extra), (0, 0)), mode='edge')
    # The pseudo-inverse and non-negative least squares measure the same (PESQ 2.56 and 2.56 over
    # 20 prompts at 16 kHz in both profiles); this one is a product.
    linear = np.maximum(magnitudes @ np.linalg.pinv(mel_basis(sample_rate, profile)), 0)
    audio = librosa.griffinlim(np.ascontiguousarray(linear.T, dtype=np.float32), n_iter=n_iter,
                               hop_length=profile.hop_length, win_length=profile.win_length,
                               window='hann', center=True, pad_mode='reflect', init='random',
                               length=(n_frames + extra - 1) * profile.hop_length,
                               random_state=seed)
    if profile.preemphasis:
        audio = scipy.signal.lfilter([1.0], [1.0, -profile.preemphasis], audio)
    return np.asarray(audio[:n_frames * profile.hop_length], np.float32)


def save_mel(path, mel):
    """Writes a mel, [frames, n_mels], as little-endian float32 without a header, atomically."""
    with atomic_open(path, 'wb') as f:
        f.write(np.ascontiguousarray(mel, dtype='<f4').tobytes())


def read_mel(path, n_mels):
    """float32 [frames, n_mels] from a `.mel` (see `save_mel`), `.npy` or `.pt` file.

    A `.npy` array is [frames, n_mels] or [n_mels, frames], with or without a leading batch of 1;
    its shape tells which. So is a `.pt` tensor, but those of NVIDIA's scripts are [n_mels, frames],
    so one of n_mels by n_mels is taken for that. Raises UserError ('PATH: what is wrong') for a
    shape that does not tell, and for a file that is missing, of another kind, empty, or holds NaN
    or infinity.
    """
    def refuse(reason):
        raise UserError('%s: %s' % (path, reason))

    if not os.path.isfile(path):
        refuse('no such file')
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in MEL_SUFFIXES:
        refuse('a mel spectrogram ends in %s or %s'
               % (', '.join(MEL_SUFFIXES[:-1]), MEL_SUFFIXES[-1]))
    load = {'.mel': lambda path: np.fromfile(path, '<f4'), '.npy': _load_npy, '.pt': _load_pt}
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
            raise ValueError(str(error).split('\n')[0])
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


def check_mel_range(mel, profile_name, where):
    """Raises UserError, naming `where` and both profiles, if `mel` cannot be of `profile_name`.

    Values of the seed profile lie in 0..1, those of tacotron2 are natural logarithms down to
    ln(FLOOR), and no speech keeps those within 0..1. A quarter to either side is for mels that a
    network predicted.
    """
    low, high = float(np.min(mel)), float(np.max(mel))
    unit = -0.25 <= low and high <= 1.25
    logarithms = -16 <= low and high <= 6 and not unit
    scale = MEL_PROFILES[profile_name].scale
    if unit if scale == 'decibel' else logarithms:
        return
    fitting = [name for name, profile in MEL_PROFILES.items()
               if (unit if profile.scale == 'decibel' else logarithms)]
    raise UserError('%s holds values from %.4g to %.4g, which mel profile %s does not; %s' % (
        where, low, high, profile_name,
        'they look like mel profile %s, so compute the mels anew or take a model trained on those'
        % fitting[0] if fitting else 'nor does %s, so it is of no profile known here'
        % ', '.join(name for name in MEL_PROFILES if name != profile_name)))
