"""Turns mels of one definition into those of another: other bands, rates, hops and scales.

    conversion = MelConversion(PROFILES['espnet_24k'], hp.mel)
    audio = conversion.place(vocoder.vocode(conversion(mel)), len(mel))

No audio comes in between. A frame of bands becomes a spectrum, x >= 0 with x @ basis = bands; that
spectrum, at the level that the other's windows give to noise, gives the other's bands; and its
frames lie between those of the mel in time. What a mel does not say, it cannot learn: see
`MelConversion.losses`. Knows no TensorFlow.
"""
from typing import List

import numpy as np
import scipy.sparse

from datasets.mel_definition import MelDefinition
from datasets.mel_transform import (
    analysis_window,
    hz_to_htk,
    mel_basis,
    mel_magnitudes,
    mel_values,
    preemphasis_gain,
)

# Multiplicative updates (Lee and Seung 2001) of a spectrum, from the mean of the bands around a bin
# on. Ten come as near as sixty (log-mel L1 .051 and .050 for 100 HTK bands). To start from the
# pseudo-inverse takes a dense product, whose threads wait for each other where others compute too.
UPDATES = 10
# Level of what lies beyond the bands, beside that of the last one: -30 dB below them, where a voice
# ends, and -6 dB above. With the level of the last one below 80 Hz, PESQ is .2 lower.
BELOW, ABOVE = 0.03, 0.5
BLOCK_FRAMES = 128      # that stay in the processor's cache
QUIET = 6.0             # dB that a floor is higher before `losses` tells
LONGER, FEWER = 1.1, 0.8    # ratios of time and of bands before `losses` tells


class MelConversion:
    """Converts mels.

    Args:
      source: what the mels are.
      target: what they become.

    Attributes:
      skip: samples of the target's audio to leave out at its start, for `padding` places frames
        half a hop apart, and half a hop is better waited for than interpolated: PESQ 2.99, not
        2.75.
    """

    def __init__(self, source: MelDefinition, target: MelDefinition):
        self.source, self.target = source, target
        self._same_hop = (source.hop_length * target.sample_rate
                          == target.hop_length * source.sample_rate)
        # samples of the target from its frame's middle to the source's
        later = _middle(source) * target.sample_rate / source.sample_rate - _middle(target)
        shifted = self._same_hop and abs(later) > 0.5
        self._lead = int(shifted and later > 0)         # frames before the first
        self.skip = (self._lead * target.hop_length - int(later)) if shifted else 0
        self._same_bands = _bands_alone(source) == _bands_alone(target)
        if not self._same_bands:
            self._prepare_bands()

    def _prepare_bands(self):
        source, target = self.source, self.target
        basis = mel_basis(source)
        self._basis = scipy.sparse.csr_matrix(basis)
        self._basis_t = scipy.sparse.csr_matrix(basis.T)
        sums = np.maximum(basis.sum(axis=0), 1e-12)     # of a band
        self._around = scipy.sparse.csr_matrix(
            (basis / sums / np.maximum(basis.sum(axis=1, keepdims=True), 1e-12)).T)
        covered = np.flatnonzero(basis.sum(axis=1) > 0)
        self._below, self._above = covered[0], covered[-1] + 1      # bins
        self._below_level, self._above_level = BELOW / sums[0], ABOVE / sums[-1]
        self._to_bins = _bins_to_bins(source, target)
        self._target_basis = scipy.sparse.csr_matrix(mel_basis(target))
        self._to_bands = scipy.sparse.csr_matrix(self._to_bins @ self._target_basis)

    def n_samples(self, frames: int) -> int:
        """Samples of the target's audio that so many frames stand for."""
        return frames * self.source.hop_length * self.target.sample_rate // self.source.sample_rate

    def n_frames(self, frames: int) -> int:
        """Frames that so many become."""
        return -(-(self.n_samples(frames) + self.skip) // self.target.hop_length)

    def place(self, audio: np.ndarray, frames: int) -> np.ndarray:
        """Of the audio of so many frames, converted, what lies in their time."""
        return audio[self.skip:self.skip + self.n_samples(frames)]

    def __call__(self, mel: np.ndarray) -> np.ndarray:
        """float32 [n_frames(frames), target.n_mels] of a mel [frames, source.n_mels]."""
        return self.start().push(mel, ended=True)

    def start(self) -> 'ConversionStream':
        """A ConversionStream, at the start of an utterance."""
        return ConversionStream(self)

    def bands(self, mel: np.ndarray) -> np.ndarray:
        """Magnitudes (to the power) of the target's bands [frames, n_mels], a frame for a frame."""
        magnitudes = mel_magnitudes(mel, self.source)
        if self._same_bands:
            return magnitudes
        blocks = [self._block_bands(magnitudes[first:first + BLOCK_FRAMES])
                  for first in range(0, len(magnitudes), BLOCK_FRAMES)]
        return np.concatenate(blocks or [np.zeros([0, self.target.n_mels], np.float32)])

    def _block_bands(self, magnitudes):
        spectrum = magnitudes @ self._around
        wanted = magnitudes @ self._basis_t
        for _ in range(UPDATES):
            spectrum *= wanted / np.maximum((spectrum @ self._basis) @ self._basis_t, 1e-12)
        spectrum[:, :self._below] = self._below_level * magnitudes[:, :1]
        spectrum[:, self._above:] = self._above_level * magnitudes[:, -1:]
        if self.source.power == 2:
            spectrum = np.sqrt(spectrum)
        if self.target.power == 2:
            return np.square(spectrum @ self._to_bins) @ self._target_basis
        return spectrum @ self._to_bands

    def losses(self) -> List[str]:
        """What the target's mels say and the source's do not, a phrase each."""
        source, target = self.source, self.target
        found = []
        seconds, others = (d.hop_length / d.sample_rate for d in (source, target))
        if seconds > LONGER * others:
            found.append('coarser time: a frame every %.1f ms, not every %.1f'
                         % (1000 * seconds, 1000 * others))
        seconds, others = (d.win_length / d.sample_rate for d in (source, target))
        if seconds < others / (2 * LONGER):
            found.append('coarser frequencies: windows of %.0f ms, not %.0f'
                         % (1000 * seconds, 1000 * others))
        per_hz, others_per_hz = (d.n_mels / (hz_to_htk(d.top) - hz_to_htk(d.fmin))
                                 for d in (source, target))
        if per_hz < FEWER * others_per_hz:
            found.append('wider bands: %d from %g to %g Hz, not %d from %g to %g'
                         % (source.n_mels, source.fmin, source.top,
                            target.n_mels, target.fmin, target.top))
        if source.fmin > target.fmin:
            found.append('missing bands: nothing below %g Hz' % source.fmin)
        if source.top < target.top:
            found.append('missing bands: nothing above %g Hz' % source.top)
        decibels = self._lost_range()
        if decibels > QUIET:
            found.append('clipped range: nothing of the %.0f dB above the floor of the model'
                         % decibels)
        return found

    def _lost_range(self):
        """dB by which the source's lowest values are above the target's, the median of bands."""
        lowest = mel_values(np.zeros([1, self.source.n_mels]), self.source)
        found = self.bands(lowest)
        floor = mel_magnitudes(mel_values(np.zeros_like(found), self.target), self.target)
        ratio = np.maximum(found, 1e-30) / np.maximum(floor, 1e-30)
        return 20 / self.target.power * np.log10(np.median(ratio))


class ConversionStream:
    """One mel on its way through a MelConversion, for pieces of any sizes.

        converted = stream.push(piece)
        rest = stream.push(last_piece, ended=True)

    Put together, the results are those of the whole mel.
    """

    def __init__(self, conversion: MelConversion):
        self._conversion = conversion
        self._bands = np.zeros([0, conversion.target.n_mels], np.float32)   # that are still needed
        self._first = 0             # frame of its first row
        self._received = 0          # frames of the source
        self._done = 0              # frames of the target

    def push(self, mel: np.ndarray, ended: bool = False) -> np.ndarray:
        """The frames that the next of the mel complete; all that are left if it `ended`."""
        conversion = self._conversion
        self._received += len(mel)
        self._bands = np.concatenate([self._bands, conversion.bands(mel)])
        if ended and self._received:
            end = conversion.n_frames(self._received)
        else:
            end = self._ready()
        places = self._places(np.arange(self._done, max(self._done, end)))
        before = np.floor(places).astype(int)
        part = (places - before).astype(np.float32)[:, None]
        rows = np.minimum(before - self._first, max(0, len(self._bands) - 1))
        if conversion._same_hop:
            found = self._bands[rows]
        else:
            # of powers, which gives noise its level: log-mel L1 .129, of magnitudes .147
            power = 1 if conversion.target.power == 2 else 2
            bands = self._bands ** power
            following = np.minimum(rows + 1, len(bands) - 1)
            found = (bands[rows] * (1 - part) + bands[following] * part) ** np.float32(1 / power)
        self._done = max(self._done, end)
        drop = min(int(self._places(self._done)) - self._first, len(self._bands) - 1)
        if drop > 0:
            self._bands, self._first = self._bands[drop:], self._first + drop
        # A range below the highest value of an utterance is not known before its end.
        return mel_values(found, conversion.target.replace(dynamic_range=0.0))

    def _ready(self):
        """The target's frames whose places have come."""
        end = self._done
        while self._received and self._places(end) <= self._received - 1:
            end += 1
        return end

    def _places(self, frames):
        """Where frames of the target stand between the source's, from 0 on."""
        conversion = self._conversion
        source, target = conversion.source, conversion.target
        if conversion._same_hop:
            return np.maximum(frames - conversion._lead, 0.0)
        samples = frames * target.hop_length + _middle(target)
        places = ((samples * source.sample_rate / target.sample_rate - _middle(source))
                  / source.hop_length)
        return np.maximum(places, 0.0)


def _middle(definition):
    """Samples from the first that frame 0 stands for to its middle."""
    return definition.hop_length / 2 if definition.padding == 'same' else 0.0


def _bands_alone(definition):
    """The definition without what does not matter to the magnitudes of a frame's bands."""
    default = MelDefinition()
    return definition.replace(
        fmax=definition.top,
        **{name: getattr(default, name) for name in (
            'hop_length', 'padding', 'pad_mode', 'drop_last_frame', 'floor', 'floor_mode', 'log',
            'dynamic_range', 'gain', 'offset', 'clip_min', 'clip_max', 'mean', 'scale')})


def _bins_to_bins(source, target):
    """Sparse [bins, bins of target]: magnitudes @ it = those of the target's transform.

    By linear interpolation, at the level of noise: of a density of power n, a window w gives a bin
    the power n * sample_rate * sum(w^2).
    """
    theirs, ours = (np.fft.rfftfreq(d.n_fft, 1 / d.sample_rate) for d in (source, target))
    place = np.minimum(ours / theirs[1], len(theirs) - 1)
    before = np.minimum(place.astype(int), len(theirs) - 2)
    part = place - before
    levels = [d.sample_rate * np.square(analysis_window(d)).sum() for d in (source, target)]
    gain = (np.sqrt(levels[1] / levels[0])
            * preemphasis_gain(target, ours) / preemphasis_gain(source, ours))
    rows = np.concatenate([before, before + 1])
    columns = np.tile(np.arange(len(ours)), 2)
    weights = np.concatenate([(1 - part) * gain, part * gain]).astype(np.float32)
    return scipy.sparse.csr_matrix((weights, (rows, columns)), shape=(len(theirs), len(ours)))
