"""Measures the same model here and in NVIDIA's own code, in PyTorch, on the CPU.

    git clone https://github.com/NVIDIA/waveglow
    pip install -r requirements-convert.txt
    python -m bench.bench_nvidia --code waveglow/glow.py

The model has the published size. Its weights are random, and the same on both sides: exported as
convert.py exports them. Each side is a process of its own. The two take turns, --rounds times, so
that what else the machine does meets both. Figures are medians over the rounds. Writes
bench/nvidia.json.
"""
import argparse
import os
import runpy
from typing import Callable

import numpy as np

import files
import params
from bench import turns
from bench.bench_inference import random_weights
from bench.table import write_json
from command_line import run_script
from params import HParams

SIDES = 'here', 'nvidia'


def main():
    args = parse_arguments()
    if args.side:
        return serve(args.side, args.seconds, args.code)
    here, nvidia = turns.take_turns(
        'bench.bench_nvidia', SIDES, ['--code', args.code, '--seconds', str(args.seconds)],
        args.rounds).values()
    real_time_factors = [float(np.median(each)) / args.seconds for each in (here, nvidia)]
    ratio = float(np.median(np.divide(nvidia, here)))
    print('real-time factor %.3f here, %.3f in PyTorch: %.2f times as fast'
          % (*real_time_factors, ratio))
    write_json([dict(seconds=args.seconds, real_time_factor=real_time_factors[0],
                     nvidia_real_time_factor=real_time_factors[1], ratio=ratio)], args.json)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--code', required=True, metavar='glow.py',
                        help="the file of NVIDIA's repository")
    parser.add_argument('--seconds', type=float, default=5, help='length of the mel, in seconds')
    parser.add_argument('--rounds', type=int, default=5, help='turns that each side takes')
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'nvidia.json'),
                        help='file to write')
    parser.add_argument('--side', choices=SIDES, help=argparse.SUPPRESS)    # of `turns.take_turns`
    return parser.parse_args()


def serve(side: str, seconds: float, code: str) -> None:
    """Vocodes whenever a line comes in, and prints the seconds that it took."""
    hp = params.preset('nvidia')
    frames = int(round(seconds * hp.sample_rate / hp.hop_length))
    mel = np.random.RandomState(0).uniform(-11, 1, [frames, hp.n_mels]).astype(np.float32)
    turns.serve(vocode_here(hp, mel) if side == 'here' else vocode_there(hp, mel, code))


def vocode_here(hp: HParams, mel: np.ndarray) -> Callable[[], np.ndarray]:
    """A function that vocodes `mel` [frames, n_mels] with this project's code."""
    from vocoder import Vocoder
    vocoder = Vocoder(hp, random_weights(hp))
    return lambda: vocoder.vocode(mel)


def vocode_there(hp: HParams, mel: np.ndarray, code: str) -> Callable[[], object]:
    """A function that vocodes `mel` [frames, n_mels] with the code in the file `code`."""
    import torch

    from interop import nvidia
    state, config = nvidia.to_state_dict(hp, random_weights(hp))
    setattr(torch.cuda, 'FloatTensor', torch.FloatTensor)   # the code asks for it by name
    model = runpy.run_path(code)['WaveGlow'](**config)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    model = model.remove_weightnorm(model).eval()
    mels = torch.from_numpy(mel.T[None].copy())

    def vocode():
        with torch.no_grad():
            return model.infer(mels)
    return vocode


if __name__ == '__main__':
    run_script(main)
