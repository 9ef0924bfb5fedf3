"""TensorBoard events."""
import io

import soundfile
import tensorflow.compat.v1 as tf

from datasets import audio_files


class Events:
    """Writes TensorBoard events from numbers, so that summaries add nothing to the training graph."""

    def __init__(self, directory, first_step):
        self._writer = tf.summary.FileWriter(directory)
        # What a killed run had written beyond the step it is resumed from does not count.
        self._writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), first_step)

    def scalars(self, values, step):
        self._add([tf.Summary.Value(tag=tag, simple_value=float(value))
                   for tag, value in values.items()], step)

    def speech(self, tag, samples, sample_rate, step):
        """samples: [n] float in -1..1."""
        wav = io.BytesIO()
        soundfile.write(wav, audio_files.to_pcm16(samples)[0], sample_rate, 'PCM_16', format='WAV')
        sound = tf.Summary.Audio(sample_rate=sample_rate, num_channels=1,
                                 length_frames=len(samples), content_type='audio/wav',
                                 encoded_audio_string=wav.getvalue())
        self._add([tf.Summary.Value(tag=tag, audio=sound)], step)

    def image(self, tag, png, step):
        self._add([tf.Summary.Value(tag=tag, image=tf.Summary.Image(encoded_image_string=png))],
                  step)

    def metadata(self, run_metadata, step):
        self._writer.add_run_metadata(run_metadata, 'step_%d' % step, step)

    def close(self):
        self._writer.close()

    def _add(self, values, step):
        self._writer.add_summary(tf.Summary(value=values), step)
        self._writer.flush()
