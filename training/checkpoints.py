"""The checkpoints of a training."""
import contextlib
import glob
import os
from typing import Dict, Iterator, List, Optional, Sequence, Set

import numpy as np
import tensorflow.compat.v1 as tf

import errors
import utils
from errors import UserError
from training.weights import Buffers

RUN_BYTES = 2 ** 29     # of variables that one run of a session reads or sets; gRPC ends at 2 GB


class StoredVariables:
    """The variables of the default graph, by the names that checkpoints have for them.

    Weights have their own names, and so has what is kept of each, wherever they are in buffers.
    """

    def __init__(self, buffers: Optional[Buffers] = None):
        self._buffers = buffers or Buffers([])
        self._alike, self._others = self._buffers.stored_variables(tf.global_variables())
        self.shapes = {v.op.name: v.shape.as_list() for v in self._others}
        for kind in self._alike:
            self.shapes.update({weight.name + kind: list(weight.shape)
                                for weight in self._buffers.weights})

    def read(self, session: tf.Session) -> Dict[str, np.ndarray]:
        """{name: array} of all of them."""
        found = {v.op.name: value for v, value in zip(self._others, _read(session, self._others))}
        for kind, variables in self._alike.items():
            weights = self._buffers.unpack(_read(session, variables))
            found.update((name + kind, value) for name, value in weights.items())
        return found

    def assign(self, session: tf.Session, values: Dict[str, np.ndarray]) -> None:
        """Sets those that `values` has, {name: array}; the others keep what they are."""
        given = [v for v in self._others if v.op.name in values]
        _assign(session, given, [values[v.op.name] for v in given])
        for kind, variables in self._alike.items():
            own = {weight.name: values[weight.name + kind] for weight in self._buffers.weights
                   if weight.name + kind in values}
            if own:
                if len(own) < len(self._buffers.weights):
                    own = dict(self._buffers.unpack(_read(session, variables)), **own)
                _assign(session, variables, self._buffers.pack(own))


def _read(session, variables):
    return [value for run in _runs(variables) for value in session.run(run)]


def _assign(session, variables, values):
    of_variable = dict(zip([v.op.name for v in variables], values))
    for run in _runs(variables):
        session.run([v.initializer for v in run],
                    {v.initializer.inputs[1]: of_variable[v.op.name] for v in run})


def _runs(variables) -> Iterator[List[tf.Variable]]:
    """The variables in lists of RUN_BYTES at most, or of a single larger one.

    No two in a list share an initial value, so that a run can feed them all.
    """
    run: List[tf.Variable] = []
    initial: Set[str] = set()
    size = 0
    for variable in variables:
        more = variable.shape.num_elements() * variable.dtype.size
        name = variable.initializer.inputs[1].name
        if run and (size + more > RUN_BYTES or name in initial):
            yield run
            run, initial, size = [], set(), 0
        run.append(variable)
        initial.add(name)
        size += more
    if run:
        yield run


class Checkpoints:
    """The checkpoints of one training: the newest few, and the best apart.

    A checkpoint holds every variable of the graph. The file `checkpoint` names the complete ones.
    It is renamed into place after one is written, so a kill at any moment leaves the last one.
    """

    def __init__(self, directory: str, keep: int, stored: Optional[StoredVariables] = None,
                 optional: Sequence[tf.Variable] = ()):
        """Args:
          keep: how many of the newest to keep. At least two are kept, for `quarantine`.
          stored: what they hold; by default the variables of the default graph.
          optional: variables that keep the values they have where a checkpoint has none.
        """
        self.directory = directory
        self.best_directory = os.path.join(directory, 'best')
        self._stored = stored or StoredVariables()
        self._optional = {v.op.name for v in optional}
        self._keep = max(2, keep)
        self._paths: Dict[str, List[str]] = {}      # of those in a directory, oldest first

    def restore(self, session: tf.Session) -> Optional[str]:
        """Loads the newest checkpoint that can be read. Returns its path, or None if there is none.

        Raises UserError if there are some and none can be read: a new training must not overwrite
        them.
        """
        for directory in (self.directory, self.best_directory):
            _remove_leftovers(directory)
        paths = utils.complete_checkpoints(self.directory)
        for path in reversed(paths):
            try:
                self._stored.assign(session, self._read(path))
            except (tf.errors.OpError, ValueError, IndexError) as error:
                print('cannot read %s (%s); trying the one before' % (path, errors.reason(error)))
                continue
            self._paths = {
                self.directory: paths[:paths.index(path) + 1],
                self.best_directory: utils.complete_checkpoints(self.best_directory)}
            return path
        if paths:
            raise UserError('none of the %d checkpoints in %s can be read; take another '
                            '--run_name, or remove them to start anew'
                            % (len(paths), self.directory))
        return None

    def _read(self, path):
        """{name: array} of the checkpoint at `path`; ValueError if it is not of these variables."""
        reader = tf.train.load_checkpoint(path)
        stored = reader.get_variable_to_shape_map()
        names = [name for name in self._stored.shapes
                 if name in stored or name not in self._optional]
        for name in names:
            if stored.get(name) != self._stored.shapes[name]:
                raise ValueError('it has no %s of shape %s' % (name, self._stored.shapes[name]))
        return {name: reader.get_tensor(name) for name in names}

    def save(self, session: tf.Session, step: int):
        self._save(session, self.directory, step, self._keep)

    def save_best(self, session: tf.Session, step: int):
        self._save(session, self.best_directory, step, 1)

    def save_elsewhere(self, session: tf.Session, directory: str, step: int):
        """Saves to `directory`, not to that of the training, which is gone."""
        self._save(session, directory, step, 1)

    def _save(self, session, directory, step, keep):
        path = os.path.join(directory, 'model.ckpt-%d' % step)
        utils.write_checkpoint(path, self._stored.read(session))
        paths = [p for p in self._paths.get(directory, []) if p != path] + [path]
        self._paths[directory] = paths[-keep:]
        utils.name_checkpoints(directory, paths[-keep:])
        for old in paths[:-keep]:
            # .index first: without it, what a kill leaves is no checkpoint
            _remove(sorted(glob.glob(glob.escape(old) + '.*'), reverse=True))

    def quarantine(self, step: int) -> Optional[str]:
        """Renames the newest checkpoint, that of `step`, to suspect.ckpt-STEP.

        For a checkpoint whose weights give no finite loss. Returns the path of the checkpoint
        before it, which is then the newest, or None.
        """
        paths = [p for p in utils.complete_checkpoints(self.directory)
                 if not p.endswith('-%d' % step)]
        if paths:
            utils.name_checkpoints(self.directory, paths)
        else:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, 'checkpoint'))
        pattern = os.path.join(glob.escape(self.directory), 'model.ckpt-%d.*' % step)
        for path in glob.glob(pattern):
            os.replace(path, os.path.join(self.directory, 'suspect' + os.path.basename(path)[5:]))
        self._paths[self.directory] = paths
        return paths[-1] if paths else None


def _remove_leftovers(directory):
    """Removes what is left of a checkpoint that a kill met while it was written or removed."""
    def found(pattern):
        return glob.glob(os.path.join(glob.escape(directory), pattern))

    _remove(found('*.tempstate*'))
    _remove(path for path in found('model.ckpt-*.data-*')
            if not os.path.exists(path[:path.rindex('.data-')] + '.index'))


def _remove(paths):
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
