"""The bundled voice from nothing: fetches speech, computes mels, trains in stages, bundles.

    python -m recipes.voice --out_dir=voice

writes voice/model, a copy of samples/model but for the rounding of other processors. Stopped, it goes
on where it was. Speech: the English and Spanish prompts of recipes/asterisk.py, of one speaker, but
for the 20 utterances of samples/heldout.scp and three more that say nearly the same words. The
stages, their steps and what they bring: docs/voice.md. Needs what recipes/asterisk.py needs.
"""
import argparse
import collections
import os
import shutil
import subprocess
import sys

from datasets import file_lists

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import command_line
import files
import params
import utils
import vocoder
from errors import UserError

VOICES = collections.OrderedDict([('en', 'en_US_f_Allison'), ('es', 'es_MX_f_Allison')])
HELDOUT = os.path.join(files.ROOT, 'samples', 'heldout.scp')
# other takes of held-out sentences, or most of one
TOO_ALIKE = 'enter-num-blacklist', 'pbx-invalid', 'conf-full'
MODEL = 'n_layers=7,residual_channels=80,skip_channels=80'

# name: of a run; its hyperparameters serve until its last step.
Stage = collections.namedtuple('Stage', 'name steps hparams')
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
                          'lr_decay_steps=9000,lr_decay_rate=0.01'))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out_dir', type=command_line.local_path, required=True,
                        help='folder for all that it writes')
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='bfloat16',
                        help='of train.py (default: %(default)s)')
    args = parser.parse_args()
    wavs, mels = (os.path.join(args.out_dir, name) for name in ('wavs', 'mels'))
    for language, voice in VOICES.items():
        if not os.path.isdir(os.path.join(wavs, voice)):
            script('recipes/asterisk.py', out_dir=wavs, language=language)
    script('preprocess_data.py', wave_dir=wavs, mel_dir=mels, data_dir=args.out_dir,
           preset='small', test_size=0)
    split(args.out_dir)
    before = None
    for stage in STAGES:
        flags = dict(filelist=os.path.join(args.out_dir, 'lists', 'train.scp'), wave_dir=wavs,
                     lc_dir=mels, logdir_root=os.path.join(args.out_dir, 'runs'),
                     run_name=stage.name, max_steps=stage.steps, precision=args.precision,
                     hparams=stage.hparams + ',eval_every=500,gen_test_wave_every=1000')
        if before:
            flags['restore_from'] = before
        script('train.py', **flags)
        before = os.path.join(args.out_dir, 'runs', stage.name)
    bundle(before, os.path.join(args.out_dir, 'model'))
    print('measure it with: python evaluate.py --restore_from=%s'
          % os.path.join(args.out_dir, 'model'))
    return 0


def script(name, **flags):
    """Runs a script of this repository; UserError if it fails, having said why itself."""
    command = [sys.executable, os.path.join(files.ROOT, name)] + [
        '--%s=%s' % item for item in flags.items()]
    print('\n%s %s' % (name, ' '.join(command[2:])), flush=True)
    try:
        status = subprocess.call(command, env=dict(os.environ, PYTHONPATH=files.ROOT))
    except KeyboardInterrupt:                   # the script has had it too, and has saved
        status = 1
    if status or name == 'train.py' and not finished(flags):
        raise UserError('%s stopped; the same command goes on where it was' % name)


def finished(flags):
    path = utils.find_checkpoint(os.path.join(flags['logdir_root'], flags['run_name']))
    return int(path.rsplit('-', 1)[1]) >= flags['max_steps']


def split(directory):
    """Writes lists/train.scp and lists/test.scp of `directory` from its own train.scp."""
    heldout = set(file_lists.read_file_list(HELDOUT))
    english = VOICES['en'] + '/'
    names = file_lists.read_file_list(os.path.join(directory, 'train.scp'))
    test = [name for name in names
            if name.startswith(english) and name[len(english):] in heldout]
    if len(test) != len(heldout):
        raise UserError('%s has %d of the %d held-out utterances; delete %s to fetch it again'
                        % (directory, len(test), len(heldout), os.path.join(directory, 'wavs')))
    apart = set(test) | {english + name for name in TOO_ALIKE}
    train = [name for name in names if name not in apart]
    os.makedirs(os.path.join(directory, 'lists'), exist_ok=True)
    for name, chosen in (('train', train), ('test', test)):
        with files.atomic_open(os.path.join(directory, 'lists', name + '.scp')) as f:
            f.write(''.join(line + '\n' for line in chosen))
    shutil.copyfile(os.path.join(directory, 'params.json'),
                    os.path.join(directory, 'lists', 'params.json'))


def bundle(run, directory):
    """Writes the averaged weights alone of `run`, and its params.json, to `directory`."""
    hp, weights = vocoder.load_model(run)
    shutil.rmtree(directory, ignore_errors=True)
    with files.atomic_directory(directory) as folder:
        utils.save_weights(folder, weights)
        params.save(folder, hp)


if __name__ == '__main__':
    command_line.run_script(main)
