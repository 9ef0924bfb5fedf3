"""Devices to compute on, and sessions in which they exist."""
import functools
import os
import time

import numpy as np
import tensorflow.compat.v1 as tf
import threadpoolctl

from errors import UserError

SLOW_SPEED = 0.8    # over that of float32: up to here a type is called slow


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.experimental.list_physical_devices('GPU'))


def is_tensorflow_1() -> bool:
    return tf.__version__.startswith('1.')


def allow_tf32(allowed: bool) -> None:
    """Lets this process multiply float32 with 10 bits of mantissa, on GPUs since Ampere, or not.

    TensorFlow 2 does by default. docs/gpu.md has the errors.
    """
    if not is_tensorflow_1():
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def available_threads() -> int:
    """How many threads TensorFlow and NumPy compute with here, unless told: one for each core."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.lru_cache(maxsize=None)
def convolution_speed(dtype: tf.DType) -> float:
    """How many times as fast as in float32 the CPU computes convolutions and gradients in a type.

    A processor that cannot multiply a type of 16 bits takes many times as long for it. Measured
    once in a process.
    """
    with tf.Graph().as_default(), tf.device('/device:CPU:0'):
        timed, shapes = {}, ([1, 32, 32, 32], [3, 3, 32, 32])
        feeds = {tf.placeholder(tf.float32, shape): np.ones(shape, np.float32) for shape in shapes}
        for each in (tf.float32, dtype):
            x, filters = (tf.cast(value, each) for value in feeds)
            y = tf.nn.conv2d(x, filters, strides=[1, 1, 1, 1], padding='SAME')
            timed[each] = tf.group(y, *tf.gradients(y, [x, filters]))
        seconds = {each: float('inf') for each in timed}
        with tf.Session(config=session_config()) as session:
            for _ in range(12):     # by turns; the first prepares
                for each, op in timed.items():
                    started = time.perf_counter()
                    session.run(op, feeds)
                    seconds[each] = min(seconds[each], time.perf_counter() - started)
    return seconds[tf.float32] / seconds[dtype]


def is_bfloat16_fast() -> bool:
    """Whether bfloat16 is there and faster than float32. It is taken to be so on a GPU."""
    return not is_tensorflow_1() and (has_gpu() or convolution_speed(tf.bfloat16) > 1)


def precision_note(dtype: tf.DType) -> str:
    """A sentence for those who compute in a type that this CPU is slow in; '' if it is not.

    Only CPUs are judged.
    """
    if has_gpu() or dtype == tf.float32:
        return ''
    speed = convolution_speed(dtype)
    return '' if speed > SLOW_SPEED else (
        'note: this processor computes convolutions in %s at %.2g of the speed of float32; '
        '--precision=float32 is faster' % (dtype.name, speed))


def limit_threads(count: int) -> None:
    """Lets TensorFlow and NumPy compute with so many threads in this process.

    `Vocoder.vocode` takes one more, which corrects audio while TensorFlow computes.
    To be called before the first session. Another number of threads adds up in another order, and
    so gives other last bits.
    """
    os.environ['TF_NUM_INTRAOP_THREADS'] = str(count)
    threadpoolctl.threadpool_limits(count)


def tower_devices(count):
    """Names of `count` devices to train on: GPUs where there are any, else CPU devices.

    A machine without GPUs trains the same on as many virtual CPU devices: `session_config`.
    Raises UserError if there are GPUs, but fewer.
    """
    gpus = tf.config.experimental.list_physical_devices('GPU')
    if not gpus and tf.test.is_built_with_cuda() and not os.environ.get('CUDA_VISIBLE_DEVICES'):
        print('this TensorFlow is built for GPUs and sees none; training on the CPU')
    if gpus and count > len(gpus):
        raise UserError('--ngpu %d, but TensorFlow sees %d here' % (count, len(gpus)))
    return ['/device:%s:%d' % ('GPU' if gpus else 'CPU', i) for i in range(count)]


def session_config(count=1):
    """The tf.ConfigProto with which `tower_devices(count)` exist.

    Without a GPU the graph optimizer is off: for preset `small` it takes 4 to 7 seconds at every
    new kind of session.run, against 1.5, and makes a step no faster (measured on two cores).
    """
    config = tf.ConfigProto(allow_soft_placement=True, device_count={'CPU': count})
    config.gpu_options.allow_growth = True
    if not has_gpu():
        config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config
