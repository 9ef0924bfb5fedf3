"""Measures a trained WaveGlow on held-out speech, beside Griffin-Lim, and writes a page to hear it.

    python evaluate.py                      # the bundled model on the bundled held-out speech
    python evaluate.py --filelist=corpus/test.scp --wave_dir=corpus/wavs --lc_dir=corpus/mels \
        --restore_from=logdir/waveglow --out_dir=evaluation

Writes evaluation.json, index.html and the vocoded wavs to OUT_DIR, and prints the table. Needs the
packages of requirements-eval.txt. Exit status: 0; 2 with one sentence for bad input.
"""
import argparse
import collections
import json
import math
import os
import sys
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

import devices
import errors
import files
import glow
import ops
import params
import utils
import vocoder
from datasets import audio_files, clip_files, file_lists, mel_files, mel_transform
from errors import UserError
from synthesis.denoiser import Denoiser
from synthesis.griffin_lim import griffin_lim
from synthesis.mel_correction import MelCorrection

try:
    from metrics import measures, page
except ImportError as error:
    if errors.is_out_of_memory(error):
        raise
    sys.exit('%s: %s is not installed; run pip install -r requirements-eval.txt'
             % (os.path.basename(__file__), error.name))

# WAVEGLOW is what comes out by default.
ORIGINAL, WAVEGLOW, FLOW, DENOISED, GRIFFIN_LIM, GRIFFIN_LIM_CORRECTED = (
    'original', 'WaveGlow', 'WaveGlow, flow alone', 'WaveGlow, denoised', 'Griffin-Lim',
    'Griffin-Lim, corrected')
MEANINGS = collections.OrderedDict([
    (ORIGINAL, 'The recording.'),
    (WAVEGLOW, 'What the commands give by default: the flow, and the rounds of mel correction that '
               'the model asks for.'),
    (FLOW, 'What the flow gives, without mel correction.'),
    (DENOISED, 'The same as WaveGlow, denoised before mel correction.'),
    (GRIFFIN_LIM, 'No model: phases are found for the magnitudes that the mel leaves.'),
    (GRIFFIN_LIM_CORRECTED, 'The same after rounds of mel correction.')])
VOCODED = WAVEGLOW, FLOW, DENOISED, GRIFFIN_LIM, GRIFFIN_LIM_CORRECTED
RESULTS = JSON, PAGE = 'evaluation.json', 'index.html'      # in --out_dir, beside the wavs
ON_PAGE = ORIGINAL, WAVEGLOW, FLOW, GRIFFIN_LIM_CORRECTED
GRIFFIN_LIM_ROUNDS = 14         # of mel correction: those of the bundled voice


class Settings(NamedTuple):
    """How utterances are vocoded."""
    sigma: Optional[float] = None       # standard deviation of the noise; None: model's gen_sigma
    seed: int = 0                       # random seed of the noise
    denoiser_strength: float = 1.0      # of the system `WaveGlow, denoised`
    mel_correction: Optional[int] = None        # rounds; None: the model's gen_correction_rounds
    griffin_lim_iterations: int = 60    # of the systems `Griffin-Lim...`


class Utterance(NamedTuple):
    """Speech to be measured."""
    name: str
    audio: np.ndarray                   # [frames * hop_length]
    mel: np.ndarray                     # [frames, n_mels]


# audio [frames * hop_length] of a mel [frames, n_mels]
Vocode = Callable[[np.ndarray], np.ndarray]
# {system: (audio, {key of measures.METRICS: value})}
Measured = Dict[str, Tuple[np.ndarray, Dict[str, float]]]


def main():
    args = parse_arguments()
    devices.allow_tf32(False)
    settings = Settings(**{field: getattr(args, field) for field in Settings._fields})
    hp, weights = vocoder.load_model(args.restore_from)
    refuse_overwriting(args.filelist, args.wave_dir, args.lc_dir, args.out_dir)
    utterances = read_utterances(args.filelist, args.wave_dir, args.lc_dir, hp)
    found = measure_all(utterances, hp, weights, settings)
    report(found, hp, settings, args.out_dir, args.page_utterances)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path, samples = command_line.local_path, os.path.join(files.ROOT, 'samples')
    parser.add_argument('--filelist', type=path, default=os.path.join(samples, 'heldout.scp'),
                        help='file list of the utterances to measure, a name a line (default: the '
                             'bundled held-out speech)')
    parser.add_argument('--wave_dir', type=path, default=os.path.join(samples, 'wavs'),
                        help='folder of NAME.wav (default: the bundled speech)')
    parser.add_argument('--lc_dir', type=path,
                        help='folder of NAME.mel (default: mels are computed from the wavs)')
    parser.add_argument('--restore_from', type=path, default=utils.BUNDLED_MODEL,
                        metavar='RUN_OR_CHECKPOINT',
                        help='the model: a run of train.py, its best/, or one of its checkpoints '
                             '(default: the bundled model)')
    parser.add_argument('--out_dir', type=path, default='evaluation',
                        help='folder for the page, the JSON and the wavs (default: %(default)s)')
    default = Settings()
    parser.add_argument('--sigma', type=float, default=default.sigma,
                        help="standard deviation of the noise (default: the model's gen_sigma)")
    parser.add_argument('--seed', type=command_line.random_seed, default=default.seed,
                        help='random seed of the noise; the same seed gives the same audio '
                             '(default: %(default)s)')
    parser.add_argument('--denoiser_strength', type=float, default=default.denoiser_strength,
                        help='strength of the denoiser in "WaveGlow, denoised" '
                             '(default: %(default)s)')
    parser.add_argument('--mel_correction', type=int, default=default.mel_correction,
                        metavar='ROUNDS',
                        help='rounds of mel correction in "WaveGlow" and "WaveGlow, denoised" '
                             "(default: the model's gen_correction_rounds)")
    parser.add_argument('--griffin_lim_iterations', type=int,
                        default=default.griffin_lim_iterations,
                        help='iterations of Griffin-Lim (default: %(default)s)')
    parser.add_argument('--page_utterances', type=int, default=5,
                        help='utterances to hear on the page (default: %(default)s)')
    args = parser.parse_args()
    for name in ('sigma', 'denoiser_strength'):
        value = getattr(args, name)
        if value is not None and not 0 <= value < math.inf:
            parser.error('--%s is zero or more, not %s' % (name, value))
    if args.griffin_lim_iterations < 1 or min(args.page_utterances, args.mel_correction or 0) < 0:
        parser.error('--griffin_lim_iterations is 1 or more, --page_utterances and '
                     '--mel_correction zero or more')
    return args


def refuse_overwriting(filelist: str, wave_dir: str, lc_dir: Optional[str], out_dir: str):
    """Raises UserError if a result would be written over what is measured."""
    names = file_lists.read_file_list(filelist, wave_dir)
    read = [filelist] + [clip_files.wav_path(wave_dir, name) for name in names]
    if lc_dir is not None:
        read += [clip_files.mel_path(lc_dir, name) for name in names]
    written = [wav_path(out_dir, system, name) for system in VOCODED for name in sorted(set(names))]
    files.refuse_overwriting(read, written + [os.path.join(out_dir, name) for name in RESULTS],
                             'give another --out_dir')


def read_utterances(filelist: str, wave_dir: str, lc_dir: Optional[str],
                    hp: params.HParams) -> List[Utterance]:
    """The utterances of a file list; without `lc_dir` their mels are computed from the audio.

    Raises UserError if one cannot be read, is too short, or mels are not those of `hp`.
    """
    utterances = []
    for name in file_lists.read_file_list(filelist, wave_dir):
        audio = audio_files.read_wav(clip_files.wav_path(wave_dir, name), hp.sample_rate)
        mel = (mel_transform.mel_spectrogram(audio, hp.mel) if lc_dir is None
               else mel_files.read_mel(clip_files.mel_path(lc_dir, name), hp.n_mels))
        frames = min(len(audio) // hp.hop_length, len(mel))
        if not frames:
            raise UserError('%s is shorter than a mel frame; take it off %s' % (name, filelist))
        utterances.append(Utterance(name, audio[:frames * hp.hop_length], mel[:frames]))
    made_with = params.load_if_exists(lc_dir) if lc_dir else None
    if lc_dir and made_with:
        params.require_same(hp, made_with, params.DATA_FIELDS, 'the data in ' + lc_dir,
                            'compute the mels with the same --preset')
    return utterances


def vocoding_systems(model: vocoder.Vocoder, settings: Settings) -> Dict[str, Optional[Vocode]]:
    """{system: what vocodes a mel}, in the order of the table; None for the original."""
    hp = model.hp
    denoise = Denoiser.from_vocoder(model, settings.denoiser_strength)
    correct = MelCorrection(hp.mel, GRIFFIN_LIM_ROUNDS)

    def without_model(mel):
        return griffin_lim(mel, hp.mel, settings.griffin_lim_iterations)

    def waveglow(mel, mel_correction=settings.mel_correction, denoiser=None):
        return model.vocode(mel, settings.sigma, settings.seed, mel_correction, denoiser)

    return collections.OrderedDict([
        (ORIGINAL, None),
        (WAVEGLOW, waveglow),
        (FLOW, lambda mel: waveglow(mel, mel_correction=0)),
        (DENOISED, lambda mel: waveglow(mel, denoiser=denoise)),
        (GRIFFIN_LIM, without_model),
        (GRIFFIN_LIM_CORRECTED, lambda mel: correct(without_model(mel), mel))])


def measure_all(utterances: List[Utterance], hp: params.HParams, weights: Dict[str, np.ndarray],
                settings: Settings = Settings()) -> List[Tuple[str, Measured]]:
    """[(name, what every system gives and its figures)] of utterances, with a model's weights."""
    systems = vocoding_systems(vocoder.Vocoder(hp, weights), settings)
    if not measures.has_mos():
        print('DNSMOS and PLCMOS are left out: speechmos is not installed; run pip install -r '
              'requirements-eval.txt', file=sys.stderr)
    for vocode in systems.values():
        if vocode:                              # a first run is slow
            vocode(utterances[0].mel)
    bits = likelihood(hp, weights)
    found = []
    for name, audio, mel in tqdm.tqdm(utterances, unit='utterance', disable=None):
        measured = measure(systems, audio, mel, hp)
        measured[FLOW][1]['nll_bits'] = bits(audio, mel)
        found.append((name, measured))
    return found


def measure(systems: Dict[str, Optional[Vocode]], original: np.ndarray, mel: np.ndarray,
            hp: params.HParams) -> Measured:
    """What every system makes of one utterance, and its figures."""
    found = {}
    for system, vocode in systems.items():
        started = time.time()
        audio = original if vocode is None else vocode(mel)
        spent = time.time() - started
        if not np.isfinite(audio).all():
            raise UserError('%s gives samples that are not finite; take another checkpoint'
                            % system)
        # as it is in a wav, in 16 bits
        values = measures.compare(audio_files.to_pcm16(audio)[0] / np.float32(32768), original, hp)
        if vocode is not None:
            values['rtf'] = spent * hp.sample_rate / len(audio)
        found[system] = audio, values
    return found


def likelihood(hp: params.HParams,
               weights: Dict[str, np.ndarray]) -> Callable[[np.ndarray, np.ndarray], float]:
    """A function that gives bits per sample of 16 bits, of audio [samples] and its mel.

    The density of audio in -1..1, with all its constants, over steps of 2^-15.
    """
    graph = tf.Graph()
    with graph.as_default(), ops.frozen(weights):
        audio_in = tf.placeholder(tf.float32, [1, None])
        mel_in = tf.placeholder(tf.float32, [1, None, hp.n_mels])
        nll = glow.loss(audio_in, mel_in, hp).total
    session = tf.Session(graph=graph, config=devices.session_config())
    constant = math.log(hp.sigma) + 0.5 * math.log(2 * math.pi)
    return lambda audio, mel: (float(session.run(nll, {audio_in: audio[None], mel_in: mel[None]}))
                               + constant) / math.log(2) + 15


def report(found: List[Tuple[str, Measured]], hp: params.HParams, settings: Settings, out_dir: str,
           page_utterances: int):
    """Prints the table and writes wavs, JSON and page to `out_dir`."""
    systems = list(found[0][1])
    summary = {system: {key: measures.interval([measured[system][1][key] for _, measured in found])
                        for key in measures.METRICS if key in found[0][1][system][1]}
               for system in systems}
    seconds = sum(len(measured[ORIGINAL][0]) for _, measured in found) / hp.sample_rate
    print(table(systems, summary))
    about = ('%d utterances, %.0f seconds at %d Hz, vocoded from their mel spectrograms; '
             'WaveGlow with %d rounds of mel correction, the denoiser at %g; Griffin-Lim with %d '
             'iterations on the same mels, corrected in %d rounds.'
             % (len(found), seconds, hp.sample_rate,
                hp.gen_correction_rounds if settings.mel_correction is None
                else settings.mel_correction, settings.denoiser_strength,
                settings.griffin_lim_iterations, GRIFFIN_LIM_ROUNDS))
    print('\n' + about)
    on_page = [(name, {system: measured[system] for system in ON_PAGE})
               for name, measured in found[:page_utterances]]
    rendered = page.render('WaveGlow', about, MEANINGS, summary, on_page, hp.sample_rate)
    with errors.as_user_error('cannot write to ' + out_dir, 'give another --out_dir', OSError):
        write_results(out_dir, found, summary, about, rendered, hp.sample_rate)
    print('hear them: %s' % os.path.join(out_dir, PAGE))


def write_results(out_dir: str, found: List[Tuple[str, Measured]], summary: dict, about: str,
                  rendered: str, sample_rate: int):
    """Writes the wavs of every system, evaluation.json and index.html."""
    for name, measured in found:
        for system, (audio, _) in measured.items():
            if system in VOCODED:
                audio_files.write_wav(wav_path(out_dir, system, name), audio, sample_rate)
    result = dict(about=about, summary=summary, utterances={
        name: {system: values for system, (_, values) in measured.items()}
        for name, measured in found})
    for name, text in ((JSON, json.dumps(result, indent=1, sort_keys=True) + '\n'),
                       (PAGE, rendered)):
        with files.atomic_open(os.path.join(out_dir, name)) as f:
            f.write(text)


def wav_path(out_dir: str, system: str, name: str) -> str:
    """Where the wav of a vocoded utterance is written."""
    return os.path.join(out_dir, system.replace(', ', '-').replace(' ', '-').lower(), name + '.wav')


def table(systems: List[str], summary: dict) -> str:
    """The summary, {system: {key: (mean, low, high)}}, as lines of text, one a metric."""
    rows = [[''] + systems]
    for key, metric in measures.METRICS.items():
        if not any(key in summary[s] for s in systems):
            continue
        cells = ['{:.{digits}f} ({:.{digits}f} to {:.{digits}f})'.format(
            *summary[s][key], digits=metric.digits) if key in summary[s] else '' for s in systems]
        rows.append([metric.title + (', ' + metric.unit if metric.unit else '')] + cells)
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join([row[0].ljust(widths[0])] + [
        cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]) for row in rows)


if __name__ == '__main__':
    command_line.run_script(main)
