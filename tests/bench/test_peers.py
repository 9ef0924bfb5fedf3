import json
import os
import sys

import pytest
from conftest import ROOT

from bench import bench_peers, turns
from errors import UserError

SIDE = '''
import sys
for turn, _ in enumerate(sys.stdin):
    print(10 * turn + len(sys.argv[2]) + float(sys.argv[3]), flush=True)
'''


def test_sides_take_turns(tmp_path, monkeypatch):
    (tmp_path / 'side_of_a_test.py').write_text(SIDE)
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([ROOT, str(tmp_path)]))
    found = turns.take_turns('side_of_a_test', ['four', 'one'], ['0.5'], 3)
    # the first turn is left out
    assert found == {'four': [14.5, 24.5, 34.5], 'one': [13.5, 23.5, 33.5]}


def test_a_side_tells_the_seconds_of_every_turn(monkeypatch, capsys):
    clock, runs = iter([5.0, 5.25, 7.0, 9.0]), []
    monkeypatch.setattr(turns.time, 'time', lambda: next(clock))
    monkeypatch.setattr(sys, 'stdin', ['go', 'go'])
    turns.serve(lambda: runs.append(1))
    assert capsys.readouterr().out == '0.25\n2.0\n' and len(runs) == 2


MODELS = '''
import torch
from utils import scale         # not the utils of the project

class Generator(torch.nn.Module):
    def __init__(self, h):
        super().__init__()
        self.hop = h.hop_size

    def remove_weight_norm(self):
        print('said where figures are read')

    def forward(self, mels):
        return scale * mels.mean(1).repeat_interleave(self.hop, -1)
'''


def test_a_clone_of_hifi_gan_is_run(tmp_path, capsys, monkeypatch):
    pytest.importorskip('torch')
    (tmp_path / 'models.py').write_text(MODELS)
    (tmp_path / 'utils.py').write_text('scale = 3.0\n')
    (tmp_path / 'config_v2.json').write_text(json.dumps(
        dict(sampling_rate=22050, hop_size=256, num_mels=80)))
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setitem(sys.modules, 'utils', sys.modules['utils'])     # which is put back
    monkeypatch.delitem(sys.modules, 'models', raising=False)
    audio = bench_peers.hifi_gan(str(tmp_path), 'config_v2.json', 2.0)()
    assert audio.shape == (1, 172 * 256) and 1 < audio.mean() < 2
    assert not capsys.readouterr().out


def test_a_folder_that_is_no_clone_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_peers, 'missing', lambda packages: 'torch' not in packages)
    monkeypatch.setattr(sys, 'argv', ['bench_peers.py', '--hifi_gan', str(tmp_path)])
    with pytest.raises(UserError, match='has no config_v1.json'):
        bench_peers.main()


def test_what_is_not_at_hand_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench_peers, 'missing', lambda packages: True)
    monkeypatch.setattr(turns, 'take_turns', lambda module, sides, arguments, rounds:
                        {side: [2.0 + len(side), 4.0] for side in sides})
    monkeypatch.setattr(sys, 'argv', ['bench_peers.py', '--json', str(tmp_path / 'peers.json')])
    assert bench_peers.main() == 0
    out = capsys.readouterr().out
    assert 'ONNX Runtime is left out' in out and 'HiFi-GAN is left out' in out
    rows = json.loads((tmp_path / 'peers.json').read_text())['rows']
    assert [row['system'] for row in rows] == ['Vocoder', 'flow alone']
    assert rows[0]['real_time_factor'] == 6.5 / 5 and rows[1]['ratio'] == (12 / 9 + 1) / 2
