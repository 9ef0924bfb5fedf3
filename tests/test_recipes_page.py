"""The commands of docs/recipes.md run, on a few seconds of speech in the layout of each corpus."""
import glob
import os
import re
import shlex
import sys

import pytest
import soundfile
import soxr
from conftest import ROOT

import params
import preprocess_data
import train

# a model that trains in seconds, whatever the preset
TINY = ('n_flows=2,n_layers=2,residual_channels=8,skip_channels=8,batch_size=1,clip_samples=4096,'
        'eval_seconds=1,gen_utterances=1')
# section -> (a sound file's path, its rate in Hz, the model's mel profile, its rate in Hz)
CORPORA = {
    'LJSpeech': ('LJSpeech-1.1/wavs/LJ001-000%d.wav', 22050, 'tacotron2', 22050),
    'VCTK': ('VCTK/wav48_silence_trimmed/p225/p225_00%d_mic1.flac', 48000, 'espnet_24k', 24000),
    'CSMSC (Baker)': ('BZNSYP/Wave/00000%d.wav', 48000, 'espnet_24k', 24000),
    'LibriTTS': ('LibriTTS/train-clean-100/103/1241/103_1241_00000%d.wav', 24000, 'vocos', 24000),
    'Thorsten': ('thorsten-de/wavs/%d.wav', 22050, 'coqui', 22050),
    'Your own folder': ('corpus/sounds/a folder/%d.ogg', 44100, 'tacotron2', 16000),
    'An audiobook': ('audiobook/chapters/%d.flac', 44100, 'tacotron2', 16000)}


def commands():
    """{section of the page: its commands}."""
    with open(os.path.join(ROOT, 'docs', 'recipes.md'), encoding='utf-8') as f:
        sections = re.split(r'^## ', f.read(), flags=re.M)[1:]
    return {section.split('\n')[0]: re.findall(r'^python (.*)$', section, flags=re.M)
            for section in sections}


def test_every_recipe_is_run():
    assert sorted(commands()) == sorted(CORPORA)


def run(monkeypatch, main, command, *more):
    arguments = shlex.split(command)
    hparams = [word for word in arguments if word.startswith('--hparams=')]
    changes = hparams[0] + ',' + TINY if hparams else '--hparams=' + TINY
    monkeypatch.setattr(sys, 'argv', arguments + list(more) + [changes])     # the last one counts
    assert main() == 0


TRAINED = 'CSMSC (Baker)', 'An audiobook'       # of the others the files are looked at


@pytest.mark.slow
@pytest.mark.parametrize('section', sorted(CORPORA))
def test_recipe_runs(monkeypatch, tmp_path, section):
    pattern, rate, profile, model_rate = CORPORA[section]
    speech = sorted(glob.glob(os.path.join(ROOT, 'samples', 'wavs', '*.wav')))[:3]
    for i, path in enumerate(speech):
        audio, speech_rate = soundfile.read(path)
        sound = tmp_path / (pattern % i)
        sound.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(str(sound), soxr.resample(audio[:speech_rate], speech_rate, rate), rate)
    monkeypatch.chdir(tmp_path)
    preprocess, training = commands()[section]
    # three files, of which one is held out
    preprocess = re.sub(r'--test_size=\d+', '--test_size=1', preprocess)
    run(monkeypatch, preprocess_data.main, preprocess, '--num_workers=1')
    data_dir = re.search(r'--data_dir=(\S+)', preprocess).group(1)
    hp = params.load(data_dir)
    assert (hp.mel_profile, hp.sample_rate) == (profile, model_rate)
    with open(os.path.join(data_dir, 'train.scp')) as f:
        assert len(f.read().splitlines()) == 2
    if section in TRAINED:
        run(monkeypatch, train.main, training, '--max_steps=1', '--xla=off')
        run_name = re.search(r'--run_name=(\S+)', training).group(1)
        assert os.path.exists(os.path.join('logdir', run_name, 'model.ckpt-1.index'))
    else:
        flags = dict(word[2:].split('=') for word in training.split()[1:])
        with open(flags['filelist']) as f:
            for name in f.read().splitlines():
                assert os.path.exists(os.path.join(flags['wave_dir'], name + '.wav'))
                assert os.path.exists(os.path.join(flags['lc_dir'], name + '.mel'))
