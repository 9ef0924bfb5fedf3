"""torchfile.py on files that ptfiles.py writes: what it reads, and that it refuses all else.

test_torchfile_pytorch.py has it read the files of PyTorch itself.
"""
import collections
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import ptfiles
import pytest
from conftest import ROOT
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


# --- What it reads.

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


# --- What it refuses.

CASES = {}


def case(words):
    """Enters a function, which writes a file at `path`, into CASES with words of its refusal."""
    def enter(write):
        CASES[write.__name__] = write, words
        return write
    return enter


def refused(path):
    """The sentence with which a file is refused, loaded and used as a module."""
    with pytest.raises(UserError) as error:
        torchfile.state_dict(torchfile.load(path))
    sentence = str(error.value)
    assert sentence.startswith(path + ': ') and '\n' not in sentence and '; ' in sentence
    assert len(sentence) < len(path) + 250
    return sentence


class Attack:
    """What a pickle can do: call any function with any arguments."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@case('asks for posix.system')
def system(path):
    ptfiles.save_zip(path, {'model': Attack(os.system, 'touch %s.ran' % path)})


@case('asks for posix.system')
def system_legacy(path):
    ptfiles.save_legacy(path, {'model': Attack(os.system, 'touch %s.ran' % path)})


@case('asks for builtins.eval')
def evaluated(path):
    ptfiles.save_zip(path, Attack(eval, 'open("%s.ran", "w")' % path))


@case('asks for builtins.getattr')
def attribute(path):
    ptfiles.save_zip(path, Attack(getattr, 'x', '__class__'))


@case('asks for torch.load')
def loaded_again(path):
    ptfiles.save_zip(path, Call(Name('torch.load'), 'other.pt'))


@case('asks for pickle.loads')
def unpickled_again(path):
    ptfiles.save_zip(path, Attack(pickle.loads, b'cposix\nsystem\n'))


@case('asks for runpy._run_code')
def run_module(path):
    ptfiles.save_legacy(path, Call(Name('runpy._run_code'), 'open("%s.ran", "w")' % path, {}))


@case('asks for builtins.%s...,' % (51 * 'x'))
def long_name(path):
    ptfiles.save_zip(path, Name('builtins.' + 500 * 'x'))


@case('pickle protocol')
def name_of_protocol_4(path):
    ptfiles.write_zip(path, b'\x80\x04\x8c\x08builtins\x8c\x04eval\x93.')


@case('damaged')
def name_of_protocol_4_within_2(path):
    ptfiles.write_zip(path, b'\x80\x02\x8c\x08builtins\x8c\x04eval\x93.')


@case('asks for glow.WaveGlow.__init__.__globals__')
def name_within_a_name(path):
    ptfiles.save_zip(path, Call(Name('glow.WaveGlow.__init__.__globals__')))


@case('sets attributes')
def attributes_of_a_class(path):
    ptfiles.write_zip(path, b'\x80\x02cglow\nWaveGlow\n}X\x08\x00\x00\x00__call__Nsb.')


@case('sets attributes')
def attributes_of_a_tensor(path):
    pickled, storages = ptfiles.dumps(np.zeros(3))
    ptfiles.write_zip(path, pickled[:-1] + b'}U\x05shapeK\x01sb.', storages)


@case('calls what is no function')
def call_of_a_text(path):
    ptfiles.write_zip(path, b'\x80\x02U\x17collections.OrderedDict)R.')


@case('damaged')
def extension(path):
    ptfiles.write_zip(path, b'\x80\x02\x82\x01.')


@case('damaged')
def instance_of_protocol_0(path):
    ptfiles.write_zip(path, b'\x80\x02(U\x04true' + b'iposix\nsystem\n.')


@case('damaged')
def memo_index(path):       # of 2^31, and then one that is not there
    ptfiles.write_zip(path, b'\x80\x02Nr\x00\x00\x00\x80j\x01\x00\x00\x00.')


@case('damaged')
def long_bytes(path):
    ptfiles.write_zip(path, b'\x80\x03B\xff\xff\xff\xff.')


@case('damaged')
def long_bytes_legacy(path):
    ptfiles.write_legacy(path, b'\x80\x03B\xff\xff\xff\xff.')


@case('damaged')
def longer_bytes(path):     # a terabyte
    ptfiles.write_zip(path, b'\x80\x03\x8e' + struct.pack('<Q', 1 << 40) + b'.')


@case('damaged')
def long_bytearray(path):
    ptfiles.write_zip(path, b'\x80\x03\x96' + struct.pack('<Q', 1 << 40) + b'.')


@case('damaged')
def long_frame(path):
    ptfiles.write_zip(path, b'\x80\x03\x95' + struct.pack('<Q', 1 << 40) + b'.')


@case('damaged')
def long_number(path):      # Python 3.7 takes an hour to read it
    ptfiles.write_zip(path, b'\x80\x02I' + 10000000 * b'7' + b'\n.')


@case('nests more deeply')
def deep_lists(path):
    ptfiles.write_zip(path, b'\x80\x02' + 500000 * b']' + 499999 * b'a' + b'.')


@case('nests more deeply')
def deep_tuples(path):
    ptfiles.write_zip(path, b'\x80\x02)' + 200000 * b'\x85' + b'.')


@case('nests more deeply')
def deep_modules(path):
    ptfiles.write_zip(path, b'\x80\x02' + 50000 * b'cglow\nWN\n)\x81}U\x01a' + b'N'
                      + 50000 * b'sb' + b'.')


@case('keys that')
def deep_key(path):         # its hash overflows the stack of C
    ptfiles.write_zip(path, b'\x80\x02})' + 200000 * b'\x85' + b'Ns.')


@case('keys that')
def shared_key(path):       # its hash takes 2^100 steps
    ptfiles.write_zip(path, b'\x80\x02c__builtin__\nset\n](' + b')' + 100 * b'q\x00h\x00\x86'
                      + b'e\x85R.')


@case('keys that')
def deep_member(path):
    ptfiles.write_zip(path, b'\x80\x02c__builtin__\nset\n])' + 200000 * b'\x85' + b'a\x85R.')


@case('kind that is not known')
def deep_storage_kind(path):
    ptfiles.write_zip(path, b'\x80\x02(U\x07storage)' + 200000 * b'\x85' + b'tQ.')


@case('keys that')
def deep_storage_key(path):
    with open(path, 'wb') as f:
        for content in (ptfiles.MAGIC, 1001, {}, {}):
            pickle.dump(content, f, 2)
        f.write(b'\x80\x02])' + 200000 * b'\x85' + b'a.')


@case('holds more')
def many_objects(path):
    ptfiles.write_zip(path, b'\x80\x02' + 20000000 * b'}' + b'.')


@case('holds more')
def large_pickle(path):
    ptfiles.write_zip(path, b'\x80\x02X\x00\x00\x00\x04' + bytes(1 << 26) + b'.')


@case('holds more')
def many_copies(path):      # of a list of a hundred thousand, as sets
    ptfiles.write_zip(path, b'\x80\x02c__builtin__\nset\nq\x00](' + 100000 * b'N'
                      + b'eq\x010' + 10000 * b'h\x00h\x01\x85R' + b'.')


@case('holds more')
def many_copies_of_a_text(path):
    ptfiles.write_zip(path, b'\x80\x02c_codecs\nencode\nq\x00X\x80\x96\x98\x00' + 10000000 * b'x'
                      + b'q\x010' + 10000 * b'h\x00h\x01\x85R' + b'.')


@case('holds more')
def many_copies_of_items(path):
    ptfiles.write_zip(path, b'\x80\x02ccollections\nOrderedDict\nq\x000U\x01aN\x86q\x010]('
                      + 100000 * b'h\x01' + b'eq\x020' + 10000 * b'h\x00h\x02\x85R' + b'.')


@case('holds more')
def many_tensors_of_many_arguments(path):
    pickled, storages = ptfiles.dumps(np.zeros(3))
    before, _, _ = pickled.partition(b'ccollections\nOrderedDict')
    ptfiles.write_zip(path, before + 300000 * b'N' + b'tq\xfe0' + 300000 * (
        b'h\x00h\xfeR') + b'.', storages)


@case('itself for a part, or more parts')
def modules_shared(path):   # 2^30 in all
    model = ptfiles.module('glow.WN', {'w': np.zeros(1, 'f4')})
    for _ in range(30):
        model = ptfiles.module('glow.WN', modules={'a': model, 'b': model})
    ptfiles.save_zip(path, model)


@case('itself for a part')
def module_in_itself(path):
    model = ptfiles.module('glow.WaveGlow')
    model.state['_modules']['WN'] = model
    ptfiles.save_zip(path, model)


@case('proper name')
def long_part_names(path):
    model = ptfiles.module('glow.WaveGlow', modules={1000 * 'x': ptfiles.module('glow.WN')})
    ptfiles.save_zip(path, model)


@case('does not belong')
def module_for_a_parameter(path):
    model = ptfiles.module('glow.WaveGlow', {'w': None})
    model.state['_parameters']['w'] = ptfiles.module('glow.WN')
    ptfiles.save_zip(path, model)


@case('no dictionary')
def list_for_parameters(path):
    ptfiles.save_zip(path, ptfiles.module('glow.WaveGlow', _parameters=[]))


@case('compressed')
def zip_bomb(path):         # ten gigabytes of zeros in ten megabytes
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = deflate.compress(bytes(10 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', 1024 * part + deflate.flush())
        entry, = archive.infolist()
        entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, 10 << 30
    with zipfile.ZipFile(path) as archive, archive.open('archive/data.pkl') as f:
        assert f.read(11 << 20) == bytes(11 << 20)      # a bomb indeed


def patch_zip(path, **fields):
    """Writes a tensor and has the zip's directory say something else of its numbers."""
    pickled, storages = ptfiles.dumps(np.zeros(1000))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/data/0', storages['0'].tobytes())
        for field, value in fields.items():
            setattr(archive.getinfo('archive/data/0'), field, value)


@case('compressed')
def zip_entry_said_to_be_compressed(path):
    patch_zip(path, compress_type=zipfile.ZIP_DEFLATED)


@case('compressed')
def zip_entry_of_two_sizes(path):   # as encrypted ones have
    patch_zip(path, compress_size=8012)


@case('overlap')
def zip_entries_overlap(path):
    patch_zip(path, header_offset=0)


@case('overlap')
def zip_entry_beyond_the_end(path):
    patch_zip(path, file_size=8001, compress_size=8001)


@case('damaged')
def zip_entry_far_away(path):
    patch_zip(path, header_offset=1 << 40)


@case('damaged or cut off')
def zip_cut_off(path):
    ptfiles.save_zip(path, np.zeros(1000))
    os.truncate(path, os.path.getsize(path) // 2)


@case('without a data.pkl')
def zip_without_a_pickle(path):
    ptfiles.write_zip(path, None)


@case('damaged')
def zip_of_many_entries(path):
    with open(path, 'wb') as f:
        entry = struct.pack('<4s4B4HL2L5H2L', b'PK\1\2', 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
                            0, 0, 0, 0, 0) + b'x'
        f.write(1000000 * entry)
        f.write(struct.pack('<4s4H2LH', b'PK\5\6', 0, 0, 65535, 65535, 1000000 * len(entry), 0, 0))
        f.seek(0)
        f.write(b'PK')


@case('TorchScript')
def torchscript(path):
    ptfiles.save_zip(path, np.zeros(3), entries={
        'archive/constants.pkl': b'\x80\x02).', 'archive/code/__torch__.py': b''})


@case('is not a file that PyTorch saved')
def empty(path):
    open(path, 'w').close()


@case('is not a file that PyTorch saved')
def text(path):
    with open(path, 'w') as f:
        f.write('<!doctype html><title>Too many downloads</title>' * 100)


@case('is not a file that PyTorch saved')
def another_pickle(path):
    with open(path, 'wb') as f:
        pickle.dump({'state_dict': Attack(os.system, 'touch %s.ran' % path)}, f, 2)


@case('not a regular file')
def directory(path):
    os.mkdir(path)


@case('not a regular file')
def fifo(path):
    os.mkfifo(path)


@case('no such file')
def missing(path):
    pass


@case('0.1.10')
def tar(path):
    with tarfile.open(path, 'w') as archive:
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


@case('damaged or cut off')
def legacy_cut_off_in_the_pickle(path):
    ptfiles.save_legacy(path, {str(i): np.zeros(3) for i in range(20)})
    os.truncate(path, 700)


@case('cut off in its numbers')
def legacy_cut_off_in_the_numbers(path):
    ptfiles.save_legacy(path, np.zeros(1000))
    os.truncate(path, os.path.getsize(path) - 1)


@case('damaged or cut off')
def legacy_cut_off_before_the_numbers(path):
    ptfiles.save_legacy(path, np.zeros(1000))
    os.truncate(path, os.path.getsize(path) - 8001)


@case('is not a file that PyTorch saved')
def legacy_of_wrong_magic(path):
    ptfiles.write_legacy(path, pickle.dumps({}, 2), magic=ptfiles.MAGIC + 1)


@case('a version of PyTorch not known')
def legacy_of_another_protocol(path):
    ptfiles.write_legacy(path, pickle.dumps({}, 2), protocol=1002)


@case('does not hold the numbers')
def legacy_without_numbers(path):
    ptfiles.write_legacy(path, ptfiles.dumps(np.zeros(3), legacy=True)[0])


@case('damaged')
def legacy_with_numbers_of_none(path):
    ptfiles.write_legacy(path, pickle.dumps({}, 2), {'1': np.zeros(3)})


@case('two sizes of storage')
def legacy_storage_of_two_sizes(path):
    array = np.zeros(3)
    ptfiles.save_legacy(path, [array, Tensor(array, count=4)])


@case('of 32 bytes, which its pickle asks for')
def count_disagrees(path):
    ptfiles.save_zip(path, Tensor(np.zeros(3), count=4))


@case('of 32 bytes, which its pickle asks for')
def count_disagrees_legacy(path):
    ptfiles.save_legacy(path, Tensor(np.zeros(3), count=4))


@case('shape 3 x 4 that reaches beyond its storage of 11')
def tensor_beyond_its_storage(path):
    ptfiles.save_zip(path, Tensor(np.zeros(11), (3, 4), (4, 1)))


@case('reaches beyond')
def tensor_beyond_its_storage_by_its_offset(path):
    ptfiles.save_legacy(path, Tensor(np.zeros(12), (3, 4), (4, 1), offset=1))


@case('reaches beyond its storage of 1 values')
def tensor_beyond_its_storage_of_bytes(path):
    ptfiles.save_zip(path, Call(
        Name('torch._utils._rebuild_tensor_v3'), Tensor(np.zeros(8, 'u1'), kind='storage.Untyped'),
        0, (2,), (1,), False, {}, Name('torch.uint64')))


@case('repeats its storage of 4')
def expanded(path):         # a terabyte
    ptfiles.save_zip(path, Tensor(np.zeros(4), (1 << 37,), (0,)))


@case('no count')
def negative_size(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), (-1, 2), (2, 1)))


@case('no count')
def negative_stride(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), (4,), (-1,), offset=3))


@case('no count')
def negative_offset(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), (4,), (1,), offset=-1))


@case('no count')
def huge_count(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), count=1 << 1000))


@case('no count')
def size_of_a_fraction(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), (2.0, 2), (2, 1)))


@case('repeats')
def huge_nothing(path):     # more than NumPy counts, though none
    ptfiles.save_zip(path, Tensor(np.zeros(4), (0, 1 << 40, 1 << 40), (1, 1, 1)))


@case('a form that is not known')
def many_dimensions(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), 40 * (1,), 40 * (1,)))


@case('a form that is not known')
def fewer_strides_than_dimensions(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), (2, 2), (1,)))


@case('a form that is not known')
def storage_with_gaps(path):
    ptfiles.save_zip(path, Call(Name('torch._utils._rebuild_tensor'),
                                Tensor(np.zeros(9), (3,), (3,)), 0, (3,), (1,)))


@case('a form that is not known')
def negated_view(path):
    ptfiles.save_zip(path, Call(Name('torch._utils._rebuild_tensor_v2'), np.zeros(3), 0, (3,), (1,),
                                False, {}, {'neg': True}))


@case('no storage ../../passwd of 32 bytes')
def key_of_another_place(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), key='../../passwd'))


@case('asks for torch.QInt8Storage')
def unknown_storage(path):
    ptfiles.save_zip(path, Tensor(np.zeros(4), kind='QInt8'))


@case('a storage within another')
def part_of_a_storage(path):
    pickled, storages = ptfiles.dumps(np.zeros(4), legacy=True)
    assert pickled.count(b'K\x04Nt') == 1     # the persistent id ends in None, for no part
    ptfiles.write_legacy(path, pickled.replace(b'K\x04Nt', b'K\x04U\x017K\x01K\x02\x87t'), storages)


@case('kind that is not known')
def name_for_a_storage(path):
    ptfiles.write_zip(path, b'\x80\x02(U\x07storagectorch\nfloat32\nU\x010U\x03cpuK\x04tQ.')


@case('asks for torch._utils._rebuild_qtensor')
def quantized(path):
    ptfiles.save_zip(path, Call(Name('torch._utils._rebuild_qtensor'), np.zeros(4)))


@pytest.mark.parametrize('name', sorted(CASES))
def test_refused(tmp_path, name):
    write, words = CASES[name]
    path = str(tmp_path / 'x.pt')
    write(path)
    assert words in refused(path)
    assert sorted(os.listdir(str(tmp_path))) in ([], ['x.pt'])      # and not x.pt.ran


# Prints {path: what loading it raised} of the paths it is given.
CONFINED = '''
import json, resource, sys
from interop import torchfile
with open('/proc/self/statm') as f:
    taken = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30),) * 2)
raised = {}
for path in sys.argv[1:]:
    try:
        torchfile.state_dict(torchfile.load(path))
    except BaseException as error:
        raised[path] = [type(error).__name__, str(error)]
json.dump(raised, sys.stdout)
assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='limits memory as Linux does')
def test_all_of_it_within_a_gigabyte_and_two_minutes(tmp_path):
    paths = {str(tmp_path / name): words for name, (_, words) in CASES.items()}
    for path in paths:
        CASES[os.path.basename(path)][0](path)
    done = subprocess.run([sys.executable, '-c', CONFINED] + sorted(paths), cwd=ROOT, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.returncode, done.stderr) == (0, '')
    raised = json.loads(done.stdout)
    for path, words in paths.items():
        kind, sentence = raised[path]
        assert kind == 'UserError' and words in sentence, sentence


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
