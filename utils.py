"""Checkpoints, TensorBoard events and pictures. Import before TensorFlow: it quiets its log."""
import contextlib
import faulthandler
import glob
import io
import os
import re

# Python raises what goes wrong; what C++ logs of it besides is pages, of a lost host above all.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


@contextlib.contextmanager
def _quiet_stderr():
    """Mutes what C++ writes to stderr before it reads TF_CPP_MIN_LOG_LEVEL.

    Exceptions are told as ever; should the import kill the process (a processor too old for
    TensorFlow), Python still says where.
    """
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    watch = not faulthandler.is_enabled()
    if watch:
        faulthandler.enable(saved)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        if watch:
            faulthandler.disable()
        os.close(saved)
        os.close(null)


with _quiet_stderr():
    import tensorflow.compat.v1 as tf

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

import errors  # noqa: E402
from datasets import audio_files
from errors import UserError  # noqa: E402

tf.logging.set_verbosity(tf.logging.ERROR)

AVERAGE = '/ExponentialMovingAverage'
BUNDLED_MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'samples', 'model')


# --- Checkpoints ----------------------------------------------------------------------------------

class Checkpoints:
    """The checkpoints of one training: the newest few, and the best apart.

    A checkpoint holds every variable of the graph; the file `checkpoint` names those that are
    complete and is replaced in one move after one is, so that a kill at any moment leaves the last.
    """

    def __init__(self, directory, keep):
        """keep: how many of the newest to keep; never fewer than two, see `set_aside`."""
        self.directory = directory
        self.best_directory = os.path.join(directory, 'best')
        self._saver = tf.train.Saver(max_to_keep=max(2, keep), save_relative_paths=True)
        self._best_saver = tf.train.Saver(max_to_keep=1, save_relative_paths=True)

    def restore(self, session):
        """Loads the newest checkpoint that can be read. Returns its path, or None if there is none.

        Raises UserError if there are some and none can be read: nothing then starts anew over them.
        """
        for directory in (self.directory, self.best_directory):
            for leftover in glob.glob(os.path.join(glob.escape(directory), '*.tempstate*')):
                with contextlib.suppress(OSError):
                    os.unlink(leftover)
        paths = _complete_checkpoints(self.directory)
        for path in reversed(paths):
            try:
                self._saver.restore(session, path)
            except (tf.errors.OpError, ValueError) as error:
                print('cannot read %s (%s); trying the one before' % (path, errors.explain(error)))
                continue
            self._saver.recover_last_checkpoints(paths[:paths.index(path) + 1])
            self._best_saver.recover_last_checkpoints(_complete_checkpoints(self.best_directory))
            return path
        if paths:
            raise UserError('none of the %d checkpoints in %s can be read; take another --run_name, '
                            'or remove them to start anew' % (len(paths), self.directory))
        return None

    def save(self, session, step):
        self._saver.save(session, os.path.join(self.directory, 'model.ckpt'), step,
                         write_meta_graph=False)

    def save_best(self, session, step):
        self._best_saver.save(session, os.path.join(self.best_directory, 'model.ckpt'), step,
                              write_meta_graph=False)

    def set_aside(self, step):
        """Renames the newest checkpoint, that of `step`, to suspect.ckpt-STEP.

        For weights that give no finite loss. Returns the path of the checkpoint before, which is
        then the newest, or None.
        """
        paths = [p for p in _complete_checkpoints(self.directory)
                 if not p.endswith('-%d' % step)]
        if paths:
            tf.train.update_checkpoint_state(
                self.directory, os.path.basename(paths[-1]),
                all_model_checkpoint_paths=[os.path.basename(p) for p in paths])
        else:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, 'checkpoint'))
        pattern = os.path.join(glob.escape(self.directory), 'model.ckpt-%d.*' % step)
        for path in glob.glob(pattern):
            os.replace(path, os.path.join(self.directory, 'suspect' + os.path.basename(path)[5:]))
        return paths[-1] if paths else None


def has_checkpoint(directory):
    return bool(_complete_checkpoints(directory))


def find_checkpoint(path):
    """The checkpoint that `path` means: a checkpoint's own path, or the newest in a directory."""
    if os.path.isdir(path):
        paths = _complete_checkpoints(path)
        if not paths:
            raise UserError('there is no checkpoint in %s; give a run of train.py' % path)
        return paths[-1]
    for suffix in ('.index', '.data-00000-of-00001'):
        if path.endswith(suffix):
            path = path[:-len(suffix)]
    if not os.path.exists(path + '.index'):
        raise UserError('there is no checkpoint %s; give a run of train.py, or one of its '
                        'model.ckpt-STEP' % path)
    return path


def load_weights(session, path):
    """Loads the trainable variables of the session's graph from checkpoint `path`, and no others.

    Their averages are taken where the checkpoint holds them. Raises UserError if it lacks one.
    """
    with readable('checkpoint ' + path):
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        variables = {}
        for v in tf.trainable_variables():
            name = v.op.name + AVERAGE if v.op.name + AVERAGE in stored else v.op.name
            if stored.get(name) != v.shape.as_list():
                raise UserError('checkpoint %s has no %s of shape %s; its params.json is not that '
                                'of its model' % (path, v.op.name, v.shape.as_list()))
            variables[name] = v
        tf.train.Saver(variables).restore(session, path)


def read_weights(path):
    """{name: array} of the model in checkpoint `path`, averages where it holds them."""
    with readable('checkpoint ' + path):
        reader = tf.train.load_checkpoint(path)
        stored = reader.get_variable_to_shape_map()
        # the optimizer's slots and the averages lie below the names of their variables
        names = [name for name in stored
                 if name.startswith('waveglow/') and os.path.dirname(name) not in stored]
        return {name: reader.get_tensor(name + AVERAGE if name + AVERAGE in stored else name)
                for name in names}


@contextlib.contextmanager
def readable(what):
    """Turns what TensorFlow raises for a checkpoint that it cannot read into a UserError."""
    try:
        yield
    except (tf.errors.OpError, ValueError, IndexError) as error:  # IndexError: it was cut short
        raise UserError('%s cannot be read (%s); take another checkpoint' % (what, errors.explain(error)))


def save_weights(directory, weights):
    """Writes a checkpoint of {variable: array}, without a training's state, to `directory`.

    Raises OSError if it cannot be written.
    """
    names = sorted(weights)
    with tf.Graph().as_default(), tf.Session() as session:
        values = [tf.placeholder(weights[name].dtype, weights[name].shape) for name in names]
        save = tf.raw_ops.SaveV2(prefix=os.path.join(directory, 'model.ckpt-0'),
                                 tensor_names=names, shape_and_slices=[''] * len(names),
                                 tensors=values)
        try:
            session.run(save, dict(zip(values, (weights[name] for name in names))))
        except tf.errors.OpError as error:
            raise OSError(None, errors.explain(error))
    tf.train.update_checkpoint_state(directory, 'model.ckpt-0')


def _complete_checkpoints(directory):
    """Paths of the complete checkpoints in `directory`, oldest first."""
    def complete(names):
        paths = [os.path.join(directory, name) for name in names]
        return [path for path in paths if os.path.exists(path + '.index')]

    state = None
    with contextlib.suppress(ValueError):  # an empty file
        state = tf.train.get_checkpoint_state(directory) if os.path.isdir(directory) else None
    # A copied run's `checkpoint` may name paths of elsewhere: those beside it are meant.
    paths = complete(map(os.path.basename, state.all_model_checkpoint_paths if state else ()))
    if not paths and os.path.isdir(directory):  # `checkpoint` was lost: what the files say
        found = filter(None, map(re.compile(r'(model\.ckpt-(\d+))\.index$').match,
                                 os.listdir(directory)))
        paths = complete(match.group(1) for match in sorted(found, key=lambda m: int(m.group(2))))
    return paths


@contextlib.contextmanager
def locked(directory):
    """Holds `directory` for one process; UserError if another holds it. Ends with the process."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with open(os.path.join(directory, '.lock'), 'w') as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError('another train.py is training in %s; wait for it, stop it, or take '
                            'another --run_name' % directory)
        yield


# --- TensorBoard ----------------------------------------------------------------------------------

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


def spectrogram_png(rows):
    """A PNG of mel spectrograms, one above the other, for comparing by eye.

    Args:
      rows: [(title, mel [frames, n_mels])]. All share one colour scale, that of the first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 2.2 * len(rows)), dpi=80)
    canvas = FigureCanvasAgg(figure)
    low, high = np.percentile(rows[0][1], [1, 99.9])
    for i, (title, mel) in enumerate(rows):
        axes = figure.add_subplot(len(rows), 1, i + 1)
        axes.imshow(np.asarray(mel).T, origin='lower', aspect='auto', vmin=low, vmax=high,
                    interpolation='nearest', cmap='magma')
        axes.set_title(title, fontsize=9, loc='left')
        axes.set_ylabel('mel band', fontsize=8)
        axes.tick_params(labelsize=7)
    axes.set_xlabel('frame', fontsize=8)
    figure.tight_layout()
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()
