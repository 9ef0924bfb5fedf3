"""How a training is run."""
import dataclasses
from typing import Optional

import glow
from training.hosts import SINGLE_HOST, Hosts


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How a training is run; what is trained, and on what batches, the hyperparameters say."""
    run_dir: str                            # folder of its checkpoints and TensorBoard events
    max_steps: int = 1000000                # it ends after so many steps in all
    restore_from: Optional[str] = None      # run or checkpoint whose weights a new run starts from
    num_towers: int = 1                     # devices that share every batch
    compute: glow.Compute = glow.Compute()  # precision, reversibility, XLA: of the training loss
    accumulate: int = 1                     # parts that a step is computed in, one after the other
    hosts: Hosts = SINGLE_HOST              # that compute every step together
    step_timeout_minutes: float = 5.0       # for which a step may wait for other hosts
    seed: int = 0                           # of the initial weights and of the choice of clips
    store_metadata: bool = False            # store traces for TensorBoard and chrome://tracing
    listen: bool = False                    # write held-out utterances that are vocoded as wavs
    check_convolution: bool = True          # refuse a device that convolves wrongly

    @property
    def batch_parts(self) -> int:
        """Equal parts that a batch is split into."""
        return self.num_towers * self.accumulate * self.hosts.num_hosts

    @property
    def batch_parts_name(self) -> str:
        """What messages call these parts."""
        name = 'parts' if self.accumulate > 1 else 'towers'
        return name + (' of %d hosts' % self.hosts.num_hosts if self.hosts.num_hosts > 1 else '')
