"""A trained model as an object to call: mels in, audio out.

Mels are arrays [frames, n_mels] of the model's mel profile, audio is float32 [samples] in -1..1 at
its sample rate.
"""
import concurrent.futures
import itertools
import math
import os
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import glow
import ops
import params
import streaming
import utils
from datasets.mel_conversion import MelConversion
from datasets.mel_definition import MelDefinition
from errors import UserError
from flows import conditions, filters
from params import HParams
from synthesis import foreign_mels
from synthesis.denoiser import Denoiser
from synthesis.flow_stream import FlowStream
from synthesis.foreign_mels import ForeignMel

Weights = Dict[str, np.ndarray]     # {name of a variable: its value}

# Groups worked on at a time: on a CPU what fits the caches of two cores (measured with preset
# weixsong), on a GPU what keeps it busy.
CHUNK_GROUPS = {'CPU': 2048, 'GPU': 65536}
NARROW_CHANNELS = 128   # fewer residual channels are narrow; XLA's loops would delay the start
# Chunks that a narrow model takes at a time, on a CPU, if they are there: it waits for the number
# of operations. The bundled voice takes 0.8 of the time for 5 s in one block, not three.
NARROW_CHUNKS = 4
BATCH_GROUPS = 65536  # of a batch, padding included; utterances of a larger one are vocoded singly


# --- What goes in: noise and mels -----------------------------------------------------------------

def noise(frames: int, hp: HParams, sigma: Optional[float], seed: int) -> np.ndarray:
    """z [groups, n_group] of so many frames from N(0, sigma^2), float32.

    Group t of a seed is the same, whatever the number of frames. sigma None is hp.gen_sigma.
    """
    return NoiseGenerator(hp, sigma, seed).draw(frames)


class NoiseGenerator:
    """Draws `noise` piece by piece."""

    def __init__(self, hp: HParams, sigma: Optional[float], seed: int):
        self._hp, self._random = hp, np.random.RandomState(seed)
        self._sigma = hp.gen_sigma if sigma is None else sigma
        self._frames = 0                         # so far

    def draw(self, frames: int) -> np.ndarray:
        """The z [groups, n_group] that the next `frames` frames complete."""
        before, self._frames = self._hp.groups(self._frames), self._frames + frames
        shape = [self._hp.groups(self._frames) - before, self._hp.n_group]
        return (self._sigma * self._random.standard_normal(shape)).astype(np.float32)


def pad_mels(mels: Sequence[np.ndarray]) -> np.ndarray:
    """[batch, frames of the longest, n_mels] of mels [frames, n_mels]; last frames are repeated."""
    frames = max(len(mel) for mel in mels)
    return np.stack([np.pad(mel, [[0, frames - len(mel)], [0, 0]], 'edge') for mel in mels])


# --- Weights --------------------------------------------------------------------------------------

def load_model(path: str) -> Tuple[HParams, Weights]:
    """(HParams, weights) of a run's newest checkpoint, or of the checkpoint at `path`.

    Weights are averages where the checkpoint holds them. Raises UserError if there is no
    checkpoint, it cannot be read, or its weights are broken.
    """
    checkpoint = utils.find_checkpoint(path)
    hp, weights = params.load(os.path.dirname(checkpoint)), utils.read_weights(checkpoint)
    require_finite_and_invertible(weights, path)
    return hp, weights


def require_shapes(hp: HParams, weights: Weights, where: str) -> None:
    """Raises UserError, which names `where` they are from, if weights are not those of hp."""
    for weight in glow.weights(hp):
        if weight.name not in weights or weights[weight.name].shape != weight.shape:
            raise UserError('%s has no %s of shape %s; its params.json is not that of its model'
                            % (where, weight.name, list(weight.shape)))


def require_finite_and_invertible(weights: Weights, where: str) -> None:
    """Raises UserError for weights that cannot vocode: not finite, or a W without an inverse."""
    for name, w in sorted(weights.items()):
        if not np.isfinite(w).all():
            raise UserError('%s: %s holds values that are NaN or infinite; take an earlier '
                            'checkpoint' % (where, name))
        if name.endswith('/W') and not np.linalg.cond(w.astype(np.float64)) < 1e6:
            raise UserError('%s: the 1x1 convolution %s has no inverse, so that no audio can come '
                            'of it; take an earlier checkpoint' % (where, name))


def freeze(hp: HParams, weights: Weights, precision: str = 'float32') -> List[filters.Flow]:
    """Flows of arrays for glow.inverse: weight norm computed, filters merged, each w inverted.

    precision: a key of glow.PRECISIONS, of the coupling networks.

    Raises UserError if the weights are not those of `hp`.
    """
    def frozen(ks):
        """The flows of numbers ks, which are of one width: one graph computes them all."""
        names = [name for name in weights if name.startswith('waveglow/flow_%d/' % ks[0])]
        with tf.Graph().as_default(), tf.Session(config=devices.session_config()) as session:
            fed = {name: tf.placeholder(tf.float32, weights[name].shape) for name in names}
            with ops.frozen(fed), tf.variable_scope('waveglow'):
                flow = filters.compute_flow(filters.flow_variables(ks[0], hp), hp)
                flow = filters.cast_coupling(filters.invert_1x1(flow), glow.PRECISIONS[precision])
            for k in ks:
                feeds = {tensor: ops.weight_of(weights, name.replace('_%d/' % ks[0], '_%d/' % k, 1),
                                               tensor.shape.as_list())
                         for name, tensor in fed.items()}
                yield tf.nest.pack_sequence_as(flow, session.run(tf.nest.flatten(flow), feeds))

    widths = itertools.groupby(range(hp.n_flows), hp.flow_channels)
    return [flow for _, ks in widths for flow in frozen(list(ks))]


# --- The vocoder ----------------------------------------------------------------------------------

class Vocoder:
    """Vocodes mels with a checkpoint of train.py.

        vocoder = Vocoder.load('logdir/waveglow')
        audio = vocoder.vocode(mel)

    A vocoder has a graph and a session of its own, so that one process can have several. What
    training computes in every step is computed once, at loading: see `freeze`.
    """

    def __init__(self, hp: HParams, weights: Weights, precision: str = 'float32',
                 chunk_frames: Optional[int] = None):
        """hp, weights: see `load_model`. The rest: see `load`."""
        glow.require_precision(precision)
        self.hp = hp
        device = 'GPU' if devices.has_gpu() else 'CPU'
        is_narrow = hp.residual_channels < NARROW_CHANNELS
        self.chunk_frames = chunk_frames or default_chunk_frames(hp, CHUNK_GROUPS[device])
        self._chunks = 1 if chunk_frames or not is_narrow or device == 'GPU' else NARROW_CHUNKS
        self._compiles = device == 'CPU' and not is_narrow and not devices.is_tensorflow_1()
        self._weights = {name: value for name, value in weights.items() if '/flow_' not in name}
        self._flows = freeze(hp, weights, precision)
        self._conv_form = 'conv2d_nhwc' if hp.conv_form != 'conv2d_nchw' else hp.conv_form
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._mel = tf.placeholder(tf.float32, [None, None, hp.n_mels], 'mel')
            with ops.frozen(self._weights), tf.variable_scope('waveglow'):
                self._condition = conditions.condition(self._mel, hp)
            self._flows = tf.nest.map_structure(tf.constant, self._flows)
            self._build_block()
        self._batch: Optional[Tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = None    # `_build_batch`
        self._session = tf.Session(graph=self._graph, config=devices.session_config())
        self._conversions: Dict[MelDefinition, MelConversion] = {}      # of foreign mels
        self._corrections: Dict[tuple, foreign_mels.Correction] = {}    # by definition and rounds
        self._correction(None)      # which tells of a mel that cannot be corrected

    def _build_block(self):
        """Builds what `_run_block` runs."""
        hp = self.hp
        self._z = tf.placeholder(tf.float32, [None, hp.n_group], 'z')
        self._cond = tf.placeholder(tf.float32, [None, hp.condition_channels], 'condition')
        self._position, self._last = (
            tf.placeholder(tf.int32, [], name) for name in ('position', 'last'))
        fused_groups = hp.groups(self.chunk_frames) if self._compiles else 0
        places = streaming.Places.of_block(hp, tf.shape(self._z)[0], self._position, self._last)
        block = streaming.StreamBlock(hp, places, glow.receptive_field(hp)[1] // hp.n_flows,
                                      self._conv_form, fused_groups)
        self._audio, (self._delay, self._states) = glow.inverse(self._z, self._cond, self._flows,
                                                                hp, block)

    def _build_batch(self):
        """(z, lengths, audio) of a batch, with self._mel: placeholders, a tensor."""
        hp = self.hp
        with self._graph.as_default():
            z = tf.placeholder(tf.float32, [None, None, hp.n_group])
            lengths = tf.placeholder(tf.int32, [None])
            with ops.frozen(self._weights), tf.variable_scope('waveglow', reuse=tf.AUTO_REUSE):
                cond = conditions.condition(self._mel, hp, lengths)
            utterances = streaming.WholeUtterances(hp.replace(conv_form=self._conv_form),
                                                   streaming.utterance_mask(lengths, z, hp))
            audio, _ = glow.inverse(z, cond, self._flows, hp, utterances)
            return z, lengths, audio

    @classmethod
    def load(cls, path: str, preset: Optional[str] = None, hparams: str = '',
             precision: str = 'float32', chunk_frames: Optional[int] = None) -> 'Vocoder':
        """The model of a run's directory (its newest checkpoint) or of a checkpoint's path.

        Args:
          preset, hparams: as on the command line. They change only what is not of the model.
          precision: a key of glow.PRECISIONS; some processors multiply bfloat16 faster, and most
            GPUs both types of 16 bits.
          chunk_frames: mel frames of a block; by default what is fastest on the device.

        Raises UserError if there is no checkpoint, it cannot be read, is of another model, or is
        broken.
        """
        stored, weights = load_model(path)
        hp = params.resolve(preset, hparams, lambda: stored)
        params.require_same(hp, stored, params.MODEL_FIELDS, 'the model in ' + path,
                            'leave --preset away, and the model out of --hparams')
        try:
            return cls(hp, weights, precision, chunk_frames)
        except UserError as error:
            raise UserError('%s: %s' % (path, error)) from error

    def close(self) -> None:
        """Frees the session."""
        self._session.close()

    @property
    def latency(self) -> Optional[float]:
        """Seconds of mel after a sample that the sample depends on; None for the whole utterance.

        That is of the flow, and of hp.gen_correction_rounds of mel correction. A stream adds to
        this the length of one block.
        """
        frames = conditions.condition_receptive_field(self.hp)
        if frames is None:
            return None
        hp = self.hp
        # where a group ends in another frame, its first samples wait for that frame
        unaligned = hp.n_group - math.gcd(hp.hop_length, hp.n_group)
        ahead = (self._delay * hp.n_group + unaligned + frames[1] * hp.hop_length
                 + self._correction(None).latency)
        return ahead / hp.sample_rate

    def vocode(self, mel: np.ndarray, sigma: Optional[float] = None, seed: int = 0,
               mel_correction: Optional[int] = None, denoiser: Optional[Denoiser] = None,
               profile: Union[str, MelDefinition, None] = None) -> np.ndarray:
        """Audio [frames * hop_length] of mel [frames, n_mels]; the same for the same seed.

        Args:
          sigma: standard deviation of the noise; hp.gen_sigma by default.
          mel_correction: rounds of mel correction; hp.gen_correction_rounds by default, 0 for the
            audio of the flow.
          denoiser: what denoises the audio of the flow, before it is corrected.
          profile: what the mel is, if not of the model's definition: the name of a mel profile, or
            a definition. It is converted, and the audio has the length of its frames.

        Raises UserError for an array of another shape.
        """
        conversion = self.conversion(profile)
        pieces = [(self._checked(mel, conversion), True)]
        # The thread corrects a block while the flow makes the next.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return np.concatenate(list(self._blocks(pieces, sigma, seed, mel_correction, denoiser,
                                                    conversion, pool.map)))

    def stream(self, frames: Iterable[np.ndarray], sigma: Optional[float] = None, seed: int = 0,
               mel_correction: Optional[int] = None, denoiser: Optional[Denoiser] = None,
               profile: Union[str, MelDefinition, None] = None) -> Iterator[np.ndarray]:
        """Yields audio [samples], block by block, of an iterable of mels [frames, n_mels].

        Put together, the blocks are what `vocode` makes of the mels put together, to float
        rounding, for any sizes of mels and any chunk_frames. Memory does not grow with their
        number. A block comes as soon as its `chunk_frames` frames and the `latency` after them are
        there; a denoiser adds its own, and so does a mel of another sample rate, up to 0.1 s. With
        encoder=blstm, which starts at the end, nothing comes before the end. The arguments: see
        `vocode`.
        """
        conversion = self.conversion(profile)
        nothing = np.zeros([0, conversion.source.n_mels if conversion else self.hp.n_mels],
                           np.float32)
        pieces = itertools.chain(((self._checked(mel, conversion), False) for mel in frames),
                                 [(nothing, True)])
        return self._blocks(pieces, sigma, seed, mel_correction, denoiser, conversion)

    def _blocks(self, pieces, sigma, seed, mel_correction, denoiser, conversion, map_blocks=map):
        """Yields audio, block by block, of pieces (mel, whether the utterance ends with it).

        map_blocks: a `map` that calls its function in order. It may do so in another thread if
          there is one piece: a mel may not be expected while audio is corrected.
        """
        correcting = self._correction(mel_correction, conversion).start()
        foreign = ForeignMel(conversion) if conversion else None

        def flow():
            stream = FlowStream(self.hp, NoiseGenerator(self.hp, sigma, seed).draw,
                                self.chunk_frames, self._delay, self._run_condition,
                                self._run_block, self._chunks)
            for mel, ended in pieces:
                correcting.expect(mel)
                yield from stream.push(foreign.convert(mel, ended) if foreign else mel, ended)

        def correct(audio):
            return correcting.end() if audio is None else correcting.push(audio)

        blocks = denoiser.stream(flow()) if denoiser else flow()
        blocks = foreign.placed(blocks) if foreign else blocks
        for corrected in map_blocks(correct, itertools.chain(blocks, [None])):
            if len(corrected):
                yield corrected

    def vocode_batch(self, mels: Sequence[np.ndarray], sigma: Optional[float] = None, seed: int = 0,
                     mel_correction: Optional[int] = None, denoiser: Optional[Denoiser] = None,
                     profile: Union[str, MelDefinition, None] = None) -> List[np.ndarray]:
        """The audio of each mel, in one batch if memory allows.

        To float rounding, each is what `vocode` makes of it alone. The arguments: see `vocode`.

        mels: arrays [frames, n_mels], of several lengths.

        Raises UserError for an array of another shape.
        """
        conversion = self.conversion(profile)
        given = [self._checked(mel, conversion) for mel in mels]
        if len(given) < 2 or not self.fits_batch([len(mel) for mel in given], profile):
            return [self.vocode(mel, sigma, seed, mel_correction, denoiser, profile)
                    for mel in given]
        mels = [conversion(mel) for mel in given] if conversion else given
        lengths = [len(mel) for mel in mels]
        if self._batch is None:
            self._batch = self._build_batch()
        z_in, lengths_in, audio = self._batch
        z = NoiseGenerator(self.hp, sigma, seed).draw(max(lengths))
        audio = self._session.run(audio, {
            z_in: np.stack([z] * len(mels)), self._mel: pad_mels(mels), lengths_in: lengths})
        audio = [self._whole_frames(row, n) for row, n in zip(audio, lengths)]
        correct = self._correction(mel_correction, conversion)
        audio = [denoiser(row) if denoiser else row for row in audio]
        if conversion:
            audio = [conversion.place(row, len(mel)) for row, mel in zip(audio, given)]
        return [correct(row, mel) for row, mel in zip(audio, given)]

    def _whole_frames(self, audio, frames):
        """Audio [frames * hop_length] of [samples]: zeros are where no group is whole."""
        samples = frames * self.hp.hop_length
        audio = audio[:self.hp.groups(frames) * self.hp.n_group]
        return audio if len(audio) == samples else np.pad(audio, (0, samples - len(audio)),
                                                          'constant')

    def fits_batch(self, lengths: Sequence[int],
                   profile: Union[str, MelDefinition, None] = None) -> bool:
        """Whether mels of so many frames are vocoded in one batch."""
        conversion = self.conversion(profile)
        if conversion:
            lengths = [conversion.n_frames(frames) for frames in lengths]
        return len(lengths) * self.hp.groups(max(lengths, default=0)) <= BATCH_GROUPS

    def conversion(self, profile: Union[str, MelDefinition, None]) -> Optional[MelConversion]:
        """What makes mels of a profile the model's; None where they are that already.

        Raises UserError for a name that is none.
        """
        if profile is None:
            return None
        definition = foreign_mels.definition_of(profile)
        if definition == self.hp.mel:
            return None
        if definition not in self._conversions:
            self._conversions[definition] = MelConversion(definition, self.hp.mel)
        return self._conversions[definition]

    def _correction(self, rounds, conversion=None):
        """The mel correction of so many rounds, None for the model's, towards mels as given."""
        rounds = self.hp.gen_correction_rounds if rounds is None else rounds
        definition = conversion.source if conversion else self.hp.mel
        if (definition, rounds) not in self._corrections:
            self._corrections[definition, rounds] = foreign_mels.correction(
                definition, rounds, self.hp.sample_rate)
        return self._corrections[definition, rounds]

    def _checked(self, mel, conversion=None):
        """mel [frames, n_mels] as float32; UserError for an array of another shape."""
        n_mels = conversion.source.n_mels if conversion else self.hp.n_mels
        if np.ndim(mel) != 2 or np.shape(mel)[1] != n_mels or not len(mel):
            raise UserError('a mel is an array of frames x %d, not of %s; turn or compute it '
                            'anew' % (n_mels, ' x '.join(map(str, np.shape(mel)))))
        return np.asarray(mel, np.float32)

    # --- What a FlowStream runs

    def _run_condition(self, mel):
        """The condition [rows, c] of mel [frames, n_mels]."""
        return self._session.run(self._condition, {self._mel: mel[None]})[0]

    def _run_block(self, z, cond, position, last, states):
        """(audio, states for the next block) of a block; None for its states: the first one."""
        feeds = {self._z: z, self._cond: cond, self._position: position, self._last: int(last)}
        for i, state in enumerate(self._states):
            feeds[state.fed] = state.first if states is None else states[i]
        # states of the last block too: TensorFlow would prepare another kind of session.run anew
        return self._session.run([self._audio, [state.kept for state in self._states]], feeds)


def default_chunk_frames(hp: HParams, groups: int) -> int:
    """Frames of a block of about so many groups: of as many in every block, and one frame at least.

    That is so for a multiple of hp.cycle_frames.
    """
    return max(1, groups * hp.n_group // hp.hop_length // hp.cycle_frames) * hp.cycle_frames
