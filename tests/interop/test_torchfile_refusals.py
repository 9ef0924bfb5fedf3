"""torchfile.py refuses, in one sentence and in little memory, what refused_*.py write."""
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from refused_containers import CASES  # and those of refused_pickles.py

from errors import UserError
from interop import torchfile


def refused(path):
    """The sentence with which a file is refused, loaded and used as a module."""
    with pytest.raises(UserError) as error:
        torchfile.state_dict(torchfile.load(path))
    sentence = str(error.value)
    assert sentence.startswith(path + ': ') and '\n' not in sentence and '; ' in sentence
    assert len(sentence) < len(path) + 250
    return sentence


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * name.startswith(('deep_', 'many_')))
    for name in sorted(CASES)])
def test_refused(tmp_path, name):
    write, words = CASES[name]
    path = str(tmp_path / 'x.pt')
    write(path)
    assert words in refused(path)
    assert sorted(os.listdir(str(tmp_path))) in ([], ['x.pt'])      # and not x.pt.ran


# Prints {path: what loading it raised} of the paths it is given.
CONFINED = '''
import json, resource, sys
from interop import torchfile
with open('/proc/self/statm') as f:
    taken = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30),) * 2)
raised = {}
for path in sys.argv[1:]:
    try:
        torchfile.state_dict(torchfile.load(path))
    except BaseException as error:
        raised[path] = [type(error).__name__, str(error)]
json.dump(raised, sys.stdout)
assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules
'''


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits memory as Linux does')
def test_all_of_it_within_a_gigabyte_and_two_minutes(tmp_path):
    paths = {str(tmp_path / name): words for name, (_, words) in CASES.items()}
    for path in paths:
        CASES[os.path.basename(path)][0](path)
    done = subprocess.run([sys.executable, '-c', CONFINED] + sorted(paths), cwd=ROOT, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.returncode, done.stderr) == (0, '')
    raised = json.loads(done.stdout)
    for path, words in paths.items():
        kind, sentence = raised[path]
        assert kind == 'UserError' and words in sentence, sentence
