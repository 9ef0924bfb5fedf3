import glob
import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')  # the numbers below are a CPU's

# requirements-test.txt asks for PyTorch from Python 3.10 on: there its absence is an error.
collect_ignore_glob = []
if sys.version_info < (3, 10) and importlib.util.find_spec('torch') is None:
    collect_ignore_glob.append('*_pytorch.py')


def pytest_terminal_summary(terminalreporter):
    """Says what was left out; here, because the report's header is not shown with -q."""
    if collect_ignore_glob:
        names = glob.glob(os.path.join(os.path.dirname(__file__), collect_ignore_glob[0]))
        terminalreporter.write_line('NOT TESTED here, for want of PyTorch: '
                                    + ', '.join(sorted(os.path.basename(n) for n in names)))
