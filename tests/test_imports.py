"""Who may import whom: the rules of docs/architecture.md, over the imports of every module."""
import ast
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

COMMANDS = {'preprocess_data', 'train', 'inference', 'evaluate', 'convert', 'export', 'app'}
WINGS = 'flows', 'datasets', 'training', 'synthesis', 'interop', 'metrics', 'playground', 'vocoding'
# {module or wing: what it may import of this repository, at most}
ALLOWED = {'errors': set(), 'files': {'errors'}, 'ops': {'errors'},
           # what a mel is has to be said where hyperparameters are, and stands by what computes it
           'params': {'errors', 'files', 'datasets.mel_definition', 'datasets.field_values'},
           'datasets.mel_definition': {'errors'}, 'datasets.field_values': {'errors'},
           'streaming': {'ops', 'params'}, 'flows.filters': {'ops', 'params'},
           'flows.grouping': {'ops', 'params'},
           'flows.conditions': {'ops', 'params', 'flows.grouping'},
           'glow': {'errors', 'params', 'ops', 'streaming', 'flows.filters', 'flows.grouping',
                    'flows.conditions'}}
# {module or wing: what it must not import}
FORBIDDEN = {'datasets': {'training', 'glow', 'vocoder', 'vocoding'},
             'interop': {'training', 'datasets'},
             'synthesis': {'training', 'vocoder', 'playground'}, 'playground': {'training'},
             'metrics': {'playground'},
             'vocoding': {'training', 'metrics', 'interop', 'playground'}, 'utils': set(WINGS),
             'vocoder': {'training', 'interop', 'metrics', 'playground', 'vocoding'}}


def imports():
    """{module: the modules of this repository that it imports, wherever in its code}."""
    paths = list(pathlib.Path(ROOT).glob('*.py'))
    for folder in WINGS + ('bench', 'command_line', 'recipes'):
        paths += pathlib.Path(ROOT, folder).glob('*.py')
    names = {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path for path in paths
             if path.name != '__init__.py'}
    names['command_line'] = pathlib.Path(ROOT, 'command_line', '__init__.py')
    found = {}
    for name, path in names.items():
        used = set()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                used.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                used.add(node.module)
                used.update('%s.%s' % (node.module, alias.name) for alias in node.names)
        found[name] = used & set(names)
    return found


IMPORTS = imports()


def within(whole, module):
    return module == whole or module.startswith(whole + '.')


def test_the_top_level_is_small():
    assert len(list(pathlib.Path(ROOT).glob('*.py'))) <= 16
    assert COMMANDS <= set(IMPORTS)


def test_no_module_imports_what_lies_above_it():
    top = {name for name in IMPORTS if name.startswith(('bench.', 'recipes.'))}
    for module, used in IMPORTS.items():
        assert module in top or not used & (top | COMMANDS), module
        assert used <= ALLOWED.get(module, used), module
        for whole, forbidden in FORBIDDEN.items():
            if within(whole, module):
                wrong = {name for name in used if any(within(each, name) for each in forbidden)}
                assert not wrong, (module, wrong)


def test_a_vocoder_knows_mels_and_no_other_data():
    assert {name for name in IMPORTS['vocoder'] if within('datasets', name)} == {
        'datasets.mel_conversion', 'datasets.mel_definition'}


def test_no_circle():
    left = dict(IMPORTS)
    while left:
        leaves = [module for module, used in left.items() if not used & set(left)]
        assert leaves, 'each of these imports another of them: %s' % sorted(left)
        for module in leaves:
            del left[module]


@pytest.mark.slow
@pytest.mark.parametrize('module, absent', [
    ('vocoder', ['training', 'interop', 'soundfile', 'soxr']),
    ('datasets.shards', ['interop', 'training', 'glow']),
    ('inference', ['librosa', 'numba'])])           # they compile at first use
def test_a_fresh_process_loads_no_more_than_it_uses(module, absent):
    code = 'import sys, %s; print([name for name in sys.modules if name.startswith(%r)])' % (
        module, tuple(absent))
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True)
    assert done.stdout.splitlines()[-1:] == ['[]'], done.stdout + done.stderr
