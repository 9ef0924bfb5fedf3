"""torchfile.py on files that ptfiles.py writes: what it reads.

test_torchfile_refusals.py has it refuse all else, and test_torchfile_pytorch.py has it read the
files of PyTorch itself.
"""
import collections
import os
import random

import numpy as np
import ptfiles
import pytest
from ptfiles import Call, Name, Tensor

from errors import UserError
from interop import torchfile

SAVERS = {'zip': ptfiles.save_zip, 'legacy': ptfiles.save_legacy}
containers = pytest.mark.parametrize('save', list(SAVERS.values()), ids=list(SAVERS))
RNG = np.random.RandomState(0)


def same(tensor, array):
    read = tensor.numpy()
    assert tensor.shape == read.shape == array.shape and tensor.dtype == read.dtype == array.dtype
    assert read.flags.c_contiguous and read.tobytes() == array.tobytes()


@containers
@pytest.mark.parametrize('dtype', sorted(ptfiles.KINDS))
def test_numbers_of_every_kind(tmp_path, save, dtype):
    arrays = [RNG.randint(0, 2, shape).astype(dtype) for shape in ((), (5,), (3, 4), (0, 3))]
    save(tmp_path / 'x.pt', arrays)
    for tensor, array in zip(torchfile.load(str(tmp_path / 'x.pt')), arrays):
        same(tensor, array)


@containers
def test_views_of_one_storage(tmp_path, save):
    base = np.arange(60, dtype='f4')
    save(tmp_path / 'x.pt', {
        'transposed': Tensor(base, (5, 4), (1, 5), offset=20), 'apart': Tensor(base, (3,), (20,)),
        'one': Tensor(base, (1, 2), (1 << 47, 1), offset=58), 'last': Tensor(base, (), (), 59)})
    read = torchfile.load(str(tmp_path / 'x.pt'))
    same(read['transposed'], np.ascontiguousarray(base[20:40].reshape(4, 5).T))
    same(read['apart'], base[[0, 20, 40]])
    same(read['one'], base[None, 58:])
    same(read['last'], base[59])


@containers
def test_bfloat16_becomes_float32(tmp_path, save):
    halves = np.array([0x3f80, 0xc000, 0x0001, 0x7f80, 0xff80], 'u2')
    save(tmp_path / 'x.pt', Tensor(halves, kind='BFloat16'))
    same(torchfile.load(str(tmp_path / 'x.pt')),
         np.array([1, -2, 2.0 ** -133, np.inf, -np.inf], 'f4'))


def test_a_big_endian_archive(tmp_path):
    array, halves = np.array([1.5, -2], 'f4'), np.array([0x3f80, 0xc000], 'u2')
    ptfiles.save_zip(tmp_path / 'x.pt', [array, Tensor(halves, kind='BFloat16')], byteorder='big')
    read = torchfile.load(str(tmp_path / 'x.pt'))
    same(read[0], array)
    same(read[1], np.array([1, -2], 'f4'))
    with open(str(tmp_path / 'x.pt'), 'rb') as f:
        assert array.astype('>f4').tobytes() in f.read()


def test_a_bool_is_0_or_1_whatever_the_file_says(tmp_path):
    ptfiles.save_zip(tmp_path / 'x.pt', Tensor(np.array([0, 1, 2, 255], 'u1'), kind='Bool'))
    same(torchfile.load(str(tmp_path / 'x.pt')), np.array([False, True, True, True]))


def wave_glow():
    """(a module like NVIDIA's, with weight norm, and {key: array} of its parameters)."""
    g, v, bias, w = (RNG.randn(*shape).astype('f4') for shape in (
        (4, 1, 1), (4, 2, 3), (4,), (6, 6, 1)))
    hook = ptfiles.thing('torch.nn.utils.weight_norm.WeightNorm', {'name': 'weight', 'dim': 0})
    layer = ptfiles.module(
        'torch.nn.modules.conv.Conv1d', {'bias': bias, 'weight_g': g, 'weight_v': v},
        weight=v + 1, _forward_pre_hooks=collections.OrderedDict([(0, hook)]), padding=(1,),
        _backend=Call(Name('torch.nn.backends.thnn._get_thnn_function_backend')))
    layers = ptfiles.module('torch.nn.modules.container.ModuleList', modules={'0': layer})
    mixer = ptfiles.module('torch.nn.modules.conv.Conv1d', {'weight': w, 'bias': None},
                           {'steps': np.array(7)})
    model = ptfiles.module('glow.WaveGlow', n_flows=12, modules={
        'WN': ptfiles.module('torch.nn.modules.container.ModuleList', modules={
            '0': ptfiles.module('glow.WN', modules={'in_layers': layers}, n_layers=8)}),
        'convinv': ptfiles.module('other.Invertible1x1Conv', modules={'conv': mixer})})
    return model, collections.OrderedDict([
        ('WN.0.in_layers.0.bias', bias), ('WN.0.in_layers.0.weight_g', g),
        ('WN.0.in_layers.0.weight_v', v), ('convinv.conv.weight', w),
        ('convinv.conv.steps', np.array(7))])


@containers
def test_a_training_state_as_nvidia_saves_it(tmp_path, save):
    model, arrays = wave_glow()
    save(tmp_path / 'x.pt', {
        'model': model, 'iteration': 580000, 'learning_rate': 1e-4, 'names': {'a', 'b'},
        'frozen': frozenset('c'), 'best': np.float64(-5.1), 'seed': b'\x00\xff', 'none': None,
        'random': (3, (1, 2), None), 'device': Call(Name('torch.device'), 'cpu'),
        'size': Call(Name('torch.Size'), (4, 5)), 'dtype': Name('torch.float32'),
        'config': ptfiles.thing('argparse.Namespace', {'n_flows': 12}),
        'cuda_rng_state_all': [np.arange(16, dtype='u1')],
        'default': collections.defaultdict(dict, {94203049328688: {'step': 3}}),
        'optimizer': {'state': {94203049328688: {'exp_avg': arrays['convinv.conv.weight']}},
                      'param_groups': [{'betas': (0.9, 0.999), 'params': [94203049328688]}]}})
    read = torchfile.load(str(tmp_path / 'x.pt'))
    assert read['model'].name == 'glow.WaveGlow' and read['model'].attributes['n_flows'] == 12
    assert list(torchfile.state_dict(read['model'])) == list(arrays)
    for key, tensor in torchfile.state_dict(read['model']).items():
        same(tensor, arrays[key])
    assert {key: read[key] for key in (
        'iteration', 'learning_rate', 'names', 'frozen', 'seed', 'none', 'random', 'size', 'dtype',
        'default')} == {
        'iteration': 580000, 'learning_rate': 1e-4, 'names': {'a', 'b'}, 'frozen': {'c'},
        'seed': b'\x00\xff', 'none': None, 'random': (3, (1, 2), None), 'size': (4, 5),
        'dtype': 'torch.float32', 'default': {94203049328688: {'step': 3}}}
    assert read['config'].name == 'argparse.Namespace' and read['config'].attributes == {
        'n_flows': 12}
    assert type(read['device']) is type(read['best']) is torchfile.Module
    same(read['optimizer']['state'][94203049328688]['exp_avg'], arrays['convinv.conv.weight'])
    same(read['cuda_rng_state_all'][0], np.arange(16, dtype='u1'))


def test_pickles_of_python_2(tmp_path):
    """Its texts are bytes, which need not be UTF-8; its dictionaries come with their items."""
    pickled = (b'\x80\x02}(U\x01a]U\x04\xc3\xa9\xff\xfeaU\x01bccollections\nOrderedDict\n]]'
               b'(U\x01kI3000000000\nea\x85Ru.')
    ptfiles.write_zip(tmp_path / 'x.pt', pickled)
    assert torchfile.load(str(tmp_path / 'x.pt')) == {
        'a': ['\xe9\ufffd\ufffd'], 'b': {'k': 3000000000}}


@containers
def test_numbers_are_read_when_they_are_asked_for(tmp_path, save):
    path = str(tmp_path / 'x.pt')
    save(path, [np.arange(1000.0)])
    tensor, = torchfile.load(path)
    with open(path, 'r+b') as f:
        content = f.read()
        at = content.index(np.arange(1000.0).tobytes())
        f.seek(at)
        f.write(np.arange(1000.0)[::-1].tobytes())
    same(tensor, np.arange(1000.0)[::-1])
    os.truncate(path, at + 100)
    with pytest.raises(UserError, match='has become shorter'):
        tensor.numpy()
    os.remove(path)
    with pytest.raises(UserError, match='No such file'):
        tensor.numpy()


@pytest.mark.slow
@containers
def test_a_damaged_file_gives_a_result_or_a_sentence(tmp_path, save):
    path, rng = str(tmp_path / 'x.pt'), random.Random(0)
    model, arrays = wave_glow()
    save(path, {'model': model, 'b': Tensor(RNG.randn(12), (3, 2), (1, 4)), 'c': {'x', 2}})
    assert torchfile.load(path)['c'] == {'x', 2}
    with open(path, 'rb') as f:
        whole = f.read()
    counts = collections.Counter()
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with open(path, 'wb') as f:
            f.write(damaged)
        try:
            found = torchfile.load(path)
            if type(found) is dict and type(found.get('model')) is torchfile.Module:
                for tensor in torchfile.state_dict(found['model']).values():
                    tensor.numpy()
            counts['read'] += 1
        except UserError as error:
            assert str(error).startswith(path + ': ')
            counts['refused'] += 1
    assert min(counts['read'], counts['refused']) > 50, counts
