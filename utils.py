"""Checkpoints: those of a training, and the weights in one."""
import contextlib
import copy
import glob
import os
import re
from typing import Dict, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

import errors
import files
from errors import UserError

SCOPE = 'waveglow/'      # of the model's variables; other scopes hold what training alone needs
AVERAGE = '/ExponentialMovingAverage'
BUNDLED_MODEL = os.path.join(files.ROOT, 'samples', 'model')


class Checkpoints:
    """The checkpoints of one training: the newest few, and the best apart.

    A checkpoint holds every variable of the graph. The file `checkpoint` names the complete ones.
    It is renamed into place after one is written, so a kill at any moment leaves the last one.
    """

    def __init__(self, directory: str, keep: int, optional: Sequence[tf.Variable] = ()):
        """Args:
          keep: how many of the newest to keep. At least two are kept, for `quarantine`.
          optional: variables that keep the values they have where a checkpoint has none.
        """
        self._optional = optional
        self.directory = directory
        self.best_directory = os.path.join(directory, 'best')
        self._saver = tf.train.Saver(max_to_keep=max(2, keep), save_relative_paths=True)
        same = copy.deepcopy(self._saver.as_saver_def())    # operations, but for what is kept
        same.max_to_keep = 1
        self._best_saver = tf.train.Saver(saver_def=same, save_relative_paths=True)

    def restore(self, session: tf.Session) -> Optional[str]:
        """Loads the newest checkpoint that can be read. Returns its path, or None if there is none.

        Raises UserError if there are some and none can be read: a new training must not overwrite
        them.
        """
        for directory in (self.directory, self.best_directory):
            _remove_leftovers(directory)
        paths = complete_checkpoints(self.directory)
        for path in reversed(paths):
            try:
                self._restore(session, path)
            except (tf.errors.OpError, ValueError) as error:
                print('cannot read %s (%s); trying the one before' % (path, errors.reason(error)))
                continue
            self._saver.recover_last_checkpoints(paths[:paths.index(path) + 1])
            self._best_saver.recover_last_checkpoints(complete_checkpoints(self.best_directory))
            return path
        if paths:
            raise UserError('none of the %d checkpoints in %s can be read; take another '
                            '--run_name, or remove them to start anew'
                            % (len(paths), self.directory))
        return None

    def _restore(self, session, path):
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        absent = {v.op.name for v in self._optional} - set(stored)
        saver = self._saver if not absent else tf.train.Saver(
            [v for v in tf.global_variables() if v.op.name not in absent])
        saver.restore(session, path)

    def save(self, session: tf.Session, step: int):
        self._saver.save(session, os.path.join(self.directory, 'model.ckpt'), step,
                         write_meta_graph=False)

    def save_best(self, session: tf.Session, step: int):
        self._best_saver.save(session, os.path.join(self.best_directory, 'model.ckpt'), step,
                              write_meta_graph=False)

    def save_elsewhere(self, session: tf.Session, directory: str, step: int):
        """Saves to `directory`, not to that of the training, which is gone."""
        self._saver.set_last_checkpoints_with_time([])      # it removes none of them
        self._saver.save(session, os.path.join(directory, 'model.ckpt'), step,
                         write_meta_graph=False)

    def quarantine(self, step: int) -> Optional[str]:
        """Renames the newest checkpoint, that of `step`, to suspect.ckpt-STEP.

        For a checkpoint whose weights give no finite loss. Returns the path of the checkpoint
        before it, which is then the newest, or None.
        """
        paths = [p for p in complete_checkpoints(self.directory)
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


def has_checkpoint(directory: str) -> bool:
    return bool(complete_checkpoints(directory))


def find_checkpoint(path: str) -> str:
    """The path of the checkpoint at `path`, or of the newest in directory `path`.

    Raises UserError if there is none.
    """
    if os.path.isdir(path):
        paths = complete_checkpoints(path)
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


def load_weights(session: tf.Session, path: str):
    """Loads the model's variables of the session's graph, and no others, from checkpoint `path`.

    The averaged weights are loaded where the checkpoint holds them. Raises UserError if a variable
    is missing or the checkpoint cannot be read.
    """
    with reading_checkpoint('checkpoint ' + path):
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        variables = {}
        for v in tf.trainable_variables(SCOPE):
            name = v.op.name + AVERAGE if v.op.name + AVERAGE in stored else v.op.name
            if stored.get(name) != v.shape.as_list():
                raise UserError('checkpoint %s has no %s of shape %s; its params.json is not that '
                                'of its model' % (path, v.op.name, v.shape.as_list()))
            variables[name] = v
        tf.train.Saver(variables).restore(session, path)


def read_weights(path: str) -> Dict[str, np.ndarray]:
    """{name: array} of the model in checkpoint `path`; averaged weights where it holds them."""
    with reading_checkpoint('checkpoint ' + path):
        reader = tf.train.load_checkpoint(path)
        stored = reader.get_variable_to_shape_map()
        # the optimizer's slots and the averages lie below the names of their variables
        names = [name for name in stored
                 if name.startswith(SCOPE) and os.path.dirname(name) not in stored]
        return {name: reader.get_tensor(name + AVERAGE if name + AVERAGE in stored else name)
                for name in names}


def reading_checkpoint(what: str):
    """Turns what TensorFlow raises for a checkpoint that it cannot read into a UserError."""
    return errors.as_user_error(what + ' cannot be read', 'take another checkpoint',
                                tf.errors.OpError, ValueError,
                                IndexError)     # of a file that was cut short


def save_weights(directory: str, weights: Dict[str, np.ndarray]):
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
            raise OSError(None, errors.reason(error)) from error
    tf.train.update_checkpoint_state(directory, 'model.ckpt-0')


def _remove_leftovers(directory):
    """Removes what is left of a checkpoint that a kill met while it was written or removed."""
    def found(pattern):
        return glob.glob(os.path.join(glob.escape(directory), pattern))

    for path in found('*.tempstate*') + [
            path for path in found('model.ckpt-*.data-*')
            if not os.path.exists(path[:path.rindex('.data-')] + '.index')]:
        with contextlib.suppress(OSError):
            os.unlink(path)


def complete_checkpoints(directory):
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
