"""What is told of the processor before it computes."""
import pytest
import tensorflow.compat.v1 as tf

import devices


def test_the_speed_of_a_type_is_measured_beside_float32():
    assert devices.convolution_speed(tf.float32) == 1
    assert 0 < devices.convolution_speed(tf.bfloat16) < 100


@pytest.mark.parametrize('speed, dtype, is_told', [
    (0.17, tf.bfloat16, True), (0.5, tf.float16, True), (1.9, tf.bfloat16, False),
    (0.1, tf.float32, False)])
def test_a_type_that_the_processor_is_slow_in_is_told(monkeypatch, speed, dtype, is_told):
    monkeypatch.setattr(devices, 'convolution_speed', lambda _: speed)
    expected = ('note: this processor computes convolutions in %s at %.2g of the speed of float32; '
                '--precision=float32 is faster' % (dtype.name, speed)) if is_told else ''
    assert devices.precision_note(dtype) == expected


def test_bfloat16_is_chosen_where_it_is_fast(monkeypatch):
    for speed, old, chosen in (0.9, False, True), (0.7, False, False), (2, True, False):
        monkeypatch.setattr(devices, 'convolution_speed', lambda _, speed=speed: speed)
        monkeypatch.setattr(devices, 'is_tensorflow_1', lambda old=old: old)
        assert devices.is_bfloat16_fast() == chosen
