"""Trains WaveGlow on what preprocess_data.py wrote.

    python train.py --filelist=corpus/train.scp --wave_dir=corpus/wavs --lc_dir=corpus/mels

Writes checkpoints and TensorBoard events to LOGDIR_ROOT/RUN_NAME. The same command again continues
where the last one stopped, whether it was finished, interrupted or killed, to the same weights to
the bit. Hyperparameters come from params.json beside the file list unless --preset names others.

Exit status: 0 when --max_steps is reached, and after SIGTERM or Ctrl-C, which save first; 2 with
one sentence for bad input, and for a training that cannot go on; 143 after SIGTERM (129 after
SIGHUP, 130 after Ctrl-C) before the first step, when there is nothing to save.
"""
import argparse
import os

import command_line
from training import signals

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()
    signals.end_when_there_is_nothing_to_save()

import devices
import files
import glow
import params
import utils
from datasets import shards, sources
from training import hosts, run, towers
from training.options import TrainingOptions


def main():
    args = parse_arguments()
    data, options = data_from(args), options_from(args)
    refuse_run_among_data(args, options)
    devices.allow_tf32(args.precision == 'tf32')
    run.train(hyperparameters(args, data, options), data, options)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    add_data_arguments(parser)
    add_run_arguments(parser)
    add_device_arguments(parser)
    args = parser.parse_args()
    if min(args.ngpu, args.max_steps, args.accumulate) < 1:
        parser.error('--ngpu, --accumulate and --max_steps are 1 or more')
    if not args.step_timeout_minutes > 0:
        parser.error('--step_timeout_minutes is above 0')
    if args.data and (args.filelist or args.wave_dir or args.lc_dir):
        parser.error('--data goes without --filelist, --wave_dir and --lc_dir')
    if not args.data and not (args.filelist and args.wave_dir and args.lc_dir):
        parser.error('--filelist, --wave_dir and --lc_dir are required, or --data')
    return args


def add_data_arguments(parser):
    path = command_line.local_path
    parser.add_argument('--filelist', type=path,
                        help='names of the utterances to train on, one a line (train.scp)')
    parser.add_argument('--wave_dir', type=path, help='folder of NAME.wav')
    parser.add_argument('--lc_dir', type=path,
                        help='folder of NAME.mel, the local condition of the model')
    parser.add_argument('--test_filelist', type=path,
                        help='names of the held-out utterances (default: test.scp beside '
                             '--filelist)')
    parser.add_argument('--data', metavar='PATTERN',
                        help='shards to train on instead of files (SHARDS/train-*), on any path '
                             'that tf.io.gfile reads')
    parser.add_argument('--test_data', metavar='PATTERN',
                        help='held-out shards (default: test-* beside --data)')
    parser.add_argument('--damaged_records', choices=('stop', 'skip'), default='stop',
                        help='what to do about a damaged record of a shard (default: %(default)s)')


def add_run_arguments(parser):
    path = command_line.local_path
    parser.add_argument('--logdir_root', type=path, default='logdir',
                        help='folder of all runs (default: %(default)s)')
    parser.add_argument('--run_name', default='waveglow',
                        help='folder of this run in --logdir_root (default: %(default)s)')
    parser.add_argument('--restore_from', type=path, metavar='RUN_OR_CHECKPOINT',
                        help='start a new run from the weights of another (fine-tuning)')
    command_line.add_hyperparameters(parser)
    parser.add_argument('--max_steps', type=int, default=1000000,
                        help='stop after this many steps in all (default: %(default)s)')
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='random seed of the initial weights and of the choice of clips '
                             '(default: %(default)s)')
    parser.add_argument('--listen', nargs='?', type=command_line.boolean, const=True,
                        default=False,
                        help='write the held-out utterances that are vocoded on the way to '
                             'RUN_NAME/listen as wavs')
    parser.add_argument('--store_metadata', nargs='?', type=command_line.boolean, const=True,
                        default=False, help='store traces for TensorBoard and chrome://tracing')


def add_device_arguments(parser):
    parser.add_argument('--ngpu', type=int, default=1,
                        help='number of towers that share every batch: GPUs where there are any, '
                             'else CPU devices (default: %(default)s)')
    parser.add_argument('--precision', choices=sorted(glow.PRECISIONS), default='float32',
                        help='what the coupling networks compute in; weights stay float32; '
                             'tf32 lets GPUs multiply with fewer bits '
                             '(default: %(default)s)')
    parser.add_argument('--xla', choices=list(towers.XLA_CHOICES),
                        help='what XLA compiles: '
                             + '; '.join('%s: %s' % item for item in towers.XLA_CHOICES.items())
                             + ' (default: what is fastest on this device)')
    parser.add_argument('--reversible', nargs='?', type=command_line.boolean, const=True,
                        default=False,
                        help='train in the memory of one flow, for a third more work')
    parser.add_argument('--accumulate', type=int, default=1, metavar='N',
                        help='compute every step in N parts, one after the other, in the memory of '
                             'one (default: %(default)s)')
    parser.add_argument('--worker_hosts', metavar='HOST:PORT,...',
                        help='addresses of all hosts that train together, the chief first '
                             '(default: what TF_CONFIG says)')
    parser.add_argument('--task_index', type=int, metavar='I',
                        help='index of this process in --worker_hosts, from 0')
    parser.add_argument('--step_timeout_minutes', type=float, default=5.0, metavar='MINUTES',
                        help='end when a step has waited so long for other hosts '
                             '(default: %(default)g)')


def data_from(args):
    """Where the data of a command line is: a sources.FileData or a sources.ShardData."""
    if args.data:
        test_pattern = args.test_data
        if test_pattern is None:
            test_pattern = shards.test_beside(args.data)
        return sources.ShardData(args.data, test_pattern, args.damaged_records == 'skip')
    test_filelist = args.test_filelist
    if test_filelist is None:
        test_filelist = sources.test_filelist_beside(args.filelist)
    return sources.FileData(args.filelist, args.wave_dir, args.lc_dir, test_filelist)


def options_from(args) -> TrainingOptions:
    return TrainingOptions(
        run_dir=os.path.join(args.logdir_root, args.run_name), max_steps=args.max_steps,
        restore_from=args.restore_from, num_towers=args.ngpu,
        compute=towers.compute_options(args.precision, args.reversible, args.xla),
        accumulate=args.accumulate,
        hosts=hosts.from_arguments(args.worker_hosts, args.task_index, os.environ.get('TF_CONFIG')),
        step_timeout_minutes=args.step_timeout_minutes, seed=args.seed,
        store_metadata=args.store_metadata, listen=args.listen)


def refuse_run_among_data(args, options: TrainingOptions):
    """Raises UserError if the params.json of a new run would replace that of its data."""
    folders = ([os.path.dirname(args.data)] if args.data
               else [os.path.dirname(args.filelist), args.lc_dir])
    if not run.is_resumed(options.run_dir):     # of an earlier version
        files.refuse_overwriting([os.path.join(folder, params.FILE_NAME) for folder in folders],
                                 [os.path.join(options.run_dir, params.FILE_NAME)],
                                 'give another --logdir_root or --run_name')


def hyperparameters(args, data, options: TrainingOptions) -> params.HParams:
    """Those of --preset, else of the run, of --restore_from or of the data, then --hparams.

    A batch size that --hparams does not set is rounded up to equal parts.
    """
    def stored():
        if run.is_resumed(options.run_dir):
            return params.load(options.run_dir)
        if args.restore_from:
            return params.load(os.path.dirname(utils.find_checkpoint(args.restore_from)))
        return data.hyperparameters()

    hp = params.resolve(args.preset, args.hparams, stored)
    count = options.batch_parts
    if hp.batch_size % count and 'batch_size' not in params.parse_overrides(args.hparams):
        hp = hp.replace(batch_size=-(-hp.batch_size // count) * count)
        print('batch_size=%d, for %d equal %s' % (hp.batch_size, count, options.batch_parts_name))
    return hp


if __name__ == '__main__':
    command_line.run_script(main)
