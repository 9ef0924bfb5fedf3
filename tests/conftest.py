import ctypes
import gc
import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

import command_line

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
command_line.prepare_tensorflow_import()
os.environ['PYTHONPATH'] = ROOT        # of the processes that tests start
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')  # the numbers below are a CPU's

# requirements-test.txt asks for these from Python 3.10 on: there their absence is an error.
NEEDS = {'torch': ['test_convert_pytorch.py', 'interop/test_torchfile_pytorch.py'],
         'tf2onnx': ['test_export_onnx.py'],
         'pesq': ['metrics/test_measures.py', 'test_evaluate.py', 'bench/test_bench_exports.py'],
         'nbclient': ['test_tour.py'],
         'hibari': ['test_text_to_speech.py'],
         'gradio': ['playground/test_page.py'],
         'selenium': ['playground/test_page.py', 'metrics/test_sample_page.py'],
         'apache_beam': ['datasets/test_beam.py', 'vocoding/test_pipeline.py']}
OF_RECIPES = 'hibari',      # these may be absent everywhere
LEFT_OUT = {package: paths for package, paths in NEEDS.items()
            if (sys.version_info < (3, 10) or package in OF_RECIPES)
            and importlib.util.find_spec(package) is None}
collect_ignore = sum(LEFT_OUT.values(), [])
# No package brings these: Debian's packages chromium and chromium-driver do.
HAS_CHROMIUM = shutil.which('chromedriver') is not None


def pytest_terminal_summary(terminalreporter):
    """Says what was left out; here, because the report's header is not shown with -q."""
    for package, paths in LEFT_OUT.items():
        terminalreporter.write_line('NOT TESTED here, for want of %s: %s'
                                    % (package, ', '.join(paths)))
    if not HAS_CHROMIUM and 'gradio' not in LEFT_OUT:
        terminalreporter.write_line('NOT TESTED here, for want of Chromium and its chromedriver: '
                                    'the page of app.py and samples/index.html in a browser')


def pytest_collection_finish():
    """What is imported by now stays: garbage collections need not look at it each time."""
    gc.collect()
    gc.freeze()
    gc.enable()     # which `prepare_tensorflow_import` turned off


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs a test that is marked `own_process` in one: what TensorFlow keeps of it goes with it."""
    if pyfuncitem.get_closest_marker('own_process') is None or 'OWN_PROCESS' in os.environ:
        return None
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', pyfuncitem.nodeid],
        cwd=str(pyfuncitem.config.rootdir), env=dict(os.environ, OWN_PROCESS='1'),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert done.returncode == 0, done.stdout
    return True


GROWTH = 256 << 20           # bytes of memory after which `_free_memory` looks for garbage
_malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)      # glibc's
_kept = 0                   # bytes of memory after it did so the last time


def _resident():
    """Bytes of this process's memory."""
    with open('/proc/self/statm') as f:
        return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture(autouse=True)
def _free_memory():
    """Frees a test's graphs and sessions, which refer to themselves, and what malloc keeps."""
    global _kept
    yield
    if not os.path.exists('/proc/self/statm') or _resident() < _kept + GROWTH:
        return
    gc.collect()
    if _malloc_trim:
        _malloc_trim(0)
    _kept = _resident()
