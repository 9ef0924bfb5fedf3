"""Turns a folder of speech into what training reads: mel spectrograms and file lists.

    python preprocess_data.py --wave_dir=corpus/wavs --mel_dir=corpus/mels --data_dir=corpus

Reads every sound file under wave_dir, nested folders included: any sample rate, sample width,
channel count and container that soundfile reads. Names that begin with a dot are left out. Writes

    mel_dir/NAME.mel        NAME is the path under wave_dir without its extension
    data_dir/train.scp      the names to train on, and test.scp, those held out
    data_dir/skipped.tsv    what could not be used, and why
    data_dir/wavs/NAME.wav  the whole corpus as mono PCM16 at the sample rate of the preset, unless
                            wave_dir is that already (in wavs_RATE if wavs holds the corpus itself)
    params.json             the hyperparameters, in mel_dir and data_dir

With --tfrecord_shards it also writes audio and mels in files of many utterances each:

    shard_dir/train-*.tfrecord, test-*.tfrecord and their params.json

With --predicted_mels it takes mels that an acoustic model predicted in place of those of the
recordings. At last it prints the command to train with. A second run computes only what is new or
changed. Exit status: 0; 1 if anything was skipped; 2 if there is nothing to train on.
"""
import argparse
import os
import shlex
import sys
from typing import List, Optional

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()    # which writes shards

import errors
import params
from command_line import add_hyperparameters, local_path, random_seed, run_script
from datasets import corpus, mel_statistics, predicted_mels, preprocessing
from datasets.mel_definition import PROFILES
from errors import UserError, escape_unprintable


def main():
    args = parse_arguments()
    # without --preset a corpus keeps its own: a forgotten flag must not compute it anew
    hp = params.resolve(args.preset, args.hparams, lambda: params.load_if_exists(args.data_dir))
    if args.mel_stats:
        hp = hp.replace(**mel_statistics.read(args.mel_stats))
    print('%d Hz, mel profile %s' % (hp.sample_rate, hp.mel_name))
    min_samples = hp.mel.n_fft if args.min_seconds is None else max(
        hp.hop_length, int(args.min_seconds * hp.sample_rate))
    if args.runner:
        return preprocess_on_beam(args.wave_dir, args.shard_dir, hp, args.tfrecord_shards,
                                  args.test_size, args.seed, min_samples, args.runner, args.beam)
    with errors.as_user_error('cannot write to ' + args.data_dir, '', OSError):
        summary = preprocessing.preprocess(args.wave_dir, args.mel_dir, args.data_dir, hp,
                                           args.test_size, args.seed, args.num_workers, min_samples,
                                           predicted_mels_of(args, hp))
    if args.tfrecord_shards:
        preprocessing.pack(summary, args.mel_dir, args.shard_dir, hp, args.tfrecord_shards,
                           args.num_workers)
    report(summary, args.data_dir)
    if args.tfrecord_shards:
        report_shards(args.tfrecord_shards, args.shard_dir)
    else:
        report_command(args.data_dir, summary.wave_dir, args.mel_dir)
    return 1 if summary.skipped else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--wave_dir', required=True, type=local_path,
                        help='folder of speech: sound files, in folders within it too')
    parser.add_argument('--mel_dir', type=local_path,
                        help='folder for the mels; required without --runner')
    parser.add_argument('--data_dir', required=True, type=local_path,
                        help='folder for the file lists, params.json and converted wavs')
    add_hyperparameters(parser)
    parser.add_argument('--mel_stats', type=local_path, metavar='FILE',
                        help='mean and scale of each band (.npy, .npz, .h5), by which the mels are '
                             'standardized (default: they are not, or as before)')
    parser.add_argument('--predicted_mels', type=local_path, metavar='DIR',
                        help='folder of mels that an acoustic model predicted for the recordings '
                             '(.npy, .pt, .h5 and others, named as the sound files), to train on '
                             'in place of those of the recordings')
    parser.add_argument('--predicted_profile', metavar='NAME',
                        help='mel profile of the predicted mels, if it is not that of the corpus; '
                             'they are converted. There are ' + ', '.join(PROFILES))
    parser.add_argument('--predicted_hparams', default='', metavar='NAME=VALUE,...',
                        help='what is not as in that profile, such as sample_rate=24000,fmin=0')
    parser.add_argument('--predicted_stats', type=local_path, metavar='FILE',
                        help='mean and scale of each band (.npy, .npz, .h5), by which the '
                             'predicted mels are standardized')
    parser.add_argument('--test_size', type=int, metavar='N',
                        help='number of held-out utterances (default: 5%%%% of the utterances, at '
                             'least 1 and at most %d)' % corpus.MOST_HELD_OUT)
    parser.add_argument('--seed', type=random_seed, default=0,
                        help='random seed of the choice of held-out utterances '
                             '(default: %(default)s)')
    parser.add_argument('--tfrecord_shards', type=int, metavar='N',
                        help='also pack wavs and mels into N TFRecord files to train on')
    parser.add_argument('--shard_dir', type=local_path, metavar='PATH',
                        help='folder for the TFRecord files, on any path that tf.io.gfile writes '
                             '(default: DATA_DIR/shards)')
    parser.add_argument('--num_workers', type=int, metavar='N',
                        help='number of worker processes (default: one per processor)')
    parser.add_argument('--min_seconds', type=float, metavar='S',
                        help='skip utterances shorter than S seconds (default: one window of the '
                             "mel profile's Fourier transform, about 0.1)")
    parser.add_argument('--runner', metavar='RUNNER',
                        help='compute on Apache Beam: DirectRunner, FlinkRunner, SparkRunner or '
                             'DataflowRunner. Writes TFRecord files and no mels. Flags that are '
                             'not listed here go to Beam')
    args, beam_options = parser.parse_known_args()
    args.beam = beam_options
    if args.beam and not args.runner:
        parser.error('unrecognized arguments: ' + ' '.join(args.beam))
    if not (args.mel_dir or args.runner):
        parser.error('the following arguments are required: --mel_dir')
    if args.runner and not args.tfrecord_shards:
        parser.error('--runner takes --tfrecord_shards, the number of shards to write')
    if args.num_workers is None:
        args.num_workers = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
                            else os.cpu_count() or 1)
    if args.num_workers < 1:
        raise UserError('--num_workers=%d is less than 1' % args.num_workers)
    if args.predicted_mels and args.runner:
        raise UserError('--predicted_mels and --runner do not go together; leave --runner away')
    if args.predicted_mels and not os.path.isdir(args.predicted_mels):
        raise UserError('--predicted_mels=%s is not a folder' % args.predicted_mels)
    if not args.predicted_mels and (args.predicted_profile or args.predicted_hparams
                                    or args.predicted_stats):
        raise UserError('--predicted_profile, --predicted_hparams and --predicted_stats take '
                        '--predicted_mels, a folder of mels')
    if args.min_seconds is not None and not 0 <= args.min_seconds < float('inf'):
        raise UserError('--min_seconds=%g is not a length' % args.min_seconds)
    if args.tfrecord_shards is not None and not 0 < args.tfrecord_shards < 100000:
        raise UserError('--tfrecord_shards=%d is not from 1 to 99999' % args.tfrecord_shards)
    if args.shard_dir and not args.tfrecord_shards:
        raise UserError('--shard_dir takes --tfrecord_shards, the number of shards')
    if not args.shard_dir:
        args.shard_dir = os.path.join(args.data_dir, 'shards')
    if not args.runner and not os.path.isdir(args.wave_dir):
        raise UserError('--wave_dir=%s is not a folder' % args.wave_dir)
    return args


def predicted_mels_of(args: argparse.Namespace, hp: params.HParams
                      ) -> Optional[predicted_mels.PredictedMels]:
    """The predicted mels that the flags name, if any; prints what they are converted to."""
    if not args.predicted_mels:
        return None
    statistics = mel_statistics.read(args.predicted_stats) if args.predicted_stats else {}
    given = params.mel_hparams(args.predicted_profile, args.predicted_hparams, statistics, hp)
    print('predicted mels of %s, mel profile %s at %d Hz'
          % (args.predicted_mels, given.mel_name, given.sample_rate))
    for loss in predicted_mels.moves(given.mel, hp.mel)[1]:
        print('the conversion loses something: ' + loss, file=sys.stderr)
    return predicted_mels.PredictedMels(args.predicted_mels, given.mel)


def preprocess_on_beam(wave_dir: str, shard_dir: str, hp: params.HParams, count: int,
                       test_size: Optional[int], seed: int, min_samples: int, runner: str,
                       options: List[str]) -> int:
    """Writes `count` shards on Apache Beam and reports; returns the exit status.

    Raises UserError if Beam is not installed or there is nothing to train on.
    """
    try:
        from datasets import beam
    except ImportError as error:
        raise UserError('--runner takes Apache Beam (%s): pip install -r requirements-beam.txt'
                        % error) from error
    counted = beam.run(wave_dir, shard_dir, hp, count, test_size, seed, min_samples,
                       ['--runner=' + runner] + options)
    report_totals(counted['train'], counted['test'],
                  (counted['train_samples'] + counted['test_samples']) / hp.sample_rate,
                  counted['skipped'], counted['clipped'], shard_dir)
    report_shards(count, shard_dir)
    return 1 if counted['skipped'] else 0


def report(summary: preprocessing.Summary, data_dir: str):
    """Prints what was skipped, and why, and what was done."""
    for path, reason in summary.skipped:
        print('skipped %s: %s' % (escape_unprintable(path), escape_unprintable(reason)),
              file=sys.stderr)
    for note in sorted({note for _, note in summary.notes}):
        paths = [path for path, said in summary.notes if said == note]
        print('%s%s: %s' % (escape_unprintable(paths[0]), ' and %d more' % (len(paths) - 1)
                            if len(paths) > 1 else '', note), file=sys.stderr)
    report_totals(len(summary.train), len(summary.test), summary.speech_seconds,
                  len(summary.skipped), summary.clipped, data_dir)
    if summary.zero_seconds:
        print('%.4f hours of it, %.1f%%, are digital silence (exact zeros)' % (
            summary.zero_seconds / 3600, 100 * summary.zero_seconds / summary.speech_seconds))
    up_to_date = len(summary.train) + len(summary.test) - summary.computed
    print('%d computed%s, %d up to date' % (
        summary.computed, ' at %.0f x real time' % summary.speed if summary.computed else '',
        up_to_date))


def report_totals(train: int, test: int, seconds: float, skipped: int, clipped: int,
                  directory: str):
    """Prints numbers of utterances; `directory` is that of skipped.tsv."""
    if skipped:
        print('skipped %d in all, listed in %s' % (skipped, os.path.join(directory, 'skipped.tsv')),
              file=sys.stderr)
    if clipped:
        print('%d utterances overshoot full scale and were clipped' % clipped, file=sys.stderr)
    print('%d utterances to train on and %d held out, %.2f hours of speech'
          % (train, test, seconds / 3600))


def report_command(data_dir: str, wave_dir: str, mel_dir: str):
    """Prints the command to train with."""
    flags = (('filelist', os.path.join(data_dir, 'train.scp')), ('wave_dir', wave_dir),
             ('lc_dir', mel_dir))
    print('python train.py ' + ' '.join('--%s=%s' % (flag, shlex.quote(value))
                                        for flag, value in flags))


def report_shards(count: int, shard_dir: str):
    """Prints where the shards are, and the command to train with."""
    print('%d shards in %s' % (count, shard_dir))
    print('python train.py --data=' + shlex.quote(os.path.join(shard_dir, 'train-*.tfrecord')))


if __name__ == '__main__':
    run_script(main)
