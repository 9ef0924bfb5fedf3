"""The bundled speech, preprocessed for the tests that train and vocode."""
import os
import re
import subprocess
import sys

import pytest
import soundfile
from conftest import ROOT

import command_line
import params
from datasets import preprocessing
from datasets.mel_definition import PROFILES

WAVS = os.path.join(ROOT, 'samples', 'wavs')
SPEECH = os.path.join(WAVS, 'pbx-invalidpark.wav')
# Small enough that a step takes a few milliseconds.
MODEL = ('n_flows=2,n_group=8,n_early_every=1,n_layers=2,residual_channels=8,skip_channels=8,'
         'batch_size=2,clip_samples=2048,eval_utterances=2,eval_seconds=1,gen_utterances=0')


# What TensorFlow 2.21 logs while it is imported, before it reads TF_CPP_MIN_LOG_LEVEL.
TENSORFLOW_STARTS = re.compile(
    r'^(WARNING: All log messages before absl|[IW]\d{4} [^\n]*\.cc:\d+\] )[^\n]*\n', re.MULTILINE)


def speech(seconds=None):
    """SPEECH, or its beginning: float32 [samples] at 16 kHz."""
    audio, rate = soundfile.read(SPEECH, dtype='float32')
    assert rate == 16000
    return audio[:int(seconds * rate)] if seconds else audio


def definition(name, rate=16000):
    """The mel profile called `name`, at another sample rate."""
    return PROFILES[name].replace(sample_rate=rate)


def prepare(directory, overrides=MODEL):
    """Preprocesses the bundled speech into `directory`; returns train.py's data arguments."""
    hp = params.override(params.preset('small'), overrides)
    summary = preprocessing.preprocess(WAVS, str(directory / 'mels'), str(directory), hp,
                                         test_size=2)
    return ['--filelist=%s' % (directory / 'train.scp'), '--wave_dir=%s' % summary.wave_dir,
            '--lc_dir=%s' % (directory / 'mels')]


def refusal(monkeypatch, capsys, command, *arguments):
    """The last line on stderr of a command, a module, that refuses its arguments."""
    monkeypatch.setattr(sys, 'argv', [command.__name__ + '.py'] + list(arguments))
    with pytest.raises(SystemExit) as ended:
        command_line.run_script(command.main)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def script(name, *arguments, **options):
    """Runs a script of the repository: subprocess.CompletedProcess with stdout and stderr."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, name)] + list(arguments),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          timeout=600, **options)
    done.stderr = TENSORFLOW_STARTS.sub('', done.stderr)
    return done
