"""Checkpoints: where they are, and the weights in one."""
import contextlib
import os
import re
from typing import Dict, List, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

import errors
import files
from errors import UserError

SCOPE = 'waveglow/'      # of the model's variables; other scopes hold what training alone needs
AVERAGE = '/ExponentialMovingAverage'
BUNDLED_MODEL = os.path.join(files.ROOT, 'samples', 'model')


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
    try:
        write_checkpoint(os.path.join(directory, 'model.ckpt-0'), weights)
    except tf.errors.OpError as error:
        raise OSError(None, errors.reason(error)) from error
    name_checkpoints(directory, ['model.ckpt-0'])


def write_checkpoint(path: str, values: Dict[str, np.ndarray]):
    """Writes the files of a checkpoint of {name: array}. Raises tf.errors.OpError if it cannot."""
    names = sorted(values)
    arrays = [np.asarray(values[name]) for name in names]
    config = tf.ConfigProto(device_count={'GPU': 0})
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        # one operation gives all values: to build hundreds of placeholders takes longer
        tensors = tf.numpy_function(lambda: arrays, [], [array.dtype for array in arrays])
        save = tf.raw_ops.SaveV2(prefix=path, tensor_names=names,
                                 shape_and_slices=[''] * len(names), tensors=tensors)
        try:
            session.run(save)
        finally:
            del arrays[:]       # the graph keeps the function until it is collected


def name_checkpoints(directory: str, paths: Sequence[str]):
    """Writes the file `checkpoint` of a directory: its complete checkpoints, oldest first."""
    names = [os.path.basename(path) for path in paths]
    # of a relative directory TensorFlow would write paths that lead out of it
    tf.train.update_checkpoint_state(os.path.abspath(directory), names[-1], names)


def complete_checkpoints(directory: str) -> List[str]:
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
