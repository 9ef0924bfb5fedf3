"""Sound files: reading, resampling, writing. Knows no TensorFlow.

Audio is float32 [samples], mono, -1 to 1.
"""
import io
import os
import struct

import numpy as np
import soundfile
import soxr

from errors import UserError
from files import atomic_open

# What a file name may end in to be taken for audio. Those that libsndfile cannot read are here so
# that a corpus of them is told why it is of no use.
AUDIO_EXTENSIONS = frozenset(
    '.' + name.lower() for name in soundfile.available_formats() if name not in (
        'RAW', 'HTK', 'MAT4', 'MAT5', 'MPC2K', 'WAVEX', 'XI')) | frozenset(
            '.aif .aifc .oga .opus .snd .sph .wave .aac .amr .m4a .wma .webm'.split())


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
