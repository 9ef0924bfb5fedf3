"""Speaks a text: hibari-tts makes a mel of it, and WaveGlow the audio of the mel.

    pip install -r requirements-tts.txt
    python -m recipes.text_to_speech "Any sentence." --out hello.wav

It needs no network. The mel has another sample rate and hop, so it is converted, as that of any
other front end (docs/mels.md).
"""
import argparse
import sys
import time

import command_line

if __name__ == '__main__':
    command_line.prepare_tensorflow_import()

import errors
import utils
from datasets import audio_files
from vocoder import Vocoder

try:
    from synthesis.text_front_end import FrontEnd
except ImportError as error:
    if errors.is_out_of_memory(error):
        raise
    sys.exit('text_to_speech.py: %s is not installed; run pip install -r requirements-tts.txt'
             % error.name)


def main():
    args = parse_arguments()
    vocoder = Vocoder.load(args.restore_from)
    front_end = FrontEnd(vocoder.hp.mel)
    began = time.time()
    mel = front_end.mel(args.text, args.speed)
    audio = vocoder.vocode(mel, seed=args.seed, profile=front_end.definition)
    with errors.as_user_error('cannot write ' + args.out, 'give another --out', OSError):
        audio_files.write_wav(args.out, audio, vocoder.hp.sample_rate)
    print('%s: %.1f s of speech, in %.1f s'
          % (args.out, len(audio) / vocoder.hp.sample_rate, time.time() - began))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('text', help='what to say, in English')
    parser.add_argument('--out', type=command_line.local_path, default='hello.wav',
                        metavar='FILE.wav', help='the wav to write (default: %(default)s)')
    parser.add_argument('--restore_from', type=command_line.local_path,
                        default=utils.BUNDLED_MODEL, metavar='RUN_OR_CHECKPOINT',
                        help='the model: a run of train.py, its best/, or one of its checkpoints '
                             '(default: the bundled model)')
    parser.add_argument('--speed', type=float, default=1.0,
                        help='0.5 for half as fast, up to 2 (default: %(default)s)')
    parser.add_argument('--seed', type=command_line.random_seed, default=0,
                        help='random seed of the noise; the same seed gives the same audio '
                             '(default: %(default)s)')
    args = parser.parse_args()
    if not 0.5 <= args.speed <= 2:
        parser.error('--speed is from 0.5 to 2, not %g' % args.speed)
    return args


if __name__ == '__main__':
    command_line.run_script(main)
