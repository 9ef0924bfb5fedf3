"""The loop that runs the training graph."""
import contextlib
import os
import signal
import sys
import time
import zlib

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm
from tensorflow.python.client import timeline

import errors
import files
import glow
import vocoder
from datasets import mel_transform
from errors import UserError
from metrics import pictures
from training.events import Events


class Training:
    """Runs steps, and between them what the hyperparameters say: summaries, checkpoints, ...

    Of several hosts, all run the steps and the chief alone does the rest.
    """

    def __init__(self, session, model, hp, args, run_dir, checkpoints, source, watch):
        """args: train.py's; source: a sources.Source; watch: a hosts.Watch."""
        self.session, self.model, self.hp, self.args = session, model, hp, args
        self.run_dir, self.checkpoints, self.watch = run_dir, checkpoints, watch
        self.is_chief, self.together = watch.hosts.is_chief, watch.hosts.num_hosts > 1
        self.saved_step, self.saved_time = None, time.time()
        self.stopped_by = None
        # losses of other utterances, or of other parts of them, are not to be compared
        self.source = source
        self.test_set = zlib.crc32(repr((source.test_names, hp.eval_seconds, hp.sigma)).encode())

    def run(self, first_step):
        """Trains from `first_step` to --max_steps, or to a signal. Returns the exit status."""
        args, hp = self.args, self.hp
        if first_step >= args.max_steps:
            print('%s has %d steps already; raise --max_steps to train on'
                  % (self.run_dir, first_step))
            return 0
        self.saved_step = first_step or None
        resources = contextlib.ExitStack()
        if self.is_chief:
            self.events = resources.enter_context(
                contextlib.closing(Events(self.run_dir, first_step)))
        if self.session.run(self.model.best)[1] != self.test_set:
            self.set_best(np.inf)
        clip_seconds = hp.batch_size * hp.clip_frames * hp.hop_length / hp.sample_rate
        step, stopped = first_step, False
        with self.stop_signals(), resources, tqdm.tqdm(
                initial=first_step, total=args.max_steps, unit='step', mininterval=1,
                dynamic_ncols=True, file=sys.stdout, disable=None) as bar:
            started = time.time()
            while step < args.max_steps and not stopped:
                result = self.train_step(step)
                step += 1
                rate = (step - first_step) * clip_seconds / (time.time() - started)
                state = 'loss %.3f, %slr %.2g, %.1f s audio/s' % (
                    result['loss'].nll, 'stft %.3f, ' % result['loss'].stft if hp.stft_weight else '',
                    result['learning_rate'], rate)
                bar.set_postfix_str(state, refresh=False)
                bar.update()
                if bar.disable and step % hp.summary_every == 0:  # the output is no terminal
                    left = (args.max_steps - step) * clip_seconds / rate / 60
                    print('step %d: %s, %.0f minutes left' % (step, state, left), flush=True)
                if self.is_chief:
                    self.after_step(step, result, rate)
                # several hosts end together: after the step that tells them all
                stopped = result['stopped'] if self.together else self.stopped_by
            if self.together:
                self.session.run(self.model.roll_call)
                self.watch.stop()
            if self.is_chief and self.saved_step != step:
                self.save(step)
        if stopped:
            print('%s: stopped%s at step %d; the same command continues'
                  % (self.stopped_by or 'another host was told to stop',
                     ' and saved' if self.is_chief else '', step))
        elif self.is_chief:
            print('trained to step %d; vocode with: python inference.py --restore_from=%s --lc ...'
                  % (step, self.run_dir))
        else:
            print('trained to step %d; the chief has the weights' % step)
        return 0

    def train_step(self, step):
        """Runs the step after `step` steps and returns its results.

        Raises UserError if it fails or its loss or gradients are not finite.
        """
        options = metadata = None
        if self.args.store_metadata and self.is_chief and (step - 10) % self.hp.eval_every == 0:
            options, metadata = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
        with self.explained('step %d' % (step + 1)):
            parts = [self.session.run(part) for part in self.model.parts]
            result = self.session.run(self.model.step,
                                      {self.model.told_to_stop: bool(self.stopped_by)},
                                      options=options, run_metadata=metadata)
        if not np.isfinite(result['loss'].total) or not np.isfinite(result['gradient_norm']):
            clips = ', '.join('%s from frame %d' % (name.decode(), frame)
                              for part in parts + [result]
                              for name, frame in zip(part['name'], part['start_frame']))
            self.diverged(step, 'step %d has a loss of %s and gradients of norm %s; its clips were %s'
                          % (step + 1, result['loss'].total, result['gradient_norm'], clips))
        if metadata:
            self.events.metadata(metadata, step + 1)
            path = os.path.join(self.run_dir, 'timeline-%d.json' % (step + 1))
            with self.explained('a trace'), files.atomic_open(path) as f:
                f.write(timeline.Timeline(metadata.step_stats).generate_chrome_trace_format())
        return result

    def diverged(self, step, what):
        """Raises UserError for weights, of `step` steps, that give no finite loss.

        A checkpoint of those very weights is set aside: the one before it is the last good one.
        """
        aside = ''
        if self.is_chief and self.saved_step is not None and self.saved_step == step:
            before = self.checkpoints.set_aside(step)
            self.saved_step = int(before.split('-')[-1]) if before else None
            aside = '; model.ckpt-%d, of these weights, is now suspect.ckpt-%d' % (step, step)
        raise UserError('training stopped: %s%s; %s; a lower lr or clip_norm may help'
                        % (what, aside, self.last_good()))

    def last_good(self):
        if not self.is_chief:
            return 'checkpoints are the chief\'s'
        if self.saved_step is None:
            return 'there is no good checkpoint yet'
        return 'the last good checkpoint is model.ckpt-%d in %s' % (self.saved_step, self.run_dir)

    @contextlib.contextmanager
    def explained(self, what):
        """Turns an error of TensorFlow's or the system's in `what` into a UserError."""
        try:
            with self.watch.guard():
                yield
        except tf.errors.ResourceExhaustedError as error:
            raise UserError('%s ran out of memory (%s); take --reversible, --accumulate, or '
                            'a smaller batch_size or clip_samples; %s'
                            % (what, errors.reason(error), self.last_good()))
        except (tf.errors.OpError, OSError) as error:
            if self.source.fault():
                raise UserError('%s; %s' % (self.source.fault(), self.last_good()))
            raise UserError('%s failed (%s); see that files and disk are as they should be; %s'
                            % (what, errors.reason(error), self.last_good()))

    def after_step(self, step, result, rate):
        hp, last = self.hp, step == self.args.max_steps
        if step % hp.summary_every == 0 or last:
            loss = result['loss']
            with self.explained('writing events'):
                self.events.scalars({
                    'train/nll': loss.nll, 'train/z': loss.z, 'train/log_s': loss.log_s,
                    'train/log_det': loss.log_det, 'train/stft': loss.stft,
                    'train/objective': loss.total, 'train/gradient_norm': result['gradient_norm'],
                    'train/learning_rate': result['learning_rate'],
                    'train/seconds_of_audio_a_second': rate}, step)
        try:
            if self.model.heldout is not None:
                if step % hp.eval_every == 0 or last:
                    self.evaluate(step)
                if step % hp.gen_test_wave_every == 0 or last:
                    self.vocode(step)
        except tf.errors.OpError as error:  # of the held-out data: the weights are worth keeping
            self.save(step)
            raise UserError('the held-out utterances cannot be evaluated (%s); preprocess again, or '
                            'give another --test_filelist; %s'
                            % (errors.reason(error), self.last_good()))
        if step % hp.save_every == 0 or time.time() - self.saved_time > 60 * hp.save_minutes:
            self.save(step)

    def save(self, step):
        with self.explained('writing a checkpoint'):
            self.checkpoints.save(self.session, step)
        self.saved_step, self.saved_time = step, time.time()

    def set_best(self, loss):
        self.session.run(self.model.set_best, {self.model.new_best: loss,
                                               self.model.new_best_set: self.test_set})

    def heldout(self, fetches, most=None):
        """Yields what `fetches` are for each held-out utterance, the first `most`, until a signal."""
        self.session.run(self.model.heldout.initializer)
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while most is None or most > 0:
                if self.stopped_by:
                    return
                yield self.session.run(fetches)
                most = None if most is None else most - 1

    def evaluate(self, step):
        """The held-out loss of the averaged weights, a mean over samples; keeps the best."""
        total, samples = np.zeros(4), 0
        for terms, n in self.heldout([self.model.heldout_loss, self.model.heldout_samples]):
            total += n * np.array(terms)
            samples += n
        if self.stopped_by:
            return
        loss = glow.Loss(*(total / samples))
        if not np.isfinite(loss.total):
            self.diverged(step, 'the held-out loss after step %d is %s' % (step, loss.total))
        self.events.scalars({'heldout/' + tag: value for tag, value in
                             zip(('nll', 'z', 'log_s', 'log_det'), loss)}, step)
        best = loss.total < self.session.run(self.model.best)[0]
        tqdm.tqdm.write('step %d: held-out loss %.4f nats a sample%s'
                        % (step, loss.total, ', the best so far' if best else ''))
        sys.stdout.flush()
        if best:
            self.set_best(loss.total)
            with self.explained('writing the best checkpoint'):
                self.checkpoints.save_best(self.session, step)

    def vocode(self, step):
        """Vocodes the first held-out utterances for TensorBoard: sound, and spectrograms."""
        hp, (z_in, mel_in, vocoded) = self.hp, self.model.vocode
        for clip in self.heldout(self.model.heldout_clip, hp.gen_utterances):
            name, frames = clip.name[0].decode(), clip.mel.shape[1]
            z = vocoder.noise(frames, hp, hp.gen_sigma, self.args.seed)
            sound = self.session.run(vocoded, {z_in: z[None], mel_in: clip.mel})[0]
            if not np.isfinite(sound).all():
                tqdm.tqdm.write('step %d: %s vocodes to samples that are not finite' % (step, name))
                continue
            mel = mel_transform.mel_spectrogram(sound, hp.sample_rate, hp.mel)
            self.events.speech('original/' + name, clip.audio[0], hp.sample_rate, step)
            self.events.speech('vocoded/' + name, sound, hp.sample_rate, step)
            self.events.image('spectrogram/' + name, pictures.spectrogram_png(
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
