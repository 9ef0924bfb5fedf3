"""torchfile.py on the files of PyTorch itself, and PyTorch on those of ptfiles.py."""
import argparse
import collections
import sys
import types
import warnings

import numpy as np
import ptfiles
import pytest
import torch

from errors import UserError
from interop import torchfile

# torch.nn.utils.weight_norm is deprecated, and what NVIDIA's checkpoints were made with.
pytestmark = pytest.mark.filterwarnings('ignore:.*weight_norm:FutureWarning')
SAVERS = {'zip': {}, 'legacy': {'_use_new_zipfile_serialization': False},
          'zip, protocol 3': {'pickle_protocol': 3}}
savers = pytest.mark.parametrize('options', list(SAVERS.values()), ids=list(SAVERS))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def saved(tmp_path, obj, options):
    """What torchfile reads of `obj` as PyTorch saves it."""
    path = str(tmp_path / 'x.pt')
    torch.save(obj, path, **options)
    return torchfile.load(path)


def same(read, meant):
    """Whether torchfile read what PyTorch saved, to the bit."""
    if isinstance(meant, torch.Tensor):
        meant = meant.detach()
        array = (meant.float() if meant.dtype == torch.bfloat16 else meant).contiguous().numpy()
        assert type(read) is torchfile.Tensor
        result = read.numpy()
        assert read.shape == result.shape == array.shape
        assert read.dtype == result.dtype == array.dtype
        assert result.flags.c_contiguous and result.tobytes() == array.tobytes()
    elif isinstance(meant, torch.nn.Module):
        assert type(read) is torchfile.Module
        assert read.name == '%s.%s' % (type(meant).__module__, type(meant).__name__)
        assert read.attributes['training'] == meant.training
        same(torchfile.state_dict(read), meant.state_dict())
    elif isinstance(meant, dict):
        assert type(read) is dict and list(read) == list(meant)
        for key in meant:
            same(read[key], meant[key])
    elif isinstance(meant, (list, tuple)):
        assert type(read) is (list if isinstance(meant, list) else tuple)
        assert len(read) == len(meant)
        for a, b in zip(read, meant):
            same(a, b)
    else:
        assert type(read) is type(meant) and read == meant


TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
         torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64]


@savers
@pytest.mark.parametrize('dtype', TYPES, ids=str)
def test_numbers_of_every_kind(tmp_path, options, dtype):
    values = torch.tensor([0, 1, 2, 77.7, 120]).to(dtype)
    same(saved(tmp_path, [values, values[3], values[:0], values.reshape(5, 1)[1:4]], options),
         [values, values[3], values[:0], values.reshape(5, 1)[1:4]])


@savers
def test_every_bfloat16_and_float16(tmp_path, options):
    bits = torch.arange(-2 ** 15, 2 ** 15).to(torch.int16)
    obj = [bits.clone().view(torch.bfloat16), bits.clone().view(torch.float16)]
    same(saved(tmp_path, obj, options), obj)
    assert obj[0].isnan().sum() == 2 ** 8 - 2 and obj[1].isnan().sum() == 2 ** 11 - 2


@savers
def test_views_and_shared_storages(tmp_path, options):
    base = torch.randn(6, 7, 8)
    obj = {'base': base, 'transposed': base.permute(2, 0, 1), 'part': base[1:5:2, 3, ::3],
           'flat': base.view(-1)[5:], 'scalar': base[5, 6, 7], 'again': base,
           'empty': base[:, 7:], 'thin': base[:1, :, :1].transpose(0, 2),
           'parameter': torch.nn.Parameter(base[0].t()), 'none': torch.empty(0)}
    same(saved(tmp_path, obj, options), obj)


def weight_norm_model():
    convolution = torch.nn.utils.weight_norm(torch.nn.Conv1d(3, 4, 5, padding=2), name='weight')
    model = torch.nn.Sequential(
        convolution, torch.nn.ModuleList([torch.nn.ConvTranspose1d(4, 2, 8, stride=4, bias=False)]),
        torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        convolution.weight_g.mul_(3)        # so that the weight in __dict__ is not g v / |v|
    return model


@savers
def test_pickled_modules(tmp_path, options):
    model = weight_norm_model()
    assert '0.weight_g' in model.state_dict() and 'weight' in model[0].__dict__
    same(saved(tmp_path, {'model': model, 'iteration': 7}, options),
         {'model': model, 'iteration': 7})
    torch.nn.utils.remove_weight_norm(model[0])
    same(saved(tmp_path, model, options), model)
    same(saved(tmp_path, torch.nn.DataParallel(model), options), torch.nn.DataParallel(model))


class WN(torch.nn.Module):
    """A class whose source the legacy format keeps."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(weight_norm_model() for _ in range(2))
        self.register_parameter('none', None)
        self.register_buffer('counter', torch.tensor(3))


@savers
def test_a_class_of_a_users_own(tmp_path, options):
    model = WN()
    same(saved(tmp_path, [model, model], options), [model, model])
    if '_use_new_zipfile_serialization' in options:
        with open(str(tmp_path / 'x.pt'), 'rb') as f:
            assert b'A class whose source the legacy format keeps.' in f.read()


@savers
def test_nvidias_classes_in_a_module_that_is_not_here(tmp_path, options, monkeypatch):
    glow = types.ModuleType('glow')
    glow.WaveGlow = type('WaveGlow', (WN,), {'__module__': 'glow'})
    monkeypatch.setitem(sys.modules, 'glow', glow)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # it has no source
        read = saved(tmp_path, glow.WaveGlow(), options)
    monkeypatch.delitem(sys.modules, 'glow')
    assert read.name == 'glow.WaveGlow' and len(torchfile.state_dict(read)) == 19


@pytest.mark.slow
@savers
@pytest.mark.parametrize('optimizer', [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_a_training_state(tmp_path, options, optimizer):
    model = weight_norm_model()
    trainer = optimizer(model.parameters(), lr=1e-3)
    model[0](torch.randn(2, 3, 20)).square().sum().backward()
    trainer.step()
    obj = {'model': model.state_dict(), 'optimizer': trainer.state_dict(), 'iteration': 5,
           'learning_rate': 1e-4, 'rng': torch.get_rng_state(), 'cuda_rng_state_all': [],
           'schedule': torch.optim.lr_scheduler.StepLR(trainer, 3).state_dict()}
    del obj['schedule']['_get_lr_called_within_step']
    same(saved(tmp_path, obj, options), obj)
    saved(tmp_path, [trainer, torch.nn.DataParallel(model)], options)   # whole objects


@savers
def test_what_else_training_states_hold(tmp_path, options):
    tagged = torch.randn(3)
    tagged.comment = 'a tensor with attributes'
    parameter = torch.nn.Parameter(torch.randn(2))
    parameter.comment = 'and a parameter'
    plain = {'size': torch.Size([3, 4]), 'bytes': b'a\xff', 'text': 'h\xe9', 'none': None,
             'large': 2 ** 40, 'small': -5, 'flag': True, 'number': 2.5, 'tagged': tagged,
             'parameter': parameter, 'nested': (1, (2, [3, ()])), 'set': {1, 'a'},
             'storage': torch.arange(4, dtype=torch.uint8)}
    obj = dict(plain, arguments=argparse.Namespace(rate=22050), dtype=torch.float32,
               device=torch.device('cpu'), default=collections.defaultdict(list, a=[1]),
               frozen=frozenset([2]), numpy=np.float32(1.5), array=np.arange(3),
               complex=1 + 2j, bytearray=bytearray(b'ab'),
               storage=torch.arange(4, dtype=torch.uint8).untyped_storage())
    read = saved(tmp_path, obj, options)
    same({key: read[key] for key in plain}, plain)
    assert read['arguments'].attributes == {'rate': 22050} and read['default'] == {'a': [1]}
    assert read['frozen'] == {2} and read['dtype'] == 'torch.float32'
    assert read['bytearray'] == b'ab' and type(read['array']) is torchfile.Module


@savers
def test_what_no_checkpoint_needs_is_refused(tmp_path, options):
    for obj, words in ((torch.zeros(3).cfloat(), 'asks for torch.ComplexFloatStorage'),
                       (torch.nn.Conv1d, None), (np.random.RandomState(0), 'asks for numpy.random'),
                       (torch.zeros(2, 2).to_sparse(), 'asks for torch._utils._rebuild_sparse'),
                       (torch.zeros(1).expand(10 ** 9), 'repeats its storage'),
                       (types.SimpleNamespace(a=1), 'asks for types.SimpleNamespace')):
        if words is None:
            assert saved(tmp_path, obj, options) == 'torch.nn.modules.conv.Conv1d'
            continue
        with pytest.raises(UserError, match=words):
            saved(tmp_path, obj, options)


def test_other_protocols_and_torchscript_are_refused(tmp_path):
    for options in ({}, SAVERS['legacy']):
        with pytest.raises(UserError, match='another pickle protocol'):
            saved(tmp_path, [torch.zeros(3)], dict(options, pickle_protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')     # deprecated, and still in use
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / 'x.pt'))
    with pytest.raises(UserError, match='TorchScript'):
        torchfile.load(str(tmp_path / 'x.pt'))


@pytest.mark.parametrize('save', [ptfiles.save_zip, ptfiles.save_legacy])
def test_ptfiles_writes_what_pytorch_reads(tmp_path, save):
    """Else the tests that do without PyTorch would show nothing."""
    path, rng = str(tmp_path / 'x.pt'), np.random.RandomState(0)
    g, v, bias = (rng.randn(*shape).astype('f4') for shape in ((4, 1, 1), (4, 2, 3), (4,)))
    layer = ptfiles.module('torch.nn.modules.conv.Conv1d', {
        'weight': v, 'bias': bias}, stride=(1,), padding=(1,), dilation=(1,), groups=1,
        padding_mode='zeros')
    obj = {'arrays': [np.asarray(rng.randn(2, 3) * 50).astype(dtype) for dtype in ptfiles.KINDS],
           'view': ptfiles.Tensor(g, (2, 2), (1, 2)), 'parameter': ptfiles.parameter(g),
           'half': ptfiles.Tensor(np.array([0x3f80], 'u2'), kind='BFloat16'),
           'names': {'a'}, 'words': ['b', b'c', 1.5, None]}
    save(path, dict(obj, layers=ptfiles.module(
        'torch.nn.modules.container.ModuleList', modules={'0': layer})))
    read = torch.load(path, weights_only=False)
    for tensor, array in zip(read['arrays'], obj['arrays']):
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(read['view'].numpy(), g.reshape(2, 2).T)
    assert type(read['parameter']) is torch.nn.Parameter and read['half'].tolist() == [1]
    assert read['names'] == {'a'} and read['words'] == ['b', b'c', 1.5, None]
    assert list(read['layers'].state_dict()) == ['0.weight', '0.bias']
    x = torch.randn(1, 2, 9)
    expected = torch.nn.functional.conv1d(x, torch.tensor(v), torch.tensor(bias), padding=1)
    assert torch.equal(read['layers'][0](x), expected)
    same(torchfile.load(path)['layers'], read['layers'])
