"""Makes the bundled voice from nothing: fetches speech, computes mels, trains in stages, bundles.

    python -m recipes.voice --out_dir=voice

writes voice/model. With --precision=bfloat16, which the bundled voice was trained in, it is a copy
of samples/model but for the rounding of other processors. Ctrl-C and SIGTERM save and stop it; the
same command continues. Speech: the English and Spanish prompts that recipes/asterisk.py fetches, of
one speaker, but for the 20 utterances of samples/heldout.scp and three more that say nearly the
same words. The stage `shorter` also learns half of it played slower, for lower voices. The stages,
their steps and what they bring: docs/voice.md. It needs what recipes/asterisk.py needs.

With --schedule=long it trains a model that is to follow the bundled one, in longer stages.
"""
import argparse
import collections
import os
import re
import shutil
from typing import Dict, NamedTuple, Optional, Sequence, Set

import command_line

if __name__ == '__main__':
    command_line.prepare_tensorflow_import()

import numpy as np
import soxr

import devices
import errors
import files
import glow
import params
import utils
import vocoder
from datasets import audio_files, corpus, file_lists, preprocessing, sources
from errors import UserError
from params import HParams
from recipes import asterisk
from training import run, towers
from training.options import TrainingOptions

VOICES = collections.OrderedDict([('en', 'en_US_f_Allison'), ('es', 'es_MX_f_Allison')])
HELDOUT = os.path.join(files.ROOT, 'samples', 'heldout.scp')
# other takes of held-out sentences, or most of one
TOO_ALIKE = 'enter-num-blacklist', 'pbx-invalid', 'conf-full'
SPEEDS = 0.7, 0.85      # of the slower copies, by turns, of every second utterance
SLOWER = '_slower'      # ends the name of a voice's folder of them
MODEL = 'n_layers=7,residual_channels=80,skip_channels=80,gen_correction_rounds=16'
COMMON = 'eval_every=500,gen_test_wave_every=1000'    # of all stages
# Discriminators learn to tell samples of these stages from recordings.
ADVERSARIAL = ('stft_weight=1,stft_distance=mels,adversarial_weight=1,nll_weight=0.05,'
               'nll_share=0.25,lr=5e-4,warmup_steps=100,clip_norm=5,lr_decay_steps=3000,'
               'lr_decay_rate=0.03')


class Stage(NamedTuple):
    """A training that starts from the averaged weights of the one before."""
    name: str       # of its run
    steps: int
    hparams: str    # changes to the hyperparameters of the stage before; n_layers only to fewer
    filelist: str = 'train'     # of what it learns: train, or slower, which has the slower copies


STAGES = (
    # the likelihood alone, which finds voices fast
    Stage('likelihood', 1500, MODEL + ',lr=3e-3,lr_decay_steps=3500,lr_decay_rate=0.3'),
    # what samples sound like, and a little of the likelihood
    Stage('samples', 4000, 'stft_weight=1,nll_weight=0.05,lr=2e-3,warmup_steps=100,'
                           'lr_decay_steps=14000,lr_decay_rate=0.1'),
    Stage('finish', 5500, 'stft_weight=1,nll_weight=0.05,lr=1e-3,warmup_steps=100,clip_norm=5,'
                          'lr_decay_steps=5500,lr_decay_rate=0.03'),
    # and once more, longer
    Stage('polish', 9000, 'stft_weight=1,nll_weight=0.05,lr=1e-3,warmup_steps=100,clip_norm=5,'
                          'lr_decay_steps=9000,lr_decay_rate=0.01'),
    Stage('adversarial', 3000, ADVERSARIAL),
    # A network of fewer layers waits for less of the mel. Slower speech is a lower voice.
    Stage('shorter', 3800, 'n_layers=6,lr=1e-3,lr_decay_steps=3800,lr_decay_rate=0.01', 'slower'),
    Stage('last', 1300, 'lr=5e-4,lr_decay_steps=1300,gen_correction_rounds=14,gen_sigma=0.4'))

LONG_STAGES = (
    Stage('long_likelihood', 1000, MODEL + ',n_group=8,lr=3e-3,lr_decay_steps=3500,'
                                   'lr_decay_rate=0.3'),
    Stage('long', 40000, 'stft_weight=1,nll_weight=0.05,nll_share=0.25,lr=1e-3,warmup_steps=100,'
                         'clip_norm=5,lr_decay_steps=40000,lr_decay_rate=0.01'),
    Stage('long_adversarial', 3000, ADVERSARIAL))
SCHEDULES = {'bundled': STAGES, 'long': LONG_STAGES}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out_dir', type=command_line.local_path, required=True,
                        help='folder for the speech, the mels, the runs and the model')
    parser.add_argument('--precision', choices=sorted(glow.PRECISIONS),
                        help='what the coupling networks compute in while they train (default: '
                             'what OUT_DIR has trained in, at first bfloat16 or float32, whichever '
                             'is faster here)')
    parser.add_argument('--schedule', choices=sorted(SCHEDULES), default='bundled',
                        help='the stages, and with them the model (default: %(default)s)')
    args = parser.parse_args()
    model = os.path.join(args.out_dir, 'model')
    try:
        make_voice(args.out_dir, model, args.precision, SCHEDULES[args.schedule])
    except UserError as error:
        raise UserError('%s; the same command continues where it stopped' % error) from error
    print('measure it with: python evaluate.py --restore_from=%s' % model)


def make_voice(directory: str, model: str, precision: Optional[str], stages: Sequence[Stage]
               ) -> None:
    """Does all of it in `directory`, what is not done yet, and writes the voice to `model`.

    precision: see `choose_precision`.

    Raises UserError, also when a signal stops it.
    """
    glow.require_precision(precision or 'float32')
    hp = params.preset('small')
    wavs, mels = os.path.join(directory, 'wavs'), os.path.join(directory, 'mels')
    for language, voice in VOICES.items():
        if not os.path.isdir(os.path.join(wavs, voice)):
            print('fetching the prompts of %s' % voice, flush=True)
            asterisk.fetch(wavs, language)
    if any(stage.filelist == 'slower' for stage in stages):
        add_slower(wavs)
    print('computing mels', flush=True)
    wave_dir = preprocess(wavs, mels, directory, hp)
    split(directory)
    lists = os.path.join(directory, 'lists')
    data = {name: sources.FileData(os.path.join(lists, name + '.scp'), wave_dir, mels,
                                   test_filelist=os.path.join(lists, 'test.scp'))
            for name in ('train', 'slower')}
    # after the processes that compute mels, which must not inherit TensorFlow's threads
    compute = towers.compute_options(choose_precision(directory, precision))
    bundle(train_stages(hp, data, os.path.join(directory, 'runs'), compute, stages), model)


def choose_precision(directory: str, given: Optional[str]) -> str:
    """What to train in: what is given, else what `directory` has trained in, else what is faster.

    It is written to the file `precision` there, so that a training continues as it began. Raises
    UserError if this TensorFlow cannot compute in it.
    """
    path, stored = os.path.join(directory, 'precision'), ''
    with errors.as_user_error('cannot write ' + path, '', OSError):
        if os.path.exists(path):
            with open(path, encoding='utf-8', errors='replace') as f:
                stored = f.read().strip()
        chosen = given or (stored if stored in glow.PRECISIONS else
                           'bfloat16' if devices.is_bfloat16_fast() else 'float32')
        glow.require_precision(chosen)
        with files.atomic_open(path) as f:
            f.write(chosen + '\n')
    return chosen


def add_slower(wavs: str) -> None:
    """Adds to `wavs`, for each voice, a folder of what it says played slower: a lower voice.

    It has every second utterance of those that may be learned. What is there stays.
    """
    rate, voices = asterisk.SAMPLE_RATE, tuple(voice + '/' for voice in VOICES.values())
    with errors.as_user_error('cannot write to ' + wavs, '', OSError):
        found = set(corpus.find_audio(wavs)[0]) - held_apart()
        names = sorted(name for name in found if name.startswith(voices))
        for i, name in enumerate(names[::2]):
            path = os.path.join(wavs, name.replace('/', SLOWER + '/', 1) + '.wav')
            if not os.path.exists(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                audio = audio_files.read_wav(os.path.join(wavs, name + '.wav'), rate)
                audio_files.write_wav(path, soxr.resample(audio, SPEEDS[i % 2] * rate, rate), rate)


def held_apart() -> Set[str]:
    """The names of the utterances that are not learned: those held out, and their doubles."""
    return {VOICES['en'] + '/' + name
            for name in file_lists.read_file_list(HELDOUT) + list(TOO_ALIKE)}


def preprocess(wavs: str, mels: str, directory: str, hp: HParams) -> str:
    """Computes the mels of all speech in `wavs`; returns the folder of the wavs to train on."""
    with errors.as_user_error('cannot write to ' + directory, '', OSError):
        summary = preprocessing.preprocess(wavs, mels, directory, hp, test_size=0,
                                           num_workers=os.cpu_count() or 1,
                                           min_samples=hp.mel.n_fft)
    if summary.skipped:
        raise UserError('%d files cannot be used, %s and others (%s); see %s'
                        % ((len(summary.skipped),) + tuple(summary.skipped[0])
                           + (os.path.join(directory, 'skipped.tsv'),)))
    return summary.wave_dir


def train_stages(hp: HParams, data: Dict[str, sources.FileData], runs: str, compute: glow.Compute,
                 stages: Sequence[Stage]) -> str:
    """Trains one stage after the other in folders of `runs`; returns that of the last.

    A stage before one that has a checkpoint is done, whether its own are kept or not.

    data: {filelist of a stage: what it learns}.

    Raises UserError when a signal stops it; then, the same call continues.
    """
    before = None
    for i, stage in enumerate(stages):
        hp = params.override(hp, stage.hparams + ',' + COMMON)
        run_dir = os.path.join(runs, stage.name)
        is_done = any(steps_done(os.path.join(runs, later.name)) for later in stages[i + 1:])
        if not is_done and steps_done(run_dir) < stage.steps:
            print('\nstage %s: %d steps with %s' % (stage.name, stage.steps, stage.hparams),
                  flush=True)
            if (before and not steps_done(run_dir)
                    and hp.n_layers < params.load(before).n_layers):
                bundle(before, run_dir + '-start', hp.n_layers)
                before = run_dir + '-start'
            result = run.train(hp, data[stage.filelist], TrainingOptions(
                run_dir=run_dir, max_steps=stage.steps, restore_from=before, compute=compute))
            if not result.finished:
                raise UserError('stage %s is at step %d of %d'
                                % (stage.name, result.step, stage.steps))
        before = run_dir
    return run_dir


def steps_done(run_dir: str) -> int:
    """The step of the newest checkpoint in `run_dir`, 0 if there is none."""
    if not utils.has_checkpoint(run_dir):
        return 0
    return int(utils.find_checkpoint(run_dir).rsplit('-', 1)[1])


def split(directory: str) -> None:
    """Writes lists/{train,slower,test}.scp of `directory` from its own train.scp."""
    english = VOICES['en'] + '/'
    heldout = {english + name for name in file_lists.read_file_list(HELDOUT)}
    names = file_lists.read_file_list(os.path.join(directory, 'train.scp'))
    test = [name for name in names if name in heldout]
    if len(test) != len(heldout):
        raise UserError('%s has %d of the %d held-out utterances; delete %s to fetch it again'
                        % (directory, len(test), len(heldout), os.path.join(directory, 'wavs')))
    apart = held_apart()
    slower = [name for name in names if name not in apart]
    train = [name for name in slower if SLOWER + '/' not in name]
    lists = os.path.join(directory, 'lists')
    for name, chosen in (('train', train), ('slower', slower), ('test', test)):
        with files.atomic_open(os.path.join(lists, name + '.scp')) as f:
            f.write(''.join(line + '\n' for line in chosen))
    params.save(lists, params.load(directory))


def bundle(run_dir: str, model: str, n_layers: Optional[int] = None) -> None:
    """Writes the averaged weights alone of a run, and its params.json, to the folder `model`.

    n_layers: of the coupling networks that are kept, if not all.
    """
    hp, weights = vocoder.load_model(run_dir)
    if n_layers:
        weights = first_layers(weights, hp, n_layers)
        hp = hp.replace(n_layers=n_layers)
    shutil.rmtree(model, ignore_errors=True)
    with files.atomic_directory(model) as folder:
        utils.save_weights(folder, weights)
        params.save(folder, hp)


def first_layers(weights: vocoder.Weights, hp: HParams, n_layers: int) -> vocoder.Weights:
    """Weights of a model whose coupling networks are the first n_layers layers of those of hp.

    The last of them gives nothing to a layer after it, as the last layer of a network does not.
    """
    kept = {}
    for name, w in weights.items():
        layer = re.search(r'/flow_\d+/layer_(\d+)/', name)
        number = int(layer.group(1)) if layer else -1
        if number == n_layers - 1 and '/res_skip/' in name:
            w = w[..., hp.residual_channels:]
        elif '/cond/' in name or '/cond_terms/' in name:
            w = w[..., :w.shape[-1] // hp.n_layers * n_layers]
        if number < n_layers:
            kept[name] = np.ascontiguousarray(w)
    return kept


if __name__ == '__main__':
    command_line.run_script(main)
