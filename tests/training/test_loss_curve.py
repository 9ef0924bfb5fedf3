import io

import matplotlib.image
import numpy as np
import tensorflow.compat.v1 as tf

from metrics import pictures
from training import loss_curve
from training.events import Events


def test_it_goes_on_where_a_run_is_resumed(monkeypatch, tmp_path):
    """What a killed run had written beyond its last checkpoint is not drawn; the rest is."""
    with tf.Graph().as_default(), Events(str(tmp_path), 0) as written:
        for step, value in ((10, -1.0), (20, -2.0), (30, -9.0)):
            written.scalars({'train/nll': value, 'train/stft': 0, 'train/z': 5}, step)
        written.scalars({'heldout/nll': -1.5}, 20)
    drawn = []
    monkeypatch.setattr(pictures, 'losses_png', lambda panels: drawn.append(panels) or b'PNG')
    curve = loss_curve.LossCurve(str(tmp_path), 20)
    curve.add({'train/nll': -3.0, 'train/stft': 0.0, 'train/z': 7}, 30)
    curve.write()
    assert drawn == [{'negative log-likelihood, nats a sample': {
        'training': {10: -1, 20: -2, 30: -3}, 'held out': {20: -1.5}}}]
    assert (tmp_path / 'losses.png').read_bytes() == b'PNG'
    curve.add({'train/stft': 0.5}, 40)
    curve.write()
    assert drawn[1]['STFT distance of samples']['training'][40] == 0.5
    curve.add({'train/z': 1.0}, 50)     # which is not drawn
    curve.write()
    assert len(drawn) == 2


def test_nothing_is_drawn_of_nothing(tmp_path):
    loss_curve.LossCurve(str(tmp_path), 0).write()
    assert not list(tmp_path.iterdir())


def test_a_cut_event_file_counts_as_far_as_it_goes(tmp_path):
    with tf.Graph().as_default(), Events(str(tmp_path), 0) as written:
        for step in (1, 2, 3):
            written.scalars({'train/nll': -step}, step)
    path, = tmp_path.glob('events*')
    path.write_bytes(path.read_bytes()[:-5])
    curve = loss_curve.LossCurve(str(tmp_path), 9)
    curve.write()
    assert curve._losses['train/nll'] == {1: -1, 2: -2}


def test_the_first_losses_do_not_flatten_the_rest():
    falling = {step: 1000.0 / step - 5 for step in range(1, 101)}
    png = pictures.losses_png({'a': {'training': falling}})
    image = matplotlib.image.imread(io.BytesIO(png))
    assert image.shape[:2] == (256, 640)
    blue = np.argwhere((image[:, :, 2] > 0.6) & (image[:, :, 0] < 0.3))     # the curve
    rows = blue[blue[:, 1] > 0.4 * 640][:, 0]       # of the later half of the steps
    assert rows.max() - rows.min() > 10             # of -4.9 to 995 it would be one pixel
