"""What export_nvidia writes, as PyTorch reads it."""
import json
import sys

import numpy as np
import nvidia_reference as reference
import pytest
import torch

import convert
from vocoder import Vocoder


def test_there_and_back_as_a_file(monkeypatch, tmp_path):
    sizes = dict(units=8, layers=3, n_flows=4, n_group=8, every=2)
    state = reference.state(np.random.RandomState(1), **sizes)
    for k in range(4):  # without reflections, which the export takes away
        w = state['convinv.%d.conv.weight' % k]
        w[0] *= np.sign(np.linalg.det(w[:, :, 0]))
    there, model, back = (str(tmp_path / name) for name in ('there.pt', 'model', 'back.pt'))
    torch.save({'state_dict': {key: torch.from_numpy(value) for key, value in state.items()}},
               there)
    for arguments in (['nvidia', there, '--out_dir', model], ['export_nvidia', model, back]):
        monkeypatch.setattr(sys, 'argv', ['convert.py'] + arguments)
        assert convert.main() == 0
    stored = torch.load(back, weights_only=True)
    assert set(stored['state_dict']) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(stored['state_dict'][key].numpy(), value, key)
    assert stored['config'] == {
        'n_mel_channels': 80, 'n_flows': 4, 'n_group': 8, 'n_early_every': 2, 'n_early_size': 2,
        'WN_config': {'n_layers': 3, 'n_channels': 8, 'kernel_size': 3}}


@pytest.mark.slow
def test_another_hop_there_and_back_with_its_config(monkeypatch, tmp_path, capsys):
    """24 kHz, a hop of 300, 100 bands: what config.json states comes back in the new one."""
    monkeypatch.chdir(str(tmp_path))
    state = reference.state(np.random.RandomState(1), units=4, layers=2, n_flows=2, n_group=8,
                            every=2, bands=100, width=1200)
    data = dict(segment_length=16000, sampling_rate=24000, filter_length=2048, hop_length=300,
                win_length=1200, mel_fmin=55.0, mel_fmax=7600.0)
    (tmp_path / 'config.json').write_text(json.dumps({'data_config': data}))
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, 'there.pt')
    for arguments in (['nvidia', 'there.pt', '--config', 'config.json', '--out_dir', 'model'],
                      ['export_nvidia', 'model', 'back.pt', '--config', 'back.json']):
        monkeypatch.setattr(sys, 'argv', ['convert.py'] + arguments)
        assert convert.main() == 0
    assert 'ConvTranspose1d(n_mel_channels, n_mel_channels, 1200, stride=300)' in (
        capsys.readouterr().out)
    back = torch.load('back.pt', weights_only=True)
    stated = json.loads((tmp_path / 'back.json').read_text())
    assert stated == {'data_config': back['data_config'], 'waveglow_config': back['config']}
    assert dict(data, segment_length=None) == dict(back['data_config'], segment_length=None)
    assert back['config']['n_mel_channels'] == 100
    mel = np.random.RandomState(0).randn(100, 5).astype(np.float32) - 5
    model = Vocoder.load('model')
    expected = reference.infer({key: value.numpy() for key, value in back['state_dict'].items()},
                               np.zeros([8, 187]), mel, every=2, hop=300)
    found = model.vocode(mel.T, sigma=0)
    assert found.shape == (1500,) and np.abs(expected).max() > 0.001
    np.testing.assert_allclose(found[:1496], expected, atol=1e-4 * np.abs(expected).max())
