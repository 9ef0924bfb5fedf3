"""LiteRT files: in the interpreter they give the audio of Vocoder. Blocks also as a plain graph."""
import re
import warnings
import zipfile

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import ROOT
from graphs import TINY, VOCODING, random_weights

import devices
import export
import params
import utils
import vocoder
from errors import UserError
from interop import litert
from vocoder import Vocoder, noise

TF1 = devices.is_tensorflow_1()
needs_tensorflow_2 = pytest.mark.skipif(TF1, reason='TensorFlow 1.15 writes no such files')
STREAMED = {                        # what blocks can compute, and hops within and beyond a window
    'repeat': dict(encoder='none', upsampling='repeat'),
    'transposed': dict(encoder='none', upsampling='transposed', upsample_width=1024),
    'causal': dict(causal=True, kernel_size=2, cond_terms=3),
    'corrected': dict(gen_correction_rounds=2),
    'corrected, hifigan': dict(gen_correction_rounds=3, sample_rate=22050, mel_profile='hifigan'),
    'corrected, zeros': dict(gen_correction_rounds=1, pad_mode='constant', power=2, n_mels=40,
                             win_length=800),
    'corrected, odd hop': dict(gen_correction_rounds=1, mel_profile='rayhane', sample_rate=22050,
                               hop_length=275, cond_terms=2),
    'transposed, odd hop': dict(encoder='none', upsampling='transposed', hop_length=300,
                                n_group=16, upsample_width=900)}


def mel_of(hp, frames):
    mel = np.random.RandomState(frames).randn(frames, hp.n_mels)
    return (hp.mel_mean + hp.mel_std * mel).astype(np.float32)


def stream(run, info, mel, hp, known_from=None):
    """The audio of a mel by `run`, {input: array} -> (audio, next state), of a block each time.

    known_from: the block from which the length of the utterance is told; None for the last one.
    """
    frames, size = len(mel), info.block_frames
    z = noise(frames, hp, None, 0)
    samples, blocks, state = frames * hp.hop_length, [], np.zeros(info.state_size, np.float32)
    while sum(map(len, blocks)) < info.delay_samples + samples:
        first = len(blocks) * size
        known = first + size > frames if known_from is None else len(blocks) >= known_from
        given = []
        for values, count in ((mel, lambda n: n), (z, hp.groups)):      # beyond the end anything
            block = np.full([count(size), values.shape[1]], 7.0, np.float32)
            there = values[count(first):count(first + size)]
            block[:len(there)] = there
            given.append(block)
        audio, state = run(dict(
            mel=given[0], noise=given[1], state=state, position=np.int32(first),
            frames=np.int32(frames if known else litert.UNTIL_THE_END_IS_KNOWN)))
        blocks.append(audio)
    return np.concatenate(blocks)[info.delay_samples:][:samples]


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(STREAMED))
def test_blocks_of_one_shape_are_the_whole(name):
    hp = TINY.replace(**STREAMED[name])
    weights = random_weights(hp)
    flows, whole = vocoder.freeze(hp, weights), Vocoder(hp, weights)
    for size in (hp.cycle_frames, 16):
        with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
            graph = litert.block_graph(hp, weights, flows, size)

            def run(inputs):
                return session.run([graph.outputs['audio'], graph.outputs['next_state']], {
                    graph.inputs[key]: value for key, value in inputs.items()})

            for frames, known_from in ((1, 0), (4, None), (33, None), (33, 0)):
                mel = mel_of(hp, frames)
                expected = whole.vocode(mel)
                found = stream(run, graph.info, mel, hp, known_from)
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_the_state_does_not_grow():
    hp = TINY.replace(gen_correction_rounds=2)
    weights = random_weights(hp)
    flows = vocoder.freeze(hp, weights)
    with tf.Graph().as_default():
        sizes = [litert.block_graph(hp, weights, flows, size).info.state_size for size in (2, 50)]
    assert sizes[0] == sizes[1] < 50000


def interpreter(path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # of TensorFlow, which advises another package
        import tensorflow as tf2
        return tf2.lite.Interpreter(str(path))


def vocode_whole(path, mel, z):
    model = interpreter(path)
    for detail in model.get_input_details():
        value = mel if 'mel' in detail['name'] else z
        model.resize_tensor_input(detail['index'], value[None].shape)
    model.allocate_tensors()
    for detail in model.get_input_details():
        model.set_tensor(detail['index'], (mel if 'mel' in detail['name'] else z)[None])
    model.invoke()
    return model.get_tensor(model.get_output_details()[0]['index'])[0]


@needs_tensorflow_2
@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(set(VOCODING) - {'blstm', 'blstm_two_transposed'}))
def test_whole_utterances_have_the_audio_of_the_vocoder(name, tmp_path):
    hp = TINY.replace(**VOCODING[name])
    weights = random_weights(hp)
    path = tmp_path / 'model.tflite'
    path.write_bytes(litert.whole_model(hp, weights, vocoder.freeze(hp, weights),
                                        export.build_vocoding))
    for frames in (1, 21):
        mel = mel_of(hp, frames)
        expected = Vocoder(hp, weights).vocode(mel)
        found = vocode_whole(path, mel, noise(frames, hp, None, 0))
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@needs_tensorflow_2
@pytest.mark.slow
@pytest.mark.parametrize('quantize, most, smallest', [('none', 1e-4, 0), ('float16', 1e-2, 1e-6),
                                                      ('int8', 0.05, 1e-4)])
def test_a_file_of_blocks_in_the_interpreter(quantize, most, smallest, tmp_path):
    hp = TINY.replace(gen_correction_rounds=1, residual_channels=32)
    weights = random_weights(hp)
    path = tmp_path / 'block.tflite'
    path.write_bytes(litert.block_model(hp, weights, vocoder.freeze(hp, weights), 8, quantize))
    stored, info = litert.read_metadata(str(path))
    assert stored == hp and info.block_frames == 8
    runner = interpreter(path).get_signature_runner()

    def run(inputs):
        found = runner(**inputs)
        return found['audio'], found['next_state']

    mel = mel_of(hp, 30)
    expected = Vocoder(hp, weights).vocode(mel)
    error = np.abs(stream(run, info, mel, hp) - expected).max() / np.abs(expected).max()
    assert smallest <= error < most


@needs_tensorflow_2
@pytest.mark.slow
def test_export_writes_files_that_know_their_model(tmp_path, capsys):
    run, sizes = str(tmp_path / 'run'), {}
    hp = TINY.replace(residual_channels=128, skip_channels=64, n_flows=2)
    params.save(run, hp)
    utils.save_weights(run, random_weights(hp))
    for quantize in litert.QUANTIZATIONS:
        path = tmp_path / (quantize + '.tflite')
        export.export_litert(run, str(path), quantize)
        assert litert.read_metadata(str(path)) == (hp, None)
        with zipfile.ZipFile(str(path)) as archive:
            assert archive.namelist() == ['params.json']
        sizes[quantize] = path.stat().st_size
    assert sizes['int8'] < 0.7 * sizes['float16'] < 0.42 * sizes['none']
    assert 'LiteRT: mel, noise -> audio' in capsys.readouterr().out


def test_what_is_no_such_file_is_told(tmp_path):
    path = tmp_path / 'a.tflite'
    path.write_bytes(b'TFL3 of another program')
    with pytest.raises(UserError, match='no LiteRT file of export.py'):
        litert.read_metadata(str(path))


@pytest.mark.parametrize('changes', [VOCODING['conv'], VOCODING['blstm'],
                                     VOCODING['conv_two_transposed']])
def test_a_condition_that_looks_ahead_has_no_blocks(changes):
    hp = TINY.replace(**changes)
    with pytest.raises(UserError, match='encoder=.*export whole utterances'):
        litert.block_model(hp, {}, [], 8)


@needs_tensorflow_2
def test_an_lstm_has_no_file():
    hp = TINY.replace(**VOCODING['blstm'])
    with pytest.raises(UserError, match='export a SavedModel'):
        litert.whole_model(hp, {}, [], export.build_vocoding)


@pytest.mark.skipif(not TF1, reason='TensorFlow 2 writes them')
def test_tensorflow_1_says_that_it_writes_none():
    hp = TINY.replace(**VOCODING['repeat'])
    weights = random_weights(hp)
    with pytest.raises(UserError, match='takes TensorFlow 2'):
        litert.block_model(hp, weights, vocoder.freeze(hp, weights), 8)


@needs_tensorflow_2
@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    with open(ROOT + '/docs/export.md', encoding='utf-8') as f:
        whole_code, block_code = [code for code in re.findall(r'```python\n(.*?)```', f.read(),
                                                              flags=re.S) if 'tf.lite' in code]
    hp = TINY.replace(gen_correction_rounds=1)
    weights = random_weights(hp)
    flows = vocoder.freeze(hp, weights)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'waveglow.tflite').write_bytes(
        litert.whole_model(hp, weights, flows, export.build_vocoding))
    (tmp_path / 'block.tflite').write_bytes(litert.block_model(hp, weights, flows, 8))
    mel = mel_of(hp, 30)
    expected = Vocoder(hp, weights).vocode(mel)
    for code in (whole_code, block_code):
        known = dict(mel=mel, noise=noise(30, hp, None, 0), hop_length=hp.hop_length)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            exec(code, known)
        assert np.abs(known['audio'] - expected).max() < 1e-4 * np.abs(expected).max()
