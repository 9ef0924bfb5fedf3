"""Sound files: reading, resampling, writing. Knows no TensorFlow.

Audio is float32 [samples], mono, -1 to 1.
"""
import contextlib
import io
import math
import os
import struct
from typing import Any, BinaryIO, Iterator, List, Tuple

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
STREAMED = 0x7fff0000   # a RIFF chunk announced as larger was written without knowing its size
ABSURD = 1 << 30        # so is one announced as larger of which less than a hundredth is there
MOST_SAMPLES = 1 << 40  # more, and a header does not say how many there are
MOST_WAV_BYTES = (1 << 32) - 64     # of samples: a WAV counts its bytes in 32 bits
MOST_FLAC = 4096        # samples that a byte of FLAC stands for: those of a block of silence
BLOCK = 1 << 16         # samples read at a time
QUIET = 1e-2            # a channel below this part of the loudest one's RMS is not mixed in
MOST_RATE = 96000       # values a second of all channels, beside `most_seconds`: stereo at 48 kHz
CANCELLED = 0.2         # a mix below this part of the loudest channel's RMS has lost the speech


def read_wav(path: str, sample_rate: int, most_seconds: float = math.inf) -> np.ndarray:
    """The audio in a file of any rate, width, channel count and container that soundfile reads.

    Returns float32 [samples] at `sample_rate` Hz, channels mixed as `mix_channels` does. Its full
    scale is -1 to 1; resampling, and float files, may overshoot a little.
    Raises UserError ('PATH: what is wrong') for a file that is missing, not audio, truncated,
    empty, longer than most_seconds (of which no more is decoded), or holds NaN, infinity or values
    far beyond full scale.
    """
    return read_audio(path, sample_rate, most_seconds)[0]


def read_audio(path: str, sample_rate: int, most_seconds: float = math.inf
               ) -> Tuple[np.ndarray, List[str]]:
    """`read_wav`, and what is worth telling: how the file was mixed, what its header lacks."""
    def refuse(reason):
        raise UserError('%s: %s' % (path, reason))

    if not os.path.isfile(path):     # a FIFO would block for ever
        refuse('not a regular file' if os.path.lexists(path) else 'no such file')
    try:
        audio, rate, announced = _decode(path, most_seconds)
        missing, unknown = _missing_bytes(path), announced == 0 and len(audio) > 0
    except Exception as error:      # of a damaged file a decoder may raise anything
        if not os.access(path, os.R_OK):
            raise UserError('%s: no permission to read it' % path) from error
        raise UserError('%s: not audio that can be read (%s)' % (
            path, str(getattr(error, 'error_string', error)).strip().rstrip('.')
            or 'no memory')) from error
    if _is_too_long(len(audio), audio.shape[1], rate, most_seconds):
        refuse('longer than %g s, or with more than %d values a second in all its channels; cut it'
               % (most_seconds, MOST_RATE))
    if missing or len(audio) < 0.95 * announced:     # the length of an MP3 is only an estimate
        refuse('truncated: its header announces more samples than there are')
    if not len(audio):
        refuse('holds no samples')
    notes = ['its header does not say its length; it was read to its end'] if unknown else []
    audio, mixed = mix_channels(audio)
    notes += [mixed] if mixed else []
    peak = max(float(audio.max()), -float(audio.min()))    # NaN anywhere makes it NaN
    if not np.isfinite(peak):
        refuse('holds samples that are NaN or infinite')
    if peak > LOUDEST:
        refuse('its samples reach %g where full scale is 1; rescale it' % peak)
    if rate != sample_rate:
        audio = soxr.resample(audio, rate, sample_rate)
        if not len(audio):
            refuse('holds no samples at %d Hz' % sample_rate)
    return audio, notes


def mix_channels(audio: np.ndarray) -> Tuple[np.ndarray, str]:
    """One channel of audio [samples, channels], and what was done if it is not the plain mean.

    Channels are averaged. Those that are silent beside the loudest are left out, so that speech in
    one of six keeps its level. Where the channels cancel each other, the loudest is taken alone.
    """
    count = audio.shape[1]
    if count == 1:
        return audio[:, 0], ''
    rms = np.array([np.sqrt(np.mean(np.square(audio[:, i], dtype=np.float64)))
                    for i in range(count)])
    if not np.isfinite(rms).all() or not rms.max():
        return audio.mean(axis=1), ''
    audible = [i for i in range(count) if rms[i] > QUIET * rms.max()]
    mixed = audio.mean(axis=1) if len(audible) == count else audio[:, audible].mean(axis=1)
    loudest = int(rms.argmax())
    if np.sqrt(np.mean(np.square(mixed, dtype=np.float64))) < CANCELLED * rms[loudest]:
        return np.ascontiguousarray(audio[:, loudest]), (
            'its channels cancel each other; channel %d of %d was taken' % (loudest + 1, count))
    if len(audible) == count:
        return mixed, ''
    return mixed, 'of its %d channels %s %s silence; the others were taken' % (
        count, ', '.join(str(i + 1) for i in range(count) if i not in audible),
        'is' if len(audible) == count - 1 else 'are')


class _Sequential(soundfile.SoundFile):
    """A sound file read from its beginning to its end.

    Codecs of telephones cannot seek, and the length of what went through a pipe is not known.
    """

    def seekable(self):
        return False


def _decode(path, most_seconds):
    """(float32 [samples, channels], Hz, samples that the header announces or 0) of a sound file.

    Reading ends where the file is too long.
    """
    with _Sequential(_mended(path)) as f:
        blocks, announced = [], f.frames if f.frames < MOST_SAMPLES else 0
        while not blocks or len(blocks[-1]) == BLOCK and not _is_too_long(
                len(blocks) * BLOCK, f.channels, f.samplerate, most_seconds):
            blocks.append(f.read(BLOCK, dtype='float32', always_2d=True))
        if isinstance(f.name, io.BytesIO) or _is_streamed(path):
            announced = 0
        return np.concatenate(blocks), f.samplerate, announced


def _is_too_long(samples, channels, rate, most_seconds):
    return samples > most_seconds * rate or samples * channels > most_seconds * MOST_RATE


def _mended(path):
    """`path`, or the content of a WAV with its length in the header, where a recorder left zero."""
    with open(path, 'rb') as f:
        chunks = riff_chunks(f)
        size = os.fstat(f.fileno()).st_size
        offset = next((offset for name, offset, length in chunks if name == b'data' and not length),
                      size)
        tail = chunks[[name for name, _, _ in chunks].index(b'data') + 1:] if offset < size else []
        if offset >= size or tail and tail[-1][1] + tail[-1][2] == size:    # whole chunks follow
            return path
        f.seek(0)
        content = bytearray(f.read())
    content[offset - 4:offset] = struct.pack('<I', min(size - offset, 0xffffffff))
    return io.BytesIO(bytes(content))


def _is_streamed(path):
    with open(path, 'rb') as f:
        end = os.fstat(f.fileno()).st_size
        return any(name == b'data' and _is_unknown(size, end - offset)
                   for name, offset, size in riff_chunks(f))


def _is_unknown(announced, there):
    """Whether the size that a chunk of samples announces is none, beside the bytes there are."""
    return announced >= STREAMED or announced >= ABSURD and announced > 100 * there


def to_pcm16(audio: np.ndarray) -> Tuple[np.ndarray, int]:
    """(int16 [samples], the number of clipped samples) of float audio [samples].

    Rounds to the nearest step of 1 / 32768, as every reader of PCM16 scales it back, and clips
    what lies beyond full scale. Raises UserError for NaN or infinity.
    """
    audio = np.asarray(audio)
    if not np.isfinite(audio).all():
        raise UserError('audio with NaN or infinite samples cannot be written as PCM16')
    clipped = int(np.count_nonzero(np.abs(audio) > 1))
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16), clipped


class WavWriter:
    """A mono PCM16 WAV that is written block by block: see `wav_writer`."""

    def __init__(self, file: Any, path: str):
        self._file, self._path = file, path
        self.samples = 0        # written so far
        self.clipped = 0        # of them beyond full scale

    def write(self, audio: np.ndarray) -> None:
        """Adds audio [samples]. Raises UserError for NaN or infinity, and beyond 4 GB."""
        try:
            pcm, clipped = to_pcm16(np.reshape(audio, [-1]))
        except UserError as error:
            raise UserError('%s: %s' % (self._path, error)) from error
        if 2 * (self.samples + len(pcm)) > MOST_WAV_BYTES:
            raise UserError('%s: a WAV holds no more than 4 GB; cut what it is made of in two'
                            % self._path)
        self._file.write(pcm.astype('<i2').tobytes())
        self.samples, self.clipped = self.samples + len(pcm), self.clipped + clipped


@contextlib.contextmanager
def wav_writer(path: str, sample_rate: int) -> Iterator[WavWriter]:
    """A WavWriter of a file that appears at `path` when the block ends, and not after an error.

    Raises OSError if it cannot be written.
    """
    with atomic_open(path, 'wb') as f:
        f.write(_wav_header(0, sample_rate))
        writer = WavWriter(f, path)
        yield writer
        f.seek(0)
        f.write(_wav_header(writer.samples, sample_rate))


def _wav_header(samples, sample_rate):
    """The 44 bytes before the samples of mono PCM16."""
    return struct.pack('<4sI4s4sIHHIIHH4sI', b'RIFF', 36 + 2 * samples, b'WAVE', b'fmt ', 16, 1, 1,
                       sample_rate, 2 * sample_rate, 2, 16, b'data', 2 * samples)


def wav_bytes(pcm: np.ndarray, sample_rate: int) -> bytes:
    """The content of the wav that a WavWriter makes of the same samples, int16 [samples]."""
    return _wav_header(len(pcm), sample_rate) + np.asarray(pcm, '<i2').tobytes()


def is_whole_wav(head: bytes, size: int, sample_rate: int) -> bool:
    """Whether a file of `size` bytes that begins so is one that a WavWriter has finished."""
    return size % 2 == 0 and size > 44 and head[:44] == _wav_header((size - 44) // 2, sample_rate)


def flac_bytes(pcm: np.ndarray, sample_rate: int) -> bytes:
    """A FLAC file of int16 [samples], mono: without loss, and about half the bytes."""
    content = io.BytesIO()
    soundfile.write(content, pcm, sample_rate, 'PCM_16', format='FLAC')
    return content.getvalue()


def pcm_of_flac(content: bytes) -> np.ndarray:
    """int16 [samples] of a mono FLAC file of 16 bits. Raises ValueError for anything else."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as f:
            if (f.format, f.subtype, f.channels) != ('FLAC', 'PCM_16', 1):
                raise ValueError('not mono FLAC of 16 bits')
            if f.frames > MOST_FLAC * len(content):
                raise ValueError('FLAC that announces %d samples in %d bytes'
                                 % (f.frames, len(content)))
            return f.read(dtype='int16')
    except RuntimeError as error:       # soundfile's own, and what it comes of
        raise ValueError('FLAC that cannot be read (%s)' % error) from error


def write_wav(path: str, audio: np.ndarray, sample_rate: int) -> int:
    """Writes audio [samples] as mono PCM16 WAV, atomically; returns the number of clipped samples.

    Raises UserError for NaN or infinity, OSError if it cannot be written.
    """
    with wav_writer(path, sample_rate) as writer:
        writer.write(audio)
    return writer.clipped


def is_plain_wav(path: str, sample_rate: int) -> bool:
    """Whether a file is mono PCM16 WAV at `sample_rate` that the strictest reader takes as it is.

    TensorFlow's decode_wav, which training reads with, wants the plain format chunk first and
    then whole chunks of even size, one of them of samples, up to the end of the file.
    """
    try:
        with open(path, 'rb') as f:
            chunks = riff_chunks(f)
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


def riff_chunks(f: BinaryIO) -> List[Tuple[bytes, int, int]]:
    """[(name, offset, announced bytes)] of the chunks of an open RIFF WAVE file; [] of others."""
    header, offset = f.read(12), 12
    chunks: List[Tuple[bytes, int, int]] = []
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
        chunks = riff_chunks(f)
        end = os.fstat(f.fileno()).st_size
    return sum(max(0, offset + size - end) for name, offset, size in chunks
               if name == b'data' and not _is_unknown(size, end - offset))
