"""What TensorFlow's graph optimizer does on a GPU to a dilated NHWC convolution. No GPU is needed.

To see TensorFlow 1.9.0 lose the dilation (Python 3.6; if pip cannot choose the releases that still
run there, update it first: venv19/bin/pip install 'pip<22'):

    python3.6 -m venv venv19
    venv19/bin/pip install tensorflow==1.9.0 'numpy<1.17' 'protobuf<3.20'
    venv19/bin/python docs/nhwc/layout_optimizer.py --expect broken --save rewritten.pb

To see 1.10.0 (the same with tensorflow==1.10.0) to 1.15.5 (Python 3.7, 'protobuf<3.21') keep it:

    venv110/bin/python docs/nhwc/layout_optimizer.py --expect right

To execute what 1.9.0 made of the graph, with a TensorFlow 2 whose CPU has NCHW convolutions:

    python docs/nhwc/layout_optimizer.py --run rewritten.pb --expect broken

The graph is two layers of ReLU(conv2d(x) + b) on [batch, 1, time, channels] with all gradients. The
optimizer is given a virtual cluster of one GPU and one CPU. It leaves alone what the caller fetches
directly, so every result is read through an identity, as a training step reads it through the
optimizer's update; the second table shows what a direct fetch would have shown instead.
With --expect, the exit status is 1 when the first table (or the executed graph) says otherwise.
The GPU is a V100 unless --architecture says otherwise. Up to 1.8.0 the optimizer left a V100's graph
untouched, which is neither answer; give those --architecture 6.1.
"""
import argparse
import collections
import inspect
import os
import sys
import warnings

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
warnings.filterwarnings('ignore')  # NumPy's about old TensorFlow

import numpy as np

try:
    import tensorflow.compat.v1 as tf
except ImportError:  # before 1.13
    import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2

BATCH, TIME, CHANNELS, TAPS = 2, 40, 3, 3

Convolution = collections.namedtuple('Convolution', 'op name data_format strides dilations axis')


def training_graph(dilation, time_axis='W', fetch='through'):
    """A meta graph of two dilated layers, their loss and all its gradients, placed on a GPU.

    Args:
      dilation: samples between two taps.
      time_axis: 'W' for inputs [batch, 1, time, channels], 'H' for [batch, time, 1, channels].
      fetch: 'through' puts an identity before every result; 'direct' fetches the very outputs of
        the convolutions and of their gradients.

    Returns:
      A MetaGraphDef with inputs x, w0, b0, w1, b1 and, with 'through', results y, dx, dw0, dw1.
    """
    at_height = time_axis == 'H'
    shape = [BATCH, TIME, 1, CHANNELS] if at_height else [BATCH, 1, TIME, CHANNELS]
    taps = [TAPS, 1] if at_height else [1, TAPS]
    dilations = [1, dilation, 1, 1] if at_height else [1, 1, dilation, 1]
    graph = tf.Graph()
    with graph.as_default(), graph.device('/gpu:0'):
        x = tf.placeholder(tf.float32, shape, name='x')
        y, weights, convolutions = x, [], []
        for i in range(2):
            w = tf.placeholder(tf.float32, taps + [CHANNELS, CHANNELS], name='w%d' % i)
            b = tf.placeholder(tf.float32, [CHANNELS], name='b%d' % i)
            convolutions.append(tf.nn.conv2d(y, w, strides=[1, 1, 1, 1], padding='SAME',
                                             dilations=dilations, name='layer%d' % i))
            y = tf.nn.relu(tf.nn.bias_add(convolutions[-1], b))
            weights.append(w)
        loss = tf.reduce_sum(tf.square(y)) / 2
        gradients = tf.gradients(loss, [x] + weights, name='gradients')
        if fetch == 'direct':
            results = convolutions + gradients
        else:
            results = [tf.identity(t, name=name)
                       for t, name in zip([y] + gradients, ['y', 'dx', 'dw0', 'dw1'])]
        for t in results:
            graph.add_to_collection(tf.GraphKeys.TRAIN_OP, t)  # what the optimizer takes as fetched
    return tf.train.export_meta_graph(graph=graph)


def optimize(meta_graph, architecture='7.0', layout_optimizer=True):
    """The GraphDef that this TensorFlow would execute on a machine with one GPU and one CPU.

    architecture: the GPU's compute capability.
    """
    from tensorflow.core.protobuf import device_properties_pb2
    from tensorflow.python.grappler import cluster, tf_optimizer
    devices = [device_properties_pb2.NamedDevice(
        name='/job:localhost/replica:0/task:0/device:%s:0' % kind,
        properties=device_properties_pb2.DeviceProperties(
            type=kind, frequency=1000, num_cores=4,
            environment={'architecture': architecture} if kind == 'GPU' else {}))
        for kind in ('GPU', 'CPU')]
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.layout_optimizer = (rewriter_config_pb2.RewriterConfig.ON if layout_optimizer
                                else rewriter_config_pb2.RewriterConfig.OFF)
    # Up to 1.10 the function takes the rewriter's part of the configuration alone.
    first = next(iter(inspect.signature(tf_optimizer.OptimizeGraph).parameters))
    return tf_optimizer.OptimizeGraph(config if first == 'config_proto' else rewrite, meta_graph,
                                      verbose=False, cluster=cluster.Cluster(devices=devices))


def convolutions_of(graph_def):
    """The convolutions of a graph and their gradients, as `Convolution`s, in order of name."""
    found = []
    for node in graph_def.node:
        if node.op in ('Conv2D', 'Conv2DBackpropFilter', 'Conv2DBackpropInput'):
            data_format = node.attr['data_format'].s.decode()
            dilations = list(node.attr['dilations'].list.i)
            axis = ''.join(a for a, d in zip(data_format, dilations) if d > 1)
            layer = next(i for i in ('layer0', 'layer1') if i in node.name)
            found.append(Convolution(node.op, layer, data_format,
                                     list(node.attr['strides'].list.i), dilations, axis))
    return sorted(found)


def report(title, found, time_axis='W'):
    """Prints one table and its verdict; returns 'right', 'broken', 'mixed' or 'untouched'."""
    print('\n%s\n' % title)
    print('%-21s %-7s %-7s %-13s %-13s %s' % ('op', 'layer', 'format', 'strides', 'dilations',
                                              'dilated axis'))
    for c in found:
        print('%-21s %-7s %-7s %-13s %-13s %s%s' % (c + ('' if c.axis == time_axis else ' (!)',)))
    kept = [c.axis == time_axis for c in found]
    if all(c.data_format == 'NHWC' for c in found):
        verdict, sentence = 'untouched', 'Everything is as it was written; nothing became NCHW.'
    elif all(kept):
        verdict, sentence = 'right', 'The dilation is kept on the time axis.'
    elif not any(kept):
        verdict, sentence = 'broken', ('The dilation is lost from the time axis, '
                                       'in the convolutions and in all their gradients alike.')
    else:
        verdict, sentence = 'mixed', ('The dilation is lost in %d of %d operations: '
                                      'the gradient is not that of the function.'
                                      % (kept.count(False), len(kept)))
    print('\n%s: %s' % (verdict, sentence))
    return verdict


def shifted(x, by):
    """x[:, t + by] where that exists, else 0; x: [batch, time, channels]."""
    y = np.zeros_like(x)
    if abs(by) < x.shape[1]:
        y[:, max(0, -by):x.shape[1] - max(0, by)] = x[:, max(0, by):x.shape[1] + min(0, by)]
    return y


def reference(x, w, b, dilation):
    """The two layers and their gradients in NumPy: a dict of y, dx, dw0, dw1.

    x: [batch, time, channels]; w: two of [taps, in, out]; b: two of [out].
    """
    reach = [(k - TAPS // 2) * dilation for k in range(TAPS)]
    inputs, outputs = [], []
    h = x
    for w_i, b_i in zip(w, b):
        inputs.append(h)
        h = np.maximum(sum(shifted(h, r).dot(w_i[k]) for k, r in enumerate(reach)) + b_i, 0)
        outputs.append(h)
    values, d = {'y': h}, h
    for i in (1, 0):
        d = d * (outputs[i] > 0)
        values['dw%d' % i] = np.stack([np.tensordot(shifted(inputs[i], r), d, ([0, 1], [0, 1]))
                                       for r in reach])
        d = sum(shifted(d.dot(w[i][k].T), -r) for k, r in enumerate(reach))
    values['dx'] = d
    return values


def execute(path, dilation):
    """Runs a saved graph on the CPU and compares it with NumPy's, dilated and not."""
    graph_def = graph_pb2.GraphDef()
    with open(path, 'rb') as f:
        graph_def.ParseFromString(f.read())
    for node in graph_def.node:
        node.device = ''
    random = np.random.RandomState(0)
    x = random.randn(BATCH, TIME, CHANNELS).astype(np.float32)
    w = random.randn(2, TAPS, CHANNELS, CHANNELS).astype(np.float32)
    b = random.randn(2, CHANNELS).astype(np.float32)
    feed = {'x:0': x[:, None], 'w0:0': w[0][None], 'w1:0': w[1][None], 'b0:0': b[0], 'b1:0': b[1]}
    names = ['y', 'dx', 'dw0', 'dw1']
    config = config_pb2.ConfigProto()  # the graph is to run as it stands, not be optimized again
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        tf.import_graph_def(graph_def, name='')
        seen = dict(zip(names, session.run([name + ':0' for name in names], feed)))
    print('\nlargest difference, relative to the largest value\n')
    print('%-8s %-24s %s' % ('result', 'from dilation %d' % dilation, 'from no dilation'))
    near = {1: [], dilation: []}
    for name in names:
        for d in near:
            value = reference(x, w, b, d)[name]
            near[d].append(np.abs(seen[name].reshape(value.shape) - value).max()
                           / np.abs(value).max())
        print('%-8s %-24.1e %.1e' % (name, near[dilation][-1], near[1][-1]))
    verdict = ('right' if max(near[dilation]) < 1e-4 else
               'broken' if max(near[1]) < 1e-4 else 'mixed')
    print('\n%s: %s' % (verdict, {
        'right': 'The graph computes the dilated convolutions and their gradients.',
        'broken': 'The graph computes convolutions without dilation, and exactly their gradients.',
        'mixed': 'The graph computes neither.'}[verdict]))
    return verdict


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--dilation', type=int, default=4, help='at least 2 (default: 4)')
    parser.add_argument('--expect', choices=('right', 'broken'), help='exit with 1 if otherwise')
    parser.add_argument('--save', metavar='FILE', help='writes the rewritten graph')
    parser.add_argument('--run', metavar='FILE', help='executes a saved graph instead')
    parser.add_argument('--architecture', default='7.0',
                        help="the GPU's compute capability (default: 7.0, a V100)")
    args = parser.parse_args()
    if args.dilation < 2:
        parser.error('--dilation %d is no dilation' % args.dilation)
    print('TensorFlow %s' % tf.__version__)
    if args.run:
        verdict = execute(args.run, args.dilation)
    else:
        def optimized(layout_optimizer=True, **graph):
            return optimize(training_graph(args.dilation, **graph), args.architecture,
                            layout_optimizer)

        rewritten = optimized()
        if args.save:
            with open(args.save, 'wb') as f:
                f.write(rewritten.SerializeToString())
        verdict = report('A training step with one GPU', convolutions_of(rewritten))
        report('The same, its results fetched directly', convolutions_of(optimized(fetch='direct')))
        report('A training step, layout optimizer off',
               convolutions_of(optimized(layout_optimizer=False)))
        report('A training step, time on the height (dilations [1, %d, 1, 1])' % args.dilation,
               convolutions_of(optimized(time_axis='H')), 'H')
    if args.expect and verdict != args.expect:
        print('\nexpected %s, saw %s' % (args.expect, verdict), file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
