"""export.py: a SavedModel that gives the audio of inference.py, without this repository."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from graphs import TINY, VOCODING, random_weights

import export
import files
import params
import utils
from errors import UserError
from vocoder import Vocoder, noise

pytestmark = pytest.mark.slow

FRAMES = 21
LOADER = '''
import sys
import numpy as np
import tensorflow.compat.v1 as tf
folder, inputs, signature, output = sys.argv[1:]
with tf.Session(graph=tf.Graph()) as session:
    meta = tf.saved_model.load(session, [tf.saved_model.tag_constants.SERVING], folder)
    found = meta.signature_def[signature]
    feeds = {found.inputs[name].name: value for name, value in np.load(inputs).items()}
    np.save(output, session.run(found.outputs['audio'].name, feeds))
'''
LOADER_TF2 = '''
import sys
import numpy as np
import tensorflow as tf
folder, inputs, signature, output = sys.argv[1:]
vocode = tf.saved_model.load(folder).signatures[signature]
audio = vocode(**{name: tf.constant(value) for name, value in np.load(inputs).items()})['audio']
np.save(output, audio.numpy())
'''


def write_run(folder, hp, weights):
    """A run of train.py, as far as inference reads it."""
    os.makedirs(str(folder))
    utils.save_weights(str(folder), weights)
    with files.atomic_open(str(folder / 'params.json')) as f:
        f.write(params.to_json(hp))
    return str(folder)


def mel_of(hp, batch=1):
    mel = np.random.RandomState(0).randn(batch, FRAMES, hp.n_mels)
    return (hp.mel_mean + hp.mel_std * mel).astype(np.float32)


def elsewhere(tmp_path, folder, signature, **inputs):
    """The audio of a signature, in a process that sees the SavedModel and TensorFlow alone."""
    given, output = str(tmp_path / 'inputs.npz'), str(tmp_path / 'audio.npy')
    np.savez(given, **inputs)
    loader = LOADER if tf.__version__.startswith('1.') else LOADER_TF2
    subprocess.run([sys.executable, '-I', '-c', loader, folder, given, signature, output],
                   cwd=str(tmp_path), check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return np.load(output)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """(folder of a SavedModel, weights, its run) of TINY."""
    path = tmp_path_factory.mktemp('export')
    weights = random_weights(TINY)
    run = write_run(path / 'run', TINY, weights)
    export.export_saved_model(run, str(path / 'exported' / '1'))
    return str(path / 'exported' / '1'), weights, run


@pytest.mark.parametrize('name', sorted(VOCODING))
def test_from_noise_is_the_vocoders_audio(name, tmp_path):
    hp = TINY.replace(**VOCODING[name])
    weights = random_weights(hp)
    export.write_saved_model(hp, weights, str(tmp_path / 'model'))
    mel = mel_of(hp)
    expected = Vocoder(hp, weights).vocode(mel[0], sigma=0.5, seed=3)
    with tf.Session(graph=tf.Graph()) as session:
        meta = tf.saved_model.load(session, ['serve'], str(tmp_path / 'model'))
        signature = meta.signature_def['from_noise']
        found = session.run(signature.outputs['audio'].name, {
            signature.inputs['mel'].name: mel,
            signature.inputs['noise'].name: noise(FRAMES, hp, 0.5, 3)[None]})
    assert found.shape == (1, FRAMES * hp.hop_length)
    assert np.abs(found[0] - expected).max() < 2e-5 * np.abs(expected).max()
    stored = json.load(open(str(tmp_path / 'model' / 'assets.extra' / 'params.json')))
    assert stored['sample_rate'] == hp.sample_rate


@pytest.mark.tensorflow1
def test_without_this_repository(tiny, tmp_path):
    folder, weights, _ = tiny
    mel, z = mel_of(TINY, 2), noise(FRAMES, TINY, 0.5, 3)
    found = elsewhere(tmp_path, folder, 'from_noise', mel=mel, noise=np.stack([z, z]))
    vocoder = Vocoder(TINY, weights)
    for row, each in zip(found, mel):
        expected = vocoder.vocode(each, sigma=0.5, seed=3)
        assert np.abs(row - expected).max() < 2e-5 * np.abs(expected).max()


WRONG = {
    'rank': (lambda mel: mel[0], 'batch x frames x 80, and has no shape [21 80]; put the mels'),
    'number': (lambda mel: np.float32(3), 'batch x frames x 80, and has no shape []; put'),
    'turned': (lambda mel: mel.swapaxes(1, 2), 'x 80 bands, and has no shape [1 80 21]; turn it'),
    'empty': (lambda mel: mel[:, :0], 'mel of shape [1 0 80] holds nothing'),
    'nan': (lambda mel: np.where(mel == mel.max(), np.float32(np.nan), mel), 'NaN or infinite'),
    'infinite': (lambda mel: mel - np.float32(np.inf), 'NaN or infinite'),
    'loud': (lambda mel: np.full_like(mel, 40), 'values from 40 to 40, and those of mel profile '
                                                'tacotron2 lie between'),
    'decibels': (lambda mel: np.full_like(mel, -60.5), 'values from -60.5 to -60.5, and'),
}


@pytest.mark.parametrize('signature', ['serving_default', 'from_noise'])
def test_a_wrong_mel_is_told_by_the_graph(tiny, signature):
    """With nothing but TensorFlow; an HTTP server answers with the same sentence."""
    given = {'sigma': np.float32(0.6), 'seed': np.int64(0)}
    if signature == 'from_noise':
        given = {'noise': noise(FRAMES, TINY, 0.5, 3)[None]}
    with tf.Session(graph=tf.Graph()) as session:
        meta = tf.saved_model.load(session, ['serve'], tiny[0])
        found = meta.signature_def[signature]

        def run(**values):
            return session.run(found.outputs['audio'].name, {
                found.inputs[name].name: value for name, value in dict(given, **values).items()})

        for spoil, sentence in WRONG.values():
            with pytest.raises(tf.errors.InvalidArgumentError) as failed:
                run(mel=spoil(mel_of(TINY)))
            assert sentence in str(failed.value)
        if signature == 'from_noise':
            for wrong in (given['noise'][0], given['noise'][:, 1:]):
                with pytest.raises(tf.errors.InvalidArgumentError,
                                   match='noise for this mel is batch x groups x 8'):
                    run(mel=mel_of(TINY), noise=wrong)
        assert run(mel=mel_of(TINY)).shape == (1, FRAMES * TINY.hop_length)


def test_seeds_and_sigmas(tiny, tmp_path):
    """One number for all or one each; an utterance in a batch has its own seed's noise."""
    folder, weights, _ = tiny
    mel = np.repeat(mel_of(TINY), 4, axis=0)
    audio = elsewhere(tmp_path, folder, 'serving_default', mel=mel,
                      sigma=np.array([0.6, 0.6, 0.6, 0], np.float32), seed=np.array([5, 6, 5, 5]))
    tolerance = 2e-5 * np.abs(audio).max()
    assert np.abs(audio[0] - audio[2]).max() < tolerance
    assert np.abs(audio[0] - audio[1]).max() > 100 * tolerance
    silent = Vocoder(TINY, weights).vocode(mel[0], sigma=0)
    assert np.abs(audio[3] - silent).max() < tolerance
    again = elsewhere(tmp_path, folder, 'serving_default', mel=mel[:2], sigma=np.float32(0.6),
                      seed=np.int64(5))
    assert np.abs(again - audio[[0, 2]]).max() < tolerance


def test_the_noise_is_normal():
    with tf.Graph().as_default(), tf.Session() as session:
        z = session.run(export.draw_noise(tf.constant([0.5, 2.0]), tf.constant(7, tf.int64),
                                    tf.zeros([2, 500, TINY.n_mels]), TINY))
    np.testing.assert_allclose(4 * z[0], z[1], rtol=1e-6)
    assert z.shape == (2, TINY.groups(500), TINY.n_group)
    assert abs(z[0].std() - 0.5) < 0.01 and abs(z[0].mean()) < 0.01
    assert abs((z[0] ** 4).mean() / 0.5 ** 4 - 3) < 0.1


def test_the_noise_is_the_documented_one():
    with tf.Graph().as_default(), tf.Session() as session:
        seeds = [7, -1, 2 ** 40]
        drawn = export.draw_noise(tf.constant(0.5), tf.constant(seeds, tf.int64),
                            tf.zeros([3, 2, TINY.n_mels]), TINY)
        told = [0.5 * tf.random.stateless_normal([TINY.groups(2), TINY.n_group],
                                                 tf.constant([seed, 0], tf.int64))
                for seed in seeds]
        found, expected = session.run([drawn, told])
    np.testing.assert_array_equal(found, expected)


def test_saved_model_cli(tiny, tmp_path):
    folder = tiny[0]
    cli = os.path.join(os.path.dirname(sys.executable), 'saved_model_cli')
    shown = subprocess.run([cli, 'show', '--all', '--dir', folder], check=True,
                           stdout=subprocess.PIPE, universal_newlines=True).stdout
    for name in ('serving_default', 'from_noise', "inputs['mel']", "inputs['sigma']",
                 "inputs['seed']", "inputs['noise']", "outputs['audio']"):
        assert name in shown
    mel, z = mel_of(TINY), noise(FRAMES, TINY, 0.5, 3)[None]
    np.savez(str(tmp_path / 'in.npz'), mel=mel, noise=z)
    given = str(tmp_path / 'in.npz')
    subprocess.run([cli, 'run', '--dir', folder, '--tag_set', 'serve', '--signature_def',
                    'from_noise', '--inputs', 'mel=%s[mel];noise=%s[noise]' % (given, given),
                    '--outdir', str(tmp_path)], check=True, stdout=subprocess.PIPE)
    expected = Vocoder(TINY, tiny[1]).vocode(mel[0], sigma=0.5, seed=3)
    found = np.load(str(tmp_path / 'audio.npy'))[0]
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_what_cannot_be_exported(tiny, tmp_path, monkeypatch):
    folder, weights, run = tiny
    with pytest.raises(UserError, match='is there already'):
        export.export_saved_model(run, folder)
    with pytest.raises(UserError, match='no checkpoint'):
        export.export_saved_model(str(tmp_path), str(tmp_path / 'out'))
    with pytest.raises(UserError, match='params.json is not that of its model'):
        other = write_run(tmp_path / 'run', TINY.replace(n_layers=3), weights)
        export.export_saved_model(other, str(tmp_path / 'out'))
    with pytest.raises(UserError, match='has no inverse'):
        broken = dict(weights, **{'waveglow/flow_1/W': np.ones_like(weights['waveglow/flow_1/W'])})
        export.export_saved_model(write_run(tmp_path / 'broken', TINY, broken),
                                  str(tmp_path / 'out'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write'):
        export.export_saved_model(run, str(tmp_path / 'file' / 'out'))
    with pytest.raises(UserError, match='there already'):
        export.export_onnx(run, str(tmp_path / 'file'))
    monkeypatch.setitem(sys.modules, 'tf2onnx', None)
    with pytest.raises(UserError, match='requirements-export.txt'):
        export.export_onnx(run, str(tmp_path / 'x.onnx'))
    assert sorted(os.listdir(str(tmp_path))) == ['broken', 'file', 'run']
