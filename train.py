"""Trains WaveGlow on what preprocess_data.py wrote.

    python train.py --filelist=corpus/train.scp --wave_dir=corpus/wavs --lc_dir=corpus/mels

Writes checkpoints and TensorBoard events to LOGDIR_ROOT/RUN_NAME. The same command again continues
where the last one stopped, be it finished, interrupted or killed, to the same weights to the bit.
Hyperparameters come from params.json beside the file list unless --preset names others.

Exit status: 0 when --max_steps is reached, and after SIGTERM or Ctrl-C, which save first; 2 with one
sentence for bad input, and for a training that cannot go on.
"""
import argparse
import collections
import contextlib
import dataclasses
import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tensorflow.compat.v1 as tf

import command_line
import devices
import glow
import params
import utils
from datasets import shards, sources
from errors import UserError
from training import convolution_check, hosts, loop, towers
from training.graph import build_training_graph


def main():
    args = parse_arguments()
    together = hosts.from_arguments(args.worker_hosts, args.task_index, os.environ.get('TF_CONFIG'))
    run_dir = os.path.join(args.logdir_root, args.run_name)
    hp = hyperparameters(args, run_dir, together)
    compute = towers.compute_options(args.precision, args.reversible, args.xla)
    device_names = devices.tower_devices(args.ngpu)
    config = devices.session_config(args.ngpu)
    convolution_check.require_dilated_convolution(hp, device_names, config)
    source = sources.of(args, hp, together)
    facts = dict(dataclasses.asdict(hp), data=source.fact, hosts=together.addresses, **{
        '--' + name: getattr(args, name) for name in ('accumulate', 'precision', 'reversible', 'seed',
                                                      'max_steps')}, TensorFlow=tf.__version__)
    with contextlib.ExitStack() as held, tf.Graph().as_default() as graph:
        if together.is_chief:
            make_directory(run_dir)
            held.enter_context(utils.locked(run_dir))
        target = ''
        if together.num_hosts > 1:
            config = hosts.add_collectives(config, together)
            target = hosts.start_server(together, config).target
        watch = held.enter_context(hosts.HostMonitor(
            together, 'the same commands again continue from the last checkpoint'))
        tf.set_random_seed(args.seed)
        heldout = source.heldout() if source.test_names else None
        model = build_training_graph(hp, source.clips, heldout, device_names, compute,
                                     args.accumulate, together, hosts.fingerprints(facts), source.placed)
        checkpoints = utils.Checkpoints(run_dir, hp.keep_checkpoints)
        print_summary(hp, source, device_names, together)
        print_compute(compute, args.accumulate)
        with tf.Session(target, graph, config) as session:
            with watch.guard():
                hosts.require_agreement(session.run(model.roll_call), facts, together)
            first_step = initialize(session, model, checkpoints, args, run_dir, watch)
            if together.is_chief:
                for directory in (run_dir, checkpoints.best_directory):
                    params.save(directory, hp)
            session.run(model.clips.initializer)
            graph.finalize()
            return loop.Training(session, model, hp, args, run_dir, checkpoints, source,
                                     watch).run(first_step)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    parser.add_argument('--filelist', type=path,
                        help='utterance names to train on, one a line (train.scp)')
    parser.add_argument('--wave_dir', type=path, help='where NAME.wav are')
    parser.add_argument('--lc_dir', type=path, help='where NAME.mel are, the local condition')
    parser.add_argument('--test_filelist', type=path,
                        help='held-out utterances (default: test.scp beside --filelist)')
    parser.add_argument('--data', metavar='PATTERN',
                        help='shards to train on instead of files (SHARDS/train-*), on any path that '
                             'tf.io.gfile reads')
    parser.add_argument('--test_data', metavar='PATTERN',
                        help='held-out shards (default: test-* beside --data)')
    parser.add_argument('--damaged_records', choices=('stop', 'skip'), default='stop',
                        help='what to do about a record of a shard that is damaged '
                             '(default: %(default)s)')
    parser.add_argument('--logdir_root', type=path, default='logdir',
                        help='where runs are kept (default: %(default)s)')
    parser.add_argument('--run_name', default='waveglow',
                        help="this run's directory there (default: %(default)s)")
    parser.add_argument('--ngpu', type=int, default=1,
                        help='towers: GPUs where there are any, else CPU devices')
    parser.add_argument('--precision', choices=sorted(glow.PRECISIONS), default='float32',
                        help='what the coupling networks compute in; weights stay float32 '
                             '(default: %(default)s)')
    parser.add_argument('--xla', choices=list(towers.XLA_CHOICES),
                        help='what XLA compiles: '
                             + '; '.join('%s: %s' % what for what in towers.XLA_CHOICES.items())
                             + ' (default: what is fastest on this device)')
    parser.add_argument('--reversible', nargs='?', type=command_line.boolean, const=True, default=False,
                        help='train in the memory of one flow, for a third more work')
    parser.add_argument('--accumulate', type=int, default=1, metavar='N',
                        help='compute each step in N parts, in turn, in the memory of one')
    parser.add_argument('--worker_hosts', metavar='HOST:PORT,...',
                        help='train on all these together, the first being the chief '
                             '(default: what TF_CONFIG says)')
    parser.add_argument('--task_index', type=int, metavar='I',
                        help='which of them this process is, from 0')
    parser.add_argument('--restore_from', type=path, metavar='RUN_OR_CHECKPOINT',
                        help='start a new run from the weights there (fine-tuning)')
    command_line.add_hyperparameters(parser)
    parser.add_argument('--max_steps', type=int, default=1000000,
                        help='stop after this many steps in all (default: %(default)s)')
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='of initial weights and of the choice of clips')
    parser.add_argument('--store_metadata', nargs='?', type=command_line.boolean, const=True, default=False,
                        help='store traces for TensorBoard and chrome://tracing')
    args = parser.parse_args()
    if min(args.ngpu, args.max_steps, args.accumulate) < 1:
        parser.error('--ngpu, --accumulate and --max_steps are 1 or more')
    if args.data:
        if args.filelist or args.wave_dir or args.lc_dir:
            parser.error('--data goes without --filelist, --wave_dir and --lc_dir')
        if args.test_data is None:
            args.test_data = shards.test_beside(args.data)
        return args
    if not (args.filelist and args.wave_dir and args.lc_dir):
        parser.error('--filelist, --wave_dir and --lc_dir are required, or --data')
    if args.test_filelist is None:
        beside = os.path.join(os.path.dirname(args.filelist), 'test.scp')
        same = os.path.abspath(beside) == os.path.abspath(args.filelist)
        if os.path.exists(beside) and os.path.getsize(beside) and not same:
            args.test_filelist = beside
    return args


def hyperparameters(args, run_dir, together=hosts.SINGLE_HOST):
    """The run's HParams: its own if it exists, else those of --preset, --restore_from or the data.

    Raises UserError where a run, a checkpoint or the data does not go with what was asked for.
    """
    resumed = params.exists(run_dir) and utils.has_checkpoint(run_dir)

    def stored():
        if resumed:
            return params.load(run_dir)
        if args.restore_from:
            return params.load(os.path.dirname(utils.find_checkpoint(args.restore_from)))
        if args.data:
            return shards.hyperparameters(args.data)
        return params.load_if_exists(data_dir(args))

    hp = params.resolve(args.preset, args.hparams, stored)
    count, what = args.ngpu * args.accumulate, 'parts' if args.accumulate > 1 else 'towers'
    if together.num_hosts > 1:
        count, what = count * together.num_hosts, what + ' of %d hosts' % together.num_hosts
    if hp.batch_size % count and 'batch_size' not in params.parse_overrides(args.hparams):
        hp = hp.replace(batch_size=-(-hp.batch_size // count) * count)
        print('batch_size=%d, for %d equal %s' % (hp.batch_size, count, what))
    towers.require_equal_parts(hp, count, what)
    if resumed:
        stored = params.load(run_dir)
        params.require_same(hp, stored, params.MODEL_FIELDS, 'the run in ' + run_dir,
                            'take another --run_name for another model')
        if bool(hp.ema_decay) != bool(stored.ema_decay):
            raise UserError('the run in %s has ema_decay=%g; averages can neither be begun nor given '
                            'up on the way: take another --run_name with --restore_from=%s'
                            % (run_dir, stored.ema_decay, run_dir))
    elif args.restore_from:
        source = os.path.dirname(utils.find_checkpoint(args.restore_from))
        params.require_same(hp, params.load(source), params.MODEL_FIELDS, 'the model in ' + source,
                            'leave --preset and --hparams of the model away to fine-tune it')
    for directory in () if args.data else (data_dir(args), args.lc_dir):
        if params.exists(directory):
            params.require_same(hp, params.load(directory), params.DATA_FIELDS,
                                'the data in ' + directory,
                                'preprocess the corpus with the same --preset and --hparams')
    return hp


def data_dir(args):
    return os.path.dirname(os.path.abspath(args.filelist))


def make_directory(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError('cannot make the directory %s (%s); give another --logdir_root'
                        % (path, error.strerror))


def initialize(session, model, checkpoints, args, run_dir, watch):
    """Restores the run's newest checkpoint, or starts one. Returns the steps already done.

    The chief does, and the other hosts get what it has then.
    """
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    if watch.hosts.is_chief and utils.has_checkpoint(run_dir):
        require_same_places(run_dir)
    path = watch.hosts.is_chief and checkpoints.restore(session)
    if watch.hosts.is_chief and not path and args.restore_from:
        source = utils.find_checkpoint(args.restore_from)
        utils.load_weights(session, source)
        session.run([v.initializer for v in tf.global_variables() if utils.AVERAGE in v.op.name])
        print('starting from the weights of %s' % source)
    with watch.guard():
        session.run(model.share)
    step = session.run(tf.train.get_global_step())
    if step:
        print('continuing %s from step %d' % (run_dir, step))
    return step


def require_same_places(run_dir):
    """Raises UserError if the run read files and this graph reads shards, or with other hosts."""
    def hosts_of(shape):
        return 'files' if shape is None else 'shards on %d hosts' % shape[0]
    path = utils.find_checkpoint(run_dir)
    with utils.readable(path):
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map().get('places')
    here = next((v.shape.as_list() for v in tf.global_variables() if v.op.name == 'places'), None)
    if stored != here:
        raise UserError('the run in %s reads %s, and this command reads %s; take another --run_name '
                        'with --restore_from=%s' % (run_dir, hosts_of(stored), hosts_of(here), run_dir))


def print_summary(hp, source, device_names, together):
    parts = collections.Counter()  # the flows of one width count together
    for v in tf.trainable_variables():
        part = v.op.name.split('/')[1]
        if part.startswith('flow_'):
            part = 'flows of %d channels' % hp.flow_channels(int(part[len('flow_'):]))
        parts[part] += int(np.prod(v.shape.as_list()))
    print('model: %d flows of %d layers of %d channels, groups of %d; %.2f M parameters: %s'
          % (hp.n_flows, hp.n_layers, hp.residual_channels, hp.n_group, sum(parts.values()) / 1e6,
             ', '.join('%s %.2f M' % (part, n / 1e6) for part, n in parts.items())))
    field = 1 + (hp.kernel_size - 1) * (2 ** hp.n_layers - 1)
    print('       a coupling network sees %d groups, %.0f ms'
          % (field, 1000 * field * hp.n_group / hp.sample_rate))
    print('data: ' + source.summary)
    if not source.test_names and together.is_chief:
        print('      nothing is held out: no measure of how well it generalizes, no best checkpoint')
    if together.num_hosts > 1:
        print('hosts: %d; this is %s' % (together.num_hosts, together.name(together.task_index)))
    print('towers: %s; a step is %d clips of %.2f s' % (', '.join(device_names), hp.batch_size,
          hp.clip_frames * hp.hop_length / hp.sample_rate), flush=True)


def print_compute(compute, accumulate):
    print('computed in %s%s%s; XLA compiles %s'
          % (compute.precision, ', reversibly' if compute.reversible else '',
             ', in %d parts' % accumulate if accumulate > 1 else '', towers.XLA_CHOICES[compute.xla]),
          flush=True)


if __name__ == '__main__':
    command_line.run_script(main)
