"""Vocoding on Apache Beam gives the bytes of inference.py; what is damaged is named."""
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from graphs import TINY, random_weights
from speech import WAVS, refusal, script

import devices
import inference
import params
import utils
from datasets import mel_files, shards
from errors import UserError
from vocoding import job, pipeline

pytestmark = pytest.mark.slow

HP = TINY.replace(n_flows=2, n_layers=2, gen_correction_rounds=1)
THREADS = '--threads=%d' % devices.available_threads()      # those that this process has by now
HOSTILE = {'torn.mel': b'123', 'empty.mel': b'', 'text.npy': b'no array', 'x\n=y.pt': b'x',
           'zeros.mel': bytes(320 * 20)}
ON_BEAM = ['--runner=DirectRunner']


def write_model(folder, hp=HP):
    utils.save_weights(str(folder), random_weights(hp))
    (folder / 'params.json').write_text(params.to_json(hp))


def write_mels(folder):
    """Mels of several lengths, two of one, in nested folders; among them what is none."""
    random = np.random.RandomState(0)
    lengths = [21, 40, 21, 300, 7, 25, 33, 150, 12]
    for i, frames in enumerate(lengths):
        os.makedirs(str(folder / str(i % 2)), exist_ok=True)
        mel = np.clip(HP.mel_mean + HP.mel_std * random.randn(frames, HP.n_mels), -11, 1)
        mel_files.save_mel(str(folder / str(i % 2) / ('u%d.mel' % i)), mel)
    for name, content in HOSTILE.items():
        (folder / name).write_bytes(content)
    np.save(str(folder / 'nan.npy'), np.full([30, 80], np.nan))


def wavs(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*.wav')
            if not path.name.startswith('.tmp-')}


@pytest.fixture
def vocode(monkeypatch, capsys):
    """Runs inference.py in this process: (exit status, stdout)."""
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['inference.py', THREADS] + list(map(str, arguments)))
        status = inference.main()
        return status, capsys.readouterr().out
    return run


@pytest.fixture(scope='module')
def local(tmp_path_factory):
    """(folder of run and mels, {batch size: {wav: bytes by inference.py}})."""
    folder = tmp_path_factory.mktemp('vocoding')
    (folder / 'run').mkdir()
    write_model(folder / 'run')
    write_mels(folder / 'mels')
    found = {}
    for size in (1, 3):
        out = folder / ('one%d' % size)
        argv, sys.argv = sys.argv, ['inference.py', THREADS, '--batch_size=%d' % size, '--lc', str(
            folder / 'mels'), '--restore_from', str(folder / 'run'), '--out_dir', str(out)]
        try:
            assert inference.main() == 1
        finally:
            sys.argv = argv
        found[size] = wavs(out)
    return folder, found


def pin_to_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_two_workers_write_the_bytes_of_inference_py(local, tmp_path):
    """With fewer cores than threads, too; from a path that only tf.io.gfile knows, to one."""
    folder, expected = local
    out = tmp_path / 'out'
    done = script('inference.py', THREADS, '--lc', 'file://%s' % (folder / 'mels'),
                  '--restore_from', str(folder / 'run'), '--out_dir', 'file://%s' % out,
                  '--direct_running_mode=multi_processing', '--direct_num_workers=2', *ON_BEAM,
                  preexec_fn=pin_to_one_core)
    assert done.returncode == 1, done.stderr
    assert wavs(out) == expected[1] and len(expected[1]) == 9
    assert 'vocoded 9 utterances, 9.7 s of speech' in done.stdout
    rows = dict(line.split('\t') for line in (out / 'skipped.tsv').read_text().splitlines())
    assert {os.path.basename(path) for path in rows} == {
        name.replace('\n', '\\n') for name in HOSTILE} | {'nan.npy'}
    assert rows['file://%s/nan.npy' % (folder / 'mels')] == 'holds values that are NaN or infinite'


def test_batches_and_what_is_missing(local, tmp_path, vocode):
    folder, expected = local
    out = tmp_path / 'out'
    arguments = ['--lc', folder / 'mels', '--restore_from', folder / 'run', '--out_dir',
                 'file://%s' % out, '--batch_size=3'] + ON_BEAM
    assert vocode(*arguments)[0] == 1
    assert wavs(out) == expected[3]
    (out / '0' / 'u2.wav').unlink()                                 # one of a batch
    whole = (out / '1' / 'u1.wav').read_bytes()
    (out / '1' / 'u1.wav').write_bytes(whole[:-100])                # and what was cut short
    (out / '1' / '.tmp-12345678-u1.wav').write_bytes(b'of a run that was killed')
    before = os.stat(str(out / '0' / 'u8.wav')).st_mtime_ns
    status, said = vocode(*arguments)
    assert status == 1 and '7 utterances were there already' in said
    assert wavs(out) == expected[3] and not list(out.rglob('.tmp-*'))
    assert os.stat(str(out / '0' / 'u8.wav')).st_mtime_ns == before
    with pytest.raises(UserError, match='was begun with seed 0 and not 1; give another --out_dir'):
        vocode('--seed=1', *arguments)


def test_killed_and_continued(local, tmp_path, vocode):
    folder, expected = local
    out = tmp_path / 'out'
    arguments = ['--lc', folder / 'mels', '--restore_from', folder / 'run', '--out_dir', out
                 ] + ON_BEAM
    process = subprocess.Popen(
        [sys.executable, os.path.join(ROOT, 'inference.py'), THREADS]
        + [str(each) for each in arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not wavs(out):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = wavs(out)
    assert there and all(expected[1][name] == content for name, content in there.items())
    assert vocode(*arguments)[0] == 1
    assert wavs(out) == expected[1] and not list(out.rglob('.tmp-*'))


def test_shards_in_and_out(local, tmp_path, vocode):
    """Mels of shards; FLAC in shards that a training reads; a damaged record is named."""
    folder, expected = local
    names = ['0/u0', '1/u1', '0/u2', '../u3', '0/u4', '0/u4']
    mels = [mel_files.read_mel(str(folder / 'mels' / (name.replace('..', '1') + '.mel')), 80)
            for name in names]
    (tmp_path / 'in').mkdir()
    path = tmp_path / 'in' / 'train-00000-of-00001.tfrecord'
    shards.write(str(path), [shards.encode(name, np.zeros(256 * len(mel)), mel, HP)
                             for name, mel in zip(names, mels)])
    content = bytearray(path.read_bytes())
    content[100] ^= 1                                               # in the first record
    path.write_bytes(bytes(content))
    shards.finish(str(tmp_path / 'in'), HP)
    arguments = ['--restore_from', folder / 'run', '--out_dir', tmp_path / 'out', '--lc',
                 tmp_path / 'in' / '*.tfrecord', folder / 'mels' / '1' / 'u5.mel',
                 '--tfrecord_shards=3'] + ON_BEAM
    assert vocode(*arguments)[0] == 1
    reasons = sorted(line.split('\t')[1]
                     for line in (tmp_path / 'out' / 'skipped.tsv').read_text().splitlines())
    assert reasons == [
        'record at byte 0: its content does not match its checksum',
        'the name ../u3 leads out of the folder'] + ['the name 0/u4 is there more than once'] * 2
    found = [record for each in sorted((tmp_path / 'out').glob('train-*-of-00003.tfrecord'))
             for record in shards.records(str(each), shards.hyperparameters(str(each)))]
    assert sorted(record.name for record in found) == ['0/u2', '1/u1', 'u5']
    for record in found:
        wav = expected[1]['1/u5.wav' if record.name == 'u5' else record.name + '.wav']
        assert wav[44:] == record.audio.astype('<i2').tobytes()
        assert len(record.mel) * HP.hop_length == len(record.audio)
    os.unlink(str(tmp_path / 'out' / 'train-00001-of-00003.tfrecord'))
    before = sorted(os.listdir(str(tmp_path / 'out')))
    vocode(*arguments)
    assert sorted(os.listdir(str(tmp_path / 'out'))) == sorted(
        before + ['train-00001-of-00003.tfrecord'])


def test_a_model_and_sound_on_a_remote_path(local, tmp_path, vocode):
    wav, run = os.path.join(WAVS, 'tt-weasels.wav'), local[0] / 'run'
    assert vocode('--lc', wav, '--restore_from', run, '--out_dir', tmp_path / 'one')[0] == 0
    assert vocode('--lc', 'file://' + wav, '--restore_from', 'file://%s' % run,
                  '--out_dir', tmp_path / 'beam', *ON_BEAM)[0] == 0
    assert wavs(tmp_path / 'beam') == wavs(tmp_path / 'one')
    assert soundfile.info(str(tmp_path / 'beam' / 'tt-weasels.wav')).samplerate == 16000


def test_refusals(local, tmp_path, monkeypatch, capsys):
    folder = local[0]
    given = ['--restore_from', str(folder / 'run'), THREADS] + ON_BEAM
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'u0.wav').write_bytes(b'of another run')
    for arguments, told in (
            (['--lc', str(folder / 'none-*.npy')], 'no file matches'),
            (['--lc', str(folder / 'mels'), '--out_dir', str(tmp_path / 'mine')],
             'holds files that are not of a run with --runner'),
            (['--lc', str(folder / 'mels'), '--plot', 'x.png'], 'do not go with --runner'),
            (['--lc', str(folder / 'mels'), '--tfrecord_shards=2', '--lc_profile=hifigan'],
             "a shard holds mels of the model's definition"),
            (['--lc', str(folder / 'mels' / 'nan.npy'), '--out_dir', str(tmp_path / 'out')],
             'none of the 1 inputs can be vocoded')):
        assert told in refusal(monkeypatch, capsys, inference, *given, *arguments)
    monkeypatch.setitem(sys.modules, 'vocoding.pipeline', None)
    monkeypatch.delattr(sys.modules['vocoding'], 'pipeline')
    assert 'requirements-beam.txt' in refusal(monkeypatch, capsys, inference, *given, '--lc', 'x')
    assert 'unrecognized arguments: --no_such_flag=1' in refusal(
        monkeypatch, capsys, inference, '--lc', 'x', '--no_such_flag=1')


def test_batches_are_those_of_inference_py():
    measured = [(5, (0, 3, 0)), (9, (0, 0, 0)), (5, (0, 1, 0)), (2, (0, 2, 0))]
    assert pipeline.plan_batches(measured, 2) == {
        (0, 2, 0): 0, (0, 1, 0): 0, (0, 3, 0): 1, (0, 0, 0): 1}


def test_what_an_earlier_run_wrote_is_known(tmp_path):
    out = str(tmp_path / 'out')
    job.claim(out, {'seed': 1, 'sigma': None})
    job.claim(out, {'seed': 1, 'sigma': None})
    with pytest.raises(UserError, match='begun with seed 1 and not 2'):
        job.claim(out, {'seed': 2, 'sigma': None})
    (tmp_path / 'out' / job.IDENTITY).write_text('[')
    with pytest.raises(UserError, match='cannot read'):
        job.claim(out, {'seed': 1})
    shutil.rmtree(out)
    assert job.stored_identity(out) is None
