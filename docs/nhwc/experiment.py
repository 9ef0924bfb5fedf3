"""Trains one small flow on real speech with three dilated convolutions, and draws the losses.

    python -m docs.nhwc.experiment --filelist=corpus/train.scp --wave_dir=corpus/asterisk \
        --lc_dir=corpus/mels --out_dir=docs/nhwc

right       dilated, values and gradients
lost        undilated, values and gradients: what TensorFlow 1.9.0 made of NHWC on a V100
mismatched  undilated values and filter gradient, dilated input gradient: a gradient of another
            function, what a graph of a single layer suggests and a training graph does not contain

Beside the losses it measures what vocoded held-out speech sounds like: the log-mel distance to the
original, with the convolution of training and with a right one (a checkpoint carried from such a GPU
to where the optimizer does nothing).

Writes losses.json and losses.png. The data is what preprocess_data.py --preset=small wrote, with its
test.scp beside the file list. About 15 minutes on two cores.
"""
import argparse
import json
import os
import time
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import command_line
import devices
import files
import glow
import ops
import params
import vocoder
from datasets import clip_files, file_lists, mel_transform
from training import towers
from training.graph import build_vocoding

# weixsong/WaveGlow's proportions, groups of 8 and as many layers, at a size that trains in minutes.
HP = params.preset('small').replace(n_flows=6, n_group=8, n_early_every=2, n_layers=8,
                                    residual_channels=32, skip_channels=32, batch_size=4,
                                    lr=2e-3)
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


def train(conv, train_set, test_set, hp, args):
    """What a training with convolution `conv` came to, a dict.

    losses: of every step; heldout: [(step, loss)]; log_mel_l1, log_mel_l1_dilated: mean distance
    of vocoded held-out speech, with `conv` and with a right convolution.
    """
    with tf.Graph().as_default(), mock.patch.object(ops, 'dilated_conv', conv):
        tf.set_random_seed(0)
        clips = clip_files.Clips(*tf.data.make_one_shot_iterator(clip_files.training_clips(
            train_set, args.wave_dir, args.lc_dir, hp, seed=0)).get_next())
        loss, gradients = towers.loss_and_gradients(clips, hp, ['/device:CPU:0'])
        gradients, variables = zip(*gradients)
        gradients, _ = tf.clip_by_global_norm(gradients, hp.clip_norm)
        step = tf.train.AdamOptimizer(hp.lr).apply_gradients(zip(gradients, variables))
        held = tf.data.make_initializable_iterator(clip_files.whole_utterances(
            test_set, args.wave_dir, args.lc_dir, hp))
        clip = clip_files.Clips(*held.get_next())
        measure = [glow.loss(clip.audio, clip.mel, hp).total, tf.size(clip.audio)]
        vocode = [build_vocoding(hp)]
        with mock.patch.object(ops, 'dilated_conv', dilated_conv):
            vocode.append(build_vocoding(hp))
        with tf.Session(config=devices.session_config()) as session:
            session.run(tf.global_variables_initializer())

            def over_held_out(fetch):
                session.run(held.initializer)
                return [session.run(fetch) for _ in test_set]

            losses, heldout = [], []
            for i in tqdm.trange(1, args.steps + 1):
                losses.append(float(session.run([loss.total, step])[0]))
                if i % args.eval_every == 0:
                    found, samples = zip(*over_held_out(measure))
                    heldout.append((i, float(np.average(found, weights=samples))))
                    tqdm.tqdm.write('step %d: held-out loss %.3f' % heldout[-1])
            clips = over_held_out(clip)
            distances = [np.mean([distance(session, v, item, hp) for item in clips]) for v in vocode]
    return dict(losses=losses, heldout=heldout, log_mel_l1=float(distances[0]),
                log_mel_l1_dilated=float(distances[1]))


def distance(session, vocode, clip, hp):
    """Mean absolute difference of the log-mels of a clip and of its vocoding."""
    z, mel, sound = vocode
    frames = clip.mel.shape[1]
    vocoded = session.run(sound, {z: vocoder.noise(frames, hp, hp.gen_sigma, 0)[None],
                                  mel: clip.mel})[0]
    vocoded = np.clip(np.nan_to_num(vocoded), -1, 1)  # a broken model may overflow
    return np.abs(mel_transform.mel_spectrogram(vocoded, hp.sample_rate, hp.mel)[:frames]
                  - clip.mel[0]).mean()


def draw(results, path):
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
    for name in ('filelist', 'wave_dir', 'lc_dir', 'out_dir'):
        parser.add_argument('--' + name, type=command_line.local_path, required=True)
    parser.add_argument('--steps', type=int, default=500)
    parser.add_argument('--eval_every', type=int, default=50)
    parser.add_argument('--hparams', default='', help='changes to HP, as train.py takes them')
    args = parser.parse_args()
    hp = params.override(HP, args.hparams)
    test_list = os.path.join(os.path.dirname(args.filelist), 'test.scp')
    train_set, test_set = (clip_files.index(file_lists.read_file_list(path), args.wave_dir, args.lc_dir, hp)
                           for path in (args.filelist, test_list))
    results = {}
    for name, conv in CONVOLUTIONS.items():
        print(name)
        started = time.time()
        result = train(conv, clip_files.long_enough(train_set, hp), test_set, hp, args)
        results[name] = result
        print('%s: held-out loss %.3f, log-mel L1 %.2f, with a right convolution %.2f, after %.0f s'
              % (name, result['heldout'][-1][1], result['log_mel_l1'],
                 result['log_mel_l1_dilated'], time.time() - started), flush=True)
    with files.atomic_open(os.path.join(args.out_dir, 'losses.json')) as f:
        json.dump(results, f)
    draw(results, os.path.join(args.out_dir, 'losses.png'))


if __name__ == '__main__':
    command_line.run_script(main)
