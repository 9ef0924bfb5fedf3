"""Measures the bundled voice beside other people's vocoders, those that are at hand.

    git clone https://github.com/jik876/hifi-gan
    pip install -r requirements-convert.txt -r requirements-export.txt
    python -m bench.bench_peers --hifi_gan hifi-gan

    Vocoder, flow alone     the bundled voice (or --restore_from) with and without mel correction
    ONNX Runtime            the file that export.py makes of it, with and without mel correction
    HiFi-GAN V1, V2, V3     in PyTorch, at 22,050 Hz, of random weights: speed does not depend on
                            them. The code is that of --hifi_gan

Each is a process of its own, on the cores of this one. They take turns, --rounds times, so that
what else the machine does meets all of them. What is not at hand is named and left out.

    real_time_factor    median over the rounds, of the length of the audio
    ratio               median of the time over that of Vocoder in the same round

Writes bench/peers.json. NVIDIA's WaveGlow: bench_nvidia.py.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator, Optional

import numpy as np

import export
import files
import params
import utils
from bench import turns
from bench.table import available_cores, write_table
from command_line import run_script
from errors import UserError
from vocoder import Vocoder, load_model, noise

COLUMNS = 'system', 'real_time_factor', 'ratio'
VOCODER, FLOW = 'Vocoder', 'flow alone'
ONNX = {'ONNX Runtime': None, 'ONNX Runtime, flow alone': 0}    # rounds; None: the model's
HIFI_GAN = {'HiFi-GAN V%d' % k: 'config_v%d.json' % k for k in (1, 2, 3)}


def main():
    args = parse_arguments()
    if args.side:
        return serve(args)
    with tempfile.TemporaryDirectory() as folder:
        write_table(COLUMNS, measure(args, folder), args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--restore_from', default=utils.BUNDLED_MODEL, metavar='RUN_OR_CHECKPOINT',
                        help='the model (default: the bundled voice)')
    parser.add_argument('--hifi_gan', metavar='DIR', help='a clone of the code of HiFi-GAN')
    parser.add_argument('--seconds', type=float, default=5, help='length of the speech')
    parser.add_argument('--rounds', type=int, default=9, help='turns that each takes')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'peers.json'),
                        help='file to write')
    parser.add_argument('--side', help=argparse.SUPPRESS)       # of `turns.take_turns`
    parser.add_argument('--onnx', help=argparse.SUPPRESS)       # folder of the exported files
    return parser.parse_args()


def measure(args, folder: str) -> Iterator[Dict[str, Any]]:
    """Yields the rows of the table. folder: where to export the model to."""
    sides = [VOCODER, FLOW]
    if missing(['onnxruntime', 'tf2onnx']):
        print('ONNX Runtime is left out: run pip install -r requirements-export.txt')
    else:
        for name, rounds in ONNX.items():
            write_onnx(args.restore_from, rounds, os.path.join(folder, name))
        sides += ONNX
    if not args.hifi_gan:
        print('HiFi-GAN is left out: clone its code, and give --hifi_gan DIR')
    elif missing(['torch']):
        print('HiFi-GAN is left out: run pip install -r requirements-convert.txt')
    else:
        for config in HIFI_GAN.values():
            if not os.path.isfile(os.path.join(args.hifi_gan, config)):
                raise UserError('%s has no %s; give the folder of a clone of HiFi-GAN as --hifi_gan'
                                % (args.hifi_gan, config))
        sides += HIFI_GAN
    given = ['--restore_from', args.restore_from, '--seconds', str(args.seconds), '--onnx', folder]
    found = turns.take_turns(
        'bench.bench_peers', sides,
        given + (['--hifi_gan', args.hifi_gan] if args.hifi_gan else []), args.rounds)
    for side, seconds in found.items():
        yield dict(system=side, real_time_factor=float(np.median(seconds)) / args.seconds,
                   ratio=float(np.median(np.divide(seconds, found[VOCODER]))))


def write_onnx(run: str, rounds: Optional[int], path: str) -> None:
    """Exports a run, with so many rounds of mel correction, to path.onnx."""
    hp, weights = load_model(run)
    model = path + ' model'
    os.makedirs(model)
    utils.save_weights(model, weights)
    params.save(model, hp if rounds is None else hp.replace(gen_correction_rounds=rounds))
    subprocess.run([sys.executable, export.__file__, model, path + '.onnx'], check=True,
                   stdout=subprocess.DEVNULL)


def missing(packages) -> bool:
    """Whether one of the packages is not installed."""
    return any(importlib.util.find_spec(package) is None for package in packages)


def serve(args) -> None:
    """What the process of one side does."""
    if args.side in HIFI_GAN:
        return turns.serve(hifi_gan(args.hifi_gan, HIFI_GAN[args.side], args.seconds))
    hp = load_model(args.restore_from)[0]
    frames = int(round(args.seconds * hp.sample_rate / hp.hop_length))
    mel = np.random.RandomState(0).uniform(-8, 0, [frames, hp.n_mels]).astype(np.float32)
    if args.side in ONNX:
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(available_cores())
        session = onnxruntime.InferenceSession(os.path.join(args.onnx, args.side + '.onnx'),
                                               options, providers=['CPUExecutionProvider'])
        return turns.serve(lambda: session.run(
            None, {'mel': mel[None], 'noise': noise(frames, hp, None, 0)[None]}))
    vocoder = Vocoder.load(args.restore_from)
    rounds = 0 if args.side == FLOW else None
    return turns.serve(lambda: vocoder.vocode(mel, mel_correction=rounds))


def hifi_gan(folder: str, config: str, seconds: float) -> Callable[[], object]:
    """A function that vocodes a mel of so many seconds with a generator of HiFi-GAN."""
    import torch
    with open(os.path.join(folder, config)) as f:
        values = json.load(f)
    sys.modules.pop('utils', None)      # its code has a module of that name too
    sys.path.insert(0, folder)
    import models
    model = models.Generator(argparse.Namespace(**values)).eval()
    with contextlib.redirect_stdout(sys.stderr):    # it tells of it
        model.remove_weight_norm()
    frames = int(round(seconds * values['sampling_rate'] / values['hop_size']))
    mels = torch.rand([1, values['num_mels'], frames])

    def vocode():
        with torch.no_grad():
            return model(mels)
    return vocode


if __name__ == '__main__':
    run_script(main)
