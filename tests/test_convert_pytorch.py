"""What export_nvidia writes, as PyTorch reads it."""
import sys

import numpy as np
import nvidia_reference as reference
import torch

import convert


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
