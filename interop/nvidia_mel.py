"""What a checkpoint of NVIDIA's WaveGlow tells of its rate, its hop and its mels."""
import math
from typing import Any, Optional

import params
from errors import UserError
from interop import nvidia_state, torchfile

# Samples a frame and taps of the transposed convolution, constants of NVIDIA's code. Whoever
# changes the hop makes the filter four hops wide, as NVIDIA's is.
UPSAMPLE_STRIDE, UPSAMPLE_WIDTH = 256, 1024

# Names in NVIDIA's config.json, which others have taken over -> those of MelDefinition.
MEL_NAMES = {'filter_length': 'n_fft', 'hop_length': 'hop_length', 'win_length': 'win_length',
             'n_mel_channels': 'n_mels', 'mel_fmin': 'fmin', 'mel_fmax': 'fmax'}
NO_OTHER_HOP = ('models here have a hop of %d samples, and --hparams=hop_length=... cannot change '
                'that yet: take a model with that hop' % UPSAMPLE_STRIDE)


def require_hop(state: 'nvidia_state.StateDict'):
    """Raises UserError unless the model upsamples by UPSAMPLE_STRIDE samples a frame.

    The stride of a pickled module tells, or the hop_length that the file states. Otherwise the
    width of the filter is the only trace.
    """
    stated = state.about.get('hop_length')
    hop = state.stride if state.stride is not None else stated if type(stated) is int else None
    width = state.shape(nvidia_state.UPSAMPLE)[2]
    if hop is not None and hop != UPSAMPLE_STRIDE:
        raise UserError('has a hop of %s samples; %s' % (torchfile.excerpt(str(hop)), NO_OTHER_HOP))
    if hop is None and width != UPSAMPLE_WIDTH:
        raise UserError('%s has %d taps, which looks like a hop of %.9g samples: a quarter, as in '
                        'all models known; %s'
                        % (nvidia_state.UPSAMPLE, width, width / 4, NO_OTHER_HOP))


def with_stated_rate(hp: params.HParams, about: dict) -> params.HParams:
    """`hp` with the sample rate that the checkpoint states, if it states one.

    Raises UserError if it states mels of another definition than those of hp.mel_name. What is
    no number is passed over.
    """
    rate = _number(about.get('sampling_rate'))
    stated = {name: _number(about[name]) for name in MEL_NAMES if name in about}
    if 'mel_fmax' in about and about['mel_fmax'] is None:  # half the rate, as in librosa
        stated['mel_fmax'] = (rate or hp.sample_rate) / 2
    ours = {name: getattr(hp, field) for name, field in MEL_NAMES.items()}
    differing = ['%s %.9g (here %.9g)' % (name, value, ours[name])
                 for name, value in stated.items() if value is not None and value != ours[name]]
    if differing:
        raise UserError('states mels of %s; models of NVIDIA\'s take those of mel profile %s '
                        'here: take a model that was trained on these'
                        % (', '.join(differing), hp.mel_name))
    return hp.replace(sample_rate=int(rate)) if rate is not None else hp


def _number(value: Any) -> Optional[float]:
    """A number that is finite, or None."""
    if type(value) not in (int, float):
        return None
    return value if abs(value) < 1e9 and math.isfinite(value) else None
