"""Brings vocoded audio nearer to the mel spectrogram it was vocoded from: mel correction.

A round is one of Griffin and Lim's algorithm (1984), with gains for magnitudes. Of the frames x of
the audio, the window w, and the magnitudes `wanted` of their mel:

    S     = rfft(w x)                                                       [frames, bins]
    gain  = clip(wanted / (|S| @ basis), 1 / MOST_GAIN, MOST_GAIN)          [frames, n_mels]
    gains = exp(log(gain) @ spread)                                         [frames, bins]
    S     = S * gains ** relaxation
    added = w irfft(S)                                                      [frames, win_length]

where relaxation is OVERRELAXATION, and 1 in the last round, which takes what swings away. A row of
`spread` is a band, and a column has the shares of a bin in its bands. So a bin's gain is the
geometric mean of those of its bands, and the bands of S * gains are nearer to the wanted ones, but
not equal: from |S| * gains the gains are computed anew, PASSES times in all, and multiplied. What
lies between the centres of bands, harmonics and noise, stays as the vocoder made it. The audio is
the sum of all that overlaps, `added` over w^2; so are the frames of the next round, but of
neighbours up to `ahead` frames later only.

So a round looks a few frames ahead, and audio can be corrected as it comes: `MelCorrection.start`.
Seeing all later neighbours does not sound better (docs/voice.md), and takes three times the
look-ahead. synthesis/mel_correction_graph.py has the same as a TensorFlow graph, for exports.
"""
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.sparse

from datasets import mel_transform
from datasets.mel_definition import MelDefinition
from errors import UserError
from synthesis.stft import overlap_add

MOST_GAIN = 10.0        # of a band in a round, up or down, before it is over-relaxed
OVERRELAXATION = 1.8    # 1 leaves more of the error after every round, 2 swings: docs/voice.md
PASSES = 2              # in which the gains of a round are computed
LEAST_WEIGHT = 1e-4     # of squared windows, to divide by at the edges
BLOCK_FRAMES = 64       # corrected at a time: what fits the cache of a core


class Round(NamedTuple):
    """What a round computes with. Arrays are float32."""
    definition: MelDefinition
    window: np.ndarray      # [win_length], of the analysis and of the synthesis
    behind: int             # frames before a frame that overlap with it
    ahead: int              # frames after it that a round waits for
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
    preemphasis = mel_transform.preemphasis_gain(
        d, np.fft.rfftfreq(d.n_fft, 1 / d.sample_rate)).astype(np.float32) ** d.power
    window = mel_transform.analysis_window(d)
    ends = [mel_transform.mel_magnitudes(mel_transform.mel_values(np.full([1, d.n_mels], m), d), d)
            for m in (0, 1e20)]
    center = d.padding == 'center'
    return Round(definition=d, window=window.astype(np.float32),
                 behind=-(-d.win_length // d.hop_length) - 1,
                 ahead=max(1, int(round(d.win_length / d.hop_length / 4))),
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
            # From the left: SciPy would transpose a sparse matrix on the right in every product.
            self._to_bands = scipy.sparse.csr_matrix(self.round.basis.T)
            self._to_bins = scipy.sparse.csr_matrix(self.round.spread.T)

    @property
    def latency(self) -> int:
        """Samples of audio from a sample on that the corrected sample waits for, at most."""
        if not self.rounds:
            return 0
        ahead = (self.rounds - 1) * self.round.ahead
        return self.definition.win_length + ahead * self.definition.hop_length

    def __call__(self, audio: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """float32 audio [frames * hop_length], corrected, of such and mel [frames, n_mels]."""
        if not self.rounds:
            return audio
        stream = self.start()
        stream.expect(mel)
        return np.concatenate([stream.push(audio), stream.end()])

    def start(self) -> 'CorrectionStream':
        """A CorrectionStream, at the start of an utterance."""
        return CorrectionStream(self)

    def gained(self, frames: np.ndarray, wanted: np.ndarray, relaxation: float) -> np.ndarray:
        """`added` [n, win_length]: frames with their gains, under the window.

        Args:
          frames: [n, win_length], of the audio.
          wanted: mel magnitudes [n, n_mels].
          relaxation: exponent of the gains.
        """
        if not len(frames):
            return frames
        r, n_fft, power = self.round, self.definition.n_fft, self.definition.power
        spectrum = scipy.fft.rfft(frames * r.window, n_fft)
        magnitudes, wanted = np.abs(spectrum) ** power, np.clip(wanted, r.least, r.most)
        scaled, log_gain = magnitudes, np.zeros_like(wanted)      # of bands, of all passes
        for i in range(PASSES):
            if i:
                scaled = magnitudes * np.exp((self._to_bins @ log_gain.T).T)
            found = np.clip((self._to_bands @ scaled.T).T, r.least, r.most)
            log_gain += np.log(np.clip(wanted / found, MOST_GAIN ** -power, MOST_GAIN ** power))
        spectrum *= np.exp((self._to_bins @ (relaxation / power * log_gain.T)).T)
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
        self._wanted = np.zeros([0, correction.definition.n_mels], np.float32)
        self._first = 0                                 # frame of its first row
        if correction.rounds:
            self._framing, self._overlap = _Framing(correction.round), _Overlap(correction.round)
            self._neighbours = [_Neighbours(correction.round)
                                for _ in range(correction.rounds - 1)]

    def expect(self, mel: np.ndarray) -> None:
        """Takes the next frames [frames, n_mels] of the mel."""
        if not self._correction.rounds:
            return      # nothing would take them away again
        wanted = mel_transform.mel_magnitudes(mel, self._correction.definition)
        self._wanted = np.concatenate([self._wanted, wanted])

    def push(self, audio: np.ndarray) -> np.ndarray:
        """The audio [samples] that the next audio [samples], of expected frames, completes."""
        audio = np.asarray(audio, np.float32)
        step = BLOCK_FRAMES * self._correction.definition.hop_length
        blocks = [self._push(audio[first:first + step], ended=False)
                  for first in range(0, len(audio), step)]
        return np.concatenate(blocks) if blocks else audio

    def end(self) -> np.ndarray:
        """The audio [samples] that is left."""
        return self._push(np.zeros(0, np.float32), ended=True)

    def _push(self, audio, ended):
        if not self._correction.rounds:
            return audio
        first, frames = self._framing.push(audio, ended)
        for neighbours in self._neighbours:
            first, frames = neighbours.push(self._gained(first, frames, OVERRELAXATION), ended)
        audio = self._overlap.push(self._gained(first, frames, 1.0),
                                   self._framing.received if ended else None)
        # the last row stays: it stands for a frame behind it too
        done = max(0, min(first + len(frames) - self._first, len(self._wanted) - 1))
        self._wanted, self._first = self._wanted[done:], self._first + done
        return audio

    def _gained(self, first, frames, relaxation):
        """MelCorrection.gained of frames from the first-th on."""
        rows = np.arange(first - self._first, first - self._first + len(frames))
        wanted = self._wanted[np.minimum(rows, len(self._wanted) - 1)]
        return self._correction.gained(frames, wanted, relaxation)


class _Framing:
    """Cuts an utterance into frames, with its padding before and after it."""

    def __init__(self, one):
        self._round = one
        self.received = 0                               # samples
        self._frame = 0                                 # the next
        self._tail = np.zeros(0, np.float32)            # the last of the audio, for `_padded`
        self._waiting = np.zeros(0, np.float32)         # samples from the next frame's first on

    def push(self, audio, ended):
        """(number of the first, [n, win_length]): the frames that the next [samples] complete."""
        self._waiting = np.concatenate([self._waiting, self._padded(audio, ended)])
        r, hop = self._round, self._round.definition.hop_length
        size, first = len(r.window), self._frame
        n = max(0, 1 + (len(self._waiting) - size) // hop)
        if ended:
            n = min(n, self.received // hop + r.extra_frame - first) if self.received else 0
        if not n:
            return first, np.zeros([0, size], np.float32)
        frames = np.lib.stride_tricks.as_strided(
            self._waiting, (n, size), (hop * self._waiting.itemsize, self._waiting.itemsize),
            writeable=False)
        self._frame, self._waiting = first + n, self._waiting[n * hop:]
        return first, frames

    def _padded(self, audio, ended):
        r = self._round
        reflected = r.definition.pad_mode == 'reflect'
        started = self.received > r.before          # else all audio so far is in the tail
        self.received += len(audio)
        if ended:
            audio = np.pad(audio, (0, max(0, r.shortest - self.received)), mode='constant')
        self._tail = np.concatenate([self._tail, audio])
        if not started:
            if len(self._tail) <= r.before:
                return audio[:0]
            audio = np.concatenate([self._tail[r.before:0:-1] * reflected, self._tail])
        after = self._tail[-2:-2 - len(r.window):-1] * reflected
        self._tail = self._tail[-1 - len(r.window):]
        return np.concatenate([audio, after]) if ended else audio


class _Neighbours:
    """Makes the frames of a round of what the round before `added`."""

    def __init__(self, one):
        self._round = one
        self._next = 0                                  # frame to give
        # rows from `behind` frames before it on; those before the utterance are zeros
        self._added = np.zeros([one.behind, len(one.window)], np.float32)
        self._there = np.zeros([one.behind, 1], np.float32)     # 0 for those rows, then 1
        rows = np.ones([one.behind + 1 + one.ahead, 1], np.float32) * np.square(one.window)
        self._inner_weights = self._overlapped(rows, 1)         # of frames with all neighbours

    def push(self, added, ended):
        """(number of the first, [n, win_length]): the frames that the next `added` complete."""
        r, first = self._round, self._next
        # beyond the end there is nothing
        self._added, self._there = (
            np.concatenate([rows, more] + [np.zeros_like(rows, shape=(r.ahead, rows.shape[1]))]
                           * ended)
            for rows, more in ((self._added, added), (self._there, np.ones_like(added[:, :1]))))
        n = max(0, len(self._added) - r.behind - r.ahead)
        weights = (self._inner_weights if self._there.all()
                   else self._overlapped(self._there * np.square(r.window), n))
        frames = self._overlapped(self._added, n) / np.maximum(weights, LEAST_WEIGHT)
        self._next, self._added, self._there = first + n, self._added[n:], self._there[n:]
        return first, frames

    def _overlapped(self, rows, n):
        """[n, size]: the sums of rows [behind + n + ahead, size] that overlap with the inner n."""
        r, hop = self._round, self._round.definition.hop_length
        total = np.zeros([n, rows.shape[1]], np.float32)
        for k in range(-r.behind, r.ahead + 1):         # the neighbour k frames later
            part = rows[r.behind + k:r.behind + k + n]
            if k < 0:
                total[:, :k * hop] += part[:, -k * hop:]
            else:
                total[:, k * hop:] += part[:, :part.shape[1] - k * hop]
        return total


class _Overlap:
    """Adds up what frames add to the audio."""

    def __init__(self, one):
        self._round = one
        self._start = -one.before                       # of the next frame, in samples of the audio
        self._sums = np.zeros(0, np.float32)            # of the frames before, from there on
        self._weights = np.zeros(0, np.float32)         # sums of squared windows, likewise

    def push(self, added, length):
        """The audio [samples] that added [n, win_length] complete; up to a `length`, if given."""
        r, hop, start, n = self._round, self._round.definition.hop_length, self._start, len(added)
        if not n:
            return np.zeros(0, np.float32)
        sums = overlap_add(added, hop, self._sums)
        weights = overlap_add(np.broadcast_to(np.square(r.window), added.shape), hop,
                              self._weights)
        self._start, self._sums, self._weights = start + n * hop, sums[n * hop:], weights[n * hop:]
        done = slice(max(0, -start), max(0, (length or self._start) - start))
        return sums[done] / np.maximum(weights[done], LEAST_WEIGHT)
