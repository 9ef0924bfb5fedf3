"""The pages for readers: their links, and the commands, flags, files and names in them, exist."""
import functools
import glob
import os
import re
import shlex

import pytest
from conftest import ROOT

PAGES = sorted(['README.md', 'CONTRIBUTING.md', 'samples/README.md'] + [
    os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, 'docs', '*.md'))])
MAX_README = 7000       # characters
SUFFIXES = 'py', 'json', 'scp'     # of files that bear a module's name
# flags of Apache Beam, which preprocess_data.py passes on
BEAM = {'--project', '--region', '--temp_location', '--sdk_container_image', '--direct_num_workers',
        '--direct_running_mode', '--flink_master', '--environment_type'}
FIREWALL = {'--dport'}       # of iptables
# of TensorFlow Serving
SERVING = {'--enable_batching', '--batching_parameters_file', '--tensorflow_intra_op_parallelism',
           '--rest_api_port', '--model_name', '--model_base_path', '--rest_api_timeout_in_ms'}
# of a user's data, of a LiteRT file, and of NVIDIA's repository
ELSEWHERE = ('params.json', 'converted/params.json', 'block.json', 'waveglow/glow.py',
             'config.json', 'vocoded.json')


@functools.lru_cache(None)
def read(path):
    with open(os.path.join(ROOT, path), encoding='utf-8') as f:
        return f.read()


def exists(path):
    return os.path.exists(os.path.join(ROOT, path))


def code_blocks(page):
    return re.findall(r'^```\w*\n(.*?)^```', page, re.MULTILINE | re.DOTALL) + [
        re.sub('^    ', '', block, flags=re.MULTILINE)
        for block in re.findall(r'(?:^    \S.*\n)+', page, re.MULTILINE)]


def code_spans(page):
    prose = re.sub(r'^```.*?^```', '', page, flags=re.MULTILINE | re.DOTALL)
    return [' '.join(span.split()) for span in re.findall('`([^`]+)`', prose)]


def commands(page):
    """[[word]] of the commands in a page that begin with python, python3 or sbatch."""
    text = re.sub(r'\\\n\s*', ' ', '\n'.join(code_blocks(page) + code_spans(page)))
    lines = [re.sub(r'^(time |([A-Z]+=\d+ )+)', '', line.strip()) for line in text.split('\n')]
    return [shlex.split(line, comments=True) for line in lines
            if re.match(r'(python3?|sbatch|venv\w+/bin/python) ', line)]


@functools.lru_cache(None)
def flags(path):
    """The flags that a Python file adds to its parser; of '--' + name, any quoted name."""
    code = read(path)
    found = set(re.findall(r"add_argument\(\s*'(--\w+)'", code))
    if re.search(r"add_argument\(\s*'--' \+", code):
        found |= {'--' + name for name in re.findall(r"'(\w+)'", code)}
    return found


def module_file(name):
    """The file of a module in dotted form, or None."""
    path = name.replace('.', '/') + '.py'
    return path if exists(path) else None


def target(words):
    """(file, its arguments) of a command, or None for programs that are not ours."""
    arguments = words[1:]
    if arguments[:1] == ['-m']:
        if arguments[1] in ('venv', 'pip', 'pytest'):
            return None
        path = module_file(arguments[1])
        assert path, 'there is no module %s' % arguments[1]
        return path, arguments[2:]
    assert exists(arguments[0]), 'there is no %s' % arguments[0]
    return arguments[0], arguments[1:]


def known_flags(path):
    """Those of a script and of the modules of ours that it imports."""
    if path.endswith('.sh'):
        return known_flags('train.py')
    imported = re.findall(r'^(?:import|from) ([\w.]+)(?: import (\w+))?', read(path), re.MULTILINE)
    files = {module_file(name) for module, member in imported
             for name in (module, module + '.' + member, module + '.__init__')}
    return set().union(*map(flags, {path} | files - {None})) | {'--help'}


def test_the_first_page_is_short():
    assert len(read('README.md')) <= MAX_README


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\(([^)\s]+)\)', read(page))
    missing = [link for link in links if not re.match(r'https?://|#', link)
               and not exists(os.path.join(os.path.dirname(page), link.split('#')[0]))]
    assert not missing


@pytest.mark.parametrize('page', PAGES)
def test_commands_exist_and_take_their_flags(page):
    for words in commands(read(page)):
        found = target(words)
        if found is None:
            continue
        path, arguments = found
        given = {word.split('=')[0] for word in arguments if word.startswith('--')}
        unknown = given - known_flags(path) - BEAM
        assert not unknown, '%s takes no %s' % (path, ', '.join(sorted(unknown)))


@pytest.mark.parametrize('page', PAGES)
def test_flags_and_names_in_the_text_exist(page):
    scripts = [os.path.relpath(path, ROOT) for folder in ('', 'bench', 'recipes', 'docs/nhwc')
               for path in glob.glob(os.path.join(ROOT, folder, '*.py'))]
    all_flags = set().union(*map(flags, scripts)) | BEAM | FIREWALL | SERVING
    for span in code_spans(read(page)):
        unknown = set(re.findall(r'(?:^|\s)(--\w+)', span)) - all_flags
        assert not unknown, span
        for path in re.findall(r'(?:^|\s)([\w/]+\.(?:py|json|sh|yaml))(?:$|\s)', span):
            assert exists(path) or exists('samples/' + path) or path in ELSEWHERE, span
        module, _, name = span.split('(')[0].rpartition('.')
        if name.isidentifier() and module_file(module) and name not in SUFFIXES:
            assert re.search(r'\b(def|class) %s\b|^ *%s *[:=]' % (name, name),
                             read(module_file(module)), re.MULTILINE), span


def test_the_map_has_every_module():
    """docs/architecture.md names each file of the library and of the commands."""
    page = read('docs/architecture.md')
    folders = ('', 'command_line', 'datasets', 'interop', 'metrics', 'playground', 'synthesis',
               'training', 'vocoding')
    modules = [os.path.relpath(path, ROOT) for folder in folders
               for path in glob.glob(os.path.join(ROOT, folder, '*.py'))]
    missing = [path for path in modules if '`%s`' % path not in page
               and os.path.basename(path) != '__init__.py']
    assert not missing, 'add them to the map in docs/architecture.md'
