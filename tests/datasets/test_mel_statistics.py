"""Files of statistics, as other projects write them, become hyperparameters; pickles do not run."""
import os

import numpy as np
import pytest

import params
from datasets import mel_statistics
from errors import UserError

RNG = np.random.RandomState(0)
MEAN, SCALE = RNG.randn(80), 0.5 + RNG.rand(80)
HP = params.override(params.preset('small'), 'mel_profile=coqui')


class Call:
    """What a pickle that runs a command holds."""

    def __reduce__(self):
        return os.system, ('false',)


def save_h5(path):
    h5py = pytest.importorskip('h5py')
    with h5py.File(path, 'w') as f:
        f['mean'], f['scale'] = MEAN.astype('f4'), SCALE.astype('f4')


def coqui(**config):
    return {'mel_mean': MEAN, 'mel_std': SCALE.astype('f4'), 'linear_mean': RNG.randn(513),
            'audio_config': dict(config, sample_rate=22050, mel_fmax=None, do_trim_silence=True)}


FORMS = {
    'stats.h5': save_h5,
    'stats.npy': lambda path: np.save(path, np.stack([MEAN, SCALE])),
    'wide.npy': lambda path: np.save(path, np.stack([MEAN, SCALE]).astype('>f4')),
    'named.npz': lambda path: np.savez(path, mean=MEAN[None], scale=SCALE[None]),
    'espnet.npz': lambda path: np.savez(path, count=1000, sum=1000 * MEAN,
                                        sum_square=1000 * (SCALE ** 2 + MEAN ** 2)),
    'coqui.npy': lambda path: np.save(path, coqui()),
}


@pytest.mark.parametrize('name', sorted(FORMS))
def test_every_form_is_read(name, tmp_path):
    path = str(tmp_path / name)
    FORMS[name](path)
    definition = HP.replace(**mel_statistics.read(path)).mel
    np.testing.assert_allclose(definition.mean, MEAN, rtol=1e-6)
    np.testing.assert_allclose(definition.scale, SCALE, rtol=1e-6)
    # Coqui standardizes decibels; the others what the definition gives
    expected = (20, 0, 0, 0) if name == 'coqui.npy' else (1.6, 2.4, -4, 4)
    assert (definition.gain, definition.offset, definition.clip_min,
            definition.clip_max) == expected


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_a_dictionary_of_any_protocol_is_read(protocol, tmp_path):
    import pickle
    path = str(tmp_path / 'stats.npy')
    held = np.array(coqui(spec_gain=30), object)
    with open(path, 'wb') as f:
        np.lib.format.write_array_header_1_0(f, {'descr': '|O', 'fortran_order': False,
                                                 'shape': ()})
        pickle.dump(held, f, protocol)
    found = mel_statistics.read(path)
    np.testing.assert_array_equal(found['mel_stats_mean'], MEAN)
    assert found['mel_gain'] == 30


@pytest.mark.parametrize('name, save, words', [
    ('attack.npy', lambda path: np.save(path, {'mel_mean': Call()}), 'system'),
    ('list.npy', lambda path: np.save(path, np.array([{}, {}], object)), 'one dictionary'),
    ('other.npy', lambda path: np.save(path, {'a': 1, 'b': 2}), 'it holds a, b'),
    ('three.npy', lambda path: np.save(path, RNG.rand(3, 80)), '3 x 80'),
    ('zero.npy', lambda path: np.save(path, np.zeros((2, 80))), 'not above zero'),
    ('noise.npy', lambda path: open(path, 'wb').write(b'noise' * 100), 'numpy.save'),
    ('noise.npz', lambda path: open(path, 'wb').write(b'noise' * 100), 'cannot be read'),
    ('noise.h5', lambda path: open(path, 'wb').write(b'noise' * 100), 'cannot be read'),
    ('stats.txt', lambda path: None, 'ends in .npy'),
    ('missing.npz', lambda path: None, 'no such file'),
])
def test_what_is_no_statistics_is_refused(name, save, words, tmp_path):
    path = str(tmp_path / name)
    save(path)
    with pytest.raises(UserError) as error:
        mel_statistics.read(path)
    assert str(error.value).startswith(path) and words in str(error.value)
    assert '\n' not in str(error.value)


def test_a_damaged_dictionary_is_refused(tmp_path):
    path = tmp_path / 'stats.npy'
    np.save(str(path), coqui())
    content = path.read_bytes()
    for end in range(0, len(content) - 1, 37):
        path.write_bytes(content[:end])
        with pytest.raises(UserError):
            mel_statistics.read(str(path))


def test_statistics_of_other_bands_are_refused(tmp_path):
    path = str(tmp_path / 'stats.npy')
    np.save(path, np.ones((2, 100)))
    with pytest.raises(UserError, match='100 and 100 bands and the mels of 80'):
        HP.replace(**mel_statistics.read(path))


def test_they_travel_in_params_json_and_by_a_hash_in_the_data(tmp_path):
    path = str(tmp_path / 'stats.npy')
    np.save(path, np.stack([MEAN, SCALE]))
    hp = HP.replace(**mel_statistics.read(path))
    params.save(str(tmp_path), hp)
    assert params.load(str(tmp_path)) == hp and len(hp.mel.mean) == 80
    assert len(str(hp.data())) < 120 and hp.data() != HP.data()
    other = hp.replace(mel_stats_scale=tuple(SCALE + 1e-9))
    assert hp.data() != other.data()
    with pytest.raises(UserError, match='mel_stats_scale') as error:
        params.require_same(hp, other, params.DATA_FIELDS, 'x', 'y')
    assert len(str(error.value)) < 400
    assert params.override(hp, 'mel_profile=coqui').mel.mean == ()
