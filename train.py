"""Trains WaveGlow on what preprocess_data.py wrote.

    python train.py --filelist=corpus/train.scp --wave_dir=corpus/wavs --lc_dir=corpus/mels

Writes checkpoints and TensorBoard events to LOGDIR_ROOT/RUN_NAME. The same command again continues
where the last one stopped, be it finished, interrupted or killed, to the same weights to the bit.
Hyperparameters come from params.json beside the file list unless --preset names others.
"""
import argparse
import collections
import contextlib
import os
import signal
import sys
import time

import utils  # first: it quiets TensorFlow
import numpy as np
import tensorflow.compat.v1 as tf
import tqdm
from tensorflow.python.client import timeline

import audio
import dataset
import files
import glow
import ops
import optimizer
import parallel
import params
import vocoder
from params import UserError


def main():
    args = parse_arguments()
    run_dir = os.path.join(args.logdir_root, args.run_name)
    hp = hyperparameters(args, run_dir)
    devices = parallel.tower_devices(args.ngpu)
    check_convolution(hp, devices)
    names = files.read_list(args.filelist)
    train_set = dataset.index(names, args.wave_dir, args.lc_dir, hp)
    clippable = dataset.long_enough(train_set, hp)
    test_set = []
    if args.test_filelist:
        test_set = dataset.index(files.read_list(args.test_filelist), args.wave_dir, args.lc_dir,
                                 hp)[:hp.eval_utterances]
    make_directory(run_dir)
    with utils.locked(run_dir), tf.Graph().as_default() as graph:
        tf.set_random_seed(args.seed)
        start_step = tf.placeholder(tf.int64, [], 'start_step')
        clips = dataset.training_clips(clippable, args.wave_dir, args.lc_dir, hp, args.seed,
                                       start_step)
        heldout = dataset.whole_utterances(test_set, args.wave_dir, args.lc_dir, hp) \
            if test_set else None
        model = build(hp, clips, heldout, devices)
        checkpoints = utils.Checkpoints(run_dir, hp.keep_checkpoints)
        print_summary(hp, train_set, clippable, test_set, devices)
        with tf.Session(graph=graph, config=parallel.session_config(args.ngpu)) as session:
            first_step = initialize(session, checkpoints, args, run_dir)
            for directory in (run_dir, checkpoints.best_directory):
                with files.atomic_open(os.path.join(directory, 'params.json')) as f:
                    f.write(params.to_json(hp))
            session.run(model.clips.initializer, {start_step: first_step})
            return Training(session, model, hp, args, run_dir, checkpoints).run(first_step)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = files.local_path
    parser.add_argument('--filelist', type=path, required=True,
                        help='utterance names to train on, one a line (train.scp)')
    parser.add_argument('--wave_dir', type=path, required=True, help='where NAME.wav are')
    parser.add_argument('--lc_dir', type=path, required=True,
                        help='where NAME.mel are, the local condition')
    parser.add_argument('--test_filelist', type=path,
                        help='held-out utterances (default: test.scp beside --filelist)')
    parser.add_argument('--logdir_root', type=path, default='logdir',
                        help='where runs are kept (default: %(default)s)')
    parser.add_argument('--run_name', default='waveglow',
                        help="this run's directory there (default: %(default)s)")
    parser.add_argument('--ngpu', type=int, default=1,
                        help='towers: GPUs where there are any, else CPU devices')
    parser.add_argument('--restore_from', type=path, metavar='RUN_OR_CHECKPOINT',
                        help='start a new run from the weights there (fine-tuning)')
    params.add_arguments(parser)
    parser.add_argument('--max_steps', type=int, default=1000000,
                        help='stop after this many steps in all (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of initial weights and of the choice of clips')
    parser.add_argument('--store_metadata', nargs='?', type=lambda text: text.lower() == 'true',
                        const=True, default=False,
                        help='store traces for TensorBoard and chrome://tracing')
    args = parser.parse_args()
    if args.ngpu < 1 or args.max_steps < 1:
        parser.error('--ngpu and --max_steps are 1 or more')
    if args.test_filelist is None:
        beside = os.path.join(os.path.dirname(args.filelist), 'test.scp')
        same = os.path.abspath(beside) == os.path.abspath(args.filelist)
        if os.path.exists(beside) and os.path.getsize(beside) and not same:
            args.test_filelist = beside
    return args


def hyperparameters(args, run_dir):
    """The run's HParams: its own if it exists, else those of --preset, --restore_from or the data.

    Raises UserError where a run, a checkpoint or the data does not go with what was asked for.
    """
    data_dir = os.path.dirname(os.path.abspath(args.filelist))
    resumed = params.exists(run_dir)
    if args.preset:
        hp = params.preset(args.preset)
    elif resumed:
        hp = params.load(run_dir)
    elif args.restore_from:
        hp = params.load(os.path.dirname(utils.find_checkpoint(args.restore_from)))
    elif params.exists(data_dir):
        hp = params.load(data_dir)
    else:
        hp = params.preset(params.DEFAULT_PRESET)
    hp = params.override(hp, args.hparams)
    if resumed:
        params.require_same(hp, params.load(run_dir), params.MODEL_FIELDS, 'the run in ' + run_dir,
                     'take another --run_name for another model')
    elif args.restore_from:
        source = os.path.dirname(utils.find_checkpoint(args.restore_from))
        params.require_same(hp, params.load(source), params.MODEL_FIELDS, 'the model in ' + source,
                     'leave --preset and --hparams of the model away to fine-tune it')
    for directory in (data_dir, args.lc_dir):
        if params.exists(directory):
            params.require_same(hp, params.load(directory), params.DATA_FIELDS, 'the data in ' + directory,
                         'preprocess the corpus with the same --preset and --hparams')
    return hp


def check_convolution(hp, devices):
    """Refuses a convolution form that computes something else on a device: see docs/nhwc.md."""
    def conv(x, filters, dilation, causal):
        return ops.dilated_conv(x, filters, dilation, causal, hp.conv_form)
    for device in sorted(set(devices)):
        fault = ops.impulse_check(conv, device, parallel.session_config(len(devices)))
        if fault:
            raise UserError('conv_form=%s does not compute a dilated convolution on %s under '
                            'TensorFlow %s: %s; take --hparams conv_form=time_to_batch'
                            % (hp.conv_form, device, tf.__version__, fault))


def make_directory(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError('cannot make the directory %s (%s); give another --logdir_root'
                        % (path, error.strerror))


# --- The graph ------------------------------------------------------------------------------------

# clips, heldout: iterators; step: one training step's fetches; heldout_loss: a glow.Loss of the
# next held-out utterance; vocode: vocoder.build's; best: held-out loss of the best checkpoint,
# with a placeholder and the operation that sets it.
Model = collections.namedtuple('Model', 'clips step heldout heldout_clip heldout_loss vocode best '
                                        'new_best set_best averages')


def build(hp, clips, heldout, devices):
    """The training graph. Averaged weights serve the held-out loss and vocoding.

    Args:
      clips: a dataset of dataset.Clips of hp.batch_size clips.
      heldout: one of single utterances, or None.
      devices: of the towers, as parallel.tower_devices names them.
    """
    global_step = tf.train.get_or_create_global_step()
    best = ops.variable('best_heldout_loss', [], tf.constant_initializer(np.inf), trainable=False)
    new_best = tf.placeholder(tf.float32, [])
    iterator = tf.data.make_initializable_iterator(clips)
    batch = dataset.Clips(*iterator.get_next())
    loss, gradients = parallel.loss_and_gradients(batch, hp, devices)
    variables = [v for _, v in gradients]
    learning_rate = optimizer.schedule(hp, tf.cast(global_step, tf.float32))
    train_op, gradient_norm, ema = optimizer.optimize(hp, gradients, learning_rate, global_step)
    step = dict(loss=loss, learning_rate=learning_rate, gradient_norm=gradient_norm,
                name=batch.name, start_frame=batch.start_frame, op=train_op)
    held = held_clip = held_loss = None
    with tf.device(devices[0]), parallel.averages_of(ema):
        if heldout is not None:
            held = tf.data.make_initializable_iterator(heldout)
            held_clip = dataset.Clips(*held.get_next())
            held_loss = glow.loss(held_clip.audio, held_clip.mel, hp)
        vocode = vocoder.build(hp)
    if len(tf.trainable_variables()) != len(variables):
        raise AssertionError('evaluation has weights of its own')
    return Model(iterator, step, held, held_clip, held_loss, vocode, best, new_best,
                 best.assign(new_best), ema)


def initialize(session, checkpoints, args, run_dir):
    """Restores the run's newest checkpoint, or starts one. Returns the steps already done."""
    session.run(tf.global_variables_initializer())
    path = checkpoints.restore(session)
    if path:
        step = session.run(tf.train.get_global_step())
        print('continuing %s from step %d' % (run_dir, step))
        return step
    if args.restore_from:
        source = utils.find_checkpoint(args.restore_from)
        utils.load_weights(session, source)
        session.run([v.initializer for v in tf.global_variables() if utils.AVERAGE in v.op.name])
        print('starting from the weights of %s' % source)
    return 0


def print_summary(hp, train_set, clippable, test_set, devices):
    def hours(utterances):
        return sum(u.frames for u in utterances) * hp.hop_length / hp.sample_rate / 3600
    parts = collections.Counter()
    for v in tf.trainable_variables():
        parts[v.op.name.split('/')[1]] += int(np.prod(v.shape.as_list()))
    print('model: %d flows of %d layers, %s channels, groups of %d; %.2f M parameters (%s)'
          % (hp.n_flows, hp.n_layers, hp.residual_channels, hp.n_group, sum(parts.values()) / 1e6,
             ', '.join('%s %.2f M' % (part, n / 1e6) for part, n in parts.items()
                       if not part.startswith('flow_') or part == 'flow_0')))
    print('data: %d utterances, %.2f hours, at %d Hz, mel profile %s; held out: %d, %.2f hours'
          % (len(train_set), hours(train_set), hp.sample_rate, hp.mel_profile, len(test_set),
             hours(test_set)))
    if len(clippable) < len(train_set):
        print('      %d of them, %.2f hours, are shorter than a clip of %d samples and not used'
              % (len(train_set) - len(clippable), hours(train_set) - hours(clippable),
                 hp.clip_frames * hp.hop_length))
    if not test_set:
        print('      nothing is held out: no measure of how well it generalizes, no best checkpoint')
    print('towers: %s; a step is %d clips of %.2f s' % (', '.join(devices), hp.batch_size,
          hp.clip_frames * hp.hop_length / hp.sample_rate), flush=True)


# --- The loop -------------------------------------------------------------------------------------

class Training:
    """Runs steps, and between them what the hyperparameters say: summaries, checkpoints, ..."""

    def __init__(self, session, model, hp, args, run_dir, checkpoints):
        self.session, self.model, self.hp, self.args = session, model, hp, args
        self.run_dir, self.checkpoints = run_dir, checkpoints
        self.saved_step, self.saved_time = None, time.time()
        self.stopped_by = None

    def run(self, first_step):
        """Trains from `first_step` to --max_steps. Returns the exit status."""
        args, hp = self.args, self.hp
        if first_step >= args.max_steps:
            print('%s has %d steps already; raise --max_steps to train on'
                  % (self.run_dir, first_step))
            return 0
        self.events = utils.Events(self.run_dir, first_step)
        self.saved_step = first_step or None
        clip_seconds = hp.batch_size * hp.clip_frames * hp.hop_length / hp.sample_rate
        step = first_step
        with self.stop_signals(), contextlib.closing(self.events), tqdm.tqdm(
                initial=first_step, total=args.max_steps, unit='step', mininterval=1,
                dynamic_ncols=True, file=sys.stdout, disable=None) as bar:
            started = time.time()
            while step < args.max_steps and not self.stopped_by:
                result = self.train_step(step)
                step += 1
                rate = (step - first_step) * clip_seconds / (time.time() - started)
                state = 'loss %.3f, lr %.2g, %.1f s audio/s' % (
                    result['loss'].total, result['learning_rate'], rate)
                bar.set_postfix_str(state, refresh=False)
                bar.update()
                if bar.disable and step % hp.summary_every == 0:  # the output is no terminal
                    left = (args.max_steps - step) * clip_seconds / rate / 60
                    print('step %d: %s, %.0f minutes left' % (step, state, left), flush=True)
                self.after_step(step, result, rate)
            if self.saved_step != step:
                self.save(step)
        if self.stopped_by:
            print('%s: stopped and saved at step %d; the same command continues'
                  % (self.stopped_by, step))
        else:
            print('trained to step %d; vocode with: python inference.py --restore_from=%s --lc ...'
                  % (step, self.run_dir))
        return 0

    def train_step(self, step):
        options = metadata = None
        if self.args.store_metadata and step % self.hp.eval_every == 10:
            options, metadata = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
        try:
            result = self.session.run(self.model.step, options=options, run_metadata=metadata)
        except (tf.errors.NotFoundError, tf.errors.InvalidArgumentError,
                tf.errors.DataLossError) as error:
            raise UserError('step %d failed (%s); if a file has gone or changed, preprocess again; '
                            '%s' % (step, error.message.splitlines()[0], self.last_good()))
        if not np.isfinite(result['loss'].total) or not np.isfinite(result['gradient_norm']):
            clips = ', '.join('%s from frame %d' % (name.decode(), frame) for name, frame
                              in zip(result['name'], result['start_frame']))
            raise UserError('step %d has a loss of %s and gradients of norm %s, and training '
                            'stopped; its clips were %s; %s; a lower lr or clip_norm may help'
                            % (step, result['loss'].total, result['gradient_norm'], clips,
                               self.last_good()))
        if metadata:
            self.events.metadata(metadata, step)
            with files.atomic_open(os.path.join(self.run_dir, 'timeline-%d.json' % step)) as f:
                f.write(timeline.Timeline(metadata.step_stats).generate_chrome_trace_format())
        return result

    def last_good(self):
        if self.saved_step is None:
            return 'no checkpoint had been written'
        return 'the last good checkpoint is model.ckpt-%d in %s' % (self.saved_step, self.run_dir)

    def after_step(self, step, result, rate):
        hp, last = self.hp, step == self.args.max_steps
        if step % hp.summary_every == 0 or last:
            loss = result['loss']
            self.events.scalars({
                'train/nll': loss.total, 'train/z': loss.z, 'train/log_s': loss.log_s,
                'train/log_det': loss.log_det, 'train/gradient_norm': result['gradient_norm'],
                'train/learning_rate': result['learning_rate'],
                'train/seconds_of_audio_a_second': rate}, step)
        if self.model.heldout is not None:
            if step % hp.eval_every == 0 or last:
                self.evaluate(step)
            if step % hp.gen_test_wave_every == 0 or last:
                self.vocode(step)
        if step % hp.save_every == 0 or time.time() - self.saved_time > 60 * hp.save_minutes:
            self.save(step)

    def save(self, step):
        self.checkpoints.save(self.session, step)
        self.saved_step, self.saved_time = step, time.time()

    def evaluate(self, step):
        """The held-out loss of the averaged weights, a mean over samples; keeps the best."""
        total, samples = np.zeros(4), 0
        self.session.run(self.model.heldout.initializer)
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while True:
                terms, n = self.session.run([self.model.heldout_loss,
                                             tf.size(self.model.heldout_clip.audio)])
                total += n * np.array(terms)
                samples += n
        loss = glow.Loss(*(total / samples))
        self.events.scalars({'heldout/' + tag: value for tag, value in
                             zip(('nll', 'z', 'log_s', 'log_det'), loss)}, step)
        best = loss.total < self.session.run(self.model.best)
        tqdm.tqdm.write('step %d: held-out loss %.4f nats a sample%s'
                        % (step, loss.total, ', the best so far' if best else ''))
        sys.stdout.flush()
        if best:
            self.session.run(self.model.set_best, {self.model.new_best: loss.total})
            self.checkpoints.save_best(self.session, step)

    def vocode(self, step):
        """Vocodes the first held-out utterances for TensorBoard: sound, and spectrograms."""
        hp, (z_in, mel_in, lengths_in, vocoded) = self.hp, self.model.vocode
        self.session.run(self.model.heldout.initializer)
        with contextlib.suppress(tf.errors.OutOfRangeError):
            for _ in range(hp.gen_utterances):
                clip = self.session.run(self.model.heldout_clip)
                name, frames = clip.name[0].decode(), clip.mel.shape[1]
                z = vocoder.noise(frames, hp, hp.gen_sigma, self.args.seed)
                sound = self.session.run(vocoded, {z_in: z[None], mel_in: clip.mel,
                                                   lengths_in: [frames]})[0]
                if not np.isfinite(sound).all():
                    tqdm.tqdm.write('step %d: %s vocodes to samples that are not finite'
                                    % (step, name))
                    continue
                mel = audio.mel_spectrogram(sound, hp.sample_rate, hp.mel)
                self.events.speech('original/' + name, clip.audio[0], hp.sample_rate, step)
                self.events.speech('vocoded/' + name, sound, hp.sample_rate, step)
                self.events.image('spectrogram/' + name, utils.spectrogram_png(
                    [('%s, original' % name, clip.mel[0]),
                     ('vocoded at step %d' % step, mel[:frames])]), step)

    @contextlib.contextmanager
    def stop_signals(self):
        """SIGTERM and Ctrl-C end the training after the step under way; again, at once."""
        def stop(number, frame):
            if self.stopped_by:
                raise KeyboardInterrupt
            self.stopped_by = signal.Signals(number).name
        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


if __name__ == '__main__':
    files.run_script(main)
