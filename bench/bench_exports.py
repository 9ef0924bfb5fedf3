"""Measures exported models beside `Vocoder`: speed, quality of int8, memory of a stream.

    pip install -r requirements-eval.txt -r requirements-export.txt
    python -m bench.bench_exports

It exports the bundled voice, or another (--restore_from), as ONNX and as LiteRT: whole utterances
and blocks, each in float32 and int8. All vocode the same speech in turn, --repeats times, on two
threads, so that what else the machine does meets all of them. Figures are medians.

    real_time_factor    time over the length of the speech
    processor_factor    time of all threads together, likewise; it depends less on other work
    ratio               processor time over that of Vocoder in the same turn
    pesq                mean over the held-out utterances
    mb_at_first, mb_at_last     memory of a process that vocodes --minutes of speech in blocks:
                        after its first ten seconds, and at its end

Writes bench/exports.json.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List

import numpy as np

import export
import files
import utils
from bench.table import write_table
from command_line import run_script
from datasets import audio_files, file_lists
from datasets.mel_transform import mel_spectrogram
from interop import litert
from metrics import measures
from params import HParams
from vocoder import NoiseGenerator, Vocoder, noise

THREADS = 2
BLOCK_FRAMES = 64
COLUMNS = ('system', 'file_mb', 'real_time_factor', 'processor_factor', 'ratio', 'pesq',
           'mb_at_first', 'mb_at_last')
WHOLE, WHOLE_INT8, BLOCKS, BLOCKS_INT8 = (
    'LiteRT', 'LiteRT, int8', 'LiteRT in blocks', 'LiteRT in blocks, int8')
# {system: flags of export.py}
LITERT = {WHOLE: [], WHOLE_INT8: ['--quantize=int8'],
          BLOCKS: ['--block_frames=%d' % BLOCK_FRAMES],
          BLOCKS_INT8: ['--block_frames=%d' % BLOCK_FRAMES, '--quantize=int8']}
Vocode = Callable[[np.ndarray], np.ndarray]     # audio [samples] of a mel [frames, n_mels]


def main():
    args = parse_arguments()
    if args.memory_of:
        print(json.dumps(measure_memory(args.memory_of, args.minutes)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write_table(COLUMNS, measure(args, args.folder or folder), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--restore_from', default=utils.BUNDLED_MODEL, metavar='RUN_OR_CHECKPOINT',
                        help='the model (default: the bundled voice)')
    samples = os.path.join(files.ROOT, 'samples')
    parser.add_argument('--filelist', default=os.path.join(samples, 'heldout.scp'),
                        help='names of the utterances')
    parser.add_argument('--wave_dir', default=os.path.join(samples, 'wavs'),
                        help='folder of NAME.wav')
    parser.add_argument('--seconds', type=float, default=10, help='of speech in each turn')
    parser.add_argument('--repeats', type=int, default=9, help='turns')
    parser.add_argument('--minutes', type=float, default=10, help='of speech, for the memory')
    parser.add_argument('--folder', help='folder for the exported files; those that are there '
                                         'already are measured (default: a temporary one)')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'exports.json'),
                        help='file to write')
    parser.add_argument('--memory_of', help=argparse.SUPPRESS)      # a file, of `measure`
    return parser.parse_args()


def measure(args, folder: str) -> Iterator[Dict[str, Any]]:
    """Yields the rows of the table."""
    vocoder = Vocoder.load(args.restore_from)
    hp = vocoder.hp
    speech = [audio_files.read_wav(os.path.join(args.wave_dir, name + '.wav'), hp.sample_rate)
              for name in file_lists.read_file_list(args.filelist, args.wave_dir)]
    paths = write_files(args.restore_from, folder)
    systems: Dict[str, Vocode] = {'Vocoder': vocoder.vocode,
                                  'ONNX Runtime': onnx_runtime(paths['ONNX Runtime'], hp)}
    for name in (WHOLE, WHOLE_INT8):
        systems[name] = whole(paths[name], hp)
    for name in (BLOCKS, BLOCKS_INT8):
        systems[name] = in_blocks(paths[name], hp)
    mel = mel_spectrogram(np.concatenate(speech)[:int(args.seconds * hp.sample_rate)], hp.mel)
    turns = take_turns(systems, mel, args.repeats)
    seconds = len(mel) * hp.hop_length / hp.sample_rate
    for name, vocode in systems.items():
        taken, processor = np.array(turns[name]).T
        row = dict(system=name, real_time_factor=float(np.median(taken)) / seconds,
                   processor_factor=float(np.median(processor)) / seconds,
                   ratio=float(np.median(processor / np.array(turns['Vocoder'])[:, 1])),
                   pesq=quality(vocode, speech, hp))
        row['file_mb'] = os.path.getsize(paths[name]) * 1e-6 if name in paths else ''
        row['mb_at_first'], row['mb_at_last'] = (
            memory_apart(paths[name], args.minutes) if name in (BLOCKS, BLOCKS_INT8) else ('', ''))
        yield row


def write_files(run: str, folder: str) -> Dict[str, str]:
    """{system: file} of exports of a run; makes those that are not in the folder."""
    paths = {}
    for i, (name, flags) in enumerate([('ONNX Runtime', [])] + list(LITERT.items())):
        paths[name] = os.path.join(folder, '%d.%s' % (i, 'tflite' if name in LITERT else 'onnx'))
        if os.path.exists(paths[name]):
            continue
        subprocess.run([sys.executable, export.__file__, run, paths[name]] + flags, check=True,
                       stdout=subprocess.DEVNULL)
    return paths


def take_turns(systems: Dict[str, Vocode], mel: np.ndarray, repeats: int
               ) -> Dict[str, List[tuple]]:
    """{system: [(seconds, seconds of all threads)]}: each vocodes a mel in turn."""
    for vocode in systems.values():
        vocode(mel)                 # what is done once
    turns: Dict[str, List[tuple]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, vocode in systems.items():
            started, processor = time.time(), time.process_time()
            vocode(mel)
            turns[name].append((time.time() - started, time.process_time() - processor))
    return turns


def quality(vocode: Vocode, speech: List[np.ndarray], hp: HParams) -> float:
    """Mean PESQ of what a system makes of utterances [samples]."""
    values = []
    for audio in speech:
        vocoded = vocode(mel_spectrogram(audio, hp.mel))
        length = min(len(audio), len(vocoded))
        values.append(measures.pesq(vocoded[:length], audio[:length], hp.sample_rate))
    return float(np.mean(values))


# --- The systems ----------------------------------------------------------------------------------

def onnx_runtime(path: str, hp: HParams) -> Vocode:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda mel: session.run(None, {
        'mel': mel[None], 'noise': noise(len(mel), hp, None, 0)[None]})[0][0]


def interpreter(path: str):
    import tensorflow as tf
    return tf.lite.Interpreter(path, num_threads=THREADS)


def whole(path: str, hp: HParams) -> Vocode:
    """Of a LiteRT file of whole utterances."""
    model, frames = interpreter(path), 0

    def vocode(mel):
        nonlocal frames
        values = {'mel': mel[None], 'noise': noise(len(mel), hp, None, 0)[None]}
        given = {each['index']: values['mel' if 'mel' in each['name'] else 'noise']
                 for each in model.get_input_details()}
        if len(mel) != frames:
            for index, value in given.items():
                model.resize_tensor_input(index, value.shape)
            model.allocate_tensors()
            frames = len(mel)
        for index, value in given.items():
            model.set_tensor(index, value)
        model.invoke()
        return model.get_tensor(model.get_output_details()[0]['index'])[0]

    return vocode


def in_blocks(path: str, hp: HParams) -> Vocode:
    """Of a LiteRT file of blocks."""
    stream = block_stream(path, hp)
    return lambda mel: np.concatenate(list(stream(mel)))[:len(mel) * hp.hop_length]


def block_stream(path: str, hp: HParams) -> Callable[[np.ndarray], Iterator[np.ndarray]]:
    """A function that yields the audio of a mel, block by block."""
    run, (_, info) = interpreter(path).get_signature_runner(), litert.read_metadata(path)
    size = info.block_frames

    def stream(mel):
        draw = NoiseGenerator(hp, None, 0).draw
        state, late = np.zeros(info.state_size, np.float32), info.delay_samples
        for position in range(0, len(mel) - (-late // hp.hop_length), size):
            block = np.zeros((size, hp.n_mels), np.float32)
            there = mel[position:position + size]
            block[:len(there)] = there
            found = run(mel=block, noise=draw(size), state=state, position=np.int32(position),
                        frames=np.int32(len(mel)))
            state = found['next_state']
            yield found['audio'][late:]
            late = max(0, late - len(found['audio']))

    return stream


# --- Memory ---------------------------------------------------------------------------------------

def memory_apart(path: str, minutes: float) -> List[float]:
    """`measure_memory` in a process of its own."""
    done = subprocess.run([sys.executable, '-m', 'bench.bench_exports', '--memory_of', path,
                           '--minutes', str(minutes)], stdout=subprocess.PIPE, cwd=files.ROOT,
                          universal_newlines=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_memory(path: str, minutes: float) -> List[float]:
    """[MB after the first ten seconds of speech, MB at the end] of this process."""
    hp, _ = litert.read_metadata(path)
    frames_of = hp.sample_rate / hp.hop_length
    mel = np.full([int(minutes * 60 * frames_of), hp.n_mels], hp.mel_mean, np.float32)
    samples, found = 0, []
    for audio in block_stream(path, hp)(mel):
        samples += len(audio)
        if samples >= 10 * hp.sample_rate and not found:
            found.append(_resident_mb())
    return found + [_resident_mb()]


def _resident_mb():
    with open('/proc/self/statm') as f:
        return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') * 1e-6


if __name__ == '__main__':
    run_script(main)
