import glob
import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['PYTHONPATH'] = ROOT        # of the processes that tests start
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')  # the numbers below are a CPU's

# requirements-test.txt asks for these from Python 3.10 on: there their absence is an error.
LEFT_OUT = {pattern: package for pattern, package in (('*_pytorch.py', 'torch'),
                                                      ('*_onnx.py', 'tf2onnx'),
                                                      ('*_metrics.py', 'pesq'),
                                                      ('*_evaluate.py', 'pesq'),
                                                      ('*_beam.py', 'apache_beam'))
            if sys.version_info < (3, 10) and importlib.util.find_spec(package) is None}
collect_ignore_glob = list(LEFT_OUT)


def pytest_terminal_summary(terminalreporter):
    """Says what was left out; here, because the report's header is not shown with -q."""
    for pattern, package in LEFT_OUT.items():
        names = glob.glob(os.path.join(os.path.dirname(__file__), '**', pattern), recursive=True)
        terminalreporter.write_line('NOT TESTED here, for want of %s: ' % package
                                    + ', '.join(sorted(os.path.basename(n) for n in names)))
