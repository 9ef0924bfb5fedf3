"""Files whose containers torchfile.py refuses: zip archives, files before PyTorch 1.6, others.

They join the CASES of refused_pickles.py.
"""
import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import ptfiles
from ptfiles import Tensor
from refused_pickles import CASES, Attack, case  # noqa: F401, CASES is for the tests


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
