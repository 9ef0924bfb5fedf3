"""Preprocessing of a corpus with everything in it that corpora have in them."""
import glob
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from speech import definition

import command_line
import params
import preprocess_data
from datasets import audio_files, corpus, file_lists, mel_files, mel_transform, preprocessing
from errors import UserError

WAVS = sorted(glob.glob(os.path.join(ROOT, 'samples', 'wavs', '*.wav')))


def speech(k=0, seconds=1.5):
    return soundfile.read(WAVS[k], dtype='float32')[0][:int(16000 * seconds)]


def put(path, audio, rate=16000, **how):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    soundfile.write(str(path), audio, rate, **how)


def tree(folder):
    """{path under folder: mtime in ns} of all files in it but the locks, which every run opens."""
    paths = [os.path.join(path, name) for path, _, names in os.walk(str(folder)) for name in names
             if name != '.lock']
    return {os.path.relpath(path, str(folder)): os.lstat(path).st_mtime_ns for path in paths}


class Corpus:
    """Folders under `root`, and preprocess_data.py's main() on them."""

    def __init__(self, root, monkeypatch, capsys):
        self.wavs, self.mels, self.data = (str(root / name) for name in ('wavs', 'mels', 'data'))
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def run(self, *flags):
        """(exit status, stdout, stderr) of a run on two workers."""
        self.monkeypatch.setattr(sys, 'argv', [
            'preprocess_data.py', '--wave_dir', self.wavs, '--mel_dir', self.mels, '--data_dir',
            self.data, '--preset', 'small', '--num_workers', '2'] + list(flags))
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as status:
            command_line.run_script(preprocess_data.main)
        return (status.value.code,) + tuple(self.capsys.readouterr())

    def names(self, *lists):
        return sorted(sum((file_lists.read_file_list(os.path.join(self.data, name + '.scp'))
                           for name in lists or ('train', 'test')), []))

    def skipped(self):
        with open(os.path.join(self.data, 'skipped.tsv'), encoding='utf-8') as f:
            return dict(line.rstrip('\n').split('\t') for line in f)

    def check(self, wave_dir, profile='tacotron2', rate=16000):
        """Every listed utterance is what training needs, and a mel of what training hears."""
        for name in self.names():
            path = os.path.join(wave_dir, name + '.wav')
            assert audio_files.is_plain_wav(path, rate), path
            audio = audio_files.read_wav(path, rate)
            mel = mel_files.read_mel(os.path.join(self.mels, name + '.mel'), 80)
            assert len(mel) >= len(audio) // 256
            np.testing.assert_allclose(mel, mel_transform.mel_spectrogram(
                audio, definition(profile, rate)), atol=1e-5)


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    return Corpus(tmp_path, monkeypatch, capsys)


def zoo(folder):
    """Fills `folder`; returns (names that can be used, {path: part of the reason} of the rest)."""
    join = os.path.join
    put(join(folder, 'plain.wav'), speech(0))
    put(join(folder, 'a', 'b', 'nested one.wav'), speech(1))
    put(join(folder, 'a', 'stereo.flac'), np.stack([speech(2)] * 2, axis=1), 44100)
    put(join(folder, 'eight.wav'), speech(3), 8000, subtype='PCM_U8')
    put(join(folder, 'wide.wav'), speech(4), subtype='PCM_24')
    put(join(folder, 'float.wav'), 2 * speech(5) / np.abs(speech(5)).max(), subtype='FLOAT')
    put(join(folder, 'Upper.WAV'), speech(6))
    put(join(folder, u'sp\u00e9cial, #1.wav'), speech(7))
    put(join(folder, 'extensible.wav'), speech(8), format='WAVEX', subtype='PCM_16')
    good = ['plain', 'a/b/nested one', 'a/stereo', 'eight', 'wide', 'float', 'Upper',
            u'sp\u00e9cial, #1', 'extensible']
    nan = speech(9).copy()
    nan[7000] = np.nan
    put(join(folder, 'nan.wav'), nan, subtype='FLOAT')
    put(join(folder, 'no samples.wav'), np.zeros(0))
    put(join(folder, 'silent.wav'), np.zeros(20000))
    put(join(folder, 'short.wav'), speech(0)[4000:4900])
    put(join(folder, 'clash.wav'), speech(1))
    put(join(folder, 'clash.flac'), speech(1))
    put(join(folder, 'tab\tin it.wav'), speech(2))
    put(join(folder, 'line\nin it.wav'), speech(2))
    with open(join(folder, 'text.wav'), 'w') as f:
        f.write('not a sound\n' * 50)
    with open(join(folder, 'zero bytes.wav'), 'w'):
        pass
    with open(WAVS[3], 'rb') as f, open(join(folder, 'half.wav'), 'wb') as half:
        half.write(f.read()[:30000])
    for name in ('notes.txt', 'a/._plain.wav', '.hidden.wav'):
        with open(join(folder, name), 'w') as f:
            f.write('passed over')
    os.symlink(folder, join(folder, 'a', 'loop'))
    os.symlink('itself.wav', join(folder, 'itself.wav'))
    return sorted(good), {
        'nan.wav': 'NaN', 'no samples.wav': 'no samples', 'silent.wav': 'silent',
        'short.wav': 'too short: 0.056 seconds', 'clash.wav': 'clash.flac and clash.wav',
        'clash.flac': 'clash.flac and clash.wav', 'tab\\tin it.wav': 'control character',
        'line\\nin it.wav': 'control character', 'text.wav': 'not audio',
        'zero bytes.wav': 'not audio', 'half.wav': 'truncated', 'itself.wav': 'regular file'}


def test_a_corpus_with_everything_in_it(made):
    good, bad = zoo(made.wavs)
    sources = tree(made.wavs)
    status, out, err = made.run()
    assert status == 1
    assert made.names() == good and len(made.names('test')) == 1
    skipped = made.skipped()
    assert sorted(skipped) == sorted(bad)
    for path, reason in bad.items():
        assert reason in skipped[path] and 'skipped %s: ' % path in err, path
        assert made.wavs not in skipped[path]
    assert '1 utterances overshoot full scale' in err
    assert re.search(r'8 utterances to train on and 1 held out, 0\.00 hours', out)
    assert re.search(r'9 computed at \d+ x real time, 0 up to date', out)
    converted = os.path.join(made.data, 'wavs')
    made.check(converted)
    assert tree(made.wavs) == sources
    assert sorted(tree(converted)) == sorted([n + '.wav' for n in good] + [corpus.MARKER])
    assert sorted(tree(made.mels)) == sorted([n + '.mel' for n in good] + ['params.json'])
    for folder in (made.mels, made.data):
        assert params.load(folder) == params.preset('small')
    # The files hold the audio: the first is its source bit for bit, a converted one near it.
    np.testing.assert_array_equal(audio_files.read_wav(os.path.join(converted, 'plain.wav'), 16000),
                                  speech(0))
    audio = audio_files.read_wav(os.path.join(converted, 'wide.wav'), 16000)
    assert np.abs(audio - speech(4)).max() < 1.1 / 32768


def test_again_redoes_only_what_changed(made):
    for k in range(6):
        put(os.path.join(made.wavs, 's%d.wav' % (k % 2), 'u%d.wav' % k), speech(k))
    put(os.path.join(made.wavs, 'u.flac'), speech(6), 22050)
    assert made.run()[0] == 0
    before = tree(made.mels), tree(os.path.join(made.data, 'wavs'))

    def changed(old, new):
        return sorted(set(name for name in set(old) | set(new) if old.get(name) != new.get(name)
                          and name not in ('params.json', corpus.MARKER)))

    status, out, _ = made.run()
    assert status == 0 and '0 computed, 7 up to date' in out
    after = tree(made.mels), tree(os.path.join(made.data, 'wavs'))
    assert changed(before[0], after[0]) == changed(before[1], after[1]) == []

    put(os.path.join(made.wavs, 's0.wav', 'u0.wav'), speech(8))
    put(os.path.join(made.wavs, 'u.flac'), speech(9), 22050)
    os.unlink(os.path.join(made.mels, 's1.wav', 'u1.mel'))
    status, out, _ = made.run()
    assert '3 computed' in out
    assert changed(after[0], tree(made.mels)) == ['s0.wav/u0.mel', 's1.wav/u1.mel', 'u.mel']
    made.check(os.path.join(made.data, 'wavs'))

    after = tree(made.mels)
    status, out, _ = made.run('--hparams', 'mel_profile=weixsong,lr=0.5')
    assert '7 computed' in out and len(changed(after, tree(made.mels))) == 7
    made.check(os.path.join(made.data, 'wavs'), 'weixsong')
    assert params.load(made.mels).mel_profile == 'weixsong' and params.load(made.data).lr == 0.5

    after = tree(made.mels)                     # what is no data parameter redoes no data
    status, out, _ = made.run('--hparams', 'mel_profile=weixsong,lr=0.25')
    assert '0 computed' in out and changed(after, tree(made.mels)) == []
    assert params.load(made.data).lr == 0.25

    os.unlink(os.path.join(made.wavs, 'u.flac'))
    os.unlink(os.path.join(made.wavs, 's0.wav', 'u2.wav'))
    status, out, _ = made.run('--hparams', 'mel_profile=weixsong')
    assert made.names() == ['s0.wav/u0', 's0.wav/u4', 's1.wav/u1', 's1.wav/u3', 's1.wav/u5']
    assert '--wave_dir=%s ' % made.wavs in out.splitlines()[-1]     # all plain now
    assert not os.path.exists(os.path.join(made.data, 'wavs'))
    assert changed(after, tree(made.mels)) == ['s0.wav/u2.mel', 'u.mel']
    made.check(made.wavs, 'weixsong')


def test_mels_of_any_definition_with_statistics(made, tmp_path):
    """The values, what is stored of them, and what another run redoes."""
    for k in range(2):
        put(os.path.join(made.wavs, '%d.wav' % k), speech(k))
    rng, stats = np.random.RandomState(0), str(tmp_path / 'stats.npy')
    mean, scale = rng.randn(60), 0.5 + rng.rand(60)
    np.save(stats, np.stack([mean, scale]))
    flags = '--hparams', 'fmin=40,n_mels=60,mel_profile=hifigan,hop_length=128'
    status, out, _ = made.run(*flags, '--mel_stats', stats)
    assert status == 0 and ('16000 Hz, mel profile hifigan with hop_length=128, n_mels=60, '
                            'fmin=40.0, statistics\n') in out
    hp = params.load(made.mels)
    for name in made.names():
        audio = audio_files.read_wav(os.path.join(made.wavs, name + '.wav'), 16000)
        plain = mel_transform.mel_spectrogram(audio, hp.mel.replace(mean=(), scale=()))
        mel = mel_files.read_mel(os.path.join(made.mels, name + '.mel'), 60)
        assert len(mel) == len(audio) // 128
        np.testing.assert_allclose(mel, (plain - mean) / scale, atol=1e-4)
    assert os.path.getsize(os.path.join(made.data, corpus.MANIFEST)) < 2000
    # the same statistics redo nothing; others do, and none
    assert '0 computed' in made.run(*flags, '--mel_stats', stats)[1]
    np.save(stats, np.stack([mean, 2 * scale]))
    assert '2 computed' in made.run(*flags, '--mel_stats', stats)[1]
    assert '2 computed' in made.run(*flags)[1]
    assert params.load(made.data).mel.mean == ()


def test_a_corpus_with_the_former_name_of_its_mel_profile_is_not_redone(made):
    """Manifest and params.json of earlier versions call the profile weixsong `seed`."""
    for k in range(2):
        put(os.path.join(made.wavs, '%d.wav' % k), speech(k))
    profile = '--hparams', 'mel_profile=weixsong'
    assert made.run(*profile)[0] == 0
    manifest = os.path.join(made.data, corpus.MANIFEST)
    for path in (manifest, *(os.path.join(folder, 'params.json')
                             for folder in (made.mels, made.data))):
        with open(path, encoding='utf-8') as f:
            text = f.read()
        assert '"mel_profile": "weixsong"' in text
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text.replace('"mel_profile": "weixsong"', '"mel_profile": "seed"'))
    mels = tree(made.mels)
    status, out, _ = made.run(*profile)
    after = tree(made.mels)
    assert status == 0 and '0 computed' in out
    assert [name for name in after if after[name] != mels[name]] == ['params.json']
    with open(manifest, encoding='utf-8') as f:
        assert {record['data']['mel_profile'] for record in json.load(f).values()} == {'weixsong'}


def test_a_forgotten_preset_does_not_throw_the_corpus_away(made, monkeypatch):
    """Without --preset, what data_dir/params.json says holds."""
    put(os.path.join(made.wavs, 'u0.wav'), speech(0))
    put(os.path.join(made.wavs, 'u1.wav'), speech(1))
    assert made.run()[0] == 0
    before = tree(made.mels)
    assert len(before) == 3
    monkeypatch.setattr(sys, 'argv', ['preprocess_data.py'] + [
        '--%s_dir=%s' % pair for pair in (('wave', made.wavs), ('mel', made.mels),
                                          ('data', made.data))])
    assert preprocess_data.main() == 0
    assert params.load(made.data).sample_rate == 16000
    after = tree(made.mels)
    assert all(after[name] == before[name] for name in before if name != 'params.json')


def test_the_last_line_is_the_command_to_train(made, tmp_path):
    made.wavs = str(tmp_path / "it's a $corpus")
    for k in range(3):
        put(os.path.join(made.wavs, '%d.wav' % k), speech(k))
    status, out, _ = made.run()
    assert status == 0
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    (folder / 'train.py').write_text('import json, sys\nprint(json.dumps(sys.argv))\n')
    (folder / 'python').symlink_to(sys.executable)
    said = subprocess.check_output(
        ['sh', '-c', out.splitlines()[-1]], cwd=str(folder),
        env=dict(os.environ, PATH='%s:%s' % (folder, os.environ['PATH'])))
    assert json.loads(said.decode()) == [
        'train.py', '--filelist=' + os.path.join(made.data, 'train.scp'),
        '--wave_dir=' + made.wavs, '--lc_dir=' + made.mels]


@pytest.mark.parametrize('where', ['beside', 'inside', 'under'])
def test_output_within_the_corpus_is_not_taken_for_speech(made, where):
    for k in range(3):
        put(os.path.join(made.wavs, 'wavs' if where == 'beside' else 'x', '%d.wav' % k),
            speech(k), 22050)
    if where == 'beside':       # data_dir/wavs is the corpus itself: it must stay as it is
        made.data, made.wavs = made.wavs, os.path.join(made.wavs, 'wavs')
        made.mels = os.path.join(made.data, 'mels')
    else:
        made.data = made.mels = os.path.join(made.wavs, *(['out'] if where == 'inside' else []))
    sources = tree(made.wavs)
    for _ in range(2):
        status, out, _ = made.run()
        assert status == 0 and len(made.names()) == 3
        after = tree(made.wavs)
        assert {path: after.get(path) for path in sources} == sources
    assert '0 computed, 3 up to date' in out
    made.check(os.path.join(made.data, 'wavs_16000' if where == 'beside' else 'wavs'))


def test_bad_input_is_told_in_one_sentence(made, tmp_path):
    def refused(reason, *flags):
        status, out, err = made.run(*flags)
        assert status == 2 and reason in err and 'Traceback' not in err + out
        assert len([line for line in err.splitlines() if 'error:' in line]) == 1

    refused('is not a folder')
    os.makedirs(made.wavs)
    refused('holds no sound files')
    put(os.path.join(made.wavs, 'silent.wav'), np.zeros(16000))
    refused('none of the 1 sound files')
    for k in range(3):
        put(os.path.join(made.wavs, '%d.wav' % k), speech(k))
    refused('leaves none to train on', '--test_size=4')
    refused('less than 1', '--num_workers=0')
    refused('did you mean', '--hparams=sample_rat=8000')
    refused('did you mean', '--preset=smal')
    (tmp_path / 'file').write_text('a file')
    for flag in ('--mel_dir', '--data_dir'):
        refused('cannot write', flag, str(tmp_path / 'file'))
        refused('cannot write', flag, str(tmp_path / 'file' / 'deeper'))
    assert made.run('--test_size=0')[0] == 1 and len(made.names('train')) == 3
    assert made.run('--min_seconds=1.6')[0] == 2


def test_the_split_is_seeded_and_stable():
    names = ['speaker%d/%d' % (k % 3, k) for k in range(200)]
    train, test = corpus.split(names, None, 0)
    assert len(test) == 10 and sorted(train + test) == sorted(names)
    assert corpus.split(names[::-1], None, 0) == (train, test)
    assert len(set(test) & set(corpus.split(names, None, 1)[1])) < 5
    added = ['new/%d' % k for k in range(20)]
    _, grown = corpus.split(names + added, 10, 0)
    assert len(set(test) - set(grown)) == len(set(grown) & set(added)) <= 3
    _, larger = corpus.split(names, 15, 0)
    assert set(test) < set(larger)
    for n, held in ((1, 0), (2, 1), (39, 2), (1000, 20)):
        assert len(corpus.split(['%d' % k for k in range(n)], None, 0)[1]) == held
    with pytest.raises(UserError):
        corpus.split(names, 200, 0)


# --- Processes that die.

def deadly(job):
    if 'deadly' in job.source:
        os.kill(os.getpid(), signal.SIGKILL)
    return 'done', job.name


def jobs(names):
    return [preprocessing.Job(name, name, name + '.mel', None,
                              definition('weixsong'), 0) for name in names]


def test_a_worker_that_dies_takes_one_file_with_it(monkeypatch):
    monkeypatch.setattr(preprocessing, 'compute', deadly)
    names = ['%d' % k for k in range(20)]
    names[3] = names[17] = 'deadly'
    results = list(preprocessing.run_jobs(jobs(names), 2, multiprocessing.get_context('fork')))
    assert sorted(job.name for job, _ in results) == sorted(names)
    for job, (outcome, reason) in results:
        assert outcome == ('skipped' if job.name == 'deadly' else 'done')


def test_workers_can_be_spawned(tmp_path):
    job = preprocessing.Job('x', WAVS[0], str(tmp_path / 'x.mel'), str(tmp_path / 'x.wav'),
                            definition('weixsong', 22050), 2048)
    (_, (outcome, record)), = preprocessing.run_jobs([job], 1,
                                                       multiprocessing.get_context('spawn'))
    assert outcome == 'done' and record.samples == len(audio_files.read_wav(job.wav, 22050))
    assert record.mel == corpus.size_and_mtime(job.mel)


def test_a_manifest_is_what_was_written(tmp_path):
    """Any names, and the parameters of many records held once."""
    for records in ({}, {name: {'data': {'hop_length': 256}, 'mel': [1, n]}
                         for n, name in enumerate(('a', 'b/c', 'with "quotes"', 'h\u00e9'))}):
        corpus.write_manifest(str(tmp_path), records)
        found = corpus.read_manifest(str(tmp_path))
        assert found == records and list(found) == list(records)
    assert found['a']['data'] is found['b/c']['data']


KILLS = '''
import os, signal, sys, time
import params
from datasets import mel_transform, preprocessing
wavs, mels, data, *moments = sys.argv[1:]
hp = params.preset('small')
mel_transform.mel_basis(hp.mel)
for k, moment in enumerate(map(float, moments)):
    child = os.fork()
    if not child:
        os.setsid()
        preprocessing.preprocess(wavs, mels, data, hp, num_workers=2)
        os._exit(0)
    time.sleep(moment)
    (os.kill if k % 2 else os.killpg)(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if k % 2:   # its workers live, must see it, and end
        time.sleep(1)
    print('killed', flush=True)
    sys.stdin.readline()
'''


def test_killed_at_any_moment_leaves_no_half_file(made, tmp_path):
    for k in range(8 * len(WAVS)):
        path = os.path.join(made.wavs, 'w', '%03d.wav' % k)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.link(WAVS[k % len(WAVS)], path) if k % 4 else put(path, speech(k % 16, 9), 44100)
    whole = Corpus(tmp_path / 'whole', made.monkeypatch, made.capsys)
    whole.wavs = made.wavs
    began = time.time()
    assert whole.run()[0] == 0
    took = time.time() - began
    complete = sorted(tree(whole.mels)) + sorted(tree(whole.data))

    lot = random.Random(3)
    moments = ['%.3f' % (took * lot.uniform(0.1, 0.9)) for _ in range(8)]
    with subprocess.Popen([sys.executable, '-c', KILLS, made.wavs, made.mels, made.data] + moments,
                          env=dict(os.environ, PYTHONPATH=ROOT), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as killer:
        for _ in moments:
            assert killer.stdout.readline() == b'killed\n'
            for path in sorted(tree(made.mels)) + sorted(tree(made.data)):
                if os.path.basename(path).startswith('.tmp-'):
                    continue
                assert path in complete
                if path.endswith(('.mel', '.wav')):
                    same_bytes(made, whole, path)
            for name in ('train', 'test'):
                if os.path.exists(os.path.join(made.data, name + '.scp')):
                    assert made.names(name) == whole.names(name)
            if os.path.exists(os.path.join(made.data, corpus.MANIFEST)):
                os.unlink(os.path.join(made.data, corpus.MANIFEST))     # the next redoes everything
            killer.stdin.write(b'\n')
            killer.stdin.flush()
    litter = os.path.join(made.mels, 'w', '.tmp-abcdefgh-0.mel')
    with open(litter, 'wb') as f:
        f.write(b'half')
    assert made.run()[0] == 0
    assert sorted(tree(made.mels)) + sorted(tree(made.data)) == complete
    for path in complete:
        if path.endswith(('.mel', '.wav', '.scp')):
            same_bytes(made, whole, path)
    shutil.rmtree(made.wavs)


def same_bytes(made, whole, path):
    for mine, its in ((made.mels, whole.mels), (made.data, whole.data)):
        if os.path.exists(os.path.join(its, path)) and os.path.exists(os.path.join(mine, path)):
            a, b = os.path.join(mine, path), os.path.join(its, path)
            with open(a, 'rb') as f, open(b, 'rb') as g:
                assert f.read() == g.read(), path
            return
    pytest.fail(path)


@pytest.mark.parametrize('text', [
    '[' * 100000, '{"a": %s}' % ('[' * 100000), '{"a": {"samples": "many", "mel": [1, 2]}}',
    '{"a": {"samples": 1e400, "mel": [1]}}', '{"a": {"notes": 3}}',
    '{"a": {"source": 3}}', '{"a": 3}', '{"a": {"zeros": 1%s}}' % ('0' * 400)])
def test_a_damaged_manifest_is_computed_anew(tmp_path, text):
    (tmp_path / corpus.MANIFEST).write_text(text)
    assert corpus.read_manifest(str(tmp_path)) == {}
