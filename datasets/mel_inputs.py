"""What is to be vocoded: mels and sound files, by themselves and in folders."""
import contextlib
import os
import sys
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import params
from datasets import audio_files, corpus, mel_definition, mel_files, mel_transform
from datasets.mel_definition import MelHParams
from datasets.mel_files import Mel
from errors import UserError


class Source(NamedTuple):
    """An input: a mel or a sound file."""
    path: str
    name: str   # of the output under out_dir, without suffix
    root: str   # the folder that was given, or the file's own


def find_sources(paths: List[str], is_folder: Callable[[str], bool] = os.path.isdir,
                 listing: Callable[[str], corpus.Listing] = corpus.list_folder) -> List[Source]:
    """The inputs that files and folders mean; of a folder its mels, or else its sound files.

    is_folder, listing: of paths that are not of this machine.

    Raises UserError if a folder holds neither, or two inputs would be written to one wav.
    """
    sources = []
    for path in paths:
        if is_folder(path):
            kept, skipped = corpus.find_files(path, mel_files.MEL_SUFFIXES, listing)
            kept = kept or corpus.find_files(path, audio_files.AUDIO_EXTENSIONS, listing)[0]
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


def read_sources(sources: List[Source], hp: MelHParams, named: bool = False) -> Dict[Source, Mel]:
    """The mels [frames, n_mels] of inputs; prints the reason for each that cannot be read.

    Args:
      hp: the definition that they are of; those of sound files are computed by it.
      named: whether somebody said so.

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
    if assumed and not named:
        print('no params.json tells how %d of the mels were made; they are taken for mel profile '
              '%s at %d Hz' % (assumed, hp.mel_name, hp.sample_rate))
    return mels


def read_source(source: Source, hp: MelHParams) -> Tuple[Mel, bool]:
    """The mel [frames, n_mels] of an input, and whether it is said how it was made.

    Cuts the padding of a batch and prints so. Raises UserError if it cannot be a mel by `hp`.
    """
    path = source.path
    if not is_mel(source):
        audio = audio_files.read_wav(path, hp.sample_rate)
        return mel_transform.mel_spectrogram(audio, hp.mel), True
    made_with = nearest_params(path, source.root)
    if made_with:
        require_definition(hp, made_with, path)
    return read_checked(path, hp), made_with is not None


def require_definition(hp: MelHParams, made_with: params.HParams, path: str) -> None:
    """Raises UserError unless the mel at `path`, made with `made_with`, is of the definition hp."""
    params.require_same(hp, made_with, params.DATA_FIELDS, path,
                        'give %s, which tells what the mels are' % flags_of(made_with))


def read_checked(path: str, hp: MelHParams) -> Mel:
    """The mel [frames, n_mels] in a file without the padding of a batch, which is told.

    Raises UserError if it cannot be a mel by `hp`.
    """
    mel = mel_files.open_mel(path, hp.n_mels)
    mel, padding = mel_files.cut_padding(mel, hp.mel)
    if not len(mel):
        raise UserError('%s holds nothing but zeros; compute the mel anew' % path)
    if padding:
        print('%s: cut %d frames of zeros at its end, the padding of a batch' % (path, padding))
    mel_files.check_mel_values(mel, hp.mel, path)
    return mel


def is_mel(source: Source) -> bool:
    """Whether an input is a mel, by its name, and not a sound file."""
    return source.path.lower().endswith(mel_files.MEL_SUFFIXES)


def flags_of(hp: MelHParams) -> str:
    """The flags of inference.py that name a definition."""
    changes = dict(hp.own_values())
    statistics = [changes.pop(name) for name in mel_definition.STATISTICS if name in changes]
    flags = ['--lc_profile=' + hp.mel_profile]
    if changes:
        flags.append('--lc_hparams=' + ','.join('%s=%s' % item for item in changes.items()))
    return ' '.join(flags + ['--mel_stats=FILE'] * bool(statistics))


def definition_beside(sources: List[Source]) -> Optional[MelHParams]:
    """What params.json says of the first mel among inputs that has one."""
    found = (nearest_params(source.path, source.root) for source in sources if is_mel(source))
    return next(filter(None, found), None)


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
