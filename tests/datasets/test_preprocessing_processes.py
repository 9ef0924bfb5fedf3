"""Preprocessing whose processes die, or are killed."""
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from preprocessed import WAVS, Corpus, put, tree, utterance
from speech import definition

from datasets import audio_files, corpus, preprocessing


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


@pytest.mark.slow
def test_killed_at_any_moment_leaves_no_half_file(tmp_path, monkeypatch, capsys):
    made, whole = (Corpus(tmp_path / name, monkeypatch, capsys) for name in ('made', 'whole'))
    for k in range(8 * len(WAVS)):
        path = os.path.join(made.wavs, 'w', '%03d.wav' % k)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.link(WAVS[k % len(WAVS)], path) if k % 4 else put(path, utterance(k % 16, 9), 44100)
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
