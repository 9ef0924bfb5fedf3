"""How fast the same model is here and in NVIDIA's own code, in PyTorch, on the CPU.

    git clone https://github.com/NVIDIA/waveglow
    pip install -r requirements-convert.txt
    python -m bench.bench_nvidia --code waveglow/glow.py

Weights are random, the published size, and the same on both sides: exported as convert.py exports
them. Each side is a process of its own; the two take turns, --rounds times, so that what else the
machine does meets both.
"""
import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')     # before TensorFlow is imported

import numpy as np

import files

SIDES = 'here', 'nvidia'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--code', required=True, metavar='glow.py', help="of NVIDIA's repository")
    parser.add_argument('--seconds', type=float, default=5)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--json', default=os.path.join(files.ROOT, 'bench', 'nvidia.json'))
    parser.add_argument('--side', choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args)
    found = {side: [] for side in SIDES}
    processes = {side: subprocess.Popen(
        [sys.executable, '-m', 'bench.bench_nvidia', '--side', side] + sys.argv[1:],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True) for side in SIDES}
    for i in range(args.rounds + 1):  # the first is for what is done once
        for side, process in processes.items():
            print('go', file=process.stdin, flush=True)
            spent = float(process.stdout.readline())
            if i:
                found[side].append(spent)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    here, nvidia = (float(np.median(found[side])) / args.seconds for side in SIDES)
    ratio = float(np.median(np.divide(found['nvidia'], found['here'])))
    print('real-time factor %.3f here, %.3f in PyTorch: %.2f times as fast' % (here, nvidia, ratio))
    with files.atomic_open(args.json) as f:
        json.dump(dict(seconds=args.seconds, real_time_factor=here, nvidia_real_time_factor=nvidia,
                       ratio=ratio), f, indent=1)


def serve(args):
    """Vocodes whenever a line comes in, and prints the seconds that it took."""
    import params
    hp = params.preset('nvidia')
    frames = int(round(args.seconds * hp.sample_rate / hp.hop_length))
    mel = np.random.RandomState(0).uniform(-11, 1, [frames, hp.n_mels]).astype(np.float32)
    vocode = (ours if args.side == 'here' else theirs)(hp, mel, args.code)
    for _ in sys.stdin:
        started = time.time()
        vocode()
        print(time.time() - started, flush=True)


def ours(hp, mel, _):
    from bench.bench_inference import random_weights
    from vocoder import Vocoder
    vocoder = Vocoder(hp, random_weights(hp))
    return lambda: vocoder.vocode(mel)


def theirs(hp, mel, code):
    import torch

    from bench.bench_inference import random_weights
    from interop import nvidia
    state, config = nvidia.to_state_dict(hp, random_weights(hp))
    torch.cuda.FloatTensor = torch.FloatTensor  # the code asks for it by name
    spec = importlib.util.spec_from_file_location('nvidia_glow', code)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.WaveGlow(**config)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    model = model.remove_weightnorm(model).eval()
    mel = torch.from_numpy(mel.T[None].copy())

    def vocode():
        with torch.no_grad():
            return model.infer(mel)
    return vocode


if __name__ == '__main__':
    sys.exit(main())
