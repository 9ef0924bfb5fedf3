"""TensorBoard events."""
import contextlib
import glob
import io
import os
from typing import Dict, Iterable, List, Tuple

import numpy as np
import soundfile
import tensorflow.compat.v1 as tf

from datasets import audio_files


class Events:
    """Writes TensorBoard events from numbers, so that summaries add nothing to the training graph.

    A context manager: events are written when they are given, and the file is closed at its end.
    """

    def __init__(self, directory: str, first_step: int):
        self._writer = tf.summary.FileWriter(directory)
        # What a killed run had written beyond the step it is resumed from does not count.
        self._writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), first_step)

    def __enter__(self) -> 'Events':
        return self

    def __exit__(self, *error):
        self._writer.close()

    def scalars(self, values: Dict[str, float], step: int) -> None:
        """values: {tag: value}."""
        self._add([tf.Summary.Value(tag=tag, simple_value=float(value))
                   for tag, value in values.items()], step)

    def audio(self, tag: str, audio: np.ndarray, sample_rate: int, step: int) -> None:
        """audio: [samples] in -1..1."""
        wav = io.BytesIO()
        soundfile.write(wav, audio_files.to_pcm16(audio)[0], sample_rate, 'PCM_16', format='WAV')
        value = tf.Summary.Audio(sample_rate=sample_rate, num_channels=1,
                                 length_frames=len(audio), content_type='audio/wav',
                                 encoded_audio_string=wav.getvalue())
        self._add([tf.Summary.Value(tag=tag, audio=value)], step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        self._add([tf.Summary.Value(tag=tag, image=tf.Summary.Image(encoded_image_string=png))],
                  step)

    def metadata(self, run_metadata: tf.RunMetadata, step: int) -> None:
        self._writer.add_run_metadata(run_metadata, 'step_%d' % step, step)

    def _add(self, values, step):
        self._writer.add_summary(tf.Summary(value=values), step)
        self._writer.flush()


def read_scalars(directory: str, tags: Iterable[str]) -> Dict[str, Dict[int, float]]:
    """{tag: {step: value}} of all event files in `directory`; of a step the value written last.

    A file that a crash or a full disk has cut short counts as far as it goes.
    """
    found: Dict[str, Dict[int, float]] = {tag: {} for tag in tags}
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), 'events*'))):
        with contextlib.suppress(tf.errors.OpError):
            for event in tf.train.summary_iterator(path):
                for value in event.summary.value:
                    if value.tag in found:
                        found[value.tag][event.step] = value.simple_value
    return found


def read(directory: str) -> Dict[str, List[Tuple[int, tf.Summary.Value]]]:
    """{tag: [(step, value)]} of all event files in `directory`, in the order of their writing."""
    found: Dict[str, List[Tuple[int, tf.Summary.Value]]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), 'events*'))):
        for event in tf.train.summary_iterator(path):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found
