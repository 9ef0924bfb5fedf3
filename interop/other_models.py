"""Models in PyTorch files that are no WaveGlow of ours, told by class names and keys."""
import re
from typing import Iterable, Optional

# The package `glow_old` of NVIDIA's repository, also as a part of others.
FIRST_ARCHITECTURE = ("is of NVIDIA's first architecture (glow_old), whose couplings change the "
                      'two halves in turn; no model here does: take a later checkpoint')
SQUEEZEWAVE = ('a SqueezeWave, another architecture: groups of 128 or 256 samples, and separable '
               'convolutions')
TACOTRON = 'a Tacotron 2 or its like, which makes mels and no audio'
ADVICE = 'take a checkpoint of WaveGlow'

# By the name of the class of a pickled module.
CLASSES = {'SqueezeWave': SQUEEZEWAVE, 'Tacotron2': TACOTRON}

# By keys of a checkpoint, those of nested dictionaries joined by dots.
KEYS = tuple((kind, re.compile(r'(?:^|\.)(?:%s)' % pattern)) for kind, pattern in (
    (SQUEEZEWAVE, r'WN\.\d+\.in_layers\.\d+\.\d+\.'),
    ('a model of the ParallelWaveGAN toolkit, another vocoder',
     r'model\.(?:generator|discriminator)\.|upsample_net\.|melgan\.\d'),
    ('a HiFi-GAN or its like, another vocoder',
     r'generator\.|(?:conv_pre|ups\.\d+|resblocks\.\d+)\.|mpd\.|msd\.'),
    (TACOTRON, r'decoder\.')))
MAX_KEY = 200       # characters of a key that are looked at


def kind_of_keys(keys: Iterable[str]) -> Optional[str]:
    """What model the keys of a checkpoint are those of; None if it is not known here."""
    keys = [key[:MAX_KEY] for key in keys]
    return next((kind for kind, pattern in KEYS if any(map(pattern.search, keys))), None)


def kind_of_class(name: str) -> Optional[str]:
    """What model a class `PACKAGE.NAME` is; None if it is not known here."""
    return CLASSES.get(name.rpartition('.')[2])
