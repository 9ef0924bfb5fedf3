"""What is told of the processor before it computes."""
import itertools

import pytest
import tensorflow.compat.v1 as tf

import devices


def test_the_speed_of_a_type_is_measured_beside_float32(monkeypatch):
    """With a clock by which every second run, that of the type, takes four times as long."""
    took, calls = itertools.cycle([1.0, 4.0]), []

    def perf_counter():
        calls.append((calls[-1] if calls else 0) + (next(took) if len(calls) % 2 else 0))
        return calls[-1]

    monkeypatch.setattr(devices.time, 'perf_counter', perf_counter)
    speed = devices.convolution_speed.__wrapped__(tf.bfloat16)
    monkeypatch.undo()
    assert speed == 0.25


@pytest.mark.parametrize('speed, dtype, is_told', [
    (0.17, tf.bfloat16, True), (0.5, tf.float16, True), (1.9, tf.bfloat16, False),
    (0.1, tf.float32, False)])
def test_a_type_that_the_processor_is_slow_in_is_told(monkeypatch, speed, dtype, is_told):
    monkeypatch.setattr(devices, 'convolution_speed', lambda _: speed)
    expected = ('note: this processor computes convolutions in %s at %.2g of the speed of float32; '
                '--precision=float32 is faster' % (dtype.name, speed)) if is_told else ''
    assert devices.precision_note(dtype) == expected


def test_bfloat16_is_chosen_where_it_is_fast(monkeypatch):
    for speed, old, chosen in (1.1, False, True), (0.9, False, False), (2, True, False):
        monkeypatch.setattr(devices, 'convolution_speed', lambda _, speed=speed: speed)
        monkeypatch.setattr(devices, 'is_tensorflow_1', lambda old=old: old)
        assert devices.is_bfloat16_fast() == chosen
