"""The losses of a run as a picture beside its checkpoints."""
import os
from typing import Dict

import files
from metrics import pictures
from training import events

FILE_NAME = 'losses.png'
PANELS = {'negative log-likelihood, nats a sample': {'training': 'train/nll',
                                                     'held out': 'heldout/nll'},
          'STFT distance of samples': {'training': 'train/stft'}}


class LossCurve:
    """Collects the losses that TensorBoard gets, and draws them."""

    def __init__(self, run_dir: str, first_step: int):
        """Reads those of `run_dir` up to `first_step`: later ones are of steps that were lost."""
        self.path = os.path.join(run_dir, FILE_NAME)
        stored = events.read_scalars(run_dir, [tag for curves in PANELS.values()
                                               for tag in curves.values()])
        self._losses = {tag: {step: value for step, value in losses.items() if step <= first_step}
                        for tag, losses in stored.items()}
        self._is_new = True     # whether there is what is not yet drawn

    def add(self, values: Dict[str, float], step: int) -> None:
        """Adds those of `values`, {tag: value}, that are drawn."""
        for tag in set(values) & set(self._losses):
            self._losses[tag][step] = float(values[tag])
            self._is_new = True

    def write(self) -> None:
        """Writes the picture if there are losses that it lacks. Raises OSError."""
        if not self._is_new:
            return
        panels = {title: {name: self._losses[tag] for name, tag in curves.items()
                          if any(self._losses[tag].values())}       # an unused distance is 0
                  for title, curves in PANELS.items()}
        panels = {title: curves for title, curves in panels.items() if curves}
        if panels:
            with files.atomic_open(self.path, 'wb') as f:
                f.write(pictures.losses_png(panels))
        self._is_new = False
