"""Trains one small flow on real speech with three dilated convolutions, and draws the losses.

    python -m docs.nhwc.experiment --filelist=corpus/train.scp --wave_dir=corpus/asterisk \
        --lc_dir=corpus/mels --out_dir=docs/nhwc

right       dilated, values and gradients
lost        undilated, values and gradients: what TensorFlow 1.9.0 made of NHWC on a V100
mismatched  undilated values and filter gradient, dilated input gradient: the gradient of another
            function, what a graph of a single layer suggests and a training graph does not contain

Beside the losses it measures what vocoded held-out speech sounds like: the log-mel distance to the
original, with the convolution of training and with a right one (a checkpoint carried from such a
GPU to where the optimizer does nothing).

Writes losses.json and losses.png. The data is what preprocess_data.py --preset=small wrote, with
its test.scp beside the file list. It takes about 15 minutes on two cores.
"""
import argparse
import json
import os
import tempfile
import time
from typing import Callable
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

import command_line
import devices
import files
import ops
import params
import utils
import vocoder
from datasets import mel_transform, sources
from errors import UserError
from params import HParams
from training import events, run
from training.graph import build_vocoding, iterate
from training.options import TrainingOptions

# The proportions of preset weixsong, groups of 8 and as many layers, at a size that trains in
# minutes; at one learning rate, every loss written, and nothing averaged.
HP = params.preset('small').replace(
    n_flows=6, n_group=8, n_early_every=2, n_layers=8, residual_channels=32, skip_channels=32,
    batch_size=4, lr=2e-3, lr_schedule='exponential', lr_decay_rate=1.0, warmup_steps=0,
    ema_decay=0.0, summary_every=1, save_every=10 ** 9, save_minutes=1e9, eval_utterances=1000,
    gen_utterances=0)
dilated_conv = ops.dilated_conv


def lost(x, filters, dilation, causal, form):
    return dilated_conv(x, filters, 1, causal, form)


def mismatched(x, filters, dilation, causal, form):
    @tf.custom_gradient
    def conv(x, filters):
        y = dilated_conv(x, filters, 1, causal, form)
        dilated = dilated_conv(x, filters, dilation, causal, form)
        return y, lambda dy: (tf.gradients(dilated, x, dy)[0], tf.gradients(y, filters, dy)[0])
    return conv(x, filters)


CONVOLUTIONS = {'right': dilated_conv, 'lost': lost, 'mismatched': mismatched}


def train(conv: Callable, data: sources.FileData, hp: HParams, steps: int) -> dict:
    """What a training with convolution `conv` came to.

    losses: of every step; heldout: [(step, loss)]; log_mel_l1, log_mel_l1_dilated: mean distance
    of vocoded held-out speech, with `conv` and with a right convolution.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        with mock.patch.object(ops, 'dilated_conv', conv):
            result = run.train(hp, data, TrainingOptions(run_dir=run_dir, max_steps=steps,
                                                         check_convolution=False))
        if not result.finished:
            raise UserError('stopped at step %d' % result.step)
        written = events.read(run_dir)
        return dict(losses=[value.simple_value for _, value in written['train/objective']],
                    heldout=[(step, value.simple_value) for step, value in written['heldout/nll']],
                    log_mel_l1=vocoding_distance(run_dir, conv, data, hp),
                    log_mel_l1_dilated=vocoding_distance(run_dir, dilated_conv, data, hp))


def vocoding_distance(run_dir: str, conv: Callable, data: sources.FileData, hp: HParams) -> float:
    """Mean absolute difference of the log-mels of held-out utterances and of their vocodings.

    They are vocoded with convolution `conv` and the weights of the run.
    """
    source, distances = data.open(hp), []
    weights = utils.read_weights(utils.find_checkpoint(run_dir))
    with tf.Graph().as_default(), mock.patch.object(ops, 'dilated_conv', conv):
        with ops.frozen(weights):
            z, mel, audio = build_vocoding(hp)
        iterator, clip = iterate(source.heldout_clips())
        with tf.Session(config=devices.session_config()) as session:
            session.run(iterator.initializer)
            for _ in source.heldout_names:
                original = session.run(clip).mel
                frames = original.shape[1]
                noise = vocoder.noise(frames, hp, hp.gen_sigma, 0)
                vocoded = session.run(audio, {z: noise[None], mel: original})[0]
                vocoded = np.clip(np.nan_to_num(vocoded), -1, 1)  # a broken model may overflow
                found = mel_transform.mel_spectrogram(vocoded, hp.mel)[:frames]
                distances.append(np.abs(found - original[0]).mean())
    return float(np.mean(distances))


def draw(results: dict, path: str) -> None:
    """Draws the losses of {name: what `train` returned} to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4.5), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(1, 1, 1)
    for name, result in results.items():
        losses = np.array(result['losses'])
        losses[~np.isfinite(losses)] = np.nan
        smooth = np.convolve(losses, np.ones(15) / 15, 'valid')
        line, = axes.plot(np.arange(len(smooth)) + 8, smooth, alpha=0.5, linewidth=1)
        steps, heldout = zip(*result['heldout'])
        axes.plot(steps, heldout, 'o-', color=line.get_color(), markersize=4,
                  label='%s (log-mel L1 of vocoded speech %.2f)' % (name, result['log_mel_l1']))
    axes.set_xlabel('step')
    axes.set_ylabel('nats a sample: training (thin), held out (dots)')
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    with files.atomic_open(path, 'wb') as f:
        figure.savefig(f, format='png')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    parser.add_argument('--filelist', type=path, required=True,
                        help='names of the utterances to train on (train.scp)')
    parser.add_argument('--wave_dir', type=path, required=True, help='folder of NAME.wav')
    parser.add_argument('--lc_dir', type=path, required=True, help='folder of NAME.mel')
    parser.add_argument('--out_dir', type=path, required=True,
                        help='folder for losses.json and losses.png')
    parser.add_argument('--steps', type=int, default=500,
                        help='steps to train each for (default: %(default)s)')
    parser.add_argument('--eval_every', type=int, default=50,
                        help='steps between two held-out losses (default: %(default)s)')
    parser.add_argument('--hparams', default='', metavar='NAME=VALUE,...',
                        help='hyperparameters to change, as for train.py')
    args = parser.parse_args()
    hp = params.override(HP.replace(eval_every=args.eval_every), args.hparams)
    data = sources.FileData(args.filelist, args.wave_dir, args.lc_dir,
                            os.path.join(os.path.dirname(args.filelist), 'test.scp'))
    results = {}
    for name, conv in CONVOLUTIONS.items():
        print(name)
        started = time.time()
        result = results[name] = train(conv, data, hp, args.steps)
        print('%s: held-out loss %.3f, log-mel L1 %.2f, with a right convolution %.2f, after %.0f s'
              % (name, result['heldout'][-1][1], result['log_mel_l1'],
                 result['log_mel_l1_dilated'], time.time() - started), flush=True)
    with files.atomic_open(os.path.join(args.out_dir, 'losses.json')) as f:
        json.dump(results, f)
    draw(results, os.path.join(args.out_dir, 'losses.png'))


if __name__ == '__main__':
    command_line.run_script(main)
