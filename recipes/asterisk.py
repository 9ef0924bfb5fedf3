"""Speech to start with: the prompts of the Asterisk telephone system, from Debian's packages.

    python -m recipes.asterisk --out_dir=corpus/asterisk
    python preprocess_data.py --wave_dir=corpus/asterisk --mel_dir=corpus/mels --data_dir=corpus \
        --preset=small

Professional voices at 16 kHz, 20 to 30 minutes a package: en_US_f_Allison (`--language en`), and
es, fr, it and ru. Needs `pip install av`, which decodes G.722, and Debian's apt-get and dpkg, or a
package at hand (`--deb FILE`) and dpkg. Licences: Creative Commons, see /usr/share/doc in the
package (BY-SA 3.0 for en, es and fr; BY 3.0 for it and ru).
"""
import argparse
import glob
import os
import subprocess
import tempfile
from typing import List, Optional, Tuple

import numpy as np
import tqdm

import errors
from command_line import local_path, run_script
from datasets import audio_files
from errors import UserError

LANGUAGES = ('en', 'es', 'fr', 'it', 'ru')
SAMPLE_RATE = 16000     # Hz, of G.722


def fetch(out_dir: str, language: str = 'en', package: Optional[str] = None) -> Tuple[int, float]:
    """Writes the prompts in `language` to `out_dir` as wavs; returns (files, seconds).

    Args:
      language: one of LANGUAGES.
      package: path of the package; None to download it.

    Raises UserError if PyAV or a program is not installed, there is no such package, or nothing
    can be written to `out_dir`.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise UserError('decoding G.722 takes PyAV; run pip install av') from error
    if package and not os.path.isfile(package):
        raise UserError('%s: no such file' % package)
    with tempfile.TemporaryDirectory() as directory:
        prompts_dir = unpack(package or download(language, directory), directory)
        with errors.as_user_error('cannot write to ' + out_dir, '', OSError):
            return convert(prompts_dir, out_dir)


def run(command: List[str], directory: Optional[str], purpose: str) -> None:
    """Runs a command; UserError, with the last line of what it said, if it fails.

    `purpose` begins the message: 'unpacking the package'.
    """
    try:
        subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise UserError('%s takes %s, which is not installed; on Debian or Ubuntu it is'
                        % (purpose, command[0])) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors='replace').strip().splitlines() or ['no reason given']
        raise UserError('%s failed: %s' % (purpose, said[-1])) from error


def download(language: str, directory: str) -> str:
    """The path, in `directory`, of the package with the prompts in `language`."""
    package = 'asterisk-core-sounds-%s-g722' % language
    run(['apt-get', 'download', package], directory,
        'downloading %s (if apt knows no such package, run apt-get update)' % package)
    return glob.glob(os.path.join(directory, package + '_*.deb'))[0]


def unpack(package: str, directory: str) -> str:
    """Unpacks a .deb; returns the folder in it that has a folder for each voice."""
    run(['dpkg', '-x', os.path.abspath(package), directory], None, 'unpacking %s' % package)
    prompts_dir = os.path.join(directory, 'usr', 'share', 'asterisk', 'sounds')
    if not os.path.isdir(prompts_dir):
        raise UserError('%s holds no Asterisk sounds; take asterisk-core-sounds-*-g722' % package)
    return prompts_dir


def decode_g722(path: str) -> np.ndarray:
    """float32 [samples] at SAMPLE_RATE of a headerless G.722 file.

    The decoder keeps the level (a tone encoded at half of full scale comes back at half), so the
    prompts stay as loud as they were recorded: the loudest peaks at 0.74.
    """
    import av
    with av.open(path, format='g722') as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames or [np.zeros(0, np.int16)]).astype(np.float32) / 32768


def g722_files(prompts_dir: str) -> List[str]:
    """Paths in `prompts_dir` of its prompts, but for the digital silence/1 to 10."""
    paths = []
    for folder, _, names in os.walk(prompts_dir):
        if os.path.basename(folder) != 'silence':
            paths += [os.path.relpath(os.path.join(folder, name), prompts_dir)
                      for name in names if name.endswith('.g722')]
    return sorted(paths)


def convert(prompts_dir: str, out_dir: str) -> Tuple[int, float]:
    """Writes every prompt as out_dir/VOICE/[FOLDER/]NAME.wav; returns (files, seconds)."""
    paths = g722_files(prompts_dir)
    if not paths:
        raise UserError('the package holds no .g722 files; take asterisk-core-sounds-*-g722')
    samples = 0
    for path in tqdm.tqdm(paths, unit='file'):
        prompt = decode_g722(os.path.join(prompts_dir, path))
        audio_files.write_wav(os.path.join(out_dir, path[:-len('.g722')] + '.wav'), prompt,
                              SAMPLE_RATE)
        samples += len(prompt)
    return len(paths), samples / SAMPLE_RATE


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out_dir', type=local_path, required=True, help='folder for the wavs')
    parser.add_argument('--language', choices=LANGUAGES, default='en',
                        help='language of the prompts (default: %(default)s)')
    parser.add_argument('--deb', type=local_path, metavar='FILE',
                        help='the Debian package, if it is at hand (default: download it)')
    args = parser.parse_args()
    n_files, seconds = fetch(args.out_dir, args.language, args.deb)
    print('%d files, %.1f minutes, in %s' % (n_files, seconds / 60, args.out_dir))


if __name__ == '__main__':
    run_script(main)
