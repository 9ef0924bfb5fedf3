"""Tensors joined to long vectors, to be added and sent together."""
import tensorflow.compat.v1 as tf

PACK = 2 ** 22  # elements of gradients added at a time: 16 MB, while later ones are computed


def packs(tensors):
    """Lists of indices of `tensors`, in order: each of PACK elements or, with its last, more."""
    found, filled = [[]], 0
    for i, tensor in enumerate(tensors):
        if filled >= PACK:
            found, filled = found + [[]], 0
        found[-1].append(i)
        filled += tensor.shape.num_elements()
    return found


def join(tensors):
    """One vector of all elements of `tensors`."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)


def cut(vector, shapes):
    """The inverse of `join`."""
    parts = tf.split(vector, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes)]
