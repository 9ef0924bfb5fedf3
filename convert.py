"""Converts checkpoints of other WaveGlow programs to this one's, and this one's to NVIDIA's.

    python convert.py nvidia waveglow_256channels_universal_v5.pt --out_dir published
    python convert.py weixsong logdir/model.ckpt-652000 --out_dir converted
    python convert.py export_nvidia logdir/waveglow waveglow.pt

The first two write a checkpoint and its params.json to a new folder, for inference.py and for
train.py --restore_from. What a checkpoint does not tell of hop and mels comes from NVIDIA's
config.json (--config), or from --hparams. A .pt file can hold a program; nothing in it is executed.
Exit status: 0; 2 with one sentence if the model cannot be converted: then nothing is written.
"""
import argparse
import functools
import json
import os
import shlex
from typing import Callable, Optional

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()

import errors
import files
import params
import utils
import vocoder
from errors import UserError
from interop import nvidia, nvidia_mel, weixsong


def main():
    args = parse_arguments()
    if args.direction == 'export_nvidia':
        export_nvidia(args.run, args.file, args.config)
    elif args.direction == 'nvidia':
        convert_checkpoint(functools.partial(nvidia.read, config=args.config), args.checkpoint,
                           args.out_dir, args.hparams)
    else:
        convert_checkpoint(weixsong.read, args.checkpoint, args.out_dir, args.hparams)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    directions = parser.add_subparsers(dest='direction', metavar='nvidia|weixsong|export_nvidia')
    for name, aliases, checkpoint, text in (
            ('nvidia', [], 'FILE.pt', "convert a checkpoint of NVIDIA's WaveGlow (PyTorch)"),
            ('weixsong', ['seed'], 'CHECKPOINT',
             'convert a checkpoint of weixsong/WaveGlow (TensorFlow 1)')):
        direction = directions.add_parser(name, aliases=aliases, help=text, description=text)
        direction.add_argument('checkpoint', type=path, metavar=checkpoint,
                               help='the checkpoint to convert')
        direction.add_argument('--out_dir', type=path, required=True,
                               help='a new folder for the checkpoint and its params.json')
        direction.add_argument('--hparams', metavar='NAME=VALUE,...', default='',
                               help='hyperparameters that the checkpoint does not tell, for '
                                    'example sample_rate=24000,hop_length=300')
        if name == 'nvidia':
            direction.add_argument('--config', type=path, metavar='FILE.json',
                                   help="NVIDIA's config.json of the model, which tells its rate, "
                                        'hop and mels')
    text = "write a model of this program in NVIDIA's format: state dict and configuration"
    direction = directions.add_parser('export_nvidia', help=text, description=text)
    direction.add_argument('run', type=path, metavar='RUN_OR_CHECKPOINT',
                           help='a run of train.py, its best/, or one of its checkpoints')
    direction.add_argument('file', type=path, metavar='FILE.pt', help='a new file to write')
    direction.add_argument('--config', type=path, metavar='FILE.json',
                           help="a new config.json to write, for NVIDIA's commands")
    args = parser.parse_args()
    if not args.direction:
        parser.error('say what to convert: nvidia, weixsong or export_nvidia')
    return args


def convert_checkpoint(reader: Callable, checkpoint: str, out_dir: str, overrides: str = ''):
    """Writes the model in another project's checkpoint to the new folder `out_dir`.

    Args:
      reader: `nvidia.read` or `weixsong.read`: gives (HParams, {variable: array}) of a path and
        overrides.
      overrides: of hyperparameters that the checkpoint does not tell, as on the command line.

    Raises UserError if it cannot be read, is broken or contradicts `overrides`.
    """
    files.require_new_directory(out_dir, 'give a new folder as --out_dir')
    hp, weights = reader(checkpoint, overrides)
    wanted = params.parse_overrides(overrides)
    unlike = ['%s %s and %s' % (name, errors.shown(value), getattr(hp, name))
              for name, value in wanted.items() if value != getattr(hp, name)]
    if unlike:
        raise UserError('this command and %s differ in %s; leave out of --hparams what its weights '
                        'tell' % (checkpoint, ', '.join(unlike)))
    vocoder.require_finite_and_invertible(weights, checkpoint)
    with errors.as_user_error('cannot write ' + out_dir, 'make room, or give another --out_dir',
                              OSError), files.atomic_directory(out_dir) as folder:
        utils.save_weights(folder, weights)
        params.save(folder, hp)
    print('%s: %d flows of %d layers of %d channels, groups of %d, encoder %s, upsampling %s'
          % (out_dir, hp.n_flows, hp.n_layers, hp.residual_channels, hp.n_group, hp.encoder,
             hp.upsampling))
    print('It vocodes mels of profile %s at %d Hz:\n'
          '  python inference.py --restore_from %s --lc MELS_OR_WAVS --out_dir vocoded'
          % (hp.mel_name, hp.sample_rate, shlex.quote(out_dir)))


def export_nvidia(run: str, path: str, config_path: Optional[str] = None):
    """Writes the model in `run`, with its averaged weights, to the new file `path`.

    It is a PyTorch state dict in NVIDIA's format. Raises UserError if that cannot hold the model.

    config_path: a new config.json to write.
    """
    files.require_new_file(path)
    if config_path is not None:
        files.require_new_file(config_path)
    nvidia.require_expressible(
        params.load(os.path.dirname(utils.find_checkpoint(run))))
    try:
        import torch
    except ImportError as error:
        raise UserError("writing NVIDIA's format takes PyTorch: pip install -r "
                        'requirements-convert.txt') from error
    hp, weights = vocoder.load_model(run)
    vocoder.require_shapes(hp, weights, run)
    state, config = nvidia.to_state_dict(hp, weights)
    data_config = nvidia_mel.data_config(hp)
    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    with errors.as_user_error(
            'cannot write ' + path, 'make room, or give another file',
            OSError, RuntimeError), files.atomic_open(path, 'wb') as f:
        # PyTorch raises RuntimeError when the disk is full
        torch.save({'state_dict': tensors, 'config': config, 'data_config': data_config}, f)
    if config_path is not None:
        with errors.as_user_error('cannot write ' + config_path, 'give another --config',
                                  OSError), files.atomic_open(config_path) as f:
            json.dump({'data_config': data_config, 'waveglow_config': config}, f, indent=4)
    print('%s: a state dict and its config; mels of profile %s at %d Hz'
          % (path, hp.mel_name, hp.sample_rate))
    if hp.hop_length != nvidia_mel.UPSAMPLE_STRIDE:
        print("NVIDIA's glow.py upsamples by %d; this model takes ConvTranspose1d(n_mel_channels, "
              'n_mel_channels, %d, stride=%d) there'
              % (nvidia_mel.UPSAMPLE_STRIDE, nvidia.upsample_width(hp), hp.hop_length))
    unstated = nvidia_mel.unstated(hp)
    if unstated:
        print("NVIDIA's code computes other mels: these have %s" % unstated)


if __name__ == '__main__':
    command_line.run_script(main)
