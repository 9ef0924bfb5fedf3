"""Files and folders on any path that tf.io.gfile reads, such as gs://bucket/corpus."""
import os
import posixpath
import tempfile
from typing import Optional

import tensorflow.compat.v1 as tf

from datasets import corpus


def is_remote(path: str) -> bool:
    """Whether only tf.io.gfile knows a path."""
    return '://' in path


class local_copy:
    """A path of this machine for a file: its own, or that of a copy while the block runs."""

    def __init__(self, path: str):
        self._path = path
        self._folder: Optional[tempfile.TemporaryDirectory] = None

    def __enter__(self):
        if not is_remote(self._path):
            return self._path
        self._folder = tempfile.TemporaryDirectory()
        copy = os.path.join(self._folder.name, 'copy' + posixpath.splitext(self._path)[1])
        tf.io.gfile.copy(self._path, copy)
        return copy

    def __exit__(self, *error):
        if self._folder:
            self._folder.cleanup()


def list_folder(path: str) -> corpus.Listing:
    """corpus.list_folder, of a folder on any path that tf.io.gfile lists; it knows no links."""
    _, folders, names = next(iter(tf.io.gfile.walk(path)), (path, [], []))
    return corpus.Listing(identity=None, folders=sorted(name.rstrip('/') for name in folders),
                          links=[], names=sorted(names))
