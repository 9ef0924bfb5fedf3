"""Trains: everything around the loop, from compatible hyperparameters to the last checkpoint."""
import collections
import contextlib
import dataclasses
import os
from typing import Dict, List, Union

import tensorflow.compat.v1 as tf

import devices
import errors
import files
import glow
import params
import utils
import vocoder
from datasets.sources import FileData, ShardData, Source
from errors import UserError
from params import HParams
from training import convolution_check, loss_scale, towers
from training.checkpoints import Checkpoints, StoredVariables
from training.graph import TrainingGraph, build_training_graph
from training.hosts import (
    HostMonitor,
    add_collectives,
    fingerprints,
    require_agreement,
    start_server,
)
from training.loop import TrainingLoop, TrainingResult
from training.options import TrainingOptions
from training.weights import Buffers

POSITIONS = 'places'        # the variable in checkpoints of trainings that read shards


def train(hp: HParams, data: Union[FileData, ShardData],
          options: TrainingOptions) -> TrainingResult:
    """Trains a model, or trains one on: the same call continues where the last one stopped.

    Writes checkpoints, params.json and TensorBoard events to options.run_dir. SIGTERM and Ctrl-C
    save and end it.

    Raises UserError for what does not go together, data that cannot be read, and a training that
    cannot go on.
    """
    require_compatible(hp, data, options)
    device_names = devices.tower_devices(options.num_towers)
    config = devices.session_config(options.num_towers)
    if options.check_convolution:
        convolution_check.require_dilated_convolution(hp, device_names, config)
    hosts = options.hosts
    source = data.open(hp, options.seed, options.accumulate, hosts.num_hosts, hosts.task_index)
    settings = _shared_settings(hp, source, options)
    # The graph is left last: else TensorFlow takes the process for one without eager execution.
    with tf.Graph().as_default() as tf_graph, contextlib.ExitStack() as resources:
        is_there = None
        if hosts.is_chief:
            is_there = resources.enter_context(_locked_directory(options.run_dir))
        target = ''
        if hosts.num_hosts > 1:
            config = add_collectives(config, hosts)
            target = start_server(
                hosts, config, os.path.basename(os.path.normpath(options.run_dir))).target
        monitor = resources.enter_context(HostMonitor(
            hosts, 'the same commands again continue from the last checkpoint',
            options.step_timeout_minutes))
        tf.set_random_seed(options.seed)
        graph = build_training_graph(
            hp, source.training_clips, source.heldout_clips if source.heldout_names else None,
            device_names, options.compute, options.accumulate, hosts,
            fingerprints(settings), source.has_positions)
        stored = StoredVariables(graph.buffers)
        checkpoints = Checkpoints(options.run_dir, hp.keep_checkpoints, stored,
                                  tf.global_variables(loss_scale.SCOPE))
        _print_summary(hp, graph.buffers, source, device_names, options)
        session = resources.enter_context(tf.Session(target, tf_graph, config))
        with monitor.guard(), monitor.waiting():
            require_agreement(session.run(graph.fingerprints), settings, hosts)
        first_step = _initialize(session, graph, hp, stored, checkpoints, options, monitor)
        if hosts.is_chief:
            with _writing_run(options.run_dir):
                for directory in (checkpoints.directory, checkpoints.best_directory):
                    params.save(directory, hp)
        session.run(graph.clips_iterator.initializer)
        if not (hosts.is_chief and graph.build_evaluation):
            tf_graph.finalize()
        return TrainingLoop(session, graph, hp, options, source, checkpoints,
                            monitor, is_there).run(first_step)


def is_resumed(run_dir: str) -> bool:
    """Whether there is a training in `run_dir` to continue."""
    return params.exists(run_dir) and utils.has_checkpoint(run_dir)


def require_compatible(hp: HParams, data: Union[FileData, ShardData],
                       options: TrainingOptions) -> None:
    """Raises UserError where the run, the checkpoint it starts from or the data is another's."""
    towers.require_equal_parts(hp, options.batch_parts, options.batch_parts_name)
    run_dir = options.run_dir
    if is_resumed(run_dir):
        stored = params.load(run_dir)
        params.require_same(hp, stored, params.MODEL_FIELDS, 'the run in ' + run_dir,
                            'take another --run_name for another model')
        if bool(hp.ema_decay) != bool(stored.ema_decay):
            raise UserError('the run in %s has ema_decay=%g; averages can neither be begun nor '
                            'given up on the way: take another --run_name with --restore_from=%s'
                            % (run_dir, stored.ema_decay, run_dir))
        if bool(hp.adversarial_weight) != bool(stored.adversarial_weight):
            raise UserError('the run in %s has adversarial_weight=%g; discriminators can neither '
                            'be begun nor given up on the way: take another --run_name with '
                            '--restore_from=%s' % (run_dir, stored.adversarial_weight, run_dir))
    elif options.restore_from:
        start = os.path.dirname(utils.find_checkpoint(options.restore_from))
        params.require_same(hp, params.load(start), params.MODEL_FIELDS, 'the model in ' + start,
                            'leave --preset and --hparams of the model away to fine-tune it')
    data.require_fit(hp)


def _shared_settings(hp, source, options):
    """{name: value} of what must be the same on all hosts; messages name what is not."""
    return dict(dataclasses.asdict(hp), data=source.fingerprint, hosts=options.hosts.addresses, **{
        '--accumulate': options.accumulate, '--precision': options.compute.precision,
        '--reversible': options.compute.reversible, '--seed': options.seed,
        '--max_steps': options.max_steps, 'TensorFlow': tf.__version__})


@contextlib.contextmanager
def _locked_directory(path):
    """Makes the directory of a run, which is to be written, and holds it for this process.

    The block gets a function that tells whether it is still there.
    """
    with contextlib.ExitStack() as resources:
        with _writing_run(path):
            os.makedirs(path, exist_ok=True)
            is_held = resources.enter_context(files.lock_directory(
                path, 'another train.py is training in %s; wait for it, stop it, or take another '
                      '--run_name' % path))
            with files.atomic_open(os.path.join(path, '.writable')):
                pass    # there may be a lock of before in a directory that is read only now
            os.unlink(os.path.join(path, '.writable'))

        def is_there() -> bool:     # a lock that alone was removed does no harm
            return is_held() or (params.exists(path)
                                 and not os.path.exists(os.path.join(path, files.LOCK)))

        yield is_there


def _writing_run(path):
    return errors.as_user_error('cannot write to the directory ' + path,
                                'give another --logdir_root or --run_name', OSError)


def _initialize(session: tf.Session, graph: TrainingGraph, hp: HParams, stored: StoredVariables,
                checkpoints: Checkpoints, options: TrainingOptions, monitor: HostMonitor) -> int:
    """Restores the run's newest checkpoint, or starts one. Returns the steps already done.

    The chief does, and the other hosts get what it has then.
    """
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    if options.hosts.is_chief:
        if utils.has_checkpoint(options.run_dir):
            _require_same_positions(options.run_dir)
        restored = checkpoints.restore(session)
        if not restored and options.restore_from:
            start = utils.find_checkpoint(options.restore_from)
            weights = utils.read_weights(start)
            vocoder.require_shapes(hp, weights, 'checkpoint ' + start)
            stored.assign(session, weights)
            session.run(graph.reset_averages)
            print('starting from the weights of %s' % start)
    with monitor.guard(), monitor.waiting():
        session.run(graph.broadcast)
    step = session.run(tf.train.get_global_step())
    if step:
        print('continuing %s from step %d' % (options.run_dir, step))
    return step


def _require_same_positions(run_dir):
    """Raises UserError if the run read files and this graph reads shards, or with other hosts."""
    def what_is_read(shape):
        return 'files' if shape is None else 'shards on %d hosts' % shape[0]
    path = utils.find_checkpoint(run_dir)
    with utils.reading_checkpoint(path):
        stored = tf.train.load_checkpoint(path).get_variable_to_shape_map().get(POSITIONS)
    here = next((v.shape.as_list() for v in tf.global_variables() if v.op.name == POSITIONS), None)
    if stored != here:
        raise UserError('the run in %s reads %s, and this command reads %s; take another '
                        '--run_name with --restore_from=%s'
                        % (run_dir, what_is_read(stored), what_is_read(here), run_dir))


def hop_note(hp: HParams) -> str:
    """What to tell of an n_group that does not divide the hop: which one does."""
    divisors = [n for n in range(4, min(hp.hop_length, 64) + 1, 2) if hp.hop_length % n == 0]
    near = sorted(sorted(divisors, key=lambda n: abs(n - hp.n_group))[:3])
    return ('n_group=%d does not divide hop_length=%d, so some groups lie in two frames; %s'
            % (hp.n_group, hp.hop_length, 'these divide it: ' + ', '.join(map(str, near)) if near
               else 'no even number of 4 to 64 divides it'))


def _print_summary(hp: HParams, buffers: Buffers, source: Source, device_names: List[str],
                   options: TrainingOptions) -> None:
    sizes: Dict[str, int] = collections.Counter()   # the flows of one width count together
    for weight in buffers.weights:
        scope, part = weight.name.split('/')[:2]
        if scope + '/' != utils.SCOPE:
            continue
        if part.startswith('flow_'):
            part = 'flows of %d channels' % hp.flow_channels(int(part[len('flow_'):]))
        sizes[part] += weight.size
    print('model: %d flows of %d layers of %d channels, groups of %d; %.2f M parameters: %s'
          % (hp.n_flows, hp.n_layers, hp.residual_channels, hp.n_group, sum(sizes.values()) / 1e6,
             ', '.join('%s %.2f M' % (part, n / 1e6) for part, n in sizes.items())))
    receptive_field = 1 + (hp.kernel_size - 1) * (2 ** hp.n_layers - 1)
    print('       a coupling network sees %d groups, %.0f ms'
          % (receptive_field, 1000 * receptive_field * hp.n_group / hp.sample_rate))
    if hp.cycle_frames > 1:
        print('       ' + hop_note(hp))
    print('data: ' + source.summary)
    hosts, compute = options.hosts, options.compute
    if not source.heldout_names and hosts.is_chief:
        print('      nothing is held out: no measure of how well it generalizes, no best '
              'checkpoint')
    if hosts.num_hosts > 1:
        print('hosts: %d; this is %s' % (hosts.num_hosts, hosts.name(hosts.task_index)))
    print('towers: %s; a step is %d clips of %.2f s' % (
        ', '.join(device_names), hp.batch_size, hp.clip_frames * hp.hop_length / hp.sample_rate))
    print('computed in %s%s%s; XLA compiles %s' % (
        compute.precision, ', reversibly' if compute.reversible else '',
        ', in %d parts' % options.accumulate if options.accumulate > 1 else '',
        towers.XLA_CHOICES[compute.xla]), flush=True)
    note = devices.precision_note(glow.PRECISIONS[compute.precision])
    if note:
        print(note, flush=True)
