"""Hyperparameters: one immutable object, named presets, overrides, validation, `params.json`.

The commands take `--preset NAME --hparams name=value,name=value`. The result is stored as
`params.json` beside the file lists and beside every checkpoint. Later commands read it from there,
so that it is said only once.
"""
import collections
import dataclasses
import json
import math
import os
from typing import Any, Callable, Dict, Iterable, Optional, Tuple

import errors
import files
from datasets import field_values, mel_definition
from datasets.mel_definition import MelHParams
from errors import UserError

FILE_NAME = 'params.json'       # beside file lists, mels, shards and checkpoints


# Names of presets and mel profiles in commands and files of earlier versions -> today's names.
FORMER_NAMES = {'seed': 'weixsong'}

CHOICES = {
    'conv_form': ('per_direction', 'time_to_batch', 'conv2d_nhwc', 'conv2d_nchw'),
    'encoder': ('none', 'conv', 'blstm'),
    'upsampling': ('repeat', 'transposed', 'two_transposed'),
    'lr_schedule': ('exponential', 'cosine'),
    'stft_distance': ('magnitudes', 'mels'),
}


@dataclasses.dataclass(frozen=True)
class HParams(MelHParams):
    """All hyperparameters. The defaults are the `weixsong` preset.

    Those of MelHParams, and these alone, must agree with the preprocessed data.
    """

    # The flow. Glossary: a group is n_group consecutive samples, one column of the flow.
    n_flows: int = 12                # steps of flow
    n_group: int = 8                 # samples a group, an even number; fastest where it divides
                                     # hop_length
    n_early_every: int = 4           # flows between two early outputs
    n_early_size: int = 2            # channels that leave in an early output
    sigma: float = 0.707             # standard deviation of the prior in the training loss
    audio_scale: float = 1.0         # the flow sees audio * audio_scale; the loss corrects for it

    # The coupling network (WaveNet).
    n_layers: int = 8                # dilated convolutions a flow; layer i has dilation 2^i
    residual_channels: int = 256
    skip_channels: int = 256
    kernel_size: int = 3             # taps; odd unless causal
    causal: bool = False             # convolutions look back only (the paper's are centred)
    conv_form: str = 'per_direction'  # how a dilated convolution is computed, see ops.py

    # The condition: mels -> (encoder) -> (upsampling) -> every layer of every coupling network.
    encoder: str = 'conv'            # none | conv | blstm
    encoder_layers: int = 2
    encoder_width: int = 5           # taps of a layer of the conv encoder
    encoder_channels: int = 128      # channels of a layer; the blstm has as many a direction
    upsampling: str = 'repeat'       # repeat | transposed (one layer) | two_transposed
    upsample_width: int = 80         # taps of a transposed convolution
    upsample_channels: int = 128     # channels of two_transposed; transposed keeps the mel's
    cond_terms: int = 1              # cosines that a layer's condition follows within a frame, with
                                     # upsampling=repeat; 1: it is constant there
    mel_mean: float = 0.0            # the model sees (mel - mel_mean) / mel_std
    mel_std: float = 1.0

    # Optimization: Adam on random clips.
    lr: float = 1e-3                 # learning rate after the warm-up
    warmup_steps: int = 1000         # steps of linear warm-up
    lr_schedule: str = 'exponential'  # exponential: lr * lr_decay_rate^(step // lr_decay_steps);
                                     # cosine: from lr to lr * lr_decay_rate at lr_decay_steps
    lr_decay_rate: float = 0.95
    lr_decay_steps: int = 50000      # steps
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    clip_norm: float = 10.0          # gradients are scaled down to this global norm; 0 for never
    ema_decay: float = 0.999         # of the averaged weights; 0 for none
    batch_size: int = 1              # clips a step, over all towers
    clip_samples: int = 25600        # samples a clip, rounded down to whole frames
    nll_weight: float = 1.0          # of the negative log-likelihood in what is minimized
    nll_share: float = 1.0           # of a step's clips, those whose likelihood is computed if
                                     # stft_weight is not 0
    stft_weight: float = 0.0         # of the STFT distance of samples from the clips; 0 for none
    stft_distance: str = 'magnitudes'  # magnitudes | mels, see training/spectral_loss.py
    stft_sigma: float = 0.6          # standard deviation of these samples' noise
    adversarial_weight: float = 0.0  # of what discriminators hear in these samples; 0 for none
    dither: float = 0.5              # of digital silence, in steps of PCM16; 0 for none: runs of
                                     # exact zeros have no finite likelihood

    # When things happen. All may change from one run of a training to the next.
    summary_every: int = 50          # steps between two training summaries
    eval_every: int = 1000           # steps between two measurements of the held-out loss
    eval_utterances: int = 32        # held-out utterances measured, at most
    eval_seconds: float = 10.0       # of each of them, at most
    gen_test_wave_every: int = 5000  # steps between two vocodings of held-out utterances
    gen_utterances: int = 3          # how many are vocoded; 0 for none
    gen_sigma: float = 0.6           # standard deviation of the noise in vocoding
    gen_correction_rounds: int = 0   # rounds of mel correction in vocoding, 0 for the flow alone
    save_every: int = 1000           # steps between two checkpoints
    save_minutes: float = 15.0       # minutes between two checkpoints, whichever comes first
    keep_checkpoints: int = 3        # newest checkpoints kept, beside the best

    def __post_init__(self):
        super().__post_init__()
        _validate(self)

    @property
    def cycle_frames(self) -> int:
        """Frames after which a frame and a group begin at one sample again.

        1 where n_group divides hop_length.
        """
        return self.n_group // math.gcd(self.hop_length, self.n_group)

    def groups(self, frames: Any) -> Any:
        """Whole groups in `frames` frames: a number, or a tensor of numbers."""
        if self.cycle_frames == 1:
            return frames * (self.hop_length // self.n_group)
        return frames * self.hop_length // self.n_group

    def frame_of_group(self, group: Any) -> Any:
        """The frame of the first sample of group number `group`; a number, or a tensor of them."""
        if self.cycle_frames == 1:
            return group // (self.hop_length // self.n_group)
        return group * self.n_group // self.hop_length

    @property
    def clip_frames(self) -> int:
        """Mel frames a training clip."""
        return self.clip_samples // self.hop_length

    @property
    def upsample_strides(self) -> Tuple[int, ...]:
        """Strides of the transposed convolutions, whose product is hop_length.

        Of two they are as near to each other as can be, the smaller one first.
        """
        if self.upsampling != 'two_transposed':
            return self.hop_length,
        small = max(n for n in range(1, int(self.hop_length ** 0.5) + 1)
                    if self.hop_length % n == 0)
        return small, self.hop_length // small

    @property
    def condition_channels(self) -> int:
        """Channels of the condition: of a row a frame, or (upsampling) of a row a group."""
        channels = {'none': self.n_mels, 'conv': self.encoder_channels,
                    'blstm': 2 * self.encoder_channels}[self.encoder]
        if self.upsampling == 'repeat':
            return channels
        if self.upsampling == 'two_transposed':
            channels = self.upsample_channels
        return self.n_group * channels

    def flow_channels(self, k: int) -> int:
        """Channels that flow k works on, after the early outputs before it."""
        return self.n_group - self.n_early_size * (k // self.n_early_every)

    def widths(self) -> Dict[int, int]:
        """{channels: how many flows work on so many}."""
        return collections.Counter(map(self.flow_channels, range(self.n_flows)))

    def early_output_before(self, k: int) -> bool:
        """Whether channels leave as an early output before flow k."""
        return k > 0 and k % self.n_early_every == 0

    def replace(self, **changes) -> 'HParams':
        """A copy with other values; UserError for a combination that no model can have.

        mel_profile=NAME sets all of the mel but what else is given here.
        """
        return dataclasses.replace(self, **self.with_profile_expanded(changes))


DATA_FIELDS = tuple(f.name for f in dataclasses.fields(MelHParams))
MODEL_FIELDS = DATA_FIELDS + (
    'n_flows', 'n_group', 'n_early_every', 'n_early_size', 'audio_scale', 'n_layers',
    'residual_channels', 'skip_channels', 'kernel_size', 'causal', 'encoder', 'encoder_layers',
    'encoder_width', 'encoder_channels', 'upsampling', 'upsample_width', 'upsample_channels',
    'cond_terms', 'mel_mean', 'mel_std')

MAX_FLOWS, MAX_LAYERS = 200, 16
MAX_CHANNELS = 16384
# {hyperparameter: (most, of what)}: far beyond what anybody trains, and what tensors can still hold
MOST = dict(
    dict.fromkeys(('residual_channels', 'skip_channels', 'encoder_channels', 'upsample_channels'),
                  (MAX_CHANNELS, 'channels')),
    **dict.fromkeys(('kernel_size', 'encoder_width'), (1025, 'taps')),
    upsample_width=(65536, 'taps'), encoder_layers=(100, 'layers'),
    gen_correction_rounds=(100, 'rounds'), batch_size=(65536, 'clips a step'),
    clip_samples=(10 ** 8, 'samples'), eval_seconds=(86400, 'seconds, a day'))
MAX_WHOLE_NUMBER = 2 ** 31 - 1              # what 32 bits hold
MIN_NUMBER, MAX_NUMBER = 1e-15, 1e15        # their squares are numbers of float32, and not zero
STFT_SIZES = 512, 1024, 2048     # samples a frame: the resolutions of the STFT distance


def override(hparams: HParams, text: str) -> HParams:
    """`hparams` with the changes that `text` ('lr=1e-4,batch_size=8') lists.

    Raises UserError as `parse_overrides` does, and for a combination that no model can have.
    """
    return hparams.replace(**parse_overrides(text))


def parse_overrides(text: str) -> dict:
    """{name: value} of the hyperparameters that `text` ('lr=1e-4,batch_size=8') sets.

    Raises UserError, naming the nearest valid choice, for what is not of that form, an unknown
    name or a value of the wrong type.
    """
    return with_current_names(field_values.parse(HParams, text))


def resolve(preset_name: Optional[str], overrides: str = '',
            *stored: Callable[[], Optional[HParams]]) -> HParams:
    """The hyperparameters that a command works with: a preset's or stored ones, with overrides.

    Args:
      preset_name: what --preset names; None or '' for nothing.
      overrides: the text of --hparams.
      stored: functions that return HParams or None. Without a preset they are called in turn until
        one returns HParams. If none does, DEFAULT_PRESET is taken.
    """
    found = preset(preset_name) if preset_name else None
    for load_stored in stored:
        found = found or load_stored()
    return override(found or preset(DEFAULT_PRESET), overrides)


def to_json(hparams: HParams) -> str:
    return json.dumps(dataclasses.asdict(hparams), indent=1) + '\n'


def from_json(text: str, where: str) -> HParams:
    """The inverse of `to_json`. `where` names the text's source in a UserError."""
    with errors.as_user_error(where + ' is not JSON', 'restore it or preprocess again', ValueError,
                              RecursionError):      # of brackets in brackets
        values = json.loads(text)
    if not isinstance(values, dict):
        raise UserError('%s is not an object of hyperparameters; restore it or preprocess again'
                        % where)
    try:
        return HParams(**with_current_names(field_values.check(HParams, values)))
    except UserError as error:
        raise UserError('%s: %s' % (where, error)) from error


def mel_hparams(profile: Optional[str], text: str, statistics: dict, base: MelHParams
                ) -> MelHParams:
    """The definition of a mel profile with the changes that `text` ('fmin=0,n_mels=40') lists.

    Args:
      profile: a mel profile's name; None to change `base`.
      statistics: {hyperparameter: value} of them.

    Raises UserError as `parse_overrides` does, for what is not of a mel, and for values that no mel
    can have.
    """
    changes = parse_overrides(text)
    for name in changes:
        if name not in DATA_FIELDS:
            raise UserError('%s is no hyperparameter of mels; %s'
                            % (name, errors.nearest(name, DATA_FIELDS)))
    if profile:
        named = dict(mel_profile=FORMER_NAMES.get(profile, profile))
        return MelHParams(**{**named, **changes, **statistics})
    values = {name: getattr(base, name) for name in DATA_FIELDS}
    return MelHParams(**{**values, **base.with_profile_expanded(changes), **statistics})


def save(directory: str, hparams: HParams):
    """Writes `directory`/params.json; OSError if it cannot be written."""
    with files.atomic_open(os.path.join(directory, FILE_NAME)) as f:
        f.write(to_json(hparams))


def load(directory: str) -> HParams:
    """The hyperparameters in `directory`/params.json; UserError if there are none."""
    path = os.path.join(directory, FILE_NAME)
    with errors.as_user_error('cannot read ' + path,
                              'preprocess_data.py, train.py and convert.py write it',
                              OSError, UnicodeDecodeError), open(path) as f:
        text = f.read()
    return from_json(text, path)


def load_if_exists(directory: str) -> Optional[HParams]:
    """The hyperparameters in `directory`/params.json, or None if there is no such file."""
    return load(directory) if exists(directory) else None


def exists(directory: str) -> bool:
    return os.path.isfile(os.path.join(directory, FILE_NAME))


def differences(a: MelHParams, b: MelHParams, fields: Iterable[str]) -> str:
    """'n_flows 12 and 8, ...' for those of `fields` in which a and b differ; '' if none.

    The name of a mel profile stands for its values, and two names of the same mels do not differ.
    """
    unlike = [name for name in fields if getattr(a, name) != getattr(b, name)]
    if 'mel_profile' in unlike:
        told = {'sample_rate'}.union(a.own_values(), b.own_values())
        if a.mel != b.mel:
            told.add('mel_profile')
        unlike = [name for name in unlike if name in told or name not in DATA_FIELDS]
    return ', '.join('%s %s and %s' % ((name,) + tuple(
        errors.shown(value) if isinstance(value, tuple) else value
        for value in (getattr(a, name), getattr(b, name)))) for name in unlike)


def require_same(hparams: MelHParams, other: MelHParams, fields: Iterable[str], where: str,
                 advice: str):
    """Raises UserError, naming `where` the other was found, if the two differ in `fields`."""
    unlike = differences(hparams, other, fields)
    if unlike:
        raise UserError('this command and %s differ in %s; %s' % (where, unlike, advice))


def with_current_names(values: dict) -> dict:
    """Stored {hyperparameter: value} with the mel profile by its name of today."""
    profile = values.get('mel_profile')
    if isinstance(profile, str) and profile in FORMER_NAMES:
        return dict(values, mel_profile=FORMER_NAMES[profile])
    return values


def _validate(hp):
    """Raises UserError for values that no model, or no training, can have."""
    for name, choices in CHOICES.items():
        value = getattr(hp, name)
        if value not in choices:
            raise UserError('%s=%s is not a choice; %s'
                            % (name, errors.cut(value), errors.nearest(value, choices)))
    for field in dataclasses.fields(hp):
        value = getattr(hp, field.name)
        if field.type is float and not abs(value) < float('inf'):
            raise UserError('%s=%s is not finite' % (field.name, value))
    zero_allowed = ('warmup_steps', 'clip_norm', 'ema_decay', 'mel_mean', 'n_early_size',
                    'adam_beta1', 'adam_beta2', 'gen_sigma', 'gen_utterances',
                    'gen_correction_rounds', 'stft_weight', 'stft_sigma', 'adversarial_weight',
                    'dither')
    for field in dataclasses.fields(hp):
        value = getattr(hp, field.name)
        if (field.type not in (int, float) or field.name == 'mel_mean'
                or field.name in mel_definition.FIELDS):        # which are validated there
            continue
        if value < 0 or (value == 0 and field.name not in zero_allowed):
            raise UserError('%s=%s must be %s' % (
                field.name, errors.shown(value),
                'zero or more' if field.name in zero_allowed else 'more than zero'))
    _validate_sizes(hp)
    if hp.nll_share > 1:
        raise UserError('nll_share=%g is more than all clips; take 1 or less' % hp.nll_share)
    for name in ('adam_beta1', 'adam_beta2', 'ema_decay'):
        if getattr(hp, name) >= 1:
            raise UserError('%s=%s must be less than 1' % (name, getattr(hp, name)))
    _validate_combinations(hp)


def _validate_sizes(hp):
    for field in dataclasses.fields(hp):
        name, value = field.name, getattr(hp, field.name)
        if name in MOST and value > MOST[name][0]:
            raise UserError('%s=%.6g is too much; take %d or less (%s)'
                            % ((name, value) + MOST[name]))
        if field.type is int and value > MAX_WHOLE_NUMBER:
            raise UserError('%s=%s does not fit in 32 bits; take %d or less'
                            % (name, errors.shown(value), MAX_WHOLE_NUMBER))
        if field.type is float and abs(value) > MAX_NUMBER:
            raise UserError('%s=%g does not fit in the arithmetic of 32 bits; take %g or less'
                            % (name, value, MAX_NUMBER))
        if field.type is float and 0 < abs(value) < MIN_NUMBER and name != 'adam_epsilon':
            raise UserError('%s=%g vanishes in the arithmetic of 32 bits; take %g or more'
                            % (name, value, MIN_NUMBER))


def _validate_combinations(hp):
    if hp.n_group > hp.hop_length:
        raise UserError('n_group=%d is more than the %d samples of a frame; take %d or less'
                        % (hp.n_group, hp.hop_length, hp.hop_length))
    last = hp.flow_channels(hp.n_flows - 1)
    if last < 2:
        raise UserError('n_group=%d with early outputs of %d every %d flows leaves %d channels to '
                        'flow %d; a coupling needs 2: take fewer flows or a larger n_group'
                        % (hp.n_group, hp.n_early_size, hp.n_early_every, last, hp.n_flows - 1))
    if hp.n_group % 2 or hp.n_early_size % 2:
        raise UserError('n_group=%d and n_early_size=%d must be even: a coupling splits its '
                        'channels in half' % (hp.n_group, hp.n_early_size))
    if hp.kernel_size % 2 == 0 and not hp.causal:
        raise UserError('kernel_size=%d must be odd for centred convolutions; take %d, or '
                        'causal=true' % (hp.kernel_size, hp.kernel_size + 1))
    if hp.n_flows > MAX_FLOWS:
        raise UserError('n_flows=%d is too many; take %d or fewer'
                        % (hp.n_flows, MAX_FLOWS))
    if hp.n_layers > MAX_LAYERS:
        raise UserError('n_layers=%d would dilate by 2^%d groups; take %d or fewer'
                        % (hp.n_layers, hp.n_layers - 1, MAX_LAYERS))
    if hp.clip_frames < 1:
        raise UserError('clip_samples=%d is less than a frame of %d samples'
                        % (hp.clip_samples, hp.hop_length))
    longest = max(STFT_SIZES + (hp.win_length,))
    if hp.stft_weight and hp.clip_frames * hp.hop_length < longest:
        raise UserError('stft_weight=%g takes clips of %d samples or more, not clip_samples=%d'
                        % (hp.stft_weight, longest, hp.clip_samples))
    if hp.adversarial_weight and not hp.stft_weight:
        raise UserError('adversarial_weight=%g takes samples, and stft_weight=0 draws none; take '
                        'stft_weight=1' % hp.adversarial_weight)
    if hp.upsampling != 'repeat' and hp.upsample_width < hp.upsample_strides[-1]:
        raise UserError('upsample_width=%d is less than the stride of %d of upsampling=%s, which '
                        'would leave samples without a condition; take a multiple of the stride'
                        % (hp.upsample_width, hp.upsample_strides[-1], hp.upsampling))
    if hp.cond_terms > 1 and hp.upsampling != 'repeat':
        raise UserError('cond_terms=%d goes with upsampling=repeat: with upsampling=%s each group '
                        'has a condition of its own; take cond_terms=1'
                        % (hp.cond_terms, hp.upsampling))
    if hp.cond_terms > hp.groups(1):
        raise UserError('cond_terms=%d is more than the %d groups of a frame; take that or less'
                        % (hp.cond_terms, hp.groups(1)))
    if hp.causal and (hp.encoder == 'blstm' or hp.upsampling == 'two_transposed'):
        raise UserError('causal=true goes with encoder=none or conv and upsampling=repeat or '
                        'transposed: encoder=%s with upsampling=%s looks ahead'
                        % (hp.encoder, hp.upsampling))


PRESETS = {
    # weixsong/WaveGlow as its README trains it.
    'weixsong': HParams(),
    # Section 3 of the paper.
    'paper': HParams(mel_profile='tacotron2', residual_channels=512, skip_channels=256,
                     encoder='none', upsampling='transposed', upsample_width=1024, lr=1e-4,
                     lr_decay_rate=1.0, batch_size=24, clip_samples=16000),
    # The model that NVIDIA published with 256 channels.
    'nvidia': HParams(mel_profile='tacotron2', encoder='none', upsampling='transposed',
                      upsample_width=1024, sigma=1.0, lr=1e-4, lr_decay_rate=1.0, batch_size=3,
                      clip_samples=16000),
    # Trains on a laptop's CPU.
    'small': HParams(sample_rate=16000, mel_profile='tacotron2', n_flows=8, n_group=16,
                     n_early_every=3, sigma=1.0, audio_scale=6.0, n_layers=6,
                     residual_channels=64, skip_channels=64, encoder='none', mel_mean=-5.0,
                     mel_std=2.0, batch_size=8, clip_samples=8192, lr=4e-3, warmup_steps=50,
                     lr_schedule='cosine', lr_decay_rate=0.01, lr_decay_steps=20000, clip_norm=10.0,
                     summary_every=20, eval_every=200, gen_test_wave_every=500, save_every=500,
                     save_minutes=5.0),
}
DEFAULT_PRESET = 'weixsong'


def preset(name: str) -> HParams:
    """The preset called `name`; UserError names the nearest one if there is none."""
    name = FORMER_NAMES.get(name, name)
    if name not in PRESETS:
        raise UserError('there is no preset %s; %s'
                        % (errors.shown(name), errors.nearest(name, PRESETS)))
    return PRESETS[name]
