"""LiteRT (TensorFlow Lite) files of a model: for phones, and what else has no TensorFlow.

A file is a zip archive too, as LiteRT's associated files are stored: it holds params.json, and a
file for streams block.json, a `BlockInfo`. `read_metadata` reads them, and so does `unzip`.
"""
import io
import json
import os
import tempfile
import zipfile
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import glow
import ops
import params
import streaming
from errors import UserError
from flows import conditions, filters
from interop.litert_weights import int8_filters
from params import HParams
from synthesis.mel_correction_graph import BlockCorrection

QUANTIZATIONS = 'none', 'float16', 'int8'
SIGNATURE = 'serving_default'
UNTIL_THE_END_IS_KNOWN = 2 ** 30        # frames
BLOCK_INFO = 'block.json'

Weights = Dict[str, np.ndarray]


class BlockInfo(NamedTuple):
    """What a program has to know of a file for streams."""
    block_frames: int       # mel frames of a block
    delay_samples: int      # that audio is behind its mel: the first ones to drop
    state_size: int         # numbers of the state


class BlockGraph(NamedTuple):
    """The function of `block_model` as a graph."""
    inputs: Dict[str, tf.Tensor]
    outputs: Dict[str, tf.Tensor]
    info: BlockInfo


def whole_model(hp: HParams, weights: Weights, flows: List[filters.Flow],
                build_vocoding: Callable[..., tf.Tensor], quantize: str = 'none') -> bytes:
    """A file that vocodes whole utterances: mel, noise -> audio.

    mel is [1, frames, n_mels], noise [1, groups, n_group], audio [1, frames * hop_length]. The
    number of frames is free: resize both inputs.

    Args:
      flows: of arrays, `vocoder.freeze`'s.
      build_vocoding: makes the audio of mel, noise, flows, hp and weights.
      quantize: of QUANTIZATIONS, what the filters are stored as.

    Raises UserError for a model that LiteRT's own operators do not compute.
    """
    if hp.encoder == 'blstm':
        raise UserError("LiteRT's own operators have no LSTM of encoder=blstm; export a SavedModel")

    def build():
        inputs = {'mel': tf.placeholder(tf.float32, [1, None, hp.n_mels], 'mel'),
                  'noise': tf.placeholder(tf.float32, [1, None, hp.n_group], 'noise')}
        audio = build_vocoding(inputs['mel'], inputs['noise'],
                               tf.nest.map_structure(tf.constant, flows), hp, weights)
        return inputs, {'audio': audio}

    return _with_files(_convert(build, quantize), {params.FILE_NAME: params.to_json(hp)})


def block_model(hp: HParams, weights: Weights, flows: List[filters.Flow], block_frames: int,
                quantize: str = 'none') -> bytes:
    """A file that vocodes a stream block by block.

    Its function is mel, noise, state, position, frames -> audio, next_state.

    mel is [block_frames, n_mels], noise [groups of these frames, n_group], audio [block_frames *
    hop_length], state [state_size]: zeros for the first block, then what the block before gave.
    position is the number of frames before the block, frames that of the whole utterance, or
    UNTIL_THE_END_IS_KNOWN. Frames beyond the end are any numbers.

    The audio is `BlockInfo.delay_samples` behind: so many samples of the first blocks are to be
    dropped, and blocks follow the last frame until as many have come again.

    Raises UserError for a model whose condition looks ahead.
    """
    if hp.encoder != 'none' or hp.upsampling == 'two_transposed':
        raise UserError('a block of a stream takes a model with encoder=none and upsampling=repeat '
                        'or transposed, not encoder=%s and upsampling=%s; export whole utterances'
                        % (hp.encoder, hp.upsampling))
    if block_frames % hp.cycle_frames:
        raise UserError('block_frames=%d does not end with a group: with hop_length=%d and '
                        'n_group=%d take a multiple of %d'
                        % (block_frames, hp.hop_length, hp.n_group, hp.cycle_frames))
    with tf.Graph().as_default():
        info = block_graph(hp, weights, flows, block_frames).info

    def build():
        graph = block_graph(hp, weights, flows, block_frames)
        return graph.inputs, graph.outputs

    return _with_files(_convert(build, quantize), {
        params.FILE_NAME: params.to_json(hp), BLOCK_INFO: json.dumps(info._asdict())})


def block_graph(hp: HParams, weights: Weights, flows: List[filters.Flow], block_frames: int
                ) -> BlockGraph:
    """Builds the function of `block_model` in the default graph."""
    with tf.Graph().as_default():       # which tells the size of the state
        inputs = _block_inputs(hp, block_frames, None)
        state_size = _build_block(inputs, flows, hp, weights)[1].shape.as_list()[0]
    inputs = _block_inputs(hp, block_frames, state_size)
    audio, state, late = _build_block(inputs, flows, hp, weights)
    return BlockGraph(inputs, {'audio': audio, 'next_state': state},
                      BlockInfo(block_frames, late, state_size))


def _block_inputs(hp, block_frames, state_size):
    groups = hp.groups(block_frames)
    return {'mel': tf.placeholder(tf.float32, [block_frames, hp.n_mels], 'mel'),
            'noise': tf.placeholder(tf.float32, [groups, hp.n_group], 'noise'),
            'state': tf.placeholder(tf.float32, [state_size], 'state'),
            'position': tf.placeholder(tf.int32, [], 'position'),
            'frames': tf.placeholder(tf.int32, [], 'frames')}


def _build_block(inputs, flows, hp, weights):
    """(audio [samples], the next state [size], samples that the audio is late)."""
    mel, state, position = inputs['mel'], inputs['state'], inputs['position']
    block_frames, groups = mel.shape.as_list()[0], inputs['noise'].shape.as_list()[0]
    late = glow.receptive_field(hp)[1]
    # of the condition, in the last flow; whole cycles
    late_frames = hp.cycle_frames * -(-late // hp.groups(hp.cycle_frames))
    behind, _ = conditions.condition_receptive_field(hp) or (0, 0)
    behind = hp.cycle_frames * -(-behind // hp.cycle_frames)
    correction = BlockCorrection(hp.mel, hp.gen_correction_rounds, late * hp.n_group)
    before = max(late_frames + behind, correction.frames_before)
    mel_size, ends = before * hp.n_mels, before * hp.n_mels + correction.state_size
    mel = tf.concat([tf.reshape(state[:mel_size], [before, hp.n_mels]), mel], axis=0)
    # before the utterance the condition's layers have zeros
    first = late_frames + behind
    known = position - first + tf.range(first + block_frames)[:, None] >= 0
    with ops.frozen(weights), tf.variable_scope('waveglow'):
        known_mel = tf.where_v2(known, mel[before - first:], hp.mel_mean)
        cond = conditions.condition(known_mel[None], hp)[0]
    cond = cond[behind if hp.upsampling == 'repeat' else hp.groups(behind):]
    frames = tf.minimum(inputs['frames'], UNTIL_THE_END_IS_KNOWN // hp.hop_length)
    block = streaming.FixedBlock(hp, groups, hp.groups(position), hp.groups(frames),
                                 state[ends:], late_frames)
    audio, carry = glow.inverse(inputs['noise'], cond, tf.nest.map_structure(tf.constant, flows),
                                hp, block)
    audio = tf.where_v2(block.within(late), tf.reshape(audio, [groups, hp.n_group]), 0.0)
    audio, corrected = correction.build(
        tf.reshape(audio, [groups * hp.n_group]), mel[before - correction.frames_before:], position,
        frames, state[mel_size:ends])
    kept = [mel[-before:]] if before else []
    kept = [tf.reshape(x, [-1]) for x in kept + [corrected] + [one.kept for one in carry.states]]
    return audio, tf.concat(kept, axis=0), correction.late


def _convert(build, quantize) -> bytes:
    """The LiteRT file of a graph. build: makes ({name: input}, {name: output})."""
    if devices.is_tensorflow_1():
        raise UserError('writing LiteRT files takes TensorFlow 2, and this is %s; export a '
                        'SavedModel and convert it there' % tf.__version__)
    import tensorflow as tf2
    with tempfile.TemporaryDirectory() as folder:
        saved = os.path.join(folder, 'saved')
        with tf.Graph().as_default(), tf.Session(config=devices.session_config()) as session:
            inputs, outputs = build()
            builder = tf.saved_model.Builder(saved)
            builder.add_meta_graph_and_variables(
                session, [tf.saved_model.tag_constants.SERVING],
                {SIGNATURE: tf.saved_model.predict_signature_def(inputs, outputs)})
            builder.save()
        converter = tf2.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[SIGNATURE])
        converter.target_spec.supported_ops = [tf2.lite.OpsSet.TFLITE_BUILTINS]
        if quantize == 'float16':
            converter.optimizations = [tf2.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf2.float16]
        content = converter.convert()
        return int8_filters(content) if quantize == 'int8' else content


def _with_files(model: bytes, texts: Dict[str, str]) -> bytes:
    """A LiteRT file with other files inside."""
    content = io.BytesIO(model)
    with zipfile.ZipFile(content, 'a') as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text)       # without the time of writing
    return content.getvalue()


def read_metadata(path: str) -> Tuple[HParams, Any]:
    """(HParams, BlockInfo or None) of a LiteRT file of export.py. Raises UserError for another."""
    try:
        with zipfile.ZipFile(path) as archive:
            hp = params.from_json(archive.read(params.FILE_NAME).decode(), path)
            if BLOCK_INFO not in archive.namelist():
                return hp, None
            return hp, BlockInfo(**json.loads(archive.read(BLOCK_INFO).decode()))
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UserError('%s is no LiteRT file of export.py (%s)' % (path, error)) from error
