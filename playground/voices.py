"""The models that a page offers, and those of them that are loaded."""
import collections
import os
import re
import threading
from typing import Dict, List

import errors
import params
import utils
from datasets import mel_transform
from errors import UserError
from params import HParams
from vocoder import Vocoder

BUNDLED = 'bundled voice'
NEWEST, BEST = 'newest', 'best'
LOADED = 2              # vocoders that are kept; one of preset `weixsong` takes a gigabyte


class Voices:
    """Models by the names that a page shows: of a run, and of one of its checkpoints.

    The checkpoints are those that are there at the time of asking, for a run may go on.

    Args:
      paths: runs of train.py, folders of runs, or checkpoints.

    Raises UserError for a path with none of them.
    """

    def __init__(self, paths: List[str]):
        self._paths: Dict[str, str] = {}
        for path in paths:
            for found in _runs(path):
                bundled = os.path.realpath(found) == os.path.realpath(utils.BUNDLED_MODEL)
                self._paths[BUNDLED if bundled else found] = found
        self._loaded: 'collections.OrderedDict[tuple, Vocoder]' = collections.OrderedDict()
        self._lock = threading.Lock()

    @property
    def runs(self) -> List[str]:
        """Names of the runs."""
        return list(self._paths)

    def checkpoints(self, run: str) -> List[str]:
        """Names of the checkpoints of a run, the newest first; UserError for an unknown run."""
        path = self._run(run)
        if not os.path.isdir(path):
            return [os.path.basename(path)]
        steps = [_name(found) for found in reversed(utils.complete_checkpoints(path))]
        best = [BEST] if utils.has_checkpoint(os.path.join(path, BEST)) else []
        return [NEWEST] + best + (steps if len(steps) > 1 else [])

    def hparams(self, run: str, checkpoint: str) -> HParams:
        """Of a model; UserError if there is none."""
        return params.load(os.path.dirname(self._checkpoint(run, checkpoint)))

    def vocoder(self, run: str, checkpoint: str) -> Vocoder:
        """The model of a checkpoint; UserError if there is none, or it cannot be loaded."""
        path = self._checkpoint(run, checkpoint)
        key = path, os.path.getmtime(path + '.index')
        with self._lock:
            if key not in self._loaded:
                while len(self._loaded) >= LOADED:
                    self._loaded.popitem(last=False)[1].close()
                self._loaded[key] = _load(path)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _run(self, run):
        if run not in self._paths:
            raise UserError('there is no run %s; %s' % (run, errors.nearest(run, self._paths)))
        return self._paths[run]

    def _checkpoint(self, run, checkpoint):
        """The path of a checkpoint."""
        path = self._run(run)
        if not os.path.isdir(path) or checkpoint == NEWEST:
            return utils.find_checkpoint(path)
        if checkpoint == BEST:
            return utils.find_checkpoint(os.path.join(path, BEST))
        for found in utils.complete_checkpoints(path):
            if _name(found) == checkpoint:
                return found
        raise UserError('%s has no checkpoint %s; %s' % (
            run, checkpoint, errors.nearest(checkpoint, self.checkpoints(run))))


def _load(path):
    vocoder = Vocoder.load(path)
    # a first run is slow, for it compiles: the flow of a whole chunk, and what comes after it
    vocoder.vocode(mel_transform.silence(2 * vocoder.chunk_frames + 1, vocoder.hp.mel))
    return vocoder


def _runs(path):
    """The runs that a path means: itself, or those in it."""
    if os.path.isdir(path) and not utils.has_checkpoint(path):
        folders = sorted(os.path.join(path, name) for name in os.listdir(path))
        found = [folder for folder in folders if utils.has_checkpoint(folder)]
        if found:
            return found
    utils.find_checkpoint(path)     # which tells if there is none
    return [path]


def _name(path):
    """What a page calls a checkpoint: 'step 4000' of model.ckpt-4000."""
    return re.sub(r'^model\.ckpt-(\d+)$', r'step \1', os.path.basename(path))
