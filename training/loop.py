"""The loop that runs the training graph."""
import contextlib
import os
import sys
import time
from typing import Callable, List, NamedTuple, NoReturn, Optional

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm
from tensorflow.python.client import timeline

import errors
import files
import params
import utils
from datasets import digital_silence
from datasets.sources import Source
from errors import UserError
from params import HParams
from training import loss_scale
from training.checkpoints import Checkpoints
from training.evaluation import Evaluation
from training.events import Events
from training.graph import PartFetches, StepFetches, TrainingGraph
from training.hosts import HostMonitor
from training.loss_curve import LossCurve
from training.options import TrainingOptions
from training.signals import StopSignals

ADVICE = 'a lower lr or clip_norm may help'
FLOAT16_ADVICE = '--precision=float32 has more range'
SILENCE_ADVICE = ('%d of these clips hold digital silence (runs of exact zeros), on which no '
                  'likelihood is finite: take --hparams=dither=0.5')
LOOK_SECONDS = 2        # between two looks whether the run's directory is there


class TrainingResult(NamedTuple):
    """How a training ended."""
    step: int           # steps done in all
    finished: bool      # whether these are max_steps; else a signal stopped it


class TrainingLoop:
    """Runs steps, and between them what the hyperparameters say: summaries, checkpoints, ...

    Of several hosts, all run the steps and the chief alone does the rest.
    """
    events: Events              # the chief's alone
    evaluation: Evaluation      # the chief's alone
    loss_curve: LossCurve       # the chief's alone

    def __init__(self, session: tf.Session, graph: TrainingGraph, hp: HParams,
                 options: TrainingOptions, source: Source, checkpoints: Checkpoints,
                 monitor: HostMonitor, is_there: Optional[Callable[[], bool]] = None):
        """is_there: whether the run's directory is still the one that it was; None for always."""
        self.session, self.graph, self.hp, self.options = session, graph, hp, options
        self.source, self.checkpoints, self.monitor = source, checkpoints, monitor
        self.is_chief = options.hosts.is_chief
        self.is_there = is_there or (lambda: True)
        self.looked_time = time.time()              # when it was last there
        self.signals = StopSignals()
        self.saved_step: Optional[int] = None       # of the newest checkpoint that is good
        self.saved_time = time.time()
        self.clip_seconds = hp.batch_size * hp.clip_frames * hp.hop_length / hp.sample_rate

    def run(self, first_step: int) -> TrainingResult:
        """Trains from `first_step` to options.max_steps, or to a signal."""
        last_step = self.options.max_steps
        if first_step >= last_step:
            print('%s has %d steps already; raise --max_steps to train on'
                  % (self.options.run_dir, first_step))
            return TrainingResult(first_step, finished=True)
        self.saved_step = first_step or None
        with contextlib.ExitStack() as resources:
            resources.enter_context(self.signals)
            if self.is_chief:
                with self.as_user_error('writing events'):
                    self.events = resources.enter_context(
                        Events(self.options.run_dir, first_step))
                self.loss_curve = LossCurve(self.options.run_dir, first_step)
                self.evaluation = Evaluation(
                    self.session, self.graph, self.hp, self.source.heldout_names,
                    self.options, self.events, self.signals)
            bar = resources.enter_context(tqdm.tqdm(
                initial=first_step, total=last_step, unit='step', mininterval=1,
                dynamic_ncols=True, file=sys.stdout, disable=None))
            step, stopped = self._run_steps(first_step, bar)
            if self.options.hosts.num_hosts > 1:
                with self.monitor.waiting():
                    self.session.run(self.graph.fingerprints)   # all are done before one leaves
                self.monitor.stop()
            if self.is_chief and self.saved_step != step:
                self.save(step)
            if self.is_chief:
                with self.as_user_error('drawing the losses'):
                    self.loss_curve.write()
        self._print_end(step, stopped)
        return TrainingResult(step, finished=step >= last_step)

    def _run_steps(self, step, bar):
        """Runs steps to the last, or to a signal. Returns (steps done in all, whether stopped)."""
        first_step, stopped, started = step, False, time.time()
        while step < self.options.max_steps and not stopped:
            result = self.train_step(step)
            step += 1
            speed = (step - first_step) * self.clip_seconds / (time.time() - started)
            self._print_progress(step, result, speed, bar)
            if self.is_chief:
                self.after_step(step, result, speed)
            # several hosts end together: after the step that tells them all
            stopped = (result.stopping if self.options.hosts.num_hosts > 1
                       else bool(self.signals.received))
        return step, stopped

    def _print_progress(self, step, result, speed, bar):
        state = 'loss %.3f, %slr %.2g, %.1f s audio/s' % (
            result.loss.nll, 'stft %.3f, ' % result.loss.stft if self.hp.stft_weight else '',
            result.learning_rate, speed)
        bar.set_postfix_str(state, refresh=False)
        bar.update()
        if bar.disable and step % self.hp.summary_every == 0:   # the output is no terminal
            left = (self.options.max_steps - step) * self.clip_seconds / speed / 60
            print('step %d: %s, %.0f minutes left' % (step, state, left), flush=True)

    def _print_end(self, step, stopped):
        if stopped:
            print('%s: stopped%s at step %d; the same command continues'
                  % (self.signals.received or 'another host was told to stop',
                     ' and saved' if self.is_chief else '', step))
        elif self.is_chief:
            print('trained to step %d; vocode with: python inference.py --restore_from=%s --lc ...'
                  % (step, self.options.run_dir))
        else:
            print('trained to step %d; the chief has the weights' % step)
        if self.is_chief:
            print('losses: ' + self.loss_curve.path)

    def train_step(self, step: int) -> StepFetches:
        """Runs the step after `step` steps and returns what it fetched.

        Raises UserError if it fails or its loss or gradients are not finite.
        """
        traced = (self.options.store_metadata and self.is_chief
                  and (step - 10) % self.hp.eval_every == 0)
        run_options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE) if traced else None
        metadata = tf.RunMetadata() if traced else None
        with self.as_user_error('step %d' % (step + 1)), self.monitor.waiting(is_step=True):
            parts = [self.session.run(part) for part in self.graph.parts]
            result = self.session.run(
                self.graph.step, {self.graph.stop_requested: bool(self.signals.received)},
                options=run_options, run_metadata=metadata)
        self._require_finite(step, parts, result)
        if metadata is not None:
            self.events.metadata(metadata, step + 1)
            path = os.path.join(self.options.run_dir, 'timeline-%d.json' % (step + 1))
            with self.as_user_error('a trace'), files.atomic_open(path) as f:
                f.write(timeline.Timeline(metadata.step_stats).generate_chrome_trace_format())
        return result

    def _require_finite(self, step, parts: List[PartFetches], result: StepFetches):
        is_scaled = np.size(result.loss_scale) and result.loss_scale > loss_scale.SMALLEST
        if np.isfinite(result.loss.total) and (np.isfinite(result.gradient_norm) or is_scaled):
            return
        clips = ', '.join('%s from frame %d' % (errors.cut(name.decode()), frame)
                          for part in parts + [result]
                          for name, frame in zip(part.clip_names, part.start_frames))
        silent = sum(bool(digital_silence.zero_runs(clip))
                     for part in parts + [result] for clip in part.audio)
        self.fail_diverged(
            step, 'step %d has a loss of %s and gradients of norm %s; its clips were %s'
            % (step + 1, result.loss.total, result.gradient_norm, clips),
            SILENCE_ADVICE % silent if silent
            else FLOAT16_ADVICE if np.size(result.loss_scale) else ADVICE)

    def after_step(self, step: int, result: StepFetches, speed: float) -> None:
        """What the chief does after step `step`. speed: seconds of audio a second."""
        hp, last = self.hp, step == self.options.max_steps
        if time.time() - self.looked_time > LOOK_SECONDS:
            self.require_directory(step)
        if step % hp.summary_every == 0 or last:
            with self.as_user_error('writing events'):
                self.write_summary(step, result, speed)
        try:
            if self.graph.build_evaluation is not None:
                if step % hp.eval_every == 0 or last:
                    self.evaluate(step)
                if step % hp.gen_test_wave_every == 0 or last:
                    self.evaluation.vocode(step)
        except tf.errors.OpError as error:  # of the held-out data: the weights are worth keeping
            self.save(step)
            raise UserError('the held-out utterances cannot be evaluated (%s); preprocess again, '
                            'or give another --test_filelist; %s'
                            % (errors.reason(error), self._last_good())) from error
        if step % hp.save_every == 0 or time.time() - self.saved_time > 60 * hp.save_minutes:
            self.save(step)

    def write_summary(self, step: int, result: StepFetches, speed: float) -> None:
        loss = result.loss
        values = {
            'train/nll': loss.nll, 'train/z': loss.z, 'train/log_s': loss.log_s,
            'train/log_det': loss.log_det, 'train/stft': loss.stft,
            'train/objective': loss.total, 'train/gradient_norm': result.gradient_norm,
            'train/learning_rate': result.learning_rate,
            'train/seconds_of_audio_a_second': speed}
        if self.hp.adversarial_weight:
            values.update({'train/adversarial': loss.adversarial,
                           'train/discriminators': loss.discriminators})
        if np.size(result.loss_scale):
            values['train/loss_scale'] = result.loss_scale
        self.events.scalars(values, step)
        self.loss_curve.add(values, step)

    def evaluate(self, step: int) -> None:
        """Measures the held-out loss; saves the best checkpoint if it is the lowest so far."""
        loss = self.evaluation.heldout_loss()
        if loss is None:
            return
        if not np.isfinite(loss.total):
            self.fail_diverged(
                step, 'the held-out loss after step %d is %s' % (step, loss.total))
        is_best = self.evaluation.record(loss, step)
        self.require_directory(step)
        if is_best:
            with self.as_user_error('writing the best checkpoint'):
                self.checkpoints.save_best(self.session, step)
        self.loss_curve.add({'heldout/nll': loss.total}, step)
        with self.as_user_error('drawing the losses'):
            self.loss_curve.write()

    def save(self, step: int) -> None:
        self.require_directory(step)
        with self.as_user_error('writing a checkpoint'):
            self.checkpoints.save(self.session, step)
        self.saved_step, self.saved_time = step, time.time()

    def require_directory(self, step: int) -> None:
        """Raises UserError if the run's directory was removed or renamed; saves beside it first."""
        self.looked_time = time.time()
        if self.is_there():
            return
        aside = '%s-step-%d' % (os.path.normpath(self.options.run_dir), step)
        while os.path.exists(aside):
            aside += '-saved'
        with self.as_user_error('saving step %d in %s' % (step, aside)):
            self.checkpoints.save_elsewhere(self.session, aside, step)
            params.save(aside, self.hp)
        raise UserError('%s; step %d is saved in %s: continue with --run_name=%s, or give the '
                        'directory its name back'
                        % (self._gone(), step, aside, os.path.basename(aside)))

    def _gone(self):
        return 'the directory %s was removed or renamed while it trained' % self.options.run_dir

    def fail_diverged(self, step: int, what: str, advice: str = ADVICE) -> NoReturn:
        """Raises UserError for weights, of `step` steps, that give no finite loss.

        A checkpoint of those very weights is set aside: the one before it is the last good one.
        """
        aside = ''
        if self.is_chief and self.saved_step is not None and self.saved_step == step:
            with self.as_user_error('setting a checkpoint aside'):
                before = self.checkpoints.quarantine(step)
            self.saved_step = int(before.split('-')[-1]) if before else None
            aside = '; model.ckpt-%d, of these weights, is now suspect.ckpt-%d' % (step, step)
        raise UserError('training stopped: %s%s; %s; %s'
                        % (what, aside, self._last_good(), advice))

    def _last_good(self):
        if not self.is_chief:
            return 'the chief has the checkpoints'
        if self.saved_step is None and utils.has_checkpoint(self.checkpoints.best_directory):
            return 'the best checkpoint is in ' + self.checkpoints.best_directory
        if self.saved_step is None:
            return 'there is no good checkpoint yet'
        return ('the last good checkpoint is model.ckpt-%d in %s'
                % (self.saved_step, self.options.run_dir))

    @contextlib.contextmanager
    def as_user_error(self, what: str):
        """Turns an error of TensorFlow's or the system's in `what` into a UserError."""
        try:
            with self.monitor.guard():
                yield
        except (tf.errors.OpError, OSError) as error:
            raise self._told(what, error) from error

    def _told(self, what: str, error: Exception) -> UserError:
        """An error of TensorFlow's or the system's in `what`, in a sentence."""
        said = errors.reason(error)
        if self.is_chief and not self.is_there():
            return UserError('%s; %s failed (%s)' % (self._gone(), what, said))
        good = self._last_good()
        if errors.is_no_room(error):
            return UserError('%s failed (%s); make room on the disk of %s, or give another '
                             '--logdir_root; %s' % (what, said, self.options.run_dir, good))
        if isinstance(error, tf.errors.ResourceExhaustedError) and errors.is_no_memory(error):
            return UserError('%s ran out of memory (%s); take --reversible, --accumulate, or '
                             'a smaller batch_size or clip_samples; %s' % (what, said, good))
        fault: Optional[str] = self.source.fault()
        if fault:
            return UserError('%s; %s' % (fault, good))
        return UserError('%s failed (%s); see that files and disk are as they should be; %s'
                         % (what, said, good))
