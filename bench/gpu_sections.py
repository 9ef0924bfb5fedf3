"""What `bench.gpu` measures: one generator of rows for each section."""
import functools
import itertools
import os
import runpy
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

import devices
import files
import glow
import ops
import params
import utils
from bench import bench_training
from bench.bench_inference import random_weights
from datasets import audio_files, mel_transform, preprocessing
from datasets.sources import FileData
from interop import nvidia
from params import HParams
from training import convolution_check, towers
from training.graph import build_training_graph
from vocoder import Vocoder, load_model

Row = Dict[str, Any]
WAVS = os.path.join(files.ROOT, 'samples', 'wavs')


class Setting(NamedTuple):
    """How large what is measured is."""
    presets: List[str]          # of inference and training
    hparams: str                # that change them
    seconds: float              # of the mels that are vocoded
    batches: List[int]          # of utterances
    blocks: List[int]           # groups of a block of a stream
    repeats: int
    code: Optional[str]         # glow.py of NVIDIA's repository


FULL = Setting(['nvidia', 'small', 'weixsong'], '', 10.0, [1, 8, 32], [2048, 8192, 32768], 5, None)
SMALL = Setting(['small'], 'n_flows=2,n_layers=2,residual_channels=8,skip_channels=8,'
                'n_early_every=1,clip_samples=4096,batch_size=2', 0.5, [2], [512], 1, None)


def hyperparameters(preset: str, setting: Setting) -> HParams:
    return params.override(params.preset(preset), setting.hparams)


def device_name() -> str:
    """What TensorFlow calls the device that is measured."""
    gpus = tf.config.experimental.list_physical_devices('GPU')
    if not gpus:
        return 'no GPU'
    if devices.is_tensorflow_1():
        from tensorflow.python.client import device_lib
        return [d.physical_device_desc for d in device_lib.list_local_devices()
                if d.device_type == 'GPU'][0]
    details = tf.config.experimental.get_device_details(gpus[0])
    return '%d x %s, compute capability %d.%d' % (
        (len(gpus), details.get('device_name', 'GPU')) + tuple(details['compute_capability']))


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """The median of the time that `run` takes, after two runs for what is done once."""
    spent = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        run()
        spent.append(time.perf_counter() - started)
    return float(np.median(spent[2:]))


def reset_device_memory() -> None:
    if devices.has_gpu() and not devices.is_tensorflow_1():
        tf.config.experimental.reset_memory_stats('GPU:0')


def device_mb() -> float:
    """The most memory of the GPU since `reset_device_memory`, in MB; 0 where it cannot be told."""
    if not devices.has_gpu() or devices.is_tensorflow_1():
        return 0.0
    return tf.config.experimental.get_memory_info('GPU:0')['peak'] / 1e6


# --- Is it right? ---------------------------------------------------------------------------------

def convolution(setting: Setting) -> Iterator[Row]:
    """Does each form of the dilated convolution do what it should?"""
    hp = params.preset('weixsong')
    for form in ops.CONV_FORMS:
        fault = convolution_check.find_fault(
            functools.partial(ops.dilated_conv, form=form), devices.tower_devices(1)[0],
            devices.session_config(), [2 ** i for i in range(hp.n_layers)])
        yield dict(form=form, result=fault or 'right')


def accuracy(setting: Setting) -> Iterator[Row]:
    """Errors against float64 on the CPU, of the bundled voice on a second of speech.

    loss: relative. gradients: the norm of the difference over the norm, all variables together.
    inverse: of the audio, from its own z in float64, over its peak, the largest.
    """
    hp, weights = load_model(utils.BUNDLED_MODEL)
    if setting.hparams:
        hp = hyperparameters(setting.presets[0], setting)
        weights = random_weights(hp)
    audio, mel = _speech(hp)
    exact = _computed(audio, mel, hp, weights, tf.float64, '/device:CPU:0')
    for precision in _precisions(16):
        found = _computed(audio, mel, hp, weights, tf.float32, devices.tower_devices(1)[0],
                          precision, exact.z)
        yield dict(precision=precision, loss=abs(found.loss - exact.loss) / abs(exact.loss),
                   gradients=_distance(found.gradients, exact.gradients),
                   inverse=float(np.abs(found.audio - audio).max() / np.abs(audio).max()))


class _Computed(NamedTuple):
    loss: float
    gradients: List[np.ndarray]
    z: np.ndarray
    audio: np.ndarray       # of z


def _speech(hp):
    audio = audio_files.read_wav(os.path.join(WAVS, 'tt-weasels.wav'), 16000)
    audio = audio[:16000 // hp.hop_length * hp.hop_length]
    mel = mel_transform.mel_spectrogram(audio, hp.mel)[:len(audio) // hp.hop_length]
    return audio[:len(mel) * hp.hop_length], mel


def _computed(audio, mel, hp, weights, dtype, device, precision='float32', z=None):
    """The _Computed of a model; `audio` is the inverse of z, of its own z without one."""
    with tf.Graph().as_default(), tf.device(device):
        # fed: the graph optimizer would compute on the CPU what depends on constants alone
        feeds = {tf.placeholder(dtype, (1,) + x.shape): x[None] for x in (audio, mel)}
        audio, mel = feeds
        given = {name: tf.constant(value, dtype) for name, value in weights.items()}
        with ops.frozen(given):
            compute = glow.Compute(precision)
            loss = glow.loss(audio, mel, hp, compute).total
            z_own = glow.encode(audio, mel, hp)
            z_in = z_own
            if z is not None:
                z_in = tf.placeholder(dtype, z.shape)
                feeds[z_in] = z
            inverse = glow.infer(z_in, mel, hp, compute=compute)
        gradients = tf.gradients(loss, list(given.values()))
        with tf.Session(config=devices.session_config()) as session:
            return _Computed(*session.run([loss, gradients, z_own, inverse[0]], feeds))


def _distance(found, exact):
    a, b = (np.concatenate([np.ravel(g).astype(np.float64) for g in each])
            for each in (found, exact))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# --- How fast does it vocode? ---------------------------------------------------------------------

def stream(setting: Setting) -> Iterator[Row]:
    """One utterance at a time: `Vocoder`, in blocks, without mel correction."""
    for preset, precision in _presets_and_precisions(setting):
        hp = hyperparameters(preset, setting)
        weights = random_weights(hp)
        for groups in setting.blocks:
            frames = max(1, groups * hp.n_group // hp.hop_length)
            vocoder = Vocoder(hp, weights, precision, frames)
            mel = _random_mel(hp, setting.seconds)
            reset_device_memory()
            seconds = median_seconds(lambda: vocoder.vocode(mel, mel_correction=0),
                                     setting.repeats)
            yield dict(preset=preset, precision=precision, block_frames=frames,
                       khz=len(mel) * hp.hop_length / seconds / 1e3,
                       real_time_factor=seconds * hp.sample_rate / len(mel) / hp.hop_length,
                       device_mb=device_mb())
            vocoder.close()


def batch(setting: Setting) -> Iterator[Row]:
    """Whole utterances in batches: the graph alone, with and without XLA."""
    xlas = [False] if devices.is_tensorflow_1() else [False, True]
    for xla in xlas:
        for preset, precision in _presets_and_precisions(setting):
            hp = hyperparameters(preset, setting)
            for row in _batch_rows(hp, precision, xla, setting):
                yield dict(preset=preset, precision=precision, xla='on' if xla else 'off', **row)


def _batch_rows(hp, precision, xla, setting):
    weights, mel = random_weights(hp), _random_mel(hp, setting.seconds)
    z = np.random.RandomState(0).randn(hp.groups(len(mel)), hp.n_group) * hp.gen_sigma
    with tf.Graph().as_default(), tf.device(devices.tower_devices(1)[0]):
        with ops.frozen(weights):
            def infer(z, mel):
                return glow.infer(z, mel, hp, compute=glow.Compute(precision))
            z_in, mel_in = (tf.placeholder(tf.float32, (None,) + x.shape) for x in (z, mel))
            audio = (tf.function(infer, jit_compile=True) if xla else infer)(z_in, mel_in)
        with tf.Session(config=devices.session_config()) as session:
            for n in setting.batches:
                def vocode(n=n):
                    return session.run(audio, {z_in: np.stack([z] * n),
                                               mel_in: np.stack([mel] * n)})
                reset_device_memory()
                started = time.perf_counter()
                vocode()
                first = time.perf_counter() - started
                seconds = median_seconds(vocode, setting.repeats)
                yield dict(batch=n, khz=n * len(mel) * hp.hop_length / seconds / 1e3,
                           first_seconds=first, device_mb=device_mb())


def nvidia_code(setting: Setting) -> Iterator[Row]:
    """The same in NVIDIA's own code, in PyTorch, where both are at hand (--code)."""
    import torch
    hp = hyperparameters('nvidia', setting)
    state, config = nvidia.to_state_dict(hp, random_weights(hp))
    mel = torch.from_numpy(_random_mel(hp, setting.seconds).T[None].copy()).float()
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        setattr(torch.cuda, 'FloatTensor', torch.FloatTensor)   # the code asks for it by name
    model = runpy.run_path(str(setting.code))['WaveGlow'](**config)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
    model = model.remove_weightnorm(model).eval()
    for precision, n in itertools.product(['float32', 'float16'][:2 if on_gpu else 1],
                                          setting.batches):
        mels = mel.repeat(n, 1, 1)
        if on_gpu:
            model, mels = model.cuda(), mels.cuda()
        if precision == 'float16':
            model, mels = model.half(), mels.half()
            for convinv in model.convinv:       # which keeps its inverse of before
                if hasattr(convinv, 'W_inverse'):
                    del convinv.W_inverse

        def vocode(mels=mels):
            with torch.no_grad():
                return model.infer(mels, sigma=0.6).cpu()

        seconds = median_seconds(vocode, setting.repeats)
        yield dict(precision=precision, batch=n,
                   khz=n * mel.shape[2] * hp.hop_length / seconds / 1e3)


def _precisions(bits=32):
    """Those that a device has; on a CPU, where float16 is slow, those of so many bits or more.

    The device is set to each as it is read.
    """
    for precision in ['float32', 'tf32', 'float16', 'bfloat16']:
        size = 8 * glow.PRECISIONS[precision].size
        if size < bits and not devices.has_gpu() or precision == 'tf32' and not devices.has_gpu():
            continue
        if precision in ('tf32', 'bfloat16') and devices.is_tensorflow_1():
            continue
        devices.allow_tf32(precision == 'tf32')
        yield precision


def _presets_and_precisions(setting):
    for preset in setting.presets:
        for precision in _precisions():
            yield preset, precision


def _random_mel(hp, seconds):
    frames = max(2, int(seconds * hp.sample_rate / hp.hop_length))
    rng = np.random.RandomState(0)
    return (hp.mel_mean + hp.mel_std * rng.randn(frames, hp.n_mels)).astype(np.float32)


# --- How fast does it train? ----------------------------------------------------------------------

def training(setting: Setting) -> Iterator[Row]:
    """A step, on clips of noise, and its memory."""
    ways = [('off', False), ('gates', False), ('off', True)]
    if devices.is_tensorflow_1():
        ways.remove(('gates', False))
    for xla, reversible in ways:
        for preset, precision in _presets_and_precisions(setting):
            reset_device_memory()
            row = bench_training.measure(preset, setting.hparams, precision, xla, reversible,
                                         setting.repeats, profile=False)
            yield dict({name: row[name] for name in (
                'preset', 'precision', 'xla', 'step_seconds', 'audio_seconds_a_second',
                'first_step_seconds')}, reversible='yes' if reversible else 'no',
                device_mb=device_mb())


def pipeline(setting: Setting) -> Iterator[Row]:
    """A step's time with clips from files over that with one clip again and again; towers."""
    hp = hyperparameters('small', setting)
    gpus = len(tf.config.experimental.list_physical_devices('GPU'))
    with tempfile.TemporaryDirectory() as folder:
        summary = preprocessing.preprocess(WAVS, os.path.join(folder, 'mels'), folder, hp,
                                           test_size=2)
        source = FileData(os.path.join(folder, 'train.scp'), summary.wave_dir,
                          os.path.join(folder, 'mels'), None).open(hp)
        seconds = _step_seconds(hp, lambda *start: bench_training.noise_clips(hp), 1, setting)
        from_files = _step_seconds(hp, source.training_clips, 1, setting)
        yield dict(clips='from files', towers=1, step_seconds=from_files,
                   over_one_clip=from_files / seconds)
        count = min(2, gpus) if gpus else 2
        if count > 1:
            both = _step_seconds(hp, source.training_clips, count, setting)
            yield dict(clips='from files', towers=count, step_seconds=both,
                       over_one_clip=both / seconds)


def _step_seconds(hp, clips, count, setting):
    with tf.Graph().as_default():
        graph = build_training_graph(hp, clips, None, devices.tower_devices(count),
                                     towers.compute_options())
        with tf.Session(config=devices.session_config(count)) as session:
            session.run(tf.global_variables_initializer())
            session.run(graph.clips_iterator.initializer)
            return median_seconds(lambda: session.run(graph.step), 4 * setting.repeats)


SECTIONS: Dict[str, Callable[[Setting], Iterator[Row]]] = {
    'convolution': convolution, 'accuracy': accuracy, 'batch': batch, 'training': training,
    'stream': stream, 'nvidia_code': nvidia_code, 'pipeline': pipeline}
