"""The weights of a training, one after the other in a few long buffers.

A model has hundreds of weights. To update, average and send buffers takes a graph a few operations,
not a few for each weight. Checkpoints hold the weights by name.
"""
import collections
import contextlib
from typing import Dict, Iterator, List, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from ops import Weight

# Elements after which a buffer ends: 16 MB, which are sent while gradients of others are computed.
BUFFER_ELEMENTS = 2 ** 22


class Buffers:
    """The trainable variables weights_0, weights_1, ...: buffers that hold `weights`, in order.

    Each is float32 [elements]. They are made in the default graph and start with the weights'
    initial values.
    """

    def __init__(self, weights: Sequence[Weight]):
        self.weights = list(weights)
        self.parts: List[List[Weight]] = []     # the weights of each buffer
        elements = BUFFER_ELEMENTS
        for weight in weights:
            if elements >= BUFFER_ELEMENTS:
                self.parts, elements = self.parts + [[]], 0
            self.parts[-1].append(weight)
            elements += weight.size
        self.variables = [
            tf.get_variable('weights_%d' % i, use_resource=True,
                            initializer=lambda part=part: _initial_values(part))
            for i, part in enumerate(self.parts)]
        self._names = [variable.op.name for variable in self.variables]

    @contextlib.contextmanager
    def read_from(self, tensors: Sequence[tf.Tensor]) -> Iterator[None]:
        """A block in which variables are cut from `tensors`, which are like the buffers.

        Raises AssertionError for a variable that is none of the weights.
        """
        cut: Dict[str, tf.Tensor] = {}
        for tensor, part in zip(tensors, self.parts):
            pieces = tf.split(tensor, [w.size for w in part])
            cut.update((w.name, piece) for w, piece in zip(part, pieces))
        shaped: Dict[str, tf.Tensor] = {}

        def get(getter, name, shape=None, *args, **options):
            if name not in cut:
                raise AssertionError('%s is no weight of this training' % name)
            if name not in shaped:
                shaped[name] = (cut[name] if len(shape) == 1 else
                                tf.reshape(cut[name], shape))
            return shaped[name]

        with tf.variable_scope(tf.get_variable_scope(), custom_getter=get):
            yield

    def stored_variables(self, variables: Sequence[tf.Variable]
                         ) -> Tuple[Dict[str, List[tf.Variable]], List[tf.Variable]]:
        """Those of `variables` that are like the buffers, and the others.

        The former are {what their names have after a buffer's: one for each buffer}: '' for the
        buffers themselves, '/Adam' for what Adam keeps of them.
        """
        alike: Dict[str, List[tf.Variable]] = collections.OrderedDict()
        others = []
        for variable in variables:
            buffer, slash, kind = variable.op.name.partition('/')
            if buffer in self._names:
                alike.setdefault(slash + kind, []).append(variable)
            else:
                others.append(variable)
        order = self._names.index
        return {kind: sorted(found, key=lambda v: order(v.op.name.partition('/')[0]))
                for kind, found in alike.items()}, others

    def unpack(self, arrays: Sequence[np.ndarray]) -> Dict[str, np.ndarray]:
        """{name: array} of the weights in arrays like the buffers."""
        found = {}
        for array, part in zip(arrays, self.parts):
            ends = np.cumsum([weight.size for weight in part])
            found.update((w.name, piece.reshape(w.shape))
                         for w, piece in zip(part, np.split(array, ends[:-1])))
        return found

    def pack(self, values: Dict[str, np.ndarray]) -> List[np.ndarray]:
        """The inverse of `unpack`."""
        return [np.concatenate([values[weight.name].ravel() for weight in part])
                for part in self.parts]


def _initial_values(part):
    values = [weight.initial_value() for weight in part]
    return tf.concat([value if len(value.shape) == 1 else tf.reshape(value, [-1])
                      for value in values], axis=0)
