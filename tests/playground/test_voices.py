"""The models that a page offers: names of runs and checkpoints, and what is loaded of them."""
import os

import pytest
from graphs import TINY

import params
import utils
from errors import UserError
from playground import voices
from playground.voices import BUNDLED, Voices


def write_run(folder, steps):
    """What tells a run from another folder: checkpoints of these steps, without content."""
    folder.mkdir(parents=True)
    params.save(str(folder), TINY)
    for step in steps:
        (folder / ('model.ckpt-%d.index' % step)).write_bytes(b'')
    return str(folder)


def test_runs_and_checkpoints_have_names(tmp_path):
    first = write_run(tmp_path / 'runs' / 'a', (3, 20))
    write_run(tmp_path / 'runs' / 'a' / 'best', (3,))
    second = write_run(tmp_path / 'runs' / 'b', (7,))
    (tmp_path / 'runs' / 'notes').mkdir()
    found = Voices([utils.BUNDLED_MODEL, str(tmp_path / 'runs')])
    assert found.runs == [BUNDLED, first, second]
    assert found.checkpoints(first) == ['newest', 'best', 'step 20', 'step 3']
    assert found.checkpoints(second) == ['newest']
    assert found.hparams(first, 'step 3') == TINY
    one = Voices([os.path.join(first, 'model.ckpt-3')])
    assert one.checkpoints(one.runs[0]) == ['model.ckpt-3']
    assert one.hparams(one.runs[0], 'model.ckpt-3') == TINY


def test_the_vocoders_used_last_stay_loaded(tmp_path, monkeypatch):
    run, closed = write_run(tmp_path / 'a', (1, 2, 3)), []

    class Loaded:
        def __init__(self, path):
            self.step = int(path[-1])

        def close(self):
            closed.append(self.step)

    monkeypatch.setattr(voices, '_load', Loaded)
    monkeypatch.setattr(voices, 'LOADED', 2)
    found = Voices([run])
    newest = found.vocoder(run, 'newest')
    assert newest.step == 3 and found.vocoder(run, 'step 3') is newest
    second = found.vocoder(run, 'step 2')
    found.vocoder(run, 'step 3')
    found.vocoder(run, 'step 1')            # for which the second has to go
    assert closed == [2]
    assert found.vocoder(run, 'step 3') is newest
    assert found.vocoder(run, 'step 2') is not second and closed == [2, 1]
    os.utime(os.path.join(run, 'model.ckpt-3.index'), (1, 1))       # another training's
    assert found.vocoder(run, 'step 3') is not newest


def test_refusals(tmp_path):
    run = write_run(tmp_path / 'a', (3, 20))
    (tmp_path / 'nothing').mkdir()
    with pytest.raises(UserError, match='there is no checkpoint in .*; give a run'):
        Voices([str(tmp_path / 'nothing')])
    with pytest.raises(UserError, match='there is no run ../../etc; there are'):
        Voices([run]).checkpoints('../../etc')
    with pytest.raises(UserError, match="has no checkpoint step 2; did you mean 'step 20'"):
        Voices([run]).vocoder(run, 'step 2')
