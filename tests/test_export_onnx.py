"""export.py to ONNX, run by onnxruntime."""
import numpy as np
import onnxruntime
import pytest
from graphs import HOPS, TINY, VOCODING, random_weights
from test_export import FRAMES, mel_of, write_run

import export
import params
from errors import UserError
from vocoder import Vocoder, noise

pytestmark = pytest.mark.slow

# And at hops that n_group does not divide.
MODELS = dict(VOCODING, **{
    'hop_275': dict(HOPS[275], n_flows=2, gen_correction_rounds=1),
    'hop_441': dict(HOPS[441], n_flows=2)})


@pytest.mark.parametrize('name', sorted(MODELS))
def test_onnxruntime_computes_the_vocoders_audio(name, tmp_path):
    hp = TINY.replace(**MODELS[name])
    weights = random_weights(hp)
    run, path = write_run(tmp_path / 'run', hp, weights), str(tmp_path / 'model.onnx')
    if hp.encoder == 'blstm':
        with pytest.raises(UserError, match='export a SavedModel'):
            export.export_onnx(run, path)
        return
    export.export_onnx(run, path)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ('mel', ['batch', 'frames', hp.n_mels]), ('noise', ['batch', 'steps', hp.n_group])]
    stored = session.get_modelmeta().custom_metadata_map['params.json']
    assert params.from_json(stored, 'the metadata') == hp
    vocoder = Vocoder(hp, weights)
    for frames in (FRAMES, 1):
        mel, z = mel_of(hp, 2)[:, :frames], noise(frames, hp, 0.5, 3)
        found, = session.run(['audio'], {'mel': mel, 'noise': np.stack([z, z])})
        assert found.shape == (2, frames * hp.hop_length)
        for row, each in zip(found, mel):
            expected = vocoder.vocode(each, sigma=0.5, seed=3)
            assert np.abs(row - expected).max() < 1e-4 * np.abs(expected).max()


def test_what_passes_the_bounds_of_a_file_is_refused(monkeypatch):
    weights = random_weights(TINY)
    monkeypatch.setattr(export, 'MAX_GRAPH_BYTES', 10 ** 4)
    with pytest.raises(UserError, match='export a SavedModel'):
        export.onnx_model(TINY, weights)
