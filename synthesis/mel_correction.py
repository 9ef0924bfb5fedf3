"""Brings vocoded audio nearer to the mel spectrogram it was vocoded from: mel correction.

A round is one of Griffin and Lim's algorithm (1984), with gains for magnitudes: S is the spectrum
of the audio, found = |S| @ basis its mel, wanted the given mel,

    gain = clip(wanted / found, 1 / MOST_GAIN, MOST_GAIN) ** OVERRELAXATION    [frames, n_mels]
    S    = S * exp(log(gain) @ spread),   spread = (basis / its sum over bands)^T
    audio = istft(S)

so that a bin's gain is the geometric mean of those of the bands that it lies in. What lies between
the centres of bands, harmonics and noise, stays as the vocoder made it.

A round looks win_length samples ahead. So audio can be corrected as it comes, `latency` samples
behind it: `MelCorrection.start`. `synthesis/mel_correction_graph.py` has the same as a
TensorFlow graph, for what is exported.
"""
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse

from datasets import mel_transform
from datasets.mel_definition import MelDefinition
from errors import UserError
from synthesis.stft import overlap_add

MOST_GAIN = 10.0        # of a band in a round, up or down, before it is over-relaxed
OVERRELAXATION = 1.3    # three rounds then do what four did: docs/voice.md
BLOCK_FRAMES = 500      # corrected at a time, which bounds memory


class Round(NamedTuple):
    """What a round computes with. Arrays are float32."""
    definition: MelDefinition
    window: np.ndarray      # [win_length], of the analysis and of the synthesis
    before: int             # samples from the first of frame 0 to the first of the audio
    shortest: int           # samples; audio that has fewer is continued with zeros
    extra_frame: bool       # whether a frame has its middle where the audio ends
    basis: np.ndarray       # [bins, n_mels]: magnitudes ** power @ basis = mel magnitudes
    spread: np.ndarray      # [n_mels, bins]: log gains of bands @ spread = those of bins
    least: float            # mel magnitudes under it are told from no other
    most: float             # nor those above it


def round_of(definition: MelDefinition) -> Round:
    """The Round of a mel. Raises UserError if its frames overlap too little."""
    d = definition
    if 2 * d.hop_length > d.win_length:
        raise UserError('mel correction takes frames that overlap by half, and hop_length=%d is '
                        'more than half of win_length=%d; take gen_correction_rounds=0'
                        % (d.hop_length, d.win_length))
    basis = mel_transform.mel_basis(d)
    # Bins that no band has keep their magnitude.
    spread = (basis / np.maximum(basis.sum(axis=1, keepdims=True), 1e-12)).T
    delay = np.exp(-2j * np.pi * np.arange(len(basis)) / d.n_fft)           # of a sample
    preemphasis = np.abs(1 - d.preemphasis * delay).astype(np.float32) ** d.power
    window = scipy.signal.get_window('hann', d.win_length, fftbins=d.window == 'hann')
    ends = [mel_transform.mel_magnitudes(mel_transform.mel_values(np.full([1, d.n_mels], m), d), d)
            for m in (0, 1e20)]
    center = d.padding == 'center'
    return Round(definition=d, window=window.astype(np.float32),
                 before=d.edge - (d.n_fft - d.win_length) // 2,
                 shortest=d.n_fft - d.edge - (0 if center else d.hop_length) + 1,
                 extra_frame=center, basis=basis * preemphasis[:, None],
                 spread=np.ascontiguousarray(spread), least=max(d.floor, float(ends[0].max())),
                 most=float(ends[1].min()))


class MelCorrection:
    """Corrects audio towards its mel.

        corrected = MelCorrection(hp.mel, 3)(audio, mel)

    Args:
      definition: that of the mel.
      rounds: how often magnitudes are scaled; 0 changes nothing.

    Raises UserError for a mel whose frames overlap too little.
    """

    def __init__(self, definition: MelDefinition, rounds: int):
        self.definition, self.rounds = definition, rounds
        if rounds:
            self.round = round_of(definition)
            # Sparse, for a bin lies in two bands at most. A dense product runs in threads, which
            # wait for each other ten times as long as they compute where others use the processor.
            self._basis = scipy.sparse.csr_matrix(self.round.basis)
            self._spread = scipy.sparse.csr_matrix(self.round.spread)

    @property
    def latency(self) -> int:
        """Samples of audio from a sample on that the corrected sample waits for, at most.

        A sample where a frame begins waits for all of this frame. Those of the round before that
        are missing then end where a frame begins, so that they wait for so many hops more.
        """
        if not self.rounds:
            return 0
        size, hop = self.definition.win_length, self.definition.hop_length
        return size + (self.rounds - 1) * ((size - 1) // hop) * hop

    def __call__(self, audio: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """float32 audio [frames * hop_length], corrected, of such and mel [frames, n_mels]."""
        if not self.rounds:
            return audio
        stream = self.start()
        stream.expect(mel)
        step = BLOCK_FRAMES * self.definition.hop_length
        blocks = [stream.push(audio[first:first + step]) for first in range(0, len(audio), step)]
        return np.concatenate(blocks + [stream.end()])

    def start(self) -> 'CorrectionStream':
        """A CorrectionStream, at the start of an utterance."""
        return CorrectionStream(self)

    def gained(self, frames: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """[n, win_length]: what frames add to the audio, with their gains and under the window.

        Args:
          frames: [n, win_length], of the audio.
          wanted: mel magnitudes [n, n_mels].
        """
        r, n_fft, power = self.round, self.definition.n_fft, self.definition.power
        spectrum = scipy.fft.rfft(frames * r.window, n_fft)
        found = np.clip(np.abs(spectrum) ** power @ self._basis, r.least, r.most)
        ratio = np.clip(wanted, r.least, r.most) / found
        gain = np.clip(ratio, MOST_GAIN ** -power, MOST_GAIN ** power)
        spectrum *= np.exp(OVERRELAXATION / power * np.log(gain) @ self._spread)
        return scipy.fft.irfft(spectrum, n_fft)[:, :len(r.window)] * r.window


class CorrectionStream:
    """One utterance on its way through a MelCorrection. Audio lies behind its mel.

        stream.expect(mel)              # [frames, n_mels], as it comes
        corrected = stream.push(audio)  # [samples], of mels that have come
        rest = stream.end()

    Put together, the results are those of the whole utterance, for blocks of any sizes.
    """

    def __init__(self, correction: MelCorrection):
        self._correction = correction
        self._rounds = [_RoundStream(correction) for _ in range(correction.rounds)]
        self._wanted = np.zeros([0, correction.definition.n_mels], np.float32)
        self._first = 0             # frame of its first row

    def expect(self, mel: np.ndarray) -> None:
        """Takes the next frames [frames, n_mels] of the mel."""
        if not self._rounds:
            return      # nothing would take them away again
        wanted = mel_transform.mel_magnitudes(mel, self._correction.definition)
        self._wanted = np.concatenate([self._wanted, wanted])

    def push(self, audio: np.ndarray) -> np.ndarray:
        """The audio [samples] that the next audio [samples], of expected frames, completes."""
        return self._push(np.asarray(audio, np.float32), ended=False)

    def end(self) -> np.ndarray:
        """The audio [samples] that is left."""
        return self._push(np.zeros(0, np.float32), ended=True)

    def _push(self, audio, ended):
        for one in self._rounds:
            audio = one.push(audio, self._wanted_from, ended)
        if self._rounds:
            done = self._rounds[-1].frame - self._first
            # the last one stays: it stands for one behind it too
            done = max(0, min(done, len(self._wanted) - 1))
            self._wanted, self._first = self._wanted[done:], self._first + done
        return audio

    def _wanted_from(self, frame, n):
        """[n, n_mels]: the magnitudes of n frames; the last frame's behind it."""
        rows = np.minimum(np.arange(frame - self._first, frame - self._first + n),
                          len(self._wanted) - 1)
        return self._wanted[rows]


class _RoundStream:
    """One utterance on its way through one round."""

    def __init__(self, correction):
        self._correction, self._round = correction, correction.round
        self.frame = 0                                  # the next
        self._received = 0                              # samples
        self._tail = np.zeros(0, np.float32)            # the last of them, for `_padded`
        self._waiting = np.zeros(0, np.float32)         # samples from the next frame's first on
        self._sums = np.zeros(0, np.float32)            # of the frames before, from there on
        self._weights = np.zeros(0, np.float32)         # sums of squared windows, likewise
        self._squared = np.square(self._round.window)

    def push(self, audio, wanted_from, ended):
        """The audio that the next audio [samples] completes; all that is left if it `ended`."""
        self._waiting = np.concatenate([self._waiting, self._padded(audio, ended)])
        r, hop = self._round, self._round.definition.hop_length
        size = len(r.window)
        n = max(0, 1 + (len(self._waiting) - size) // hop)
        if ended:
            n = min(n, self._received // hop + r.extra_frame - self.frame)
        if not n or not self._received:
            return np.zeros(0, np.float32)
        frames = np.lib.stride_tricks.as_strided(
            self._waiting, (n, size), (hop * self._waiting.itemsize, self._waiting.itemsize),
            writeable=False)
        added = self._correction.gained(frames, wanted_from(self.frame, n))
        sums = overlap_add(added, hop, self._sums)
        weights = overlap_add(np.broadcast_to(self._squared, (n, size)), hop, self._weights)
        start = self.frame * hop - r.before             # in samples of the utterance
        self.frame += n
        end = self._received if ended else self.frame * hop - r.before
        self._waiting, self._sums, self._weights = (
            x[n * hop:] for x in (self._waiting, sums, weights))
        done = slice(max(0, -start), max(0, end - start))
        return sums[done] / weights[done]

    def _padded(self, audio, ended):
        """The next audio [samples], with the padding of the utterance before and after it."""
        r = self._round
        reflected = r.definition.pad_mode == 'reflect'
        started = self._received > r.before         # else all audio so far is in the tail
        self._received += len(audio)
        if ended:
            audio = np.pad(audio, (0, max(0, r.shortest - self._received)), mode='constant')
        self._tail = np.concatenate([self._tail, audio])
        if not started:
            if len(self._tail) <= r.before:
                return audio[:0]
            audio = np.concatenate([self._tail[r.before:0:-1] * reflected, self._tail])
        after = self._tail[-2:-2 - len(r.window):-1] * reflected
        self._tail = self._tail[-1 - len(r.window):]
        return np.concatenate([audio, after]) if ended else audio
