"""An utterance that goes through a model's condition and flow block by block.

Mels come in pieces of any sizes; the audio is that of the whole utterance. streaming.py has what a
block's graph keeps of the blocks before. Knows no session: the two functions that run the graph are
arguments.
"""
from typing import Any, Callable, Iterator, Tuple

import numpy as np

from flows import conditions
from params import HParams


class FlowStream:
    """One utterance on its way through condition and flow.

    What is kept of the mel and of the condition begins with a frame that begins with a group, at a
    multiple of hp.cycle_frames.

    Args:
      hp: hyperparameters.
      draw_noise: gives the z [groups, n_group] that so many more frames complete.
      chunk_frames: frames of a block, but for the first and the last.
      delay: groups that the audio of a block is late.
      run_condition: gives the condition [rows, condition_channels] of mel [frames, n_mels]. Rows
        are frames, or with another upsampling than `repeat` groups.
      run_block: gives (audio [samples], states for the next block) of z [groups, n_group], the
        condition [rows, condition_channels] from the block's delayed groups on, the groups between
        its first row and the block, whether the utterance ends, and the states before: None for
        the first block.
      chunks: a block may have so many times chunk_frames, if they are there.
    """

    def __init__(self, hp: HParams, draw_noise: Callable[[int], np.ndarray], chunk_frames: int,
                 delay: int, run_condition: Callable[[np.ndarray], np.ndarray],
                 run_block: Callable[..., Tuple[np.ndarray, Any]], chunks: int = 1):
        self._hp, self._draw_noise, self._chunk_frames = hp, draw_noise, chunk_frames
        # a first block, of whole chunks, has more groups than the audio is late
        delayed = -(-(delay + 1) * hp.n_group // (chunk_frames * hp.hop_length))
        self._first_frames = delayed * chunk_frames
        self._chunks = chunks
        self._delay, self._run_condition, self._run_block = delay, run_condition, run_block
        self._rows: Callable[[int], int] = (hp.groups if hp.upsampling != 'repeat'
                                            else lambda frames: frames)
        self._mel, self._mel_first = np.zeros([0, hp.n_mels], np.float32), 0
        self._cond = np.zeros([0, hp.condition_channels], np.float32)
        self._cond_first = 0                     # frame of its first row
        self._frames = 0                         # of the condition, so far
        self._done = 0                           # frames that went through the flow
        self._states: Any = None
        self._receptive_field = conditions.condition_receptive_field(hp)

    def push(self, mel: np.ndarray, ended: bool = False) -> Iterator[np.ndarray]:
        """Yields the audio that mel [frames, n_mels] completes; all that is left if it `ended`."""
        self._mel = np.concatenate([self._mel, mel])
        while True:
            size = self._chunk_frames if self._done else self._first_frames
            most = max(size, self._chunks * self._chunk_frames)
            self._extend_condition(self._done + most, ended)
            ready = self._frames - self._done
            size = max(size, min(most, ready) // self._chunk_frames * self._chunk_frames)
            last = ended and self._frames == self._mel_first + len(self._mel) and ready <= size
            if last or ready < size:
                break
            audio = self._block(size, last)
            if len(audio):  # nothing comes before the delay is filled
                yield audio
        if last:
            there = ready or self._done and self._delay
            audio = self._block(ready, last) if there else np.zeros(0, np.float32)
            audio = np.concatenate([audio, self._silence()])
            if len(audio):
                yield audio

    def _extend_condition(self, frames, ended):
        """Computes the condition up to `frames`, or as far as the mels allow."""
        there = self._mel_first + len(self._mel)
        if self._receptive_field is None:
            behind, ahead, stop = there, there, there if ended else 0
        else:
            behind, ahead = self._receptive_field
            stop = min(frames, there if ended else there - ahead)
        if stop <= self._frames:
            return
        start = max(self._group_start(self._frames - behind), self._mel_first)
        end = min(stop + ahead, there)
        rows = self._run_condition(self._mel[start - self._mel_first:end - self._mel_first])
        first = self._rows(start)
        rows = rows[self._rows(self._frames) - first:self._rows(stop) - first]
        self._cond = np.concatenate([self._cond, rows])
        self._frames = stop
        drop = self._group_start(stop - behind) - self._mel_first
        self._mel, self._mel_first = self._mel[drop:], self._mel_first + drop

    def _group_start(self, frame):
        """The last frame that begins with a group, at or before the groups of `frame` do."""
        cycle = self._hp.cycle_frames
        return max(0, frame - (cycle > 1)) // cycle * cycle

    def _block(self, frames, last):
        hp, end = self._hp, self._done + frames
        position = hp.groups(self._done)
        first = self._group_start(hp.frame_of_group(max(0, position - self._delay)))
        self._cond = self._cond[self._rows(first) - self._rows(self._cond_first):]
        self._cond_first = first
        audio, self._states = self._run_block(
            self._draw_noise(frames), self._cond[:self._rows(end) - self._rows(first)],
            position - hp.groups(first), last, self._states)
        self._done = end
        return audio

    def _silence(self):
        """float32 zeros after the last whole group, which complete the last frame."""
        hp, frames = self._hp, self._done
        return np.zeros(frames * hp.hop_length - hp.groups(frames) * hp.n_group, np.float32)
