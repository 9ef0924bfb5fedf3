"""Mel spectrograms of audio, by a MelDefinition. Knows no TensorFlow.

Audio is float32 [samples], mono, -1 to 1; a mel is float32 [frames, n_mels]. Frame f has its middle
at sample f * hop_length of the audio, with padding=same half a hop later.
"""
import functools

import numpy as np
import scipy.fft

from datasets.mel_definition import MelDefinition


@functools.lru_cache(maxsize=16)
def mel_basis(definition: MelDefinition) -> np.ndarray:
    """float32 [1 + n_fft // 2, n_mels]: magnitudes @ basis = mel magnitudes. Read-only.

    Each band is a triangle between the centres of its neighbours. The centres have equal distances
    on a mel scale, from fmin to fmax or half the sample rate: Slaney's (Auditory Toolbox, 1998) or
    HTK's. By norm the triangles have an area of 1 in Hz or a height of 1. The bits are those of
    librosa.filters.mel, whose order of rounding this keeps.
    """
    to_mel, to_hz = ((hz_to_htk, _htk_to_hz) if definition.mel_scale == 'htk'
                     else (_hz_to_mel, _mel_to_hz))
    bins = np.fft.rfftfreq(definition.n_fft, 1.0 / definition.sample_rate)
    centres = to_hz(np.linspace(to_mel(definition.fmin), to_mel(definition.top),
                                definition.n_mels + 2))
    widths = np.diff(centres)
    rising = (bins - centres[:-2, None]) / widths[:-1, None]
    falling = (centres[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    if definition.mel_norm == 'slaney':
        triangles *= (2.0 / (centres[2:] - centres[:-2]))[:, None]
    basis = np.ascontiguousarray(triangles.T)
    basis.setflags(write=False)
    return basis


# Slaney's mel scale: linear up to 1000 Hz, 200 / 3 Hz a mel; from there on 27 mels a factor of 6.4.
HZ_A_MEL = 200.0 / 3
LOG_START = 1000.0                      # Hz
LOG_STEP = np.log(6.4) / 27.0           # of ln(Hz) a mel


def _hz_to_mel(hz):
    if hz < LOG_START:
        return hz / HZ_A_MEL
    return LOG_START / HZ_A_MEL + np.log(hz / LOG_START) / LOG_STEP


def _mel_to_hz(mel):
    start = LOG_START / HZ_A_MEL
    return np.where(mel < start, HZ_A_MEL * mel, LOG_START * np.exp(LOG_STEP * (mel - start)))


def hz_to_htk(hz):
    """HTK's mel scale at frequencies in Hz."""
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def _htk_to_hz(mel):
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_spectrogram(audio: np.ndarray, definition: MelDefinition) -> np.ndarray:
    """float32 [definition.n_frames(samples), n_mels] of float32 audio [samples].

    Audio too short to be reflected at its edges is continued with silence first.
    """
    audio = np.asarray(audio, np.float32)
    n_frames = definition.n_frames(len(audio))
    frames = _frames(audio, n_frames, definition)
    # In double precision: of loud frames the rounding of a float32 transform is above the floor.
    window = analysis_window(definition)
    basis = mel_basis(definition)
    mel = np.empty((n_frames, definition.n_mels), np.float32)
    block = 128     # frames that stay in the processor's cache: twice as fast as all at once
    for start in range(0, n_frames, block):
        spectrum = scipy.fft.rfft(frames[start:start + block] * window, definition.n_fft)
        np.matmul(_magnitudes(spectrum, definition.power), basis, out=mel[start:start + block])
    return _to_values(mel, definition)


@functools.lru_cache(maxsize=16)
def analysis_window(definition: MelDefinition) -> np.ndarray:
    """float64 [win_length]: the window of the definition's transform. Read-only."""
    window = hann_window(definition.win_length, periodic=definition.window == 'hann')
    window.setflags(write=False)
    return window


def hann_window(size: int, periodic: bool = True) -> np.ndarray:
    """float64 [size]: to the bit that of scipy.signal, whose import takes longer than TensorFlow's
    graph of a small model.
    """
    if size == 1:
        return np.ones(1)
    return (0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, size + periodic)))[:size]


def preemphasis_gain(definition: MelDefinition, hz: np.ndarray) -> np.ndarray:
    """[bins]: what the definition's pre-emphasis does to magnitudes at frequencies in Hz [bins]."""
    sample_delay = np.exp(-2j * np.pi * hz / definition.sample_rate)
    return np.abs(1 - definition.preemphasis * sample_delay)


def _magnitudes(spectrum, power):
    # its result is not kept by a name: 20% of the time with preset small
    magnitudes = np.abs(spectrum.astype(np.complex64))
    return magnitudes if power == 1 else magnitudes * magnitudes


def _frames(audio, n_frames, definition):
    """A view of [n_frames, win_length]: what stands under each window."""
    hop, before = definition.hop_length, definition.edge
    after = definition.n_fft - before - (hop if definition.padding == 'same' else 0)
    if len(audio) <= after:
        audio = np.pad(audio, (0, after + 1 - len(audio)), mode='constant')
    if definition.preemphasis:
        emphasized = audio.copy()
        emphasized[1:] -= np.float32(definition.preemphasis) * audio[:-1]
        audio = emphasized
    padded = np.pad(audio, (before, after), mode=definition.pad_mode)
    # A short window stands in the middle of n_fft samples. Where it stands changes the phases
    # alone, so the transform is told of the win_length samples under the window and no more.
    first = (definition.n_fft - definition.win_length) // 2
    return np.lib.stride_tricks.as_strided(
        padded[first:], (n_frames, definition.win_length), (hop * padded.itemsize, padded.itemsize),
        writeable=False)


def mel_values(magnitudes: np.ndarray, definition: MelDefinition) -> np.ndarray:
    """float32 values of a mel [frames, n_mels], of the magnitudes (to the power) of its bands."""
    return _to_values(np.array(magnitudes, np.float32), definition)


def _to_values(mel, definition):
    """`mel_values`, in place."""
    d = definition
    if d.floor_mode == 'add':
        mel += d.floor
    else:
        np.maximum(mel, d.floor, out=mel)
    (np.log if d.log == 'e' else np.log10)(mel, out=mel)
    if d.dynamic_range and mel.size:
        np.maximum(mel, mel.max() - np.float32(d.dynamic_range), out=mel)
    if d.gain != 1:
        mel *= d.gain
    if d.offset:
        mel += d.offset
    if d.clip_min < d.clip_max:
        np.clip(mel, d.clip_min, d.clip_max, out=mel)
    if d.mean:
        mel -= np.array(d.mean, np.float32)
        mel /= np.array(d.scale, np.float32)
    return mel


def silence(frames: int, definition: MelDefinition) -> np.ndarray:
    """The mel [frames, n_mels] of silence: the floor on the scale of the mel."""
    return mel_values(np.zeros([frames, definition.n_mels]), definition)


def mel_magnitudes(mel: np.ndarray, definition: MelDefinition) -> np.ndarray:
    """Magnitudes (to the power) of bands, float32 [frames, n_mels]: the inverse of `mel_values`.

    What a floor, a clip or a range has cut off is where they have cut.
    """
    d = definition
    mel = np.asarray(mel, np.float32)
    if d.mean:
        mel = mel * np.array(d.scale, np.float32) + np.array(d.mean, np.float32)
    if d.offset:
        mel = mel - np.float32(d.offset)
    if d.gain != 1:
        mel = mel / np.float32(d.gain)
    magnitudes = np.exp(mel) if d.log == 'e' else np.float32(10) ** mel
    if d.floor_mode == 'add':
        return np.maximum(magnitudes - np.float32(d.floor), 0)
    return magnitudes
