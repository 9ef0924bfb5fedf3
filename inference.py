"""Vocodes mel spectrograms with a trained WaveGlow.

    python inference.py --lc corpus/mels --restore_from logdir/waveglow --out_dir vocoded

Without --restore_from it uses the bundled model, a woman's voice at 16 kHz.
Inputs are .mel, .npy, .npz, .pt and .h5 mels, sound files, and folders of either. Of a sound file
the mel is computed first (copy synthesis). Mels of another definition than the model's are
converted: name it with --lc_profile. With --vocoder=griffin_lim no model is used. Writes
OUT_DIR/NAME.wav. With --runner it computes on as many machines as there are (docs/scaling.md): the
bytes are the same, and what an earlier run has written stays. Exit status: 0; 1 if an input was
skipped; 2 if nothing could be vocoded.
"""
import argparse
import collections
import os
import sys
import time
from typing import Any, Dict, Iterable, Iterator, NamedTuple, Optional, Tuple

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()

import numpy as np
import soxr
import tqdm

import devices
import errors
import files
import glow
import params
import utils
from datasets import audio_files, mel_files, mel_inputs, mel_statistics, mel_transform, shards
from datasets.mel_definition import PROFILES, MelDefinition, MelHParams
from datasets.mel_files import Mel
from datasets.mel_inputs import Source
from errors import UserError
from metrics import pictures
from synthesis.denoiser import Denoiser
from vocoder import Vocoder
from vocoding.processing import BrokenAudio, Processing, WithModel, WithoutModel, batches, finite

PLOTTED = 6             # inputs on the picture of --plot
PLOTTED_SECONDS = 20.0  # of each of them


class Summary(NamedTuple):
    """What `vocode_all` did."""
    vocoded: int                # utterances that were written
    skipped: int                # utterances that gave samples that are not finite
    audio_seconds: float        # length of the audio of all utterances
    compute_seconds: float      # time that computing it took
    clipped: int                # samples beyond full scale


def main():
    args = parse_arguments()
    if args.threads:
        devices.limit_threads(args.threads)
    if args.runner:
        return vocode_on_beam(args)
    sources = mel_inputs.find_sources(args.lc)
    outputs = [wav_path(args.out_dir, source) for source in sources]
    files.refuse_overwriting([source.path for source in sources],
                             outputs + ([args.plot] if args.plot else []),
                             'give another --out_dir%s' % (' or --plot' if args.plot else ''))
    if args.vocoder == 'griffin_lim':
        hp = given_definition(args, mel_inputs.definition_beside(sources))
        processing: Processing = WithoutModel(hp.mel, args.seed, args.mel_correction or 0)
    else:
        devices.allow_tf32(args.precision == 'tf32')
        vocoder = Vocoder.load(args.restore_from, args.preset, args.hparams, args.precision,
                               args.chunk_frames)
        note = devices.precision_note(glow.PRECISIONS[args.precision])
        if note:
            print(note)
        hp = given_definition(args, vocoder.hp)
        report_conversion(vocoder, hp)
        denoiser = (Denoiser.from_vocoder(vocoder, args.denoiser_strength)
                    if args.denoiser_strength else None)
        processing = WithModel(vocoder, args.sigma, args.seed, args.mel_correction, denoiser,
                               hp.mel)
    mels = mel_inputs.read_sources(sources, hp, names_definition(args))
    summary = vocode_all(processing, mels, args.out_dir, args.batch_size, args.plot)
    if not summary.vocoded:
        raise UserError('nothing could be vocoded; take another checkpoint than %s'
                        % args.restore_from)
    report(summary, args.out_dir, args.plot)
    skipped = len(sources) - summary.vocoded
    if skipped:
        print('%d of %d inputs were skipped' % (skipped, len(sources)), file=sys.stderr)
    return 1 if skipped else 0


def vocode_on_beam(args: argparse.Namespace) -> int:
    """Vocodes on Apache Beam and reports; returns the exit status.

    Raises UserError if Beam is not installed, nothing could be vocoded, or the job fails.
    """
    try:
        from vocoding import job, pipeline
    except ImportError as error:
        raise UserError('--runner takes Apache Beam (%s): pip install -r requirements-beam.txt'
                        % error) from error
    paths = job.expand_patterns(args.lc)
    of_shards = [path for path in paths if job.is_shard(path)]
    sources = job.find_sources([path for path in paths if path not in of_shards])
    files.refuse_overwriting([source.path for source in sources if not mel_inputs.is_mel(source)],
                             [job.wav_path(args.out_dir, source) for source in sources],
                             'give another --out_dir')
    begun = job.stored_identity(args.out_dir) or {}
    threads = args.threads or int(begun.get('threads') or devices.available_threads())
    devices.limit_threads(threads)
    settings = job.Settings(
        job.find_checkpoint(args.restore_from), params.HParams(), args.out_dir, threads,
        args.tfrecord_shards, args.preset, args.hparams, args.precision, args.chunk_frames,
        args.sigma, args.seed, args.mel_correction, args.denoiser_strength, args.batch_size)
    vocoder = job.load_vocoder(settings)
    hp = given_definition(args, vocoder.hp)
    if not vocoder.conversion(hp.mel):
        hp = vocoder.hp
    elif args.tfrecord_shards:
        raise UserError("a shard holds mels of the model's definition; write wavs, without "
                        '--tfrecord_shards')
    report_conversion(vocoder, hp)
    vocoder.close()
    settings = settings._replace(hp=hp)
    for path in of_shards:
        made_with = job.params_in(os.path.dirname(path))
        if made_with:
            mel_inputs.require_definition(hp, made_with, path)
    job.claim(args.out_dir, job.identity_of(settings, [source.name for source in sources]
                                            + of_shards))
    counted = pipeline.run(paths, settings, vocoder.hp.sample_rate,
                           ['--runner=' + args.runner] + args.beam)
    if args.tfrecord_shards:
        shards.finish(args.out_dir, vocoder.hp)
    if counted['kept']:
        print('%d utterances were there already' % counted['kept'])
    if counted['utterances']:
        report(Summary(counted['utterances'], counted['skipped'],
                       counted['samples'] / vocoder.hp.sample_rate,
                       counted['microseconds'] / 1e6, counted['clipped']), args.out_dir,
               kind='shards' if args.tfrecord_shards else 'wavs')
    table = os.path.join(args.out_dir, 'skipped.tsv')
    if not counted['utterances'] + counted['kept']:
        raise UserError('none of the %d inputs can be vocoded; %s tells why'
                        % (counted['skipped'], table))
    if counted['skipped']:
        print('%d inputs were skipped, listed in %s' % (counted['skipped'], table),
              file=sys.stderr)
    return 1 if counted['skipped'] else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    parser.add_argument('--lc', type=path, nargs='+', required=True, metavar='PATH',
                        help='inputs: .mel, .npy, .npz, .pt or .h5 mels, sound files, or folders '
                             'of either')
    parser.add_argument('--restore_from', type=path, default=utils.BUNDLED_MODEL,
                        metavar='RUN_OR_CHECKPOINT',
                        help='the model: a run of train.py, its best/, or one of its checkpoints '
                             '(default: the bundled model)')
    parser.add_argument('--vocoder', choices=('waveglow', 'griffin_lim'), default='waveglow',
                        help='griffin_lim takes no model: it tells if the mels or the vocoder are '
                             'at fault (default: %(default)s)')
    parser.add_argument('--lc_profile', metavar='NAME',
                        help="mel profile of the inputs, if it is not the model's; they are "
                             'converted. There are ' + ', '.join(PROFILES))
    parser.add_argument('--lc_hparams', default='', metavar='NAME=VALUE,...',
                        help='what is not as in the mel profile of the inputs, such as '
                             'sample_rate=24000,fmin=0')
    parser.add_argument('--mel_stats', type=path, metavar='FILE',
                        help='mean and scale of each band (.npy, .npz, .h5), by which the inputs '
                             'are standardized')
    parser.add_argument('--out_dir', type=path, default='vocoded',
                        help='folder for the wavs (default: %(default)s)')
    parser.add_argument('--sigma', type=float,
                        help="standard deviation of the noise (default: the model's gen_sigma)")
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='random seed of the noise; the same seed gives the same audio '
                             '(default: %(default)s)')
    parser.add_argument('--denoiser_strength', type=float, default=0.0, metavar='S',
                        help="subtract the model's own noise, which it makes of silence, S times "
                             'from the audio, before mel correction; 1 is usual (default: 0, no '
                             'denoiser)')
    parser.add_argument('--mel_correction', type=int, metavar='ROUNDS',
                        help='rounds that bring the mel of the audio nearer to the given mel; 16 '
                             "are many, 0 is the flow alone (default: the model's "
                             'gen_correction_rounds)')
    parser.add_argument('--batch_size', type=int, default=1,
                        help='utterances of similar length vocoded at a time; larger batches are '
                             'faster on a GPU (default: %(default)s)')
    parser.add_argument('--precision', choices=sorted(glow.PRECISIONS), default='float32',
                        help='number format that the networks compute in; tf32 lets GPUs multiply '
                             'with fewer bits (default: %(default)s)')
    parser.add_argument('--chunk_frames', type=int, metavar='N',
                        help='mel frames computed at a time: the audio is the same, memory and '
                             'speed differ (default: what is fast on this device)')
    parser.add_argument('--plot', type=path, metavar='FILE.png',
                        help='picture to write: the mels of the first inputs above the mels of '
                             'their audio, %d seconds of each at most' % PLOTTED_SECONDS)
    parser.add_argument('--threads', type=int, metavar='N',
                        help='threads to compute with; another number changes last bits of the '
                             'audio (default: one for each core, and with --runner as many as '
                             'this machine has cores, on every worker)')
    parser.add_argument('--runner', metavar='RUNNER',
                        help='compute on Apache Beam: DirectRunner, FlinkRunner, SparkRunner or '
                             'DataflowRunner. --lc takes patterns and shards too, and every path '
                             'that tf.io.gfile reads. What an earlier run has written stays. Flags '
                             'that are not listed here go to Beam')
    parser.add_argument('--tfrecord_shards', type=int, metavar='N',
                        help='with --runner: write N TFRecord files of FLAC, with the mels, and '
                             'no wavs')
    command_line.add_hyperparameters(parser)
    args, beam_options = parser.parse_known_args()
    args.beam = beam_options
    if args.beam and not args.runner:
        parser.error('unrecognized arguments: ' + ' '.join(args.beam))
    if args.runner and (args.plot or args.vocoder == 'griffin_lim'):
        parser.error('--plot and --vocoder=griffin_lim do not go with --runner')
    if args.tfrecord_shards is not None and not (args.runner and 0 < args.tfrecord_shards < 10**5):
        parser.error('--tfrecord_shards is from 1 to 99999 and takes --runner')
    if args.threads is not None and not 0 < args.threads <= 1024:
        parser.error('--threads is from 1 to 1024')
    for name in ('sigma', 'denoiser_strength'):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float('inf'):
            parser.error('--%s is zero or more, not %s' % (name, value))
    if args.mel_correction is not None and args.mel_correction < 0:
        parser.error('--mel_correction is zero or more, not %d' % args.mel_correction)
    if args.batch_size < 1 or args.chunk_frames is not None and args.chunk_frames < 1:
        parser.error('--batch_size and --chunk_frames are 1 or more')
    if args.vocoder == 'griffin_lim' and (args.denoiser_strength or args.sigma is not None):
        parser.error('--denoiser_strength and --sigma are of a model; leave them away with '
                     '--vocoder=griffin_lim')
    return args


def given_definition(args: argparse.Namespace, otherwise: Optional[MelHParams]) -> MelHParams:
    """What the inputs are by the flags, or else `otherwise`.

    Raises UserError if the flags do not fit together, or nothing tells.
    """
    if not names_definition(args):
        if otherwise is None:
            raise UserError('nothing tells what the mels are; give --lc_profile')
        return otherwise
    statistics = mel_statistics.read(args.mel_stats) if args.mel_stats else {}
    return params.mel_hparams(args.lc_profile, args.lc_hparams, statistics,
                              otherwise or params.HParams())


def names_definition(args: argparse.Namespace) -> bool:
    """Whether the flags say what the inputs are."""
    return bool(args.lc_profile or args.lc_hparams or args.mel_stats)


def report_conversion(vocoder: Vocoder, hp: MelHParams):
    """Prints what the mels are converted to, and what that loses."""
    conversion = vocoder.conversion(hp.mel)
    if not conversion:
        return

    def told(hp):
        return '%s at %d Hz (%d bands, a frame every %.1f ms)' % (
            hp.mel_name, hp.sample_rate, hp.n_mels, 1000 * hp.mel.hop_length / hp.sample_rate)

    print("mels of %s are converted to the model's: %s" % (told(hp), told(vocoder.hp)))
    for loss in conversion.losses():
        print('the conversion loses something: ' + loss, file=sys.stderr)


def wav_path(out_dir: str, source: Source) -> str:
    return os.path.join(out_dir, source.name + '.wav')


def vocode_all(processing: Processing, mels: Dict[Source, Mel], out_dir: str, batch_size: int = 1,
               plot: Optional[str] = None) -> Summary:
    """Vocodes mels [frames, n_mels] in batches of similar length and writes out_dir/NAME.wav.

    Audio is written as it is computed, so that the memory of a few seconds is enough.

    plot: PNG to write, of the mels of the first inputs and of their audio.

    Raises UserError if a file cannot be written.
    """
    definition, rate = processing.definition, processing.sample_rate
    for folder in {os.path.dirname(wav_path(out_dir, source)) for source in mels}:
        files.remove_leftovers(folder)
    sources = list(mels)
    in_batches = batches([len(mel) for mel in mels.values()], batch_size)

    warm_up = mels[sources[in_batches[-1][-1]]][:8]     # the first run prepares the graph
    for blocks in processing.batch([warm_up] * min(batch_size, 2)):
        collections.deque(blocks, maxlen=0)
    vocoded = clipped = 0
    audio_seconds, clock = 0.0, Clock()
    plotted: Dict[Source, tuple] = dict.fromkeys(list(mels)[:PLOTTED] if plot else [], ())
    with tqdm.tqdm(total=len(mels), unit='utterance', file=sys.stdout, disable=None) as bar:
        for indices in in_batches:
            batch = [sources[i] for i in indices]
            computed = clock.timed(processing.batch([mels[source] for source in batch]))
            for source, blocks in zip(batch, computed):
                audio_seconds += len(mels[source]) * definition.hop_length / definition.sample_rate
                kept = int(PLOTTED_SECONDS * rate) if source in plotted else 0
                try:
                    beginning, beyond = write_blocks(wav_path(out_dir, source),
                                                     clock.timed(blocks), rate, kept)
                except (BrokenAudio, mel_files.UnreadableMel) as error:
                    tqdm.tqdm.write('skipped: %s' % error, file=sys.stderr)
                    continue
                vocoded, clipped = vocoded + 1, clipped + beyond
                if source in plotted:
                    plotted[source] = plotted_rows(source, mels[source], beginning, rate,
                                                   definition)
            bar.update(len(batch))
    if plot and vocoded:
        with errors.as_user_error('cannot write ' + plot, 'give another --plot',
                                  OSError), files.atomic_open(plot, 'wb') as f:
            f.write(pictures.spectrogram_png([row for rows in plotted.values() for row in rows]))
    return Summary(vocoded, len(mels) - vocoded, audio_seconds, clock.seconds, clipped)


def write_blocks(path: str, blocks: Iterable[np.ndarray], sample_rate: int, kept: int
                 ) -> Tuple[np.ndarray, int]:
    """Writes blocks of audio [samples] to a wav as they come.

    Returns (the first `kept` samples, how many of all were clipped). Raises BrokenAudio for
    samples that are not finite, UserError if the file cannot be written.
    """
    beginning = np.zeros(0, np.float32)
    with errors.as_user_error('cannot write ' + path, 'give another --out_dir', OSError):
        with audio_files.wav_writer(path, sample_rate) as writer:
            for audio in finite(blocks, path):
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


def plotted_rows(source: Source, mel: Mel, audio: np.ndarray, sample_rate: int,
                 definition: MelDefinition
                 ) -> Tuple[Tuple[str, np.ndarray], Tuple[str, np.ndarray]]:
    """What the picture shows of an input, (title, mel) twice: given, and of its audio [samples]."""
    if sample_rate != definition.sample_rate:
        audio = soxr.resample(audio, sample_rate, definition.sample_rate)
    frames = len(audio) // definition.hop_length
    again = mel_transform.mel_spectrogram(audio, definition)
    return (source.name, mel[:frames]), (source.name + ', vocoded', again[:frames])


def report(summary: Summary, out_dir: str, plot: Optional[str] = None, kind: str = 'wavs'):
    """Prints how many utterances were vocoded, how fast, and where they are."""
    print('vocoded %d utterances, %.1f s of speech, in %.1f s: real-time factor %.3f'
          % (summary.vocoded, summary.audio_seconds, summary.compute_seconds,
             summary.compute_seconds / summary.audio_seconds))
    if summary.clipped:
        print('%d samples were beyond full scale and clipped' % summary.clipped)
    print('the %s are in %s%s' % (kind, out_dir, ', a picture in %s' % plot if plot else ''))


if __name__ == '__main__':
    command_line.run_script(main)
