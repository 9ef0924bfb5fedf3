"""What surrounds the training loop: options, signals, events."""
import os
import signal

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from training import events
from training.hosts import Hosts
from training.options import TrainingOptions
from training.signals import StopSignals


@pytest.mark.parametrize('changes, count, name', [
    ({}, 1, 'towers'),
    ({'num_towers': 2}, 2, 'towers'),
    ({'num_towers': 2, 'accumulate': 3}, 6, 'parts'),
    ({'num_towers': 2, 'accumulate': 3, 'hosts': Hosts(('a:1', 'b:1'))}, 12, 'parts of 2 hosts')])
def test_a_batch_is_split_over_towers_parts_and_hosts(changes, count, name):
    options = TrainingOptions(run_dir='run', **changes)
    assert (options.batch_parts, options.batch_parts_name) == (count, name)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_remembered_and_the_second_interrupts(number):
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_events_are_read_as_they_were_written(tmp_path):
    audio = np.linspace(-1, 1, 100)
    with tf.Graph().as_default(), events.Events(str(tmp_path), 3) as written:
        written.scalars({'a': 1.5, 'b': -2.0}, 4)
        written.scalars({'a': 2.5}, 5)
        written.audio('c', audio, 16000, 5)
    found = events.read(str(tmp_path))
    assert [(step, value.simple_value) for step, value in found['a']] == [(4, 1.5), (5, 2.5)]
    assert [(step, value.simple_value) for step, value in found['b']] == [(4, -2.0)]
    (step, value), = found['c']
    assert step == 5 and isinstance(value, tf.Summary.Value)
    assert (value.audio.sample_rate, value.audio.length_frames) == (16000, 100)
    assert value.audio.encoded_audio_string.startswith(b'RIFF')
