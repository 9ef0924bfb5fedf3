"""What a mel spectrogram is: its parameters, the definitions of known projects, hyperparameters.

From audio to a mel, in this order: pre-emphasis; frames under a window; magnitudes of their Fourier
transforms, to a power; a sum of them for each band; a floor; a logarithm; gain * x + offset; a
range; statistics of the bands. datasets/mel_transform.py computes it, docs/mels.md tells how to
find out which definition a mel has.
"""
import dataclasses
import hashlib
from typing import Any, Dict, Iterable, Tuple

from errors import UserError, cut, nearest, shown


@dataclasses.dataclass(frozen=True)
class MelDefinition:
    """The exact definition of a mel spectrogram. The defaults are those that most projects take."""

    sample_rate: int = 22050         # Hz
    n_fft: int = 1024                # samples of a transform
    win_length: int = 1024           # samples under the window, in the middle of the transform
    hop_length: int = 256            # samples from a frame to the next
    n_mels: int = 80                 # bands
    fmin: float = 0.0                # Hz, lower edge of the first band
    fmax: float = 0.0                # Hz, upper edge of the last band; 0 for half the sample rate
    preemphasis: float = 0.0         # y[t] = x[t] - preemphasis * x[t - 1]
    window: str = 'hann'             # hann: of a period of win_length; hann_symmetric: it ends in 0
    padding: str = 'center'          # center: frame f has its middle at sample f * hop_length;
                                     # same: half a hop later, samples // hop_length frames
    pad_mode: str = 'reflect'        # what stands beyond both ends; constant: zeros
    drop_last_frame: bool = False    # padding=center: samples // hop_length frames, not one more
    power: int = 1                   # of the magnitudes: 1, or 2 for energies
    mel_scale: str = 'slaney'        # of band centres: slaney (linear to 1 kHz), or htk
    mel_norm: str = 'slaney'         # slaney: triangles of area 1; none: of height 1
    floor: float = 1e-5              # smallest number under the logarithm
    floor_mode: str = 'clip'         # clip: max(floor, x); add: floor + x
    log: str = 'e'                   # base of the logarithm: e or 10
    dynamic_range: float = 0.0       # log values of an utterance lie no more than this below its
                                     # highest; 0 for no limit
    gain: float = 1.0                # then x * gain + offset
    offset: float = 0.0
    clip_min: float = 0.0            # then clipped to clip_min..clip_max; not if they are equal
    clip_max: float = 0.0
    mean: Tuple[float, ...] = ()     # then (x - mean) / scale, statistics of n_mels bands over a
    scale: Tuple[float, ...] = ()    # corpus; empty for none

    @property
    def top(self) -> float:
        """Hz, upper edge of the last band."""
        return self.fmax or self.sample_rate / 2

    @property
    def edge(self) -> int:
        """Samples of padding before the audio."""
        return (self.n_fft - (self.hop_length if self.padding == 'same' else 0)) // 2

    def n_frames(self, samples: int) -> int:
        """Frames of audio of so many samples."""
        more = self.padding == 'center' and not self.drop_last_frame
        return samples // self.hop_length + more

    def replace(self, **changes) -> 'MelDefinition':
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


# Names of mel profiles in docs/mels.md, which has the source of each.
_DECIBEL = MelDefinition(log='10', gain=0.2, offset=0.8, clip_max=1.0, preemphasis=0.97, n_fft=2048)
_SYMMETRIC = MelDefinition(log='10', gain=1.6, offset=2.4, clip_min=-4.0, clip_max=4.0)
_24K = MelDefinition(sample_rate=24000, n_mels=100)
_ESPNET = MelDefinition(fmin=80.0, fmax=7600.0, floor=1e-10, log='10')
PROFILES: Dict[str, MelDefinition] = {
    'weixsong': _DECIBEL,
    'tacotron2': MelDefinition(fmax=8000.0),
    'hifigan': MelDefinition(fmax=8000.0, padding='same'),
    'bigvgan_24k': _24K.replace(fmax=12000.0, padding='same'),
    'bigvgan_44k': MelDefinition(sample_rate=44100, n_fft=2048, win_length=2048, hop_length=512,
                                 n_mels=128, padding='same'),
    'vocos': _24K.replace(mel_scale='htk', mel_norm='none', floor=1e-7),
    'f5': _24K.replace(mel_scale='htk', mel_norm='none'),
    'espnet': _ESPNET,
    'espnet_24k': _ESPNET.replace(sample_rate=24000, n_fft=2048, win_length=1200, hop_length=300),
    'tacotron': _DECIBEL.replace(sample_rate=20000, win_length=1000, hop_length=250),
    'rayhane': _SYMMETRIC.replace(preemphasis=0.97, n_fft=2048, win_length=1100, hop_length=275,
                                  fmin=55.0, fmax=7600.0, power=2, pad_mode='constant'),
    'coqui': _SYMMETRIC.replace(floor=1e-8),
    'nemo': MelDefinition(fmax=8000.0, floor_mode='add', window='hann_symmetric'),
    'whisper': MelDefinition(sample_rate=16000, n_fft=400, win_length=400, hop_length=160, power=2,
                             drop_last_frame=True, floor=1e-10, log='10', dynamic_range=8.0,
                             gain=0.25, offset=1.0),
}

CHOICES: Dict[str, tuple] = {
    'window': ('hann', 'hann_symmetric'),
    'padding': ('center', 'same'),
    'pad_mode': ('reflect', 'constant'),
    'power': (1, 2),
    'mel_scale': ('slaney', 'htk'),
    'mel_norm': ('slaney', 'none'),
    'floor_mode': ('clip', 'add'),
    'log': ('e', '10'),
}
MOST = {'sample_rate': (1000000, 'samples a second'), 'n_fft': (65536, 'samples'),
        'n_mels': (4096, 'bands')}
MAX_NUMBER = 1e15       # its square is a number of float32

# Fields of MelDefinition -> their names as hyperparameters, where they alone would say too little.
FLAT_NAMES = {'gain': 'mel_gain', 'offset': 'mel_offset', 'clip_min': 'mel_clip_min',
              'clip_max': 'mel_clip_max', 'mean': 'mel_stats_mean', 'scale': 'mel_stats_scale'}
# {hyperparameter: field of MelDefinition}
FIELDS = {FLAT_NAMES.get(f.name, f.name): f.name for f in dataclasses.fields(MelDefinition)}
STATISTICS = 'mel_stats_mean', 'mel_stats_scale'
OF_PROFILE: Any = None          # what stands for the profile's value until `__post_init__`


@dataclasses.dataclass(frozen=True)
class MelHParams:
    """A MelDefinition as hyperparameters: what is not given has the value of `mel_profile`."""

    sample_rate: int = OF_PROFILE
    mel_profile: str = 'weixsong'    # a key of PROFILES
    # The other fields of MelDefinition, which tells what they are.
    n_fft: int = OF_PROFILE
    win_length: int = OF_PROFILE
    hop_length: int = OF_PROFILE
    n_mels: int = OF_PROFILE
    fmin: float = OF_PROFILE
    fmax: float = OF_PROFILE
    preemphasis: float = OF_PROFILE
    window: str = OF_PROFILE
    padding: str = OF_PROFILE
    pad_mode: str = OF_PROFILE
    drop_last_frame: bool = OF_PROFILE
    power: int = OF_PROFILE
    mel_scale: str = OF_PROFILE
    mel_norm: str = OF_PROFILE
    floor: float = OF_PROFILE
    floor_mode: str = OF_PROFILE
    log: str = OF_PROFILE
    dynamic_range: float = OF_PROFILE
    mel_gain: float = OF_PROFILE
    mel_offset: float = OF_PROFILE
    mel_clip_min: float = OF_PROFILE
    mel_clip_max: float = OF_PROFILE
    mel_stats_mean: tuple = OF_PROFILE
    mel_stats_scale: tuple = OF_PROFILE

    def __post_init__(self):
        if self.mel_profile not in PROFILES:
            raise UserError('mel_profile=%s is not a choice; %s'
                            % (cut(self.mel_profile), nearest(self.mel_profile, PROFILES)))
        for name, value in flat(PROFILES[self.mel_profile]).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        validate(self.mel, self.mel_profile)

    @property
    def mel(self) -> MelDefinition:
        return MelDefinition(**{field: getattr(self, name) for name, field in FIELDS.items()})

    @property
    def mel_name(self) -> str:
        """The definition for messages: the mel profile, and what is not as in it."""
        return name_of(self.mel, [self.mel_profile])

    def own_values(self) -> Dict[str, Any]:
        """{hyperparameter: value} of what is not as in the mel profile."""
        of_profile = flat(PROFILES[self.mel_profile])
        return {name: value for name, value in flat(self.mel).items() if value != of_profile[name]}

    def data(self) -> Dict[str, Any]:
        """The definition as JSON: sample rate, mel profile, `own_values`; a hash of statistics.

        It stands in shards and manifests. Those of earlier versions have the first two alone.
        """
        own = self.own_values()
        statistics = [own.pop(name) for name in STATISTICS if name in own]
        if statistics:
            own['mel_stats'] = hashlib.sha256(repr(statistics).encode()).hexdigest()[:16]
        return dict({'sample_rate': self.sample_rate, 'mel_profile': self.mel_profile}, **own)

    def with_profile_expanded(self, changes: dict) -> dict:
        """`changes` of hyperparameters; if they name a mel profile, with all of its values.

        They keep a sample rate that is not that of the profile of before: somebody chose it.
        """
        profile = PROFILES.get(changes.get('mel_profile', ''))
        if profile is None:
            return changes
        values = flat(profile)
        if self.sample_rate != PROFILES[self.mel_profile].sample_rate:
            values['sample_rate'] = self.sample_rate
        return dict(values, **changes)


def same_data(a: Dict[str, Any], b: Dict[str, Any]) -> bool:
    """Whether two `MelHParams.data` are of the same mels, by whatever profile's name."""
    def values(data):
        profile = PROFILES.get(str(data.get('mel_profile')))
        return dict(flat(profile) if profile else {}, **dict(data, mel_profile=bool(profile)))

    return a == b or values(a) == values(b)


def flat(definition: MelDefinition) -> Dict[str, Any]:
    """{hyperparameter: value} of a definition."""
    return {name: getattr(definition, field) for name, field in FIELDS.items()}


def name_of(definition: MelDefinition, profiles: Iterable[str] = tuple(PROFILES)) -> str:
    """'tacotron2', or 'tacotron2 with fmin=80' by that of `profiles` which differs least.

    The sample rate counts least: a profile keeps its name at another rate.
    """
    found = []
    for name in profiles:
        profile = flat(PROFILES[name])
        unlike = {key: value for key, value in flat(definition).items()
                  if key != 'sample_rate' and value != profile[key]}
        told = ['%s=%s' % item for item in unlike.items() if item[0] not in STATISTICS]
        if len(told) < len(unlike):
            told.append('statistics')
        found.append((len(told), profile['sample_rate'] != definition.sample_rate, name, told))
    _, _, name, told = min(found)
    return name + (' with ' + ', '.join(told) if told else '')


def validate(definition: MelDefinition, profile: str):
    """Raises UserError, by the hyperparameters' names, for values that no mel can have.

    profile: a name for messages.
    """
    for name, choices in CHOICES.items():
        value = getattr(definition, name)
        if value not in choices:
            raise UserError('%s=%s is not a choice; %s'
                            % (name, cut(value), nearest(value, choices)))
    d = definition
    for field in dataclasses.fields(d):
        if field.type is float and not abs(getattr(d, field.name)) <= MAX_NUMBER:
            raise UserError('%s=%s does not fit in the arithmetic of 32 bits'
                            % (FLAT_NAMES.get(field.name, field.name), getattr(d, field.name)))
    for name in ('sample_rate', 'n_fft', 'win_length', 'hop_length', 'n_mels', 'floor', 'gain'):
        if not getattr(d, name) > 0:
            raise UserError('%s=%s must be more than zero'
                            % (FLAT_NAMES.get(name, name), shown(getattr(d, name))))
    for name, (most, what) in MOST.items():
        if getattr(d, name) > most:
            raise UserError('%s=%s is too much; take %d or less (%s)'
                            % (name, shown(getattr(d, name)), most, what))
    if d.n_fft % 2:
        raise UserError('n_fft=%d must be even; take %d' % (d.n_fft, d.n_fft + 1))
    if d.win_length > d.n_fft:
        raise UserError('win_length=%d is more than the n_fft=%d samples of a transform; take %d '
                        'or less' % (d.win_length, d.n_fft, d.n_fft))
    if d.hop_length > d.win_length:
        raise UserError('hop_length=%d is more than win_length=%d, so that no frame would see some '
                        'of the samples; take %d or less'
                        % (d.hop_length, d.win_length, d.win_length))
    if 2 * d.fmax > d.sample_rate:
        raise UserError('mel profile %s reaches %g Hz, over half the sample rate of %d Hz; take '
                        'sample_rate=%d or more' % (profile, d.fmax, d.sample_rate, 2 * d.fmax))
    if not 0 <= d.fmin < d.top:
        raise UserError('fmin=%g is not between 0 and the %g Hz that the bands end at'
                        % (d.fmin, d.top))
    if not 0 <= d.preemphasis < 1:
        raise UserError('preemphasis=%g is not from 0 to below 1' % d.preemphasis)
    if d.dynamic_range < 0 or d.clip_min > d.clip_max:
        raise UserError('dynamic_range=%g is zero or more, and mel_clip_min=%g no more than '
                        'mel_clip_max=%g' % (d.dynamic_range, d.clip_min, d.clip_max))
    if len(d.mean) not in (0, d.n_mels) or len(d.scale) != len(d.mean):
        raise UserError('the statistics are of %d and %d bands and the mels of %d; take those of '
                        'these mels' % (len(d.mean), len(d.scale), d.n_mels))
    if d.scale and not min(d.scale) > 0:
        raise UserError('the statistics have a band with a scale of %g, which must be more than '
                        'zero; compute them anew' % min(d.scale))
