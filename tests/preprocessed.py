"""A corpus in folders, and preprocess_data.py's main() on it."""
import glob
import os
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from speech import definition

import command_line
import preprocess_data
from datasets import audio_files, file_lists, mel_files, mel_transform

WAVS = sorted(glob.glob(os.path.join(ROOT, 'samples', 'wavs', '*.wav')))


def utterance(k=0, seconds=1.5):
    """The k-th of WAVS, or its beginning: float32 [samples] at 16 kHz."""
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
