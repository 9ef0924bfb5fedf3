"""Turns a folder of speech into what training reads: mel spectrograms and file lists.

    python preprocess_data.py --wave_dir=corpus/wavs --mel_dir=corpus/mels --data_dir=corpus

Takes every sound file under wave_dir, nested folders included, of any rate, width, channel count
and container that soundfile reads; names that begin with a dot are passed over. Writes

    mel_dir/NAME.mel        NAME is the path under wave_dir without its extension
    data_dir/train.scp      the names to train on, and test.scp, those held out
    data_dir/skipped.tsv    what could not be used, and why
    data_dir/wavs/NAME.wav  the whole corpus as mono PCM16 at the sample rate of the preset, unless
                            wave_dir is that already (in wavs_RATE if wavs holds the corpus itself)
    params.json             the hyperparameters, in mel_dir and data_dir

and, for --tfrecord_shards, all of it again in files of many utterances each

    shard_dir/train-*.tfrecord, test-*.tfrecord and their params.json

and prints the command to train with. Run again, it computes what is new or changed. Exit status:
0; 1 if anything was skipped; 2 if there is nothing to train on.
"""
import argparse
import os
import shlex
import sys

import params
from command_line import add_hyperparameters, local_path, random_seed, run_script
from datasets import audio_files, mel_files, preprocessing
from datasets.corpus import printable
from errors import UserError


def pack(summary, args, hp):
    """Writes the shards of a preprocessed corpus."""
    from datasets import shards  # TensorFlow, which nothing else here needs

    def read(name):
        wave = audio_files.read_wav(os.path.join(summary.wave_dir, name + '.wav'), hp.sample_rate)
        return (audio_files.to_pcm16(wave)[0],
                mel_files.read_mel(os.path.join(args.mel_dir, name + '.mel'), hp.n_mels))
    shards.pack(args.shard_dir, hp, summary.train, summary.test, args.tfrecord_shards, read,
                args.num_workers)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, meaning in (('wave_dir', 'folder of speech'), ('mel_dir', 'folder for the mels'),
                          ('data_dir', 'folder for the file lists')):
        parser.add_argument('--' + name, required=name != 'mel_dir', type=local_path, help=meaning)
    add_hyperparameters(parser)
    parser.add_argument('--test_size', type=int, metavar='N',
                        help='utterances held out (default: 5%%, but 1 to 20)')
    parser.add_argument('--seed', type=random_seed, default=0,
                        help='random seed of the choice of held-out utterances')
    parser.add_argument('--tfrecord_shards', type=int, metavar='N',
                        help='pack wavs and mels into N shards to train on as well')
    parser.add_argument('--shard_dir', type=local_path, metavar='PATH',
                        help='folder for those, on any path that tf.io.gfile writes (default: '
                             'DATA_DIR/shards)')
    parser.add_argument('--num_workers', type=int, metavar='N',
                        help='processes (default: one a processor)')
    parser.add_argument('--min_seconds', type=float, metavar='S',
                        help='shorter utterances are skipped (default: one window of the mel '
                             'profile\'s transform, about 0.1)')
    parser.add_argument('--runner', metavar='RUNNER',
                        help='compute on Apache Beam: DirectRunner, FlinkRunner, SparkRunner, '
                             'DataflowRunner. Writes shards and no mels; flags that are not listed '
                             'here are Beam\'s')
    args, args.beam = parser.parse_known_args()
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


def report(summary, args):
    """Prints what was done and what to do next."""
    for path, reason in summary.skipped:
        print('skipped %s: %s' % (printable(path), printable(reason)), file=sys.stderr)
    report_totals(len(summary.train), len(summary.test), summary.speech_seconds,
                  len(summary.skipped), summary.clipped, args.data_dir)
    up_to_date = len(summary.train) + len(summary.test) - summary.computed
    print('%d computed%s, %d up to date' % (
        summary.computed, ' at %.0f x real time' % summary.speed if summary.computed else '',
        up_to_date))
    if args.tfrecord_shards:
        report_shards(args)
        return
    print('python train.py ' + ' '.join('--%s=%s' % (flag, shlex.quote(value)) for flag, value in (
        ('filelist', os.path.join(args.data_dir, 'train.scp')),
        ('wave_dir', summary.wave_dir), ('lc_dir', args.mel_dir))))


def report_totals(train, test, seconds, skipped, clipped, directory):
    if skipped:
        print('skipped %d in all, listed in %s' % (skipped, os.path.join(directory, 'skipped.tsv')),
              file=sys.stderr)
    if clipped:
        print('%d utterances overshoot full scale and were clipped' % clipped, file=sys.stderr)
    print('%d utterances to train on and %d held out, %.2f hours of speech'
          % (train, test, seconds / 3600))


def report_shards(args):
    print('%d shards in %s' % (args.tfrecord_shards, args.shard_dir))
    print('python train.py --data='
          + shlex.quote(os.path.join(args.shard_dir, 'train-*.tfrecord')))


def preprocess_on_beam(args, hp, min_samples):
    """Runs preprocess_beam and reports; returns the exit status."""
    try:
        from datasets import beam
    except ImportError as error:
        raise UserError('--runner takes Apache Beam (%s): pip install -r requirements-beam.txt'
                        % error)
    counted = beam.run(args.wave_dir, args.shard_dir, hp, args.tfrecord_shards,
                                  args.test_size, args.seed, min_samples,
                                  ['--runner=' + args.runner] + args.beam)
    report_totals(counted['train'], counted['test'],
                  (counted['train_samples'] + counted['test_samples']) / hp.sample_rate,
                  counted['skipped'], counted['clipped'], args.shard_dir)
    report_shards(args)
    return 1 if counted['skipped'] else 0


def main():
    args = parse_arguments()
    # a corpus is not thrown away because a flag was forgotten
    hp = params.resolve(args.preset, args.hparams, lambda: params.load_if_exists(args.data_dir))
    print('%d Hz, mel profile %s' % (hp.sample_rate, hp.mel_profile))
    min_samples = hp.mel.n_fft if args.min_seconds is None else max(
        hp.hop_length, int(args.min_seconds * hp.sample_rate))
    if args.runner:
        return preprocess_on_beam(args, hp, min_samples)
    try:
        summary = preprocessing.preprocess(args.wave_dir, args.mel_dir, args.data_dir, hp, args.test_size,
                             args.seed, args.num_workers, min_samples)
    except OSError as error:
        raise UserError('cannot write %s (%s)' % (error.filename or args.data_dir,
                                                  error.strerror or error))
    if args.tfrecord_shards:
        pack(summary, args, hp)
    report(summary, args)
    return 1 if summary.skipped else 0


if __name__ == '__main__':
    run_script(main)
