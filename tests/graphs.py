"""What the tests of graphs share."""
import contextlib

import numpy as np
import tensorflow.compat.v1 as tf

import parallel
import params

# A flow of every part, small enough for tests.
TINY = params.preset('small').replace(n_flows=4, n_group=8, n_early_every=2, n_layers=3,
                                      residual_channels=12, skip_channels=10, clip_samples=2048,
                                      batch_size=4)


@contextlib.contextmanager
def session():
    """A session on a fresh graph, as training and inference configure it."""
    with tf.Graph().as_default() as graph, tf.Session(
            graph=graph, config=parallel.session_config()) as sess:
        tf.set_random_seed(1)
        yield sess


def assign(sess, values):
    """Sets variables, {variable: value}, in one run: a graph is optimized anew for every fetch."""
    sess.run([v.initializer for v in values],
             {v.initializer.inputs[1]: value for v, value in values.items()})


def trainable(suffix):
    """The one trainable variable whose name ends so."""
    found, = [v for v in tf.trainable_variables() if v.op.name.endswith(suffix)]
    return found


def randomize(sess, rng, scale=0.1):
    """Moves every variable of the graph away from its initial value, the zero ones above all."""
    variables = tf.trainable_variables()
    sess.run(tf.global_variables_initializer())
    assign(sess, {v: value + scale * rng.randn(*value.shape)
                  for v, value in zip(variables, sess.run(variables))})


def speechlike(rng, batch, samples):
    """Noise with the decay of a speech spectrum, in -1..1: float64 [batch, samples]."""
    x = np.cumsum(rng.randn(batch, samples), axis=1)
    x -= np.linspace(0, 1, samples) * x[:, -1:]
    return 0.3 * x / np.abs(x).max()


def assigned(sess, weights):
    """Gives every trainable variable of the graph its value in {name: array}, and none is over."""
    variables = tf.trainable_variables()
    assert {v.op.name: tuple(v.shape.as_list()) for v in variables} == {
        name: value.shape for name, value in weights.items()}
    assign(sess, {v: weights[v.op.name] for v in variables})
