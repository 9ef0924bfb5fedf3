"""Tables of the benches: what they print, and the machine that their JSON names."""
import json

import tensorflow.compat.v1 as tf

from bench import table


def test_rows_are_printed_and_written_with_the_machine(tmp_path, capsys):
    path = tmp_path / 'table.json'
    rows = [{'preset': 'small', 'seconds': 0.25, 'unshown': 1}, {'preset': 'nvidia', 'seconds': 5}]
    table.write_table(('preset', 'seconds'), iter(rows), str(path))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ['preset', 'seconds'], ['small', '0.250'], ['nvidia', '5']]
    written = json.loads(path.read_text())
    assert written['rows'] == rows
    machine = written['machine']
    assert machine['processor'] and machine['cores'] >= 1
    assert machine['tensorflow'] == tf.__version__
    assert machine['commit'] is None or len(machine['commit'].replace('-dirty', '')) >= 12


def test_commit_outside_of_a_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(table.files, 'ROOT', str(tmp_path))
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert table.commit() is None
