"""Tensors flattened into long vectors, to be added and sent together."""
from typing import List, Sequence

import tensorflow.compat.v1 as tf

# Elements of gradients added at a time: 16 MB, while later ones are computed.
BUCKET_ELEMENTS = 2 ** 22


def buckets(tensors: Sequence) -> List[List[int]]:
    """The indices of `tensors`, in order, in lists: buckets.

    A bucket ends with the tensor that brings it to BUCKET_ELEMENTS elements.
    """
    found: List[List[int]] = [[]]
    elements = 0
    for i, tensor in enumerate(tensors):
        if elements >= BUCKET_ELEMENTS:
            found, elements = found + [[]], 0
        found[-1].append(i)
        elements += tensor.shape.num_elements()
    return found


def flatten(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """One vector of all elements of `tensors`."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def unflatten(vector: tf.Tensor, shapes: Sequence[tf.TensorShape]) -> List[tf.Tensor]:
    """The inverse of `flatten`: tensors of `shapes` from the elements of `vector`."""
    parts = tf.split(vector, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]
