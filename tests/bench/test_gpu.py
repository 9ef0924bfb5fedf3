"""bench.gpu, in its small setting: that it runs through, and that what it checks is right here."""
import json
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT

from bench import gpu, gpu_sections


def first_row(section):
    return next(gpu_sections.SECTIONS[section](gpu_sections.SMALL))


@pytest.mark.slow
@pytest.mark.parametrize('section', ['batch', 'training', 'stream'])
def test_a_row(section):
    row = first_row(section)
    assert row['preset'] == 'small' and row['precision'] == 'float32'
    assert row['audio_seconds_a_second' if section == 'training' else 'khz'] > 0


@pytest.mark.slow
def test_more_bits_have_smaller_errors():
    rows = {row['precision']: row for row in gpu_sections.accuracy(gpu_sections.SMALL)}
    for what in 'gradients', 'inverse':
        assert 0 < rows['float32'][what] < 1e-5
        assert 10 * rows['float32'][what] < rows['float16'][what] < 5e-3
        if not tf.__version__.startswith('1.'):
            assert 2 * rows['float16'][what] < rows['bfloat16'][what] < 5e-2
    assert rows['float32']['loss'] < 1e-6


@pytest.mark.slow
def test_the_command(tmp_path):
    """A section that ends well, one that fails, and one for which no time is left."""
    path = tmp_path / 'gpu.json'
    done = subprocess.run(
        [sys.executable, '-m', 'bench.gpu', '--small', '--sections', 'convolution', 'nvidia_code',
         '--code=nowhere/glow.py', '--json=%s' % path],
        cwd=ROOT, stdout=subprocess.PIPE, universal_newlines=True, check=True)
    found = json.loads(path.read_text())
    assert {row['form']: row['result'] for row in found['sections']['convolution']}[
        'per_direction'] == 'right'
    assert found['sections']['nvidia_code'] == []
    assert 'ended with status 1, see ' in found['left_out']['nvidia_code']
    assert 'Error' in (tmp_path / 'gpu.log').read_text()
    assert found['machine']['device'] == 'no GPU' and 'time_to_batch  ' in done.stdout
    assert done.stdout.endswith('docs/gpu.md tells how to report it\n')


def test_no_time_is_left(tmp_path, capsys):
    found = {'sections': {}, 'left_out': {}}
    gpu.run_section('batch', None, 1.0, found)
    assert found == {'sections': {'batch': []}, 'left_out': {'batch': 'no time was left'}}


def test_all_sections_are_there():
    assert set(gpu.SECTIONS) == set(gpu_sections.SECTIONS)
