"""Exports a model to run without this repository: a SavedModel, ONNX or LiteRT.

    python export.py logdir/waveglow exported/1         # SavedModel, to a new folder
    python export.py logdir/waveglow waveglow.onnx      # ONNX, to a new file
    python export.py logdir/waveglow waveglow.tflite    # LiteRT (TensorFlow Lite), to a new file

A SavedModel is what TensorFlow 2 loads (`tf.saved_model.load('exported/1').signatures`), what
`saved_model_cli` and TensorFlow Serving take (Serving: a folder named by a number). It has two
signatures, and `assets.extra/params.json` tells the sample rate and the mel profile:

    serving_default  mel, sigma, seed -> audio    draws the noise itself
    from_noise       mel, noise -> audio          the audio of inference.py, given its noise

Both correct the audio towards its mel in as many rounds as the model says (gen_correction_rounds).

    mel     [batch, frames, n_mels] float32, of the model's mel profile
    sigma   [batch] float32, or one number for all: standard deviation of the noise (gen_sigma)
    seed    [batch] int64, or one number for all: the noise of an utterance is
            sigma * tf.random.stateless_normal([groups, n_group], [seed, 0]), not what inference.py
            draws for the same --seed
    noise   [batch, groups, n_group] float32 from N(0, sigma^2), such as
            vocoder.noise(frames, hp, sigma, seed); groups is frames * hop_length / n_group, rounded
            down
    audio   [batch, frames * hop_length] float32 in -1..1

An ONNX file has only the second, without a name, and params.json as metadata of that name. Both
run in float32, on any number of frames, on a CPU or a GPU.

A LiteRT file has the second too, for one utterance. It holds params.json (unzip reads it). With
--block_frames it vocodes a stream, block by block: docs/export.md tells how.

A SavedModel checks what it is given: a mel of another rank or number of bands, NaN, or values that
the mel profile cannot have fail with a sentence. docs/serving.md tells how to serve it.

The utterances of a batch have one length, and the audio of each is what it would be alone. The
graph takes whole utterances: its memory grows with batch * frames. inference.py works block by
block. Exit status: 0; 2, with one sentence, if there is nothing to export: nothing is written then.
"""
import argparse
import os
import shlex
from typing import Any, Dict, List, Optional, Tuple

import command_line

if __name__ == '__main__':
    command_line.guard_memory()     # before libraries that take much
    command_line.prepare_tensorflow_import()

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import errors
import files
import glow
import ops
import params
import streaming
import vocoder
from errors import UserError
from flows import conditions, filters, grouping
from interop import litert
from params import HParams
from synthesis import mel_correction_graph
from vocoding import mel_check_graph

OPSET = 17                   # of ONNX
MAX_GRAPH_BYTES = 2 ** 31    # of a message of protobuf, and so of a graph or an ONNX file


def main() -> int:
    args = parse_arguments()
    if args.out.endswith('.onnx'):
        export_onnx(args.run, args.out)
    elif args.out.endswith('.tflite'):
        export_litert(args.run, args.out, args.quantize, args.block_frames)
    else:
        export_saved_model(args.run, args.out)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    path = command_line.local_path
    parser.add_argument('run', type=path, metavar='RUN_OR_CHECKPOINT',
                        help='a run of train.py, its best/, or one of its checkpoints')
    parser.add_argument('out', type=path, metavar='OUT_DIR|FILE.onnx|FILE.tflite',
                        help='a new folder for a SavedModel, or a new file for ONNX or LiteRT')
    parser.add_argument('--quantize', choices=litert.QUANTIZATIONS, default='none',
                        help='number format that a LiteRT file stores filters in (default: '
                             'float32)')
    parser.add_argument('--block_frames', type=int, metavar='N',
                        help='mel frames of a block: write a LiteRT file that vocodes a stream '
                             'block by block (default: one for whole utterances)')
    args = parser.parse_args()
    if not args.out.endswith('.tflite') and (args.quantize != 'none' or args.block_frames):
        parser.error('--quantize and --block_frames go with a LiteRT file, FILE.tflite')
    if args.block_frames is not None and not 0 < args.block_frames <= 65536:
        parser.error('--block_frames is from 1 to 65536, not %d' % args.block_frames)
    return args


# --- The graph ------------------------------------------------------------------------------------

def build_vocoding(mel: tf.Tensor, noise: tf.Tensor, flows: List[filters.Flow], hp: HParams,
                   weights: vocoder.Weights) -> tf.Tensor:
    """Audio [batch, frames * hop_length] of mel [batch, frames, n_mels] and its noise, corrected.

    Args:
      noise: [batch, groups, n_group].
      flows: `vocoder.freeze`'s, as arrays or tensors.
      weights: those of the condition become constants: they are few.
    """
    with ops.frozen(weights), tf.variable_scope('waveglow'):
        cond = conditions.condition(mel, hp)
    # the form that every TensorFlow computes on a CPU and on a GPU
    utterances = streaming.WholeUtterances(hp.replace(conv_form='conv2d_nhwc'))
    audio, _ = glow.inverse(noise, cond, flows, hp, utterances)
    audio = grouping.fill_frames(audio, mel, hp)
    audio.set_shape([None, None])
    audio = mel_correction_graph.corrected(audio, mel, hp.mel, hp.gen_correction_rounds)
    return tf.identity(audio, 'audio')


def draw_noise(sigma: tf.Tensor, seed: tf.Tensor, mel: tf.Tensor, hp: HParams) -> tf.Tensor:
    """Noise [batch, groups, n_group] from N(0, sigma^2), for mel [batch, frames, n_mels].

    sigma, seed: [batch], or a scalar for all.
    """
    batch, frames, _ = ops.shape_of(mel)
    shape = tf.stack([hp.groups(frames), hp.n_group])

    def standard_normal(seed):  # tf.random.stateless_normal, with a kernel that 1.15 has too
        return tf.raw_ops.StatelessRandomNormal(shape=shape, seed=tf.stack([seed, 0]))

    z = tf.map_fn(standard_normal, tf.broadcast_to(seed, [batch]), dtype=tf.float32)
    return tf.broadcast_to(sigma, [batch])[:, None, None] * z


def as_variables(flows: List[filters.Flow]
                 ) -> Tuple[List[filters.Flow], Dict[tf.Variable, np.ndarray]]:
    """(Flows of variables' values, {variable: its value}) of Flows of arrays.

    They are no constants: each signature that is loaded would have its own copy (preset weixsong:
    4.7 GB, not 1.2, and 4% faster), and a graph has no more than MAX_GRAPH_BYTES.
    """
    values = {}

    def variable(array):
        v = ops.variable('filter_%d' % len(values), array.shape, tf.zeros_initializer())
        values[v] = array
        return tf.convert_to_tensor(v)

    return tf.nest.map_structure(variable, flows), values


# --- SavedModel -----------------------------------------------------------------------------------

def export_saved_model(run: str, out_dir: str) -> None:
    """Writes the model in `run`, with its averaged weights, as a SavedModel to new `out_dir`.

    run: a run of train.py, or a checkpoint. Raises UserError if it cannot be read, or `out_dir`
    cannot be written.
    """
    files.require_new_directory(out_dir)
    hp, weights = load_exportable(run)
    with errors.as_user_error('cannot write ' + out_dir, 'make room, or give another folder',
                              OSError), files.atomic_directory(out_dir) as folder:
        write_saved_model(hp, weights, folder)
    print_written(out_dir, 'a SavedModel; saved_model_cli show --all --dir %s tells its signatures'
                  % shlex.quote(out_dir), hp)


def write_saved_model(hp: HParams, weights: vocoder.Weights, folder: str) -> None:
    """Writes the SavedModel of a model to `folder`, which is empty.

    Raises OSError if it cannot be written, UserError if the weights are not those of hp.
    """
    with tf.Graph().as_default(), tf.Session(config=devices.session_config()) as session:
        # of any shape: the graph itself tells in a sentence what is wrong with one
        mel = tf.placeholder(tf.float32, None, 'mel')
        sigma = tf.placeholder(tf.float32, None, 'sigma')
        seed = tf.placeholder(tf.int64, None, 'seed')
        checked_mel = mel_check_graph.checked_mel(mel, hp)
        # one graph for both signatures: what is not given is drawn
        noise = tf.placeholder_with_default(draw_noise(sigma, seed, checked_mel, hp), None, 'noise')
        checked_noise = mel_check_graph.checked_noise(noise, checked_mel, hp)
        flows, values = as_variables(vocoder.freeze(hp, weights))
        audio = {'audio': build_vocoding(checked_mel, checked_noise, flows, hp, weights)}
        for v, array in values.items():
            session.run(v.initializer, {v.initializer.inputs[1]: array})
        signature = tf.saved_model.predict_signature_def
        signatures = {
            'serving_default': signature({'mel': mel, 'sigma': sigma, 'seed': seed}, audio),
            'from_noise': signature({'mel': mel, 'noise': noise}, audio)}
        try:
            builder = tf.saved_model.Builder(folder)
            builder.add_meta_graph_and_variables(
                session, [tf.saved_model.tag_constants.SERVING], signatures,
                strip_default_attrs=True)  # an older TensorFlow may not know all
            builder.save()
        except tf.errors.OpError as error:
            raise OSError(None, errors.reason(error)) from error
    params.save(os.path.join(folder, 'assets.extra'), hp)


# --- ONNX -----------------------------------------------------------------------------------------

def export_onnx(run: str, path: str) -> None:
    """Writes the model in `run`, with its averaged weights, as ONNX to the new file `path`.

    run: a run of train.py, or a checkpoint. Raises UserError if it cannot be read, `path` cannot be
    written, tf2onnx is missing, or `onnx_model` raises one.
    """
    files.require_new_file(path)
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError('writing ONNX takes tf2onnx: pip install -r '
                        'requirements-export.txt') from error
    hp, weights = load_exportable(run)
    model = onnx_model(hp, weights)
    with errors.as_user_error('cannot write ' + path, 'make room, or give another file',
                              OSError), files.atomic_open(path, 'wb') as f:
        f.write(model.SerializeToString())
    print_written(path, 'ONNX, opset %d: mel, noise -> audio' % OPSET, hp)


def onnx_model(hp: HParams, weights: vocoder.Weights) -> Any:
    """The model as an onnx.ModelProto: mel, noise -> audio.

    Raises UserError for a model that ONNX cannot express, or that is too large for its file.
    """
    import tf2onnx
    if hp.encoder == 'blstm':
        raise UserError("ONNX's converter does not know TensorFlow's LSTM, of encoder=blstm; "
                        'export a SavedModel')
    flows = vocoder.freeze(hp, weights)
    size = sum(x.nbytes for x in tf.nest.flatten(flows))
    if size > MAX_GRAPH_BYTES:
        raise UserError('the filters of this model take %.1f GB, of which an ONNX file holds %.1f; '
                        'export a SavedModel' % (size / 1e9, MAX_GRAPH_BYTES / 1e9))
    with tf.Graph().as_default() as graph:
        mel = tf.placeholder(tf.float32, [None, None, hp.n_mels], 'mel')
        noise = tf.placeholder(tf.float32, [None, None, hp.n_group], 'noise')
        audio = build_vocoding(mel, noise, tf.nest.map_structure(tf.constant, flows), hp, weights)
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph, opset=OPSET, input_names=[mel.name, noise.name], output_names=[audio.name],
            tensors_to_rename={x.name: x.op.name for x in (mel, noise, audio)})
    # Not all of the converter's optimizers: of two reshapes in a row, its BackToBackOptimizer drops
    # the one whose sizes the other refers to, since its ReshapeOptimizer.
    wanted = 'TransposeOptimizer ConstFoldOptimizer MergeDuplicatedNodesOptimizer IdentityOptimizer'
    optimizers = {name: getattr(tf2onnx.optimizer, name) for name in wanted.split()}
    converted = tf2onnx.optimizer.optimize_graph(converted, optimizers=optimizers)
    model = converted.make_model('waveglow')
    for value, sizes in zip(list(model.graph.input) + list(model.graph.output),
                            (['batch', 'frames'], ['batch', 'steps'], ['batch', 'samples'])):
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes):
            dim.dim_param = size
    model.metadata_props.add(key='params.json', value=params.to_json(hp))
    return model


# --- LiteRT ---------------------------------------------------------------------------------------

def export_litert(run: str, path: str, quantize: str = 'none',
                  block_frames: Optional[int] = None) -> None:
    """Writes the model in `run`, with its averaged weights, as LiteRT to the new file `path`.

    Args:
      run: a run of train.py, or a checkpoint.
      quantize: of litert.QUANTIZATIONS.
      block_frames: mel frames of a block of a stream; None for whole utterances.

    Raises UserError if the run cannot be read, `path` cannot be written, or LiteRT cannot compute
    the model.
    """
    files.require_new_file(path)
    hp, weights = load_exportable(run)
    flows = vocoder.freeze(hp, weights)
    if block_frames:
        model = litert.block_model(hp, weights, flows, block_frames, quantize)
        what = 'LiteRT: a block of %d mel frames, noise, state -> audio, state' % block_frames
    else:
        model = litert.whole_model(hp, weights, flows, build_vocoding, quantize)
        what = 'LiteRT: mel, noise -> audio'
    with errors.as_user_error('cannot write ' + path, 'make room, or give another file',
                              OSError), files.atomic_open(path, 'wb') as f:
        f.write(model)
    print_written(path, what, hp)


def load_exportable(run: str) -> Tuple[HParams, vocoder.Weights]:
    """`vocoder.load_model` of `run`. Raises UserError if its params.json is of another model."""
    hp, weights = vocoder.load_model(run)
    vocoder.require_shapes(hp, weights, run)
    return hp, weights


def print_written(path: str, what: str, hp: HParams) -> None:
    """Prints what lies at `path` and what mels and noise it takes."""
    print('%s: %s' % (path, what))
    print('It vocodes mels of profile %s at %d Hz; noise of sigma %g suits it'
          % (hp.mel_name, hp.sample_rate, hp.gen_sigma))


if __name__ == '__main__':
    command_line.run_script(main)
