"""Vocodes mel spectrograms with a trained WaveGlow.

    python inference.py --lc corpus/mels --restore_from logdir/waveglow --out_dir vocoded

Without --restore_from it takes the bundled model, a woman's voice at 16 kHz.
Takes .mel, .npy and .pt mels, whole folders of them, or sound files, of which it first computes the
mels (copy synthesis). Writes OUT_DIR/NAME.wav. Exit status: 0; 1 if an input was skipped; 2 if
nothing could be vocoded.
"""
import argparse
import contextlib
import os
import sys
import time
from typing import NamedTuple

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tqdm

import command_line
import errors
import files
import glow
import params
import utils
from datasets import audio_files, mel_files, mel_transform
from errors import UserError
from metrics import pictures
from synthesis.denoiser import Denoiser
from synthesis.mel_correction import MelCorrection
from vocoder import Vocoder


class Source(NamedTuple):
    path: str
    name: str  # of the output, without suffix, under --out_dir
    root: str  # the folder that was given, or the file's own


def main():
    args = parse_arguments()
    sources = find_sources(args.lc)
    refuse_overwriting(sources, args.out_dir)
    vocoder = Vocoder.load(args.restore_from, args.preset, args.hparams, args.precision,
                           args.chunk_frames)
    hp = vocoder.hp
    mels, skipped = {}, 0
    for source in sources:
        try:
            mels[source] = read_source(source, hp)
        except UserError as error:
            print('%s: skipped: %s' % (os.path.basename(sys.argv[0]), error), file=sys.stderr)
            skipped += 1
    if not mels:
        raise UserError('none of the %d inputs can be vocoded' % len(sources))
    skipped += vocode_all(vocoder, mels, args)
    if skipped:
        print('%d of %d inputs were skipped' % (skipped, len(sources)), file=sys.stderr)
    return 1 if skipped else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    parser.add_argument('--lc', type=path, nargs='+', required=True, metavar='PATH',
                        help='.mel, .npy or .pt mels, folders of them, or sound files')
    parser.add_argument('--restore_from', type=path, default=utils.BUNDLED_MODEL,
                        metavar='RUN_OR_CHECKPOINT',
                        help='a run of train.py, its best/, or one of its checkpoints (default: the '
                             'bundled model)')
    parser.add_argument('--out_dir', type=path, default='vocoded',
                        help='where the wavs go (default: %(default)s)')
    parser.add_argument('--sigma', type=float,
                        help="standard deviation of the noise (default: the model's gen_sigma)")
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='of the noise; the same seed gives the same samples')
    parser.add_argument('--denoiser_strength', type=float, default=0.0, metavar='S',
                        help="subtract the model's own noise S times, 0.01 to 0.1 (default: 0)")
    parser.add_argument('--mel_correction', type=int, default=0, metavar='ROUNDS',
                        help='bring the sound nearer to the mel, 16 are many (default: 0)')
    parser.add_argument('--batch_size', type=int, default=1,
                        help='utterances vocoded at a time, of like lengths (a GPU likes more)')
    parser.add_argument('--precision', choices=sorted(glow.PRECISIONS), default='float32',
                        help='what the networks compute in (default: %(default)s)')
    parser.add_argument('--chunk_frames', type=int, metavar='N',
                        help='mel frames worked on at a time: the same samples, other memory and '
                             'speed (default: what the device likes)')
    parser.add_argument('--plot', type=path, metavar='FILE.png',
                        help='draw the first inputs above what became of them')
    command_line.add_hyperparameters(parser)
    args = parser.parse_args()
    for name in ('sigma', 'denoiser_strength'):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float('inf'):
            parser.error('--%s is zero or more, not %s' % (name, value))
    if args.mel_correction < 0:
        parser.error('--mel_correction is zero or more, not %d' % args.mel_correction)
    if args.batch_size < 1 or args.chunk_frames is not None and args.chunk_frames < 1:
        parser.error('--batch_size and --chunk_frames are 1 or more')
    return args


def find_sources(paths):
    """[Source] of files and folders; of a folder its mels, or else its sound files."""
    sources = []
    for path in paths:
        if os.path.isdir(path):
            found = [os.path.join(folder, name) for folder, _, names in sorted(os.walk(path))
                     for name in sorted(names) if not name.startswith('.')]
            kept = ([f for f in found if f.lower().endswith(mel_files.MEL_SUFFIXES)]
                    or [f for f in found if f.lower().endswith(tuple(audio_files.AUDIO_EXTENSIONS))])
            if not kept:
                raise UserError('there are no mels (%s) and no sound files in %s'
                                % (', '.join(mel_files.MEL_SUFFIXES), path))
            sources += [Source(f, output_name(os.path.relpath(f, path)), path) for f in kept]
        else:
            sources.append(Source(path, output_name(os.path.basename(path)),
                                  os.path.dirname(path)))
    first = {}
    for source in sources:
        other = first.setdefault(source.name, source)
        if other is not source:
            raise UserError('%s and %s would both be written to %s.wav; vocode them to different '
                            '--out_dir' % (other.path, source.path, source.name))
    return sources


def output_name(path):
    """`path` without its suffix; of NVIDIA's NAME.wav.pt without both."""
    name, suffix = os.path.splitext(path)
    stem, inner = os.path.splitext(name)
    return stem if suffix == '.pt' and inner.lower() in audio_files.AUDIO_EXTENSIONS else name


def refuse_overwriting(sources, out_dir):
    inputs = {os.path.realpath(source.path): source for source in sources}
    for source in sources:
        path = os.path.realpath(wav_path(out_dir, source))
        if path in inputs:
            raise UserError('%s would be overwritten by what it is vocoded to; give another '
                            '--out_dir' % inputs[path].path)


def wav_path(out_dir, source):
    return os.path.join(out_dir, source.name + '.wav')


def read_source(source, hp):
    """The mel [frames, n_mels] of an input; UserError if it cannot be one of `hp`'s profile."""
    path = source.path
    if not path.lower().endswith(mel_files.MEL_SUFFIXES):
        return mel_transform.mel_spectrogram(audio_files.read_wav(path, hp.sample_rate), hp.sample_rate, hp.mel)
    mel = mel_files.read_mel(path, hp.n_mels)
    made_with = nearest_params(path, source.root)
    if made_with:
        params.require_same(hp, made_with, params.DATA_FIELDS, path,
                            'take a model trained on such mels, or compute the mels anew')
    mel_files.check_mel_range(mel, hp.mel_profile, path)
    return mel


def nearest_params(path, root):
    """The HParams that preprocessing left nearest above `path`, up to folder `root`, or None."""
    folder, root = os.path.dirname(os.path.abspath(path)), os.path.abspath(root)
    while True:
        with contextlib.suppress(UserError):    # another program's params.json
            found = params.load_if_exists(folder)
            if found:
                return found
        if folder == root:
            return None
        folder = os.path.dirname(folder)


def vocode_all(vocoder, mels, args):
    """Vocodes {Source: mel} in batches of like lengths, writes the wavs, reports the speed.

    Returns how many had to be skipped.
    """
    hp = vocoder.hp
    order = sorted(mels, key=lambda source: len(mels[source]))
    vocoder.vocode_batch([mels[order[0]][:1]] * min(args.batch_size, 2))  # a first run is slow
    denoise = (Denoiser.of(vocoder, args.denoiser_strength) if args.denoiser_strength
               else lambda sound: sound)
    correct = MelCorrection(hp, args.mel_correction)
    spent = seconds = clipped = skipped = 0
    rows = {}
    plotted = list(mels)[:6]
    with tqdm.tqdm(total=len(order), unit='utterance', file=sys.stdout, disable=None) as bar:
        for i in range(0, len(order), args.batch_size):
            batch = order[i:i + args.batch_size]
            started = time.time()
            batch_mels = [mels[source] for source in batch]
            sounds = [correct(denoise(sound), mel) for sound, mel in zip(
                vocoder.vocode_batch(batch_mels, args.sigma, args.seed), batch_mels)]
            spent += time.time() - started
            for source, sound in zip(batch, sounds):
                seconds += len(sound) / hp.sample_rate
                if not np.isfinite(sound).all():
                    tqdm.tqdm.write('%s: skipped: it vocodes to samples that are not finite; the '
                                    'model is broken, or untrained' % source.path, file=sys.stderr)
                    skipped += 1
                    continue
                path = wav_path(args.out_dir, source)
                with errors.as_user_error('cannot write ' + path, 'give another --out_dir',
                                          OSError):
                    clipped += audio_files.write_wav(path, sound, hp.sample_rate)
                if args.plot and source in plotted:
                    again = mel_transform.mel_spectrogram(sound, hp.sample_rate, hp.mel)
                    rows[source] = [(source.name, mels[source]),
                                    (source.name + ', vocoded', again[:len(mels[source])])]
            bar.update(len(batch))
    if skipped == len(order):
        raise UserError('nothing could be vocoded; take another checkpoint than %s'
                        % args.restore_from)
    if args.plot:
        with errors.as_user_error('cannot write ' + args.plot, 'give another --plot',
                                  OSError), files.atomic_open(args.plot, 'wb') as f:
            f.write(pictures.spectrogram_png(sum((rows[s] for s in plotted if s in rows), [])))
    print('vocoded %d utterances, %.1f s of speech, in %.1f s: real-time factor %.3f'
          % (len(order) - skipped, seconds, spent, spent / seconds))
    if clipped:
        print('%d samples were beyond full scale and clipped' % clipped)
    print('the wavs are in %s%s' % (args.out_dir,
                                    ', a picture in %s' % args.plot if args.plot else ''))
    return skipped


if __name__ == '__main__':
    command_line.run_script(main)
