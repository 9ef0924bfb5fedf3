"""What is done with held-out utterances while a model trains: they are measured, and vocoded."""
import contextlib
import os
import sys
import zlib
from typing import Iterator, List, Optional

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import errors
import glow
import vocoder
from datasets import audio_files, mel_transform
from metrics import pictures
from params import HParams
from training.events import Events
from training.graph import EvaluationGraph, TrainingGraph
from training.options import TrainingOptions
from training.signals import StopSignals

LISTEN_DIR = 'listen'       # of a run: held-out utterances as wavs


class Evaluation:
    """Measures the held-out loss, remembers the best, and vocodes utterances for TensorBoard.

    All with the averaged weights. A stop signal ends what is under way after the utterance.
    """

    def __init__(self, session: tf.Session, graph: TrainingGraph, hp: HParams,
                 heldout_names: List[str], options: TrainingOptions, events: Events,
                 signals: StopSignals):
        self.session, self.graph, self.hp, self.options = session, graph, hp, options
        self.events, self.signals = events, signals
        self._built: Optional[EvaluationGraph] = None
        # Losses of other utterances, or of other parts of them, are not to be compared.
        utterances = heldout_names, hp.eval_seconds, hp.sigma
        self.fingerprint = zlib.crc32(repr(utterances).encode())
        if session.run(graph.best.utterances) != self.fingerprint:
            self._set_best(np.inf)

    def heldout_loss(self) -> Optional[glow.Loss]:
        """The mean over all samples of the held-out utterances; None after a stop signal."""
        total, samples, heldout = np.zeros(4), 0, self._evaluation().heldout
        for loss, n in self._utterances([heldout.loss, heldout.samples]):
            total += n * np.array(loss)
            samples += n
        return None if self.signals.received else glow.Loss(*(total / samples))

    def record(self, loss: glow.Loss, step: int) -> bool:
        """Writes a held-out loss to TensorBoard and tells it. Returns whether it is the best."""
        self.events.scalars({'heldout/' + tag: value for tag, value in
                             zip(('nll', 'z', 'log_s', 'log_det'), loss)}, step)
        best = loss.total < self.session.run(self.graph.best.loss)
        tqdm.tqdm.write('step %d: held-out loss %.4f nats a sample%s'
                        % (step, loss.total, ', the best so far' if best else ''))
        sys.stdout.flush()
        if best:
            self._set_best(loss.total)
        return best

    def vocode(self, step: int) -> None:
        """Vocodes the first held-out utterances for TensorBoard: audio, and spectrograms."""
        hp, (heldout, vocoding) = self.hp, self._evaluation()
        if vocoding is None:
            return
        z_input, mel_input, vocoded = vocoding
        for clip in self._utterances(heldout.clip, hp.gen_utterances):
            name, frames = clip.name[0].decode(), clip.mel.shape[1]
            z = vocoder.noise(frames, hp, hp.gen_sigma, self.options.seed)
            audio = self.session.run(vocoded, {z_input: z[None], mel_input: clip.mel})[0]
            if not np.isfinite(audio).all():
                tqdm.tqdm.write('step %d: %s vocodes to samples that are not finite' % (step, name))
                continue
            mel = mel_transform.mel_spectrogram(audio, hp.mel)
            self.events.audio('original/' + name, clip.audio[0], hp.sample_rate, step)
            self.events.audio('vocoded/' + name, audio, hp.sample_rate, step)
            if self.options.listen:
                self._write_wav('original', name, clip.audio[0])
                self._write_wav('step_%d' % step, name, audio)
            self.events.image('spectrogram/' + name, pictures.spectrogram_png(
                [('%s, original' % name, clip.mel[0]),
                 ('vocoded at step %d' % step, mel[:frames])]), step)

    def _write_wav(self, folder, name, audio):
        path = os.path.join(self.options.run_dir, LISTEN_DIR, folder,
                            name.replace('/', '-').replace(os.sep, '-') + '.wav')
        with errors.as_user_error('cannot write ' + path, 'make room, or leave --listen away',
                                  OSError):
            audio_files.write_wav(path, audio, self.hp.sample_rate)

    def _set_best(self, loss):
        best = self.graph.best
        self.session.run(best.assign, {best.new_loss: loss, best.new_utterances: self.fingerprint})

    def _evaluation(self) -> EvaluationGraph:
        if self._built is None:
            if self.graph.build_evaluation is None:
                raise AssertionError('no utterances are held out')
            with self.session.graph.as_default():
                self._built = self.graph.build_evaluation()
            self.session.graph.finalize()
        return self._built

    def _utterances(self, fetches, most: Optional[int] = None) -> Iterator:
        """What `fetches` are for each of the first `most` held-out utterances."""
        self.session.run(self._evaluation().heldout.iterator.initializer)
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while most is None or most > 0:
                if self.signals.received:
                    return
                yield self.session.run(fetches)
                most = None if most is None else most - 1
