"""What a checkpoint of NVIDIA's WaveGlow tells of its rate, its hop and its mels, and is told."""
import json
import math
from typing import Any, Dict, Optional

import errors
import params
from errors import UserError
from interop import nvidia_state, torchfile

# Samples a frame and taps of the transposed convolution, constants of NVIDIA's code. Whoever
# changes the hop makes the filter four hops wide, as NVIDIA's is.
UPSAMPLE_STRIDE, WIDTH_IN_HOPS = 256, 4
MOST_HOP = 65536        # samples, far beyond what any model has

# Names in NVIDIA's data_config, which others have taken over -> hyperparameters here.
NAMES = {'sampling_rate': 'sample_rate', 'filter_length': 'n_fft', 'hop_length': 'hop_length',
         'win_length': 'win_length', 'n_mel_channels': 'n_mels', 'mel_fmin': 'fmin',
         'mel_fmax': 'fmax'}


def read_config(path: str) -> Dict[str, Any]:
    """What NVIDIA's config.json at `path` states of nvidia_state.STATED.

    Raises UserError if it cannot be read, or states none of it.
    """
    advice = "give NVIDIA's config.json, which has a data_config"
    with errors.as_user_error('cannot read %s as JSON' % path, advice, OSError, ValueError,
                              RecursionError), open(path) as f:     # of brackets in brackets
        content = json.load(f)
    about = nvidia_state.stated({'config': content})
    if not about:
        raise UserError('%s states nothing of a model; %s' % (path, advice))
    return about


def hop_of(state: 'nvidia_state.StateDict', given: Optional[int]) -> int:
    """Samples a frame of a model.

    The stride of a pickled module tells; else what was given, or what the file states; else the
    width of the filter, where it is that of NVIDIA's own.

    Args:
      given: what the user says, or None.

    Raises UserError if nothing tells, or something else is stated than the stride.
    """
    stated = state.about.get('hop_length')
    stated = stated if type(stated) is int else None
    width, hop = state.shape(nvidia_state.UPSAMPLE)[2], state.stride
    if hop is not None and not 0 < hop <= MOST_HOP:
        raise UserError('has a hop of %s samples; take a checkpoint of a trained model'
                        % torchfile.excerpt(str(hop)))
    if hop is not None and stated not in (None, hop):
        raise UserError('states a hop_length of %s, and its upsampling has a stride of %d samples; '
                        'give the config.json of this model' % (errors.shown(stated), hop))
    hop = hop or given or stated
    if hop is None and width != WIDTH_IN_HOPS * UPSAMPLE_STRIDE:
        raise UserError('does not tell its hop; %s has %d taps, in all models known four hops: '
                        'give --config=config.json, or --hparams=hop_length=%.9g'
                        % (nvidia_state.UPSAMPLE, width, width / WIDTH_IN_HOPS))
    return UPSAMPLE_STRIDE if hop is None else hop


def stated_hyperparameters(about: Dict[str, Any]) -> Dict[str, Any]:
    """{hyperparameter: value} of the mels that a checkpoint states; what is no number is left out.

    mel_fmax None is half the rate, as in librosa.
    """
    stated = {name: about[name] for name in NAMES if name in about}
    values: Dict[str, Any] = {}
    for name, value in stated.items():
        if name == 'mel_fmax' and value is None:
            values['fmax'] = 0.0
        elif type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value):
            whole = name not in ('mel_fmin', 'mel_fmax')
            if not whole or value == int(value):
                values[NAMES[name]] = int(value) if whole else float(value)
    return values


def require_range(values: Dict[str, Any]) -> None:
    """Raises UserError if a model of {hyperparameter: value} has mels of a range that nobody tells.

    Those of NVIDIA's own model reach 8000 Hz, which a rate below 16000 Hz cannot.
    """
    rate = values.get('sample_rate')
    if rate and 'fmax' not in values and 'mel_profile' not in values and rate < 16000:
        raise UserError('is of %d Hz and does not tell its mel_fmax; give --config=config.json, or '
                        '--hparams=fmax=%g' % (rate, rate / 2))


def data_config(hp: params.HParams) -> Dict[str, Any]:
    """The data_config of NVIDIA's config.json for a model's mels."""
    config = {name: getattr(hp, ours) for name, ours in NAMES.items() if name != 'n_mel_channels'}
    return dict(config, mel_fmax=hp.fmax or None,
                segment_length=hp.groups(hp.clip_frames) * hp.n_group)


def unstated(hp: params.HParams) -> str:
    """What a data_config cannot tell of a model's mels: 'log 10, power 2'; '' for nothing.

    NVIDIA's code computes the mels of profile tacotron2 but for the names in a data_config.
    """
    own = {name: getattr(hp, name) for name in NAMES.values()}
    theirs = params.preset('nvidia').replace(**own)
    return ', '.join('%s %s' % (name, errors.shown(getattr(hp, name)))
                     for name in params.DATA_FIELDS
                     if name != 'mel_profile' and getattr(hp, name) != getattr(theirs, name))
