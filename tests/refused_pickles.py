"""Files whose pickles torchfile.py refuses: functions that write one, with words of the refusal."""
import os
import pickle
import struct

import numpy as np
import ptfiles
from ptfiles import Call, Name, Tensor

CASES = {}


def case(words):
    """Enters a function, which writes a file at `path`, into CASES with words of its refusal."""
    def enter(write):
        CASES[write.__name__] = write, words
        return write
    return enter


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


@case('asks for subprocess.Popen, which no model or mel needs; it may be an attack')
def class_called(path):
    ptfiles.save_zip(path, Call(Name('subprocess.Popen'), ['touch', path + '.ran']))


@case('asks for subprocess.Popen, which no model or mel needs; it may be an attack')
def class_named(path):
    ptfiles.save_zip(path, [Name('subprocess.Popen')])


@case('asks for env.AttrDict, which no model or mel needs; it may be an attack')
def object_that_is_no_module(path):
    ptfiles.write_zip(path, b'\x80\x02cenv\nAttrDict\n)\x81U\x01aK\x01s.')


@case('asks for code.Console, which no model or mel needs; it may be an attack')
def module_of_a_class_called(path):
    ptfiles.save_zip(path, [ptfiles.module('code.Console'), Call(Name('code.Console'), 'x')])


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
