"""evaluate.py on bundled speech and the bundled voice: its figures, its page, what it refuses."""
import base64
import io
import itertools
import json
import os
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import scipy.stats
import soundfile
import tensorflow.compat.v1 as tf
from conftest import ROOT
from graphs import TINY, random_weights
from speech import WAVS, refusal, script

import evaluate
import glow
import ops
import utils
import vocoder
from datasets import audio_files, mel_transform
from metrics import measures

SAMPLES = os.path.join(ROOT, 'samples')
NAMES = 'tt-weasels', 'conf-waitforleader'
# Of one utterance. Noise of 1e-6 on the mels moves these measures by at most a tenth of it.
TOLERANCE = dict(nll_bits=0.02, pesq=0.1, stoi=0.005, mcd=0.05, log_mel_l1=0.01, line_noise=0.5)
# These hang on the decision voice or no voice, which rounding turns over: the same noise moves one
# utterance of Griffin-Lim by 4 cents and 2.4%, another processor by 4.5%.
PITCH = 'f0_cents', 'voicing'


@pytest.fixture(scope='module')
def evaluation(tmp_path_factory):
    """(folder, completed process) of evaluate.py on two bundled utterances, one on the page."""
    folder = tmp_path_factory.mktemp('evaluation')
    (folder / 'two.scp').write_text(''.join(name + '\n' for name in NAMES))
    return folder, script('evaluate.py', '--filelist=%s' % (folder / 'two.scp'),
                          '--out_dir=%s' % folder, '--page_utterances=1')


@pytest.fixture(scope='module')
def committed():
    with open(os.path.join(SAMPLES, 'evaluation.json')) as f:
        return json.load(f)


def read(folder, name):
    with open(str(folder / name)) as f:
        return f.read()


@pytest.mark.slow
def test_figures_are_the_committed_ones(evaluation, committed):
    """Utterance by utterance; the pitch measures' means within the range of all 20 utterances."""
    folder, done = evaluation
    assert done.returncode == 0, done.stderr
    found = json.loads(read(folder, 'evaluation.json'))
    assert sorted(found['utterances']) == sorted(NAMES)
    for name in NAMES:
        for system, values in committed['utterances'][name].items():
            there = set(found['utterances'][name][system])
            assert there == set(values) - (set() if measures.has_mos() else set(measures.MOS))
            for key in set(TOLERANCE) & set(values):
                assert found['utterances'][name][system][key] == pytest.approx(
                    values[key], abs=TOLERANCE[key]), (name, system, key)
    for system, values in committed['summary'].items():
        for key in PITCH:
            of_all = [each[system][key] for each in committed['utterances'].values()]
            assert min(of_all) <= found['summary'][system][key][0] <= max(of_all), (system, key)
    for system, values in found['summary'].items():
        for key, (mean, low, high) in values.items():
            assert mean == pytest.approx(np.mean([found['utterances'][n][system][key]
                                                  for n in NAMES]))
            assert low <= mean <= high
    assert all((metric.title in done.stdout) == (measures.has_mos() or key not in measures.MOS)
               for key, metric in measures.METRICS.items())
    assert ('speechmos is not installed' in done.stderr) == (not measures.has_mos())


def test_the_voice_beats_griffin_lim(committed):
    """The claim of README.md, of all utterances and beyond its 95% intervals."""
    ours, theirs = (committed['summary'][s] for s in (evaluate.WAVEGLOW, evaluate.GRIFFIN_LIM))
    assert len(committed['utterances']) == 20
    for key, sign in (('pesq', 1), ('stoi', 1), ('log_mel_l1', -1)):
        assert min(sign * x for x in ours[key]) > max(sign * x for x in theirs[key]), key


@pytest.mark.slow
def test_wavs_are_what_is_measured(evaluation):
    folder, _ = evaluation
    found = json.loads(read(folder, 'evaluation.json'))['utterances']
    hp = vocoder.load_model(utils.BUNDLED_MODEL)[0]
    for name in NAMES:
        original = audio_files.read_wav(os.path.join(WAVS, name + '.wav'), hp.sample_rate)
        for system, values in found[name].items():
            if system == evaluate.ORIGINAL:
                continue
            path = evaluate.wav_path(str(folder), system, name)
            audio = audio_files.read_wav(path, hp.sample_rate)
            assert measures.stoi(audio, original[:len(audio)], hp.sample_rate) == pytest.approx(
                values['stoi'], abs=1e-4)


@pytest.mark.slow
def test_the_page_holds_all_that_it_shows(evaluation):
    folder, _ = evaluation
    page = read(folder, 'index.html')
    assert not re.search(r'(src|href)="(?!data:)|url\(|import|fetch', page)
    flacs = re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(flacs) == len(evaluate.ON_PAGE) and len(pictures) == 2 * len(evaluate.ON_PAGE)
    lengths = set()
    for flac in flacs:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(flac)))
        assert rate == 16000 and np.std(samples) > 0.01
        lengths.add(len(samples))
    assert len(lengths) == 1 and lengths.pop() > 2 * 16000
    for picture in pictures:
        image = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(picture))))
        assert image.shape[0] in (513, 257) and image.shape[1] > 200 and image.std() > 20
    assert len(set(pictures)) == len(pictures)


@pytest.mark.slow
def test_bits_are_those_of_the_density():
    """Against the change of variables itself: the whole Jacobian of z, and scipy's normal."""
    hp, weights = TINY, random_weights(TINY)
    audio = audio_files.read_wav(os.path.join(WAVS, 'tt-weasels.wav'), hp.sample_rate)
    audio = audio[8000:8000 + hp.hop_length]
    mel = mel_transform.mel_spectrogram(audio, hp.mel)[:1]
    with tf.Graph().as_default(), ops.frozen(weights):
        audio_in = tf.placeholder(tf.float32, [1, None])
        z = tf.reshape(glow.encode(audio_in, tf.constant(mel[None]), hp), [-1])
        which = tf.placeholder(tf.int32, [])
        row = tf.gradients(z[which], audio_in)[0][0]
        with tf.Session() as session:
            feed = {audio_in: audio[None]}
            values = session.run(z, feed)
            jacobian = np.stack([session.run(row, {which: i, **feed}) for i in range(len(audio))])
    log_density = (scipy.stats.norm.logpdf(values, scale=hp.sigma).sum()
                   + np.linalg.slogdet(jacobian.astype(np.float64))[1])
    expected = -log_density / len(audio) / np.log(2) + 15      # of steps of 2^-15
    assert evaluate.likelihood(hp, weights)(audio, mel) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize('flags, words', [
    (['--filelist=none.scp'], 'none.scp'), (['--wave_dir=none'], 'none'),
    (['--restore_from=none'], 'none'), (['--sigma=-1'], '--sigma is zero or more'),
    (['--mel_correction=-1'], '--mel_correction'), (['--lc_dir=none'], 'none')])
def test_refusals(monkeypatch, capsys, flags, words, tmp_path):
    assert words in refusal(monkeypatch, capsys, evaluate, '--out_dir=%s' % (tmp_path / 'out'),
                            *flags)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('folder', ['waveglow', 'griffin-lim', 'waveglow-flow-alone', 'linked'])
def test_a_recording_is_not_overwritten(monkeypatch, capsys, tmp_path, folder):
    """By an output folder that holds the recordings, by a link, or by an absolute name in a list.

    It is refused before anything is computed.
    """
    monkeypatch.setattr(evaluate, 'measure_all', None)
    wavs = tmp_path / 'out' / ('recordings' if folder == 'linked' else folder)
    wavs.mkdir(parents=True)
    if folder == 'linked':
        os.symlink(str(wavs), str(tmp_path / 'out' / 'waveglow-denoised'))
    source = os.path.join(WAVS, NAMES[0] + '.wav')
    recording = wavs / 'mine.wav'
    shutil.copy(source, str(recording))
    filelist, absolute = tmp_path / 'names.scp', tmp_path / 'absolute.scp'
    filelist.write_text('mine\n')
    absolute.write_text('%s\n' % (wavs / 'mine'))
    flags = '--wave_dir=%s' % wavs, '--out_dir=%s' % (tmp_path / 'out')
    told = refusal(monkeypatch, capsys, evaluate, '--filelist=%s' % filelist, *flags)
    assert '%s, which is read, would be overwritten; give another --out_dir' % recording in told
    assert 'would be overwritten' in refusal(
        monkeypatch, capsys, evaluate, '--filelist=%s' % absolute, *flags)
    told = refusal(monkeypatch, capsys, evaluate, '--filelist=%s' % absolute, '--wave_dir=' + WAVS,
                   '--out_dir=%s' % (tmp_path / 'elsewhere'))
    assert '--wave_dir' in told
    with open(source, 'rb') as f:
        assert recording.read_bytes() == f.read()
    assert sorted(os.listdir(str(tmp_path))) == ['absolute.scp', 'names.scp', 'out']


def test_the_systems_that_are_written_are_those_that_vocode():
    """`refuse_overwriting` asks for the folders of them all."""
    systems = evaluate.vocoding_systems(
        vocoder.Vocoder(*vocoder.load_model(utils.BUNDLED_MODEL)), evaluate.Settings())
    assert [evaluate.ORIGINAL, *evaluate.VOCODED] == list(systems)


TABLE_KEYS = {'README.md': ('pesq', 'stoi', 'p808', 'log_mel_l1', 'rtf'),
              'docs/performance.md': tuple(measures.METRICS)}


@pytest.mark.parametrize('page', sorted(TABLE_KEYS))
def test_pages_say_what_was_measured(page, committed):
    """Every mean of a page's table of the voice is that of samples/evaluation.json."""
    lines = read(pathlib.Path(ROOT), page).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('| held-out speech |'))
    table = itertools.takewhile(lambda line: line.startswith('|'), lines[start:])
    rows = {cells[0]: cells[1:] for cells in (
        [cell.strip() for cell in line.strip('|').split('|')] for line in table)}
    systems = rows.pop('held-out speech')
    if page != 'README.md':     # which shows some of them
        assert systems == [s for s in committed['summary'] if s != evaluate.ORIGINAL]
    assert len(rows) == 1 + len(TABLE_KEYS[page])
    for key in TABLE_KEYS[page]:
        metric = measures.METRICS[key]
        told = rows[metric.title + (', ' + metric.unit if metric.unit else '')]
        for system, cell in zip(systems, told):
            values = committed['summary'][system].get(key)
            assert cell == ('' if values is None else '%.*f' % (metric.digits, values[0])), (
                system, key)
