"""Measures a trained WaveGlow on held-out speech, beside Griffin-Lim, and draws a page to hear it on.

    python evaluate.py                      # the bundled model on the bundled held-out speech
    python evaluate.py --filelist=corpus/test.scp --wave_dir=corpus/wavs --lc_dir=corpus/mels \
        --restore_from=logdir/waveglow --out_dir=evaluation

Writes evaluation.json, index.html and the vocoded wavs to OUT_DIR, and prints the table. Takes what
requirements-eval.txt lists. Exit status: 0; 2 with one sentence for bad input.
"""
import argparse
import collections
import json
import math
import os
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import command_line
import devices
import files
import glow
import ops
import params
import utils
import vocoder
from datasets import audio_files, clip_files, mel_files, mel_transform
from errors import UserError
from synthesis.denoiser import Denoiser
from synthesis.griffin_lim import griffin_lim
from synthesis.mel_correction import MelCorrection

try:
    from metrics import measures, page
except ImportError as error:
    sys.exit('%s: %s is not installed; run pip install -r requirements-eval.txt'
             % (os.path.basename(__file__), error.name))

ORIGINAL, GRIFFIN_LIM, GRIFFIN_LIM_CORRECTED, WAVEGLOW, DENOISED, CORRECTED = (
    'original', 'Griffin-Lim', 'Griffin-Lim, corrected', 'WaveGlow', 'WaveGlow, denoised',
    'WaveGlow, corrected')
HEARD = ORIGINAL, GRIFFIN_LIM, WAVEGLOW, CORRECTED


def main():
    args = parse_arguments()
    hp, weights = vocoder.read(args.restore_from)
    model = vocoder.Vocoder(hp, weights)
    utterances = read_utterances(args, hp)
    systems = vocoders(model, hp, args)
    first = utterances[0][2]
    for vocode in list(systems.values())[1:]:   # a first run is slow
        vocode(first)
    bits = likelihood(hp, weights)
    found = []
    for name, sound, mel in tqdm.tqdm(utterances, unit='utterance', disable=None):
        sounds = measure(systems, sound, mel, hp)
        sounds[WAVEGLOW][1]['nll_bits'] = bits(sound, mel)
        found.append((name, sounds))
    report(found, hp, args)


def vocoders(model, hp, args):
    """{system: what makes a sound [frames * hop_length] of a mel [frames, n_mels], or None}."""
    denoise = Denoiser.of(model, args.denoiser_strength)
    correct = MelCorrection(hp, args.mel_correction)

    def without_model(mel):
        return griffin_lim(mel, hp.sample_rate, hp.mel, args.griffin_lim_iterations)

    def waveglow(mel):
        return model.vocode(mel, args.sigma, args.seed)

    return collections.OrderedDict([
        (ORIGINAL, None),
        (GRIFFIN_LIM, without_model),
        (GRIFFIN_LIM_CORRECTED, lambda mel: correct(without_model(mel), mel)),
        (WAVEGLOW, waveglow),
        (DENOISED, lambda mel: denoise(waveglow(mel))),
        (CORRECTED, lambda mel: correct(waveglow(mel), mel))])


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path, samples = command_line.local_path, os.path.join(files.ROOT, 'samples')
    parser.add_argument('--filelist', type=path, default=os.path.join(samples, 'heldout.scp'),
                        help='names of utterances, one a line (default: the bundled ones)')
    parser.add_argument('--wave_dir', type=path, default=os.path.join(samples, 'wavs'),
                        help='where NAME.wav are (default: the bundled ones)')
    parser.add_argument('--lc_dir', type=path,
                        help='where NAME.mel are (default: mels are computed from the wavs)')
    parser.add_argument('--restore_from', type=path, default=utils.BUNDLED_MODEL,
                        metavar='RUN_OR_CHECKPOINT', help='default: the bundled model')
    parser.add_argument('--out_dir', type=path, default='evaluation',
                        help='where the page, the JSON and the wavs go (default: %(default)s)')
    parser.add_argument('--sigma', type=float,
                        help="standard deviation of the noise (default: the model's gen_sigma)")
    parser.add_argument('--seed', type=command_line.random_seed, default=0, help='of the noise')
    parser.add_argument('--denoiser_strength', type=float, default=0.01,
                        help='of the denoised row (default: %(default)s)')
    parser.add_argument('--mel_correction', type=int, default=16, metavar='ROUNDS',
                        help='of the corrected rows (default: %(default)s)')
    parser.add_argument('--griffin_lim_iterations', type=int, default=60)
    parser.add_argument('--page_utterances', type=int, default=5,
                        help='how many can be heard on the page (default: %(default)s)')
    args = parser.parse_args()
    for name in ('sigma', 'denoiser_strength'):
        value = getattr(args, name)
        if value is not None and not 0 <= value < math.inf:
            parser.error('--%s is zero or more, not %s' % (name, value))
    if args.griffin_lim_iterations < 1 or min(args.page_utterances, args.mel_correction) < 0:
        parser.error('--griffin_lim_iterations is 1 or more, --page_utterances and '
                     '--mel_correction zero or more')
    return args


def read_utterances(args, hp):
    """[(name, sound [frames * hop_length], mel [frames, n_mels])] of what is to be measured."""
    utterances = []
    for name in files.read_list(args.filelist):
        sound = audio_files.read_wav(clip_files.wav_path(args.wave_dir, name), hp.sample_rate)
        mel = (mel_transform.mel_spectrogram(sound, hp.sample_rate, hp.mel) if args.lc_dir is None
               else mel_files.read_mel(clip_files.mel_path(args.lc_dir, name), hp.n_mels))
        frames = min(len(sound) // hp.hop_length, len(mel))
        if not frames:
            raise UserError('%s is shorter than a mel frame; take it off %s' % (name, args.filelist))
        utterances.append((name, sound[:frames * hp.hop_length], mel[:frames]))
    made_with = params.load_if_exists(args.lc_dir) if args.lc_dir else None
    if made_with:
        params.require_same(hp, made_with, params.DATA_FIELDS,
                            'the data in ' + args.lc_dir, 'compute the mels with the same --preset')
    return utterances


def measure(systems, original, mel, hp):
    """{system: (sound, {key of metrics.METRICS: value})} of one utterance."""
    found = {}
    for system, vocode in systems.items():
        started = time.time()
        sound = original if vocode is None else vocode(mel)
        spent = time.time() - started
        if not np.isfinite(sound).all():
            raise UserError('%s gives samples that are not finite; take another checkpoint' % system)
        # what is heard is 16 bits
        values = measures.compare(audio_files.to_pcm16(sound)[0] / np.float32(32768), original, hp)
        if vocode is not None:
            values['rtf'] = spent * hp.sample_rate / len(sound)
        found[system] = sound, values
    return found


def likelihood(hp, weights):
    """A function: bits a sample of 16 bits, of a sound [samples] and its mel [frames, n_mels].

    The density of audio in -1..1, all its constants in, over steps of 2^-15.
    """
    graph = tf.Graph()
    with graph.as_default(), ops.frozen(weights):
        audio_in = tf.placeholder(tf.float32, [1, None])
        mel_in = tf.placeholder(tf.float32, [1, None, hp.n_mels])
        nll = glow.loss(audio_in, mel_in, hp).total
    session = tf.Session(graph=graph, config=devices.session_config())
    constant = math.log(hp.sigma) + 0.5 * math.log(2 * math.pi)
    return lambda sound, mel: (float(session.run(nll, {audio_in: sound[None], mel_in: mel[None]}))
                               + constant) / math.log(2) + 15


def report(found, hp, args):
    """Prints the table and writes wavs, JSON and page."""
    systems = list(found[0][1])
    summary = {system: {key: measures.interval([sounds[system][1][key] for _, sounds in found])
                        for key in measures.METRICS if key in found[0][1][system][1]}
               for system in systems}
    seconds = sum(len(sounds[ORIGINAL][0]) for _, sounds in found) / hp.sample_rate
    print(table(systems, summary))
    about = ('%d utterances, %.0f seconds at %d Hz, vocoded from their mel spectrograms; '
             'Griffin-Lim with %d iterations on the same mels; the denoiser at %g, %d '
             'rounds of mel correction.'
             % (len(found), seconds, hp.sample_rate, args.griffin_lim_iterations,
                args.denoiser_strength, args.mel_correction))
    print('\n' + about)
    result = dict(about=about, summary=summary, utterances={
        name: {system: values for system, (_, values) in sounds.items()} for name, sounds in found})
    heard = [(name, {system: sounds[system] for system in HEARD}) for name, sounds in found]
    rendered = page.render('WaveGlow', about, systems, summary, heard[:args.page_utterances],
                           hp.sample_rate)
    try:
        for name, sounds in found:
            for system in systems[1:]:
                folder = system.replace(', ', '-').lower()
                audio_files.write_wav(os.path.join(args.out_dir, folder, name + '.wav'),
                                sounds[system][0], hp.sample_rate)
        for name, text in (('evaluation.json', json.dumps(result, indent=1, sort_keys=True) + '\n'),
                           ('index.html', rendered)):
            with files.atomic_open(os.path.join(args.out_dir, name)) as f:
                f.write(text)
    except OSError as error:
        raise UserError('cannot write to %s (%s); give another --out_dir'
                        % (args.out_dir, error.strerror))
    print('hear them: %s' % os.path.join(args.out_dir, 'index.html'))


def table(systems, summary):
    """The summary as lines of text, one a metric."""
    rows = [[''] + systems]
    for key, metric in measures.METRICS.items():
        cells = ['%.*f (%.*f to %.*f)' % sum(((metric.digits, x) for x in summary[s][key]), ())
                 if key in summary[s] else '' for s in systems]
        rows.append([metric.title + (', ' + metric.unit if metric.unit else '')] + cells)
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join([row[0].ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]) for row in rows)


if __name__ == '__main__':
    command_line.run_script(main)
