"""The short-time Fourier transform and its inverse, with a periodic Hann window.

Audio is float32 or float64 [samples]; a spectrum is complex [frames, 1 + n_fft // 2], of the same
precision. With center=True, frame f has its middle at sample f * hop_length of the audio, which
is reflected at its edges; otherwise its first sample there.

    spectrum = stft(audio, 1024, 256)
    audio = istft(spectrum, 256, length=len(audio))
"""
import functools
from typing import Optional

import numpy as np
import scipy.fft

from datasets.mel_transform import hann_window


@functools.lru_cache(maxsize=16)
def window(n_fft: int, win_length: Optional[int] = None,
           dtype: str = 'float32') -> np.ndarray:
    """[n_fft]: a periodic Hann window of win_length samples (default: n_fft) between zeros.

    Read-only.
    """
    win_length = win_length or n_fft
    before = (n_fft - win_length) // 2
    values = np.pad(hann_window(win_length),
                    (before, n_fft - win_length - before), mode='constant').astype(dtype)
    values.setflags(write=False)
    return values


def stft(audio: np.ndarray, n_fft: int, hop_length: int, win_length: Optional[int] = None,
         center: bool = True) -> np.ndarray:
    """Spectrum [frames, 1 + n_fft // 2] of audio [samples].

    Args:
      win_length: samples under the window, in the middle of the n_fft of a frame (default: n_fft).
      center: 1 + samples // hop_length frames, with their middles on the audio; it takes more than
        n_fft // 2 samples to reflect. Otherwise the frames that lie whole in the audio.
    """
    if center:
        audio = np.pad(audio, n_fft // 2, mode='reflect')
    audio = np.ascontiguousarray(audio)
    n_frames = max(0, 1 + (len(audio) - n_fft) // hop_length)
    if not n_frames:
        return np.zeros([0, 1 + n_fft // 2], np.result_type(audio.dtype, np.complex64))
    frames = np.lib.stride_tricks.as_strided(
        audio, (n_frames, n_fft), (hop_length * audio.itemsize, audio.itemsize), writeable=False)
    return scipy.fft.rfft(frames * window(n_fft, win_length, audio.dtype.name))


def istft(spectrum: np.ndarray, hop_length: int, win_length: Optional[int] = None,
          length: Optional[int] = None, center: bool = True) -> np.ndarray:
    """Audio [samples] whose `stft` comes nearest to spectrum [frames, 1 + n_fft // 2].

    Exactly its audio, to rounding, where the spectrum is one of audio (Griffin and Lim 1984).

    Args:
      win_length, center: as in `stft`.
      length: samples to return, of which those behind the last frame are zeros (default: all under
        the frames, with center=True without n_fft // 2 at both edges).
    """
    n_fft = 2 * (spectrum.shape[1] - 1)
    frames = scipy.fft.irfft(spectrum, n_fft)
    frames *= window(n_fft, win_length, frames.dtype.name)
    audio = overlap_add(frames, hop_length)
    audio /= _sum_of_squared_windows(len(frames), n_fft, hop_length, win_length, audio.dtype.name)
    edge = n_fft // 2 if center else 0
    if length is None:
        return audio[edge:len(audio) - edge]
    audio = audio[edge:edge + length]
    return np.pad(audio, (0, length - len(audio)), mode='constant')


def overlap_add(frames: np.ndarray, hop_length: int,
                start: Optional[np.ndarray] = None) -> np.ndarray:
    """[(n - 1) * hop_length + n_fft]: the sum of n frames [n, n_fft], hop_length samples apart.

    Every sample is a sum from the earliest frame to the latest. `start`, at most as long, is the
    sum of frames before, from the first sample on.
    """
    n_frames, n_fft = frames.shape
    hops = -(-n_fft // hop_length)                  # of a frame, the last perhaps in part
    total = np.zeros([n_frames + hops - 1, hop_length], frames.dtype)
    if start is not None:
        total.reshape(-1)[:len(start)] = start
    for k in reversed(range(hops)):
        part = frames[:, k * hop_length:(k + 1) * hop_length]
        total[k:k + n_frames, :part.shape[1]] += part
    return total.reshape(-1)[:(n_frames - 1) * hop_length + n_fft]


@functools.lru_cache(maxsize=16)
def _sum_of_squared_windows(n_frames, n_fft, hop_length, win_length, dtype):
    """[(n_frames - 1) * hop_length + n_fft]; 1 where no window reaches. Read-only."""
    squared = np.square(window(n_fft, win_length, dtype))
    total = overlap_add(np.broadcast_to(squared, (n_frames, n_fft)), hop_length)
    total[total <= np.finfo(dtype).tiny] = 1
    total.setflags(write=False)
    return total
