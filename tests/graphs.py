"""What the tests of graphs share."""
import contextlib

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import glow
import ops
import params

# A flow of every part, small enough for tests.
TINY = params.preset('small').replace(n_flows=3, n_group=8, n_early_every=2, n_layers=2,
                                      residual_channels=12, skip_channels=10, clip_samples=2048,
                                      batch_size=4)
# For gradients, which take long to build: the second flow comes after an early output.
TWO_FLOWS = TINY.replace(n_flows=2, n_early_every=1)
# One of every kind of condition, and of time.
CONDITIONS = {
    'repeat': dict(encoder='none', upsampling='repeat'),
    'conv': dict(encoder='conv', encoder_layers=2, encoder_channels=7, upsampling='repeat'),
    'transposed': dict(encoder='none', upsampling='transposed', upsample_width=1024),
    'conv_two_transposed': dict(encoder='conv', encoder_width=4, encoder_channels=7,
                                upsampling='two_transposed', upsample_width=80,
                                upsample_channels=6),
    'blstm': dict(encoder='blstm', encoder_layers=1, encoder_channels=6, upsampling='repeat'),
    'blstm_two_transposed': dict(encoder='blstm', encoder_layers=2, encoder_channels=6,
                                 upsampling='two_transposed', upsample_channels=5),
    'causal': dict(causal=True, kernel_size=2),
    'curved': dict(encoder='conv', encoder_layers=1, encoder_width=3, encoder_channels=7,
                   cond_terms=3),
}
# And what comes after the flow.
VOCODING = dict(CONDITIONS, corrected=dict(gen_correction_rounds=2))
# Hops, most of which n_group does not divide, with other numbers of bands: {hop: changes}.
HOPS = {
    160: dict(mel_profile='whisper', n_mels=160, n_group=12),
    256: dict(),
    275: dict(mel_profile='rayhane', sample_rate=22050, n_mels=40, cond_terms=3),
    300: dict(mel_profile='espnet_24k', sample_rate=24000, n_mels=100, encoder='conv',
              encoder_layers=1, encoder_channels=7, upsampling='transposed', upsample_width=700),
    441: dict(sample_rate=44100, n_fft=2048, win_length=1764, hop_length=441, n_mels=128, n_group=6,
              upsampling='two_transposed', upsample_channels=5),
}


@contextlib.contextmanager
def session():
    """A session on a fresh graph, as training and inference configure it."""
    with tf.Graph().as_default() as graph, tf.Session(
            graph=graph, config=devices.session_config()) as sess:
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


def operations(graph, kind):
    """How many operations of a kind `graph` has; a function's count for each of its calls."""
    definition = graph.as_graph_def()
    functions = {f.signature.name: f.node_def for f in definition.library.function}

    def count(nodes):
        return sum(count(functions[node.attr['f'].func.name])
                   if node.attr['f'].func.name in functions else node.op == kind for node in nodes)

    return count(definition.node)


def speechlike(rng, batch, samples):
    """Noise with the decay of a speech spectrum, in -1..1: float64 [batch, samples]."""
    x = np.cumsum(rng.randn(batch, samples), axis=1)
    x -= np.linspace(0, 1, samples) * x[:, -1:]
    return 0.3 * x / np.abs(x).max()


def run_model(hp, weights, build):
    """What build(flows, tensors) gives, run with weights {name: array}, of which none is over.

    flows: glow.model_flows. tensors: of the weights, in their order.
    """
    assert {name: value.shape for name, value in weights.items()} == {
        weight.name: weight.shape for weight in glow.weights(hp)}
    with session() as sess:
        fed = {name: tf.placeholder(value.dtype, value.shape) for name, value in weights.items()}
        with ops.frozen(fed):
            fetches = build(glow.model_flows(hp), list(fed.values()))
        return sess.run(fetches, {fed[name]: value for name, value in weights.items()})


def random_weights(hp, seed=0):
    """{variable: array} of a model in which every part has an effect."""
    rng, weights = np.random.RandomState(seed), glow.weights(hp)
    with session() as sess:
        initial = sess.run([weight.initial_value() for weight in weights])
    return {weight.name: np.float32(value + 0.1 * rng.randn(*value.shape))
            for weight, value in zip(weights, initial)}
