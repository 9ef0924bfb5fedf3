"""convert.py: what comes out works, what cannot be converted leaves nothing behind."""
import os
import resource
import subprocess
import sys

import numpy as np
import nvidia_reference as reference
import ptfiles
import pytest
import soundfile
import tensorflow.compat.v1 as tf
from conftest import ROOT
from speech import prepare, script

import convert
import inference
import params
import train
import utils
import vocoder
from errors import UserError
from interop import nvidia
from vocoder import noise

SMALL = dict(units=8, layers=3, n_flows=4, n_group=8, every=2)


@pytest.fixture(scope='module')
def state():
    return reference.state(np.random.RandomState(1), **SMALL)


@pytest.fixture()
def checkpoint(state, tmp_path):
    path = tmp_path / 'nvidia.pt'
    ptfiles.save_zip(str(path), {'state_dict': state})
    return path


def run(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, 'argv', ['script'] + [str(a) for a in arguments])
    return main()


@pytest.mark.slow
def test_from_nvidias_mel_to_a_wav(monkeypatch, tmp_path, state, checkpoint, capsys):
    """The audio is that of NVIDIA's definition for the noise of the same seed."""
    model, mel = tmp_path / 'model', np.random.RandomState(0).randn(80, 7).astype(np.float32) - 5
    assert run(monkeypatch, convert.main, 'nvidia', checkpoint, '--out_dir', model) == 0
    assert 'profile tacotron2 at 22050 Hz' in capsys.readouterr().out
    ptfiles.save_zip(str(tmp_path / 'mel.pt'), mel)
    assert run(monkeypatch, inference.main, '--lc', tmp_path / 'mel.pt', '--restore_from', model,
               '--out_dir', tmp_path / 'out', '--sigma', '0.1', '--seed', '3') == 0
    audio, rate = soundfile.read(str(tmp_path / 'out' / 'mel.wav'))
    z = noise(7, params.load(str(model)), 0.1, 3)
    expected = np.clip(reference.infer(state, z.T, mel, every=2), -1, 1)
    assert rate == 22050 and np.abs(expected).max() > 0.01
    np.testing.assert_allclose(audio, expected, atol=1e-4)
    assert sorted(os.listdir(str(tmp_path))) == ['mel.pt', 'model', 'nvidia.pt', 'out']


@pytest.mark.slow
def test_a_converted_model_is_fine_tuned(monkeypatch, tmp_path, checkpoint):
    """It starts from the converted weights, weight norm's directions and lengths apart."""
    model = tmp_path / 'model'
    run(monkeypatch, convert.main, 'nvidia', checkpoint, '--out_dir', model,
        '--hparams', 'sample_rate=16000')
    data = prepare(tmp_path / 'data')
    run(monkeypatch, train.main, *data, '--restore_from', model, '--logdir_root', tmp_path,
        '--run_name', 'tuned', '--max_steps', 2,
        '--hparams', 'lr=1e-6,batch_size=1,clip_samples=2048,eval_utterances=1,eval_seconds=1')
    tuned = tf.train.load_checkpoint(str(tmp_path / 'tuned'))
    moved = 0
    for name, value in nvidia.read(str(checkpoint))[1].items():
        difference = np.abs(tuned.get_tensor(name) - value).max()
        assert difference < 1e-5, name
        moved += difference > 0
    assert moved > 10


def test_the_same_hyperparameters_another_rate(monkeypatch, tmp_path, checkpoint):
    run(monkeypatch, convert.main, 'nvidia', checkpoint, '--out_dir', tmp_path / 'a',
        '--hparams', 'sample_rate=16000,gen_sigma=0.9')
    hp = params.load(str(tmp_path / 'a'))
    assert (hp.sample_rate, hp.gen_sigma, hp.n_flows) == (16000, 0.9, 4)
    (tmp_path / 'b').mkdir()
    assert os.stat(str(tmp_path / 'a')).st_mode == os.stat(str(tmp_path / 'b')).st_mode


@pytest.mark.parametrize('arguments,words', [
    (['nvidia', 'nowhere.pt', '--out_dir', 'new'], 'nowhere.pt'),
    (['nvidia', 'text.pt', '--out_dir', 'new'], 'text.pt'),
    (['nvidia', 'singular.pt', '--out_dir', 'new'], 'flow_2/W has no inverse'),
    (['nvidia', 'nvidia.pt', '--out_dir', 'full'], 'full is there already'),
    (['nvidia', 'nvidia.pt', '--out_dir', 'text.pt'], 'text.pt is there already'),
    (['nvidia', 'nvidia.pt', '--out_dir', 'text.pt/new'], 'cannot write text.pt/new'),
    (['nvidia', 'nvidia.pt', '--out_dir', 'new', '--hparams', 'n_flows=3'], 'n_flows 3 and 4'),
    (['nvidia', 'nvidia.pt', '--out_dir', 'new', '--hparams', 'nflows=3'], "'n_flows'"),
    (['weixsong', 'nowhere', '--out_dir', 'new'], 'nowhere'),
    (['weixsong', 'nvidia.pt', '--out_dir', 'new'], 'nvidia.pt'),
    (['seed', 'nowhere', '--out_dir', 'new'], 'no checkpoint at nowhere'),  # its former name
    (['export_nvidia', 'nowhere', 'new.pt'], 'nowhere'),
    (['export_nvidia', 'full', 'text.pt'], 'text.pt is a folder, or there already'),
    (['export_nvidia', 'full', 'new/'], 'new/ is a folder'),
])
def test_refusals_leave_nothing(monkeypatch, tmp_path, state, checkpoint, arguments, words):
    if arguments[0] == 'export_nvidia':
        monkeypatch.setitem(sys.modules, 'torch', type(sys)('torch'))
    monkeypatch.chdir(str(tmp_path))
    (tmp_path / 'text.pt').write_text('hello')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes').write_text('mine')
    flat = dict(state)
    flat['convinv.2.conv.weight'] = np.ones_like(flat['convinv.2.conv.weight'])
    ptfiles.save_zip('singular.pt', flat)
    before = tree(tmp_path)
    with pytest.raises(UserError, match=words) as refusal:
        run(monkeypatch, convert.main, *arguments)
    assert '\n' not in str(refusal.value)
    assert tree(tmp_path) == before


def tree(folder):
    """What is in a folder: {path: content, None of a folder}."""
    found = {}
    for where, folders, names in os.walk(str(folder)):
        found.update((os.path.join(where, name), None) for name in folders)
        found.update((os.path.join(where, name), open(os.path.join(where, name), 'rb').read())
                     for name in names)
    return found


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(tmp_path, checkpoint):
    """A limit on the size of files stops TensorFlow's own writing in the middle."""
    before = tree(tmp_path)
    done = script('convert.py', 'nvidia', str(checkpoint), '--out_dir', str(tmp_path / 'new'),
                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10 ** 6, 10 ** 6)))
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert 'cannot write' in done.stderr and 'make room' in done.stderr
    assert tree(tmp_path) == before


def test_a_link_to_an_empty_folder_is_filled(monkeypatch, tmp_path, checkpoint):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'empty')
    run(monkeypatch, convert.main, 'nvidia', checkpoint, '--out_dir', tmp_path / 'link')
    assert (tmp_path / 'link').is_symlink() and params.load(str(tmp_path / 'empty')).n_flows == 4


def test_weights_that_are_not_finite_are_not_exported(monkeypatch, tmp_path, checkpoint):
    monkeypatch.setitem(sys.modules, 'torch', type(sys)('torch'))
    run(monkeypatch, convert.main, 'nvidia', checkpoint, '--out_dir', tmp_path / 'a')
    hp, weights = vocoder.load_model(str(tmp_path / 'a'))
    weights['waveglow/flow_1/end/bias'][0] = np.nan
    (tmp_path / 'b').mkdir()
    utils.save_weights(str(tmp_path / 'b'), weights)
    (tmp_path / 'b' / 'params.json').write_text(params.to_json(hp))
    with pytest.raises(UserError, match='flow_1/end/bias holds values that are NaN'):
        run(monkeypatch, convert.main, 'export_nvidia', tmp_path / 'b', tmp_path / 'x.pt')


def test_a_copied_run_is_read_where_it_is(tmp_path):
    """Whatever its file `checkpoint` says of elsewhere, and beside files that are none of its."""
    for name, value in (('here', 1), ('elsewhere', 2)):
        (tmp_path / name).mkdir()
        utils.save_weights(str(tmp_path / name), {'waveglow/x': np.full(3, value, np.float32)})
    state = 'model_checkpoint_path: "{0}"\nall_model_checkpoint_paths: "{0}"\n'
    listed = tmp_path / 'here' / 'checkpoint'
    for text in (state.format(tmp_path / 'elsewhere' / 'model.ckpt-0'),
                 state.format(tmp_path / 'gone' / 'model.ckpt-7'), ''):
        listed.write_text(text)
        (tmp_path / 'here' / 'model.ckpt-final.index').write_text('')
        path = utils.find_checkpoint(str(tmp_path / 'here'))
        assert path == str(tmp_path / 'here' / 'model.ckpt-0')
    (tmp_path / 'here' / 'model.ckpt-0.data-00000-of-00001').write_bytes(b'')
    with pytest.raises(UserError, match='cannot be read'):
        utils.read_weights(path)


def test_without_pytorch_one_sentence_says_what_to_install(monkeypatch, tmp_path, checkpoint):
    monkeypatch.setitem(sys.modules, 'torch', None)
    run(monkeypatch, convert.main, 'nvidia', checkpoint, '--out_dir', tmp_path / 'model')
    with pytest.raises(UserError, match='pip install -r requirements-convert.txt'):
        run(monkeypatch, convert.main, 'export_nvidia', tmp_path / 'model', tmp_path / 'x.pt')


@pytest.mark.slow
def test_errors_are_one_sentence_and_a_status(tmp_path):
    hostile = tmp_path / 'hostile.pt'
    ptfiles.save_zip(str(hostile), Touch(str(tmp_path / 'touched')))
    done = script('convert.py', 'nvidia', str(hostile), '--out_dir', str(tmp_path / 'new'))
    assert done.returncode == 2
    assert done.stderr.startswith('convert.py: error: ') and done.stderr.count('\n') == 1
    assert os.listdir(str(tmp_path)) == ['hostile.pt']


class Touch:
    """Pickles as a call of os.system."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, ('touch %s' % self.path,)


@pytest.mark.slow
def test_the_published_size_takes_less_than_2_gb(tmp_path):
    """A pickled module with what training and weight norm leave in one: 1.4 GB to pass over."""
    state = reference.state(np.random.RandomState(1))
    path, model = str(tmp_path / 'published.pt'), str(tmp_path / 'model')
    ptfiles.save_legacy(path, {'model': reference.pickled_module(state), 'optimizer': {
        'state': {i: {'exp_avg': value, 'exp_avg_sq': value + 0}
                  for i, value in enumerate(state.values())}}})
    code = ('import resource, subprocess, sys; status = subprocess.call(sys.argv[1:]); '
            'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)')
    done = subprocess.run(
        [sys.executable, '-c', code, sys.executable, os.path.join(ROOT, 'convert.py'), 'nvidia',
         path, '--out_dir', model], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    assert done.returncode == 0, done.stderr
    kilobytes = int(done.stdout.split()[-1])
    assert 350e3 < kilobytes < 2e6
    assert params.load(model) == params.preset('nvidia')
    stored = tf.train.load_checkpoint(model)
    np.testing.assert_array_equal(stored.get_tensor('waveglow/flow_11/layer_7/res_skip/g'),
                                  state['WN.11.res_skip_layers.7.weight_g'].reshape(-1))
