"""Vocodes mel spectrograms with a trained WaveGlow.

    python inference.py --lc corpus/mels --restore_from logdir/waveglow --out_dir vocoded

Without --restore_from it uses the bundled model, a woman's voice at 16 kHz.
Inputs are .mel, .npy, .npz and .pt mels, sound files, and folders of either. Of a sound file the
mel is computed first (copy synthesis). Writes OUT_DIR/NAME.wav. Exit status: 0; 1 if an input was
skipped; 2 if nothing could be vocoded.
"""
import argparse
import collections
import contextlib
import os
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np
import tqdm

import errors
import files
import glow
import params
import utils
from datasets import audio_files, corpus, mel_files, mel_transform
from datasets.mel_files import Mel, mel_blocks
from errors import UserError
from metrics import pictures
from synthesis.denoiser import Denoiser
from vocoder import Vocoder

PLOTTED = 6             # inputs on the picture of --plot
PLOTTED_SECONDS = 20.0  # of each of them


class Source(NamedTuple):
    """An input: a mel or a sound file."""
    path: str
    name: str   # of the output under out_dir, without suffix
    root: str   # the folder that was given, or the file's own


class Summary(NamedTuple):
    """What `vocode_all` did."""
    vocoded: int                # utterances that were written
    skipped: int                # utterances that gave samples that are not finite
    audio_seconds: float        # length of the audio of all utterances
    compute_seconds: float      # time that computing it took
    clipped: int                # samples beyond full scale


def main():
    args = parse_arguments()
    sources = find_sources(args.lc)
    outputs = [wav_path(args.out_dir, source) for source in sources]
    files.refuse_overwriting([source.path for source in sources],
                             outputs + ([args.plot] if args.plot else []),
                             'give another --out_dir%s' % (' or --plot' if args.plot else ''))
    vocoder = Vocoder.load(args.restore_from, args.preset, args.hparams, args.precision,
                           args.chunk_frames)
    mels = read_sources(sources, vocoder.hp)
    summary = vocode_all(vocoder, mels, args.out_dir, args.sigma, args.seed, args.batch_size,
                         args.denoiser_strength, args.mel_correction, args.plot)
    if not summary.vocoded:
        raise UserError('nothing could be vocoded; take another checkpoint than %s'
                        % args.restore_from)
    report(summary, args.out_dir, args.plot)
    skipped = len(sources) - summary.vocoded
    if skipped:
        print('%d of %d inputs were skipped' % (skipped, len(sources)), file=sys.stderr)
    return 1 if skipped else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    parser.add_argument('--lc', type=path, nargs='+', required=True, metavar='PATH',
                        help='inputs: .mel, .npy, .npz or .pt mels, sound files, or folders of '
                             'either')
    parser.add_argument('--restore_from', type=path, default=utils.BUNDLED_MODEL,
                        metavar='RUN_OR_CHECKPOINT',
                        help='the model: a run of train.py, its best/, or one of its checkpoints '
                             '(default: the bundled model)')
    parser.add_argument('--out_dir', type=path, default='vocoded',
                        help='folder for the wavs (default: %(default)s)')
    parser.add_argument('--sigma', type=float,
                        help="standard deviation of the noise (default: the model's gen_sigma)")
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='random seed of the noise; the same seed gives the same audio '
                             '(default: %(default)s)')
    parser.add_argument('--denoiser_strength', type=float, default=0.0, metavar='S',
                        help="subtract the model's own noise S times from the audio, before mel "
                             'correction; 0.01 to 0.1 are useful (default: 0, no denoiser)')
    parser.add_argument('--mel_correction', type=int, metavar='ROUNDS',
                        help='rounds that bring the mel of the audio nearer to the given mel; 16 '
                             "are many, 0 is the flow alone (default: the model's "
                             'gen_correction_rounds)')
    parser.add_argument('--batch_size', type=int, default=1,
                        help='utterances of similar length vocoded at a time; larger batches are '
                             'faster on a GPU (default: %(default)s)')
    parser.add_argument('--precision', choices=sorted(glow.PRECISIONS), default='float32',
                        help='number format that the networks compute in (default: %(default)s)')
    parser.add_argument('--chunk_frames', type=int, metavar='N',
                        help='mel frames computed at a time: the audio is the same, memory and '
                             'speed differ (default: what is fast on this device)')
    parser.add_argument('--plot', type=path, metavar='FILE.png',
                        help='picture to write: the mels of the first inputs above the mels of '
                             'their audio, %d seconds of each at most' % PLOTTED_SECONDS)
    command_line.add_hyperparameters(parser)
    args = parser.parse_args()
    for name in ('sigma', 'denoiser_strength'):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float('inf'):
            parser.error('--%s is zero or more, not %s' % (name, value))
    if args.mel_correction is not None and args.mel_correction < 0:
        parser.error('--mel_correction is zero or more, not %d' % args.mel_correction)
    if args.batch_size < 1 or args.chunk_frames is not None and args.chunk_frames < 1:
        parser.error('--batch_size and --chunk_frames are 1 or more')
    return args


def find_sources(paths: List[str]) -> List[Source]:
    """The inputs that files and folders mean; of a folder its mels, or else its sound files.

    Raises UserError if a folder holds neither, or two inputs would be written to one wav.
    """
    sources = []
    for path in paths:
        if os.path.isdir(path):
            kept, skipped = corpus.find_files(path, mel_files.MEL_SUFFIXES)
            kept = kept or corpus.find_files(path, audio_files.AUDIO_EXTENSIONS)[0]
            for folder, reason in skipped:
                print('skipped %s: %s' % (os.path.join(path, folder), reason), file=sys.stderr)
            if not kept:
                raise UserError('there are no mels (%s) and no sound files in %s'
                                % (', '.join(mel_files.MEL_SUFFIXES), path))
            sources += [Source(os.path.join(path, name), output_name(name), path)
                        for name in sorted(kept, key=os.path.split)]
        else:
            sources.append(Source(path, output_name(os.path.basename(path)),
                                  os.path.dirname(path)))
    first: Dict[str, Source] = {}
    for source in sources:
        other = first.setdefault(source.name, source)
        if other is not source:
            raise UserError('%s and %s would both be written to %s.wav; vocode them to different '
                            '--out_dir' % (other.path, source.path, source.name))
    return sources


def output_name(path: str) -> str:
    """`path` without its suffix; without both of NVIDIA's NAME.wav.pt."""
    name, suffix = os.path.splitext(path)
    stem, inner = os.path.splitext(name)
    return stem if suffix == '.pt' and inner.lower() in audio_files.AUDIO_EXTENSIONS else name


def wav_path(out_dir: str, source: Source) -> str:
    return os.path.join(out_dir, source.name + '.wav')


def read_sources(sources: List[Source], hp: params.HParams) -> Dict[Source, Mel]:
    """The mels [frames, n_mels] of inputs; prints the reason for each that cannot be read.

    Raises UserError if none can.
    """
    mels, assumed = {}, 0
    for source in sources:
        try:
            mels[source], said = read_source(source, hp)
            assumed += not said
        except UserError as error:
            print('%s: skipped: %s' % (os.path.basename(sys.argv[0]), error), file=sys.stderr)
    if not mels:
        raise UserError('none of the %d inputs can be vocoded' % len(sources))
    if assumed:
        print('no params.json tells how %d of the mels were made; they are taken for mel profile '
              '%s at %d Hz' % (assumed, hp.mel_name, hp.sample_rate))
    return mels


def read_source(source: Source, hp: params.HParams) -> Tuple[Mel, bool]:
    """The mel [frames, n_mels] of an input, and whether it is said how it was made.

    Cuts the padding of a batch and prints so. Raises UserError if it cannot be a mel of `hp`'s
    profile.
    """
    path = source.path
    if not path.lower().endswith(mel_files.MEL_SUFFIXES):
        audio = audio_files.read_wav(path, hp.sample_rate)
        return mel_transform.mel_spectrogram(audio, hp.mel), True
    mel = mel_files.open_mel(path, hp.n_mels)
    made_with = nearest_params(path, source.root)
    if made_with:
        params.require_same(hp, made_with, params.DATA_FIELDS, path,
                            'take a model trained on such mels, or compute the mels anew')
    mel, padding = mel_files.cut_padding(mel, hp.mel)
    if not len(mel):
        raise UserError('%s holds nothing but zeros; compute the mel anew' % path)
    if padding:
        print('%s: cut %d frames of zeros at its end, the padding of a batch' % (path, padding))
    mel_files.check_mel_values(mel, hp.mel, path)
    return mel, made_with is not None


def nearest_params(path: str, root: str) -> Optional[params.HParams]:
    """The HParams that preprocessing left nearest above `path`, up to folder `root`, or None."""
    folder, root = os.path.dirname(os.path.abspath(path)), os.path.abspath(root)
    while True:
        with contextlib.suppress(UserError):    # another program's params.json
            found = params.load_if_exists(folder)
            if found:
                return found
        if folder == root:
            return None
        folder = os.path.dirname(folder)


class Processing(NamedTuple):
    """How a mel becomes audio: what `Vocoder.stream` takes beside it."""
    vocoder: Vocoder
    sigma: Optional[float] = None           # standard deviation of the noise; None: gen_sigma
    seed: int = 0                           # random seed of the noise of each utterance
    mel_correction: Optional[int] = None    # rounds; None: gen_correction_rounds
    denoiser: Optional[Denoiser] = None

    def batch(self, mels: List[Mel]) -> Iterator[Iterator[np.ndarray]]:
        """Yields the audio of each mel: blocks of [samples], computed as they are asked for.

        What `vocoder.vocode_batch` takes at once is computed at once.
        """
        vocoder, sigma, seed, rounds, denoiser = self
        if len(mels) > 1 and vocoder.fits_batch([len(mel) for mel in mels]):
            for audio in vocoder.vocode_batch([mel[:] for mel in mels], sigma, seed, rounds,
                                              denoiser):
                yield iter([audio])
        else:
            for mel in mels:
                yield vocoder.stream(mel_blocks(mel), sigma, seed, rounds, denoiser)


def vocode_all(vocoder: Vocoder, mels: Dict[Source, Mel], out_dir: str,
               sigma: Optional[float] = None, seed: int = 0, batch_size: int = 1,
               denoiser_strength: float = 0.0, mel_correction: Optional[int] = None,
               plot: Optional[str] = None) -> Summary:
    """Vocodes mels [frames, n_mels] in batches of similar length and writes out_dir/NAME.wav.

    Audio is written as it is computed, so that the memory of a few seconds is enough.

    Args:
      sigma: standard deviation of the noise; None for the model's gen_sigma.
      seed: random seed of the noise of each utterance.
      denoiser_strength: of the denoiser; 0 for none.
      mel_correction: rounds of mel correction; None for the model's gen_correction_rounds.
      plot: PNG to write, of the mels of the first inputs and of their audio.

    Raises UserError if a file cannot be written.
    """
    hp = vocoder.hp
    order = sorted(mels, key=lambda source: len(mels[source]))
    processing = Processing(
        vocoder, sigma, seed, mel_correction,
        Denoiser.from_vocoder(vocoder, denoiser_strength) if denoiser_strength else None)
    for folder in {os.path.dirname(wav_path(out_dir, source)) for source in order}:
        files.remove_leftovers(folder)

    # A first run is slow, for it compiles: on a CPU the flow of a whole chunk, which comes after
    # the first chunk of a longer utterance too.
    warm_up = mels[order[-1]][:2 * vocoder.chunk_frames + 1]
    for blocks in processing.batch([warm_up] * min(batch_size, 2)):
        collections.deque(blocks, maxlen=0)
    vocoded = clipped = 0
    audio_seconds, clock = 0.0, Clock()
    plotted: Dict[Source, tuple] = dict.fromkeys(list(mels)[:PLOTTED] if plot else [], ())
    with tqdm.tqdm(total=len(order), unit='utterance', file=sys.stdout, disable=None) as bar:
        for i in range(0, len(order), batch_size):
            batch = order[i:i + batch_size]
            computed = clock.timed(processing.batch([mels[source] for source in batch]))
            for source, blocks in zip(batch, computed):
                audio_seconds += len(mels[source]) * hp.hop_length / hp.sample_rate
                kept = int(PLOTTED_SECONDS * hp.sample_rate) if source in plotted else 0
                try:
                    beginning, beyond = write_blocks(wav_path(out_dir, source),
                                                     clock.timed(blocks), hp.sample_rate, kept)
                except (BrokenAudio, mel_files.UnreadableMel) as error:
                    tqdm.tqdm.write('skipped: %s' % error, file=sys.stderr)
                    continue
                vocoded, clipped = vocoded + 1, clipped + beyond
                if source in plotted:
                    plotted[source] = plotted_rows(source, mels[source], beginning, hp)
            bar.update(len(batch))
    if plot and vocoded:
        with errors.as_user_error('cannot write ' + plot, 'give another --plot',
                                  OSError), files.atomic_open(plot, 'wb') as f:
            f.write(pictures.spectrogram_png([row for rows in plotted.values() for row in rows]))
    return Summary(vocoded, len(order) - vocoded, audio_seconds, clock.seconds, clipped)


class BrokenAudio(UserError):
    """Samples that are not finite."""


def write_blocks(path: str, blocks: Iterable[np.ndarray], sample_rate: int, kept: int
                 ) -> Tuple[np.ndarray, int]:
    """Writes blocks of audio [samples] to a wav as they come.

    Returns (the first `kept` samples, how many of all were clipped). Raises BrokenAudio for
    samples that are not finite, UserError if the file cannot be written.
    """
    beginning = np.zeros(0, np.float32)
    with errors.as_user_error('cannot write ' + path, 'give another --out_dir', OSError):
        with audio_files.wav_writer(path, sample_rate) as writer:
            for audio in blocks:
                if not np.isfinite(audio).all():
                    raise BrokenAudio('%s would hold samples that are not finite; the model is '
                                      'broken, or untrained' % path)
                writer.write(audio)
                beginning = np.concatenate([beginning, audio[:kept - len(beginning)]])
    return beginning, writer.clipped


class Clock:
    """Adds up the time in which iterables compute."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items; the time from one being asked for to its coming counts."""
        iterator = iter(items)
        while True:
            started = time.time()
            item = next(iterator, None)
            self.seconds += time.time() - started
            if item is None:
                return
            yield item


def plotted_rows(source: Source, mel: Mel, audio: np.ndarray, hp: params.HParams
                 ) -> Tuple[Tuple[str, np.ndarray], Tuple[str, np.ndarray]]:
    """What the picture shows of an input, (title, mel) twice: given, and of its audio [samples]."""
    frames = len(audio) // hp.hop_length
    again = mel_transform.mel_spectrogram(audio, hp.mel)
    return (source.name, mel[:frames]), (source.name + ', vocoded', again[:frames])


def report(summary: Summary, out_dir: str, plot: Optional[str] = None):
    """Prints how many utterances were vocoded, how fast, and where they are."""
    print('vocoded %d utterances, %.1f s of speech, in %.1f s: real-time factor %.3f'
          % (summary.vocoded, summary.audio_seconds, summary.compute_seconds,
             summary.compute_seconds / summary.audio_seconds))
    if summary.clipped:
        print('%d samples were beyond full scale and clipped' % summary.clipped)
    print('the wavs are in %s%s' % (out_dir, ', a picture in %s' % plot if plot else ''))


if __name__ == '__main__':
    command_line.run_script(main)
