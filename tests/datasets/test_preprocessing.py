"""Preprocessing of a corpus with everything in it that corpora have in them."""
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from preprocessed import WAVS, Corpus, put, tree, utterance

import params
import preprocess_data
from datasets import audio_files, corpus, mel_files, mel_transform
from errors import UserError


@pytest.fixture
def made(tmp_path, monkeypatch, capsys):
    return Corpus(tmp_path, monkeypatch, capsys)


def zoo(folder):
    """Fills `folder`; returns (names that can be used, {path: part of the reason} of the rest)."""
    join = os.path.join
    put(join(folder, 'plain.wav'), utterance(0))
    put(join(folder, 'a', 'b', 'nested one.wav'), utterance(1))
    put(join(folder, 'a', 'stereo.flac'), np.stack([utterance(2)] * 2, axis=1), 44100)
    put(join(folder, 'eight.wav'), utterance(3), 8000, subtype='PCM_U8')
    put(join(folder, 'wide.wav'), utterance(4), subtype='PCM_24')
    put(join(folder, 'float.wav'), 2 * utterance(5) / np.abs(utterance(5)).max(), subtype='FLOAT')
    put(join(folder, 'Upper.WAV'), utterance(6))
    put(join(folder, u'sp\u00e9cial, #1.wav'), utterance(7))
    put(join(folder, 'extensible.wav'), utterance(8), format='WAVEX', subtype='PCM_16')
    good = ['plain', 'a/b/nested one', 'a/stereo', 'eight', 'wide', 'float', 'Upper',
            u'sp\u00e9cial, #1', 'extensible']
    nan = utterance(9).copy()
    nan[7000] = np.nan
    put(join(folder, 'nan.wav'), nan, subtype='FLOAT')
    put(join(folder, 'no samples.wav'), np.zeros(0))
    put(join(folder, 'silent.wav'), np.zeros(20000))
    put(join(folder, 'short.wav'), utterance(0)[4000:4900])
    put(join(folder, 'clash.wav'), utterance(1))
    put(join(folder, 'clash.flac'), utterance(1))
    put(join(folder, 'tab\tin it.wav'), utterance(2))
    put(join(folder, 'line\nin it.wav'), utterance(2))
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
                                  utterance(0))
    audio = audio_files.read_wav(os.path.join(converted, 'wide.wav'), 16000)
    assert np.abs(audio - utterance(4)).max() < 1.1 / 32768


def test_again_redoes_only_what_changed(made):
    for k in range(6):
        put(os.path.join(made.wavs, 's%d.wav' % (k % 2), 'u%d.wav' % k), utterance(k))
    put(os.path.join(made.wavs, 'u.flac'), utterance(6), 22050)
    assert made.run()[0] == 0
    before = tree(made.mels), tree(os.path.join(made.data, 'wavs'))

    def changed(old, new):
        return sorted(set(name for name in set(old) | set(new) if old.get(name) != new.get(name)
                          and name not in ('params.json', corpus.MARKER)))

    status, out, _ = made.run()
    assert status == 0 and '0 computed, 7 up to date' in out
    after = tree(made.mels), tree(os.path.join(made.data, 'wavs'))
    assert changed(before[0], after[0]) == changed(before[1], after[1]) == []

    put(os.path.join(made.wavs, 's0.wav', 'u0.wav'), utterance(8))
    put(os.path.join(made.wavs, 'u.flac'), utterance(9), 22050)
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
        put(os.path.join(made.wavs, '%d.wav' % k), utterance(k))
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
        put(os.path.join(made.wavs, '%d.wav' % k), utterance(k))
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
    put(os.path.join(made.wavs, 'u0.wav'), utterance(0))
    put(os.path.join(made.wavs, 'u1.wav'), utterance(1))
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
        put(os.path.join(made.wavs, '%d.wav' % k), utterance(k))
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
            utterance(k), 22050)
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
        put(os.path.join(made.wavs, '%d.wav' % k), utterance(k))
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


def test_a_manifest_is_what_was_written(tmp_path):
    """Any names, and the parameters of many records held once."""
    for records in ({}, {name: {'data': {'hop_length': 256}, 'mel': [1, n]}
                         for n, name in enumerate(('a', 'b/c', 'with "quotes"', 'h\u00e9'))}):
        corpus.write_manifest(str(tmp_path), records)
        found = corpus.read_manifest(str(tmp_path))
        assert found == records and list(found) == list(records)
    assert found['a']['data'] is found['b/c']['data']


@pytest.mark.parametrize('text', [
    '[' * 100000, '{"a": %s}' % ('[' * 100000), '{"a": {"samples": "many", "mel": [1, 2]}}',
    '{"a": {"samples": 1e400, "mel": [1]}}', '{"a": {"notes": 3}}',
    '{"a": {"source": 3}}', '{"a": 3}', '{"a": {"zeros": 1%s}}' % ('0' * 400)])
def test_a_damaged_manifest_is_computed_anew(tmp_path, text):
    (tmp_path / corpus.MANIFEST).write_text(text)
    assert corpus.read_manifest(str(tmp_path)) == {}
