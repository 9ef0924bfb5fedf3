"""What the shapes of another project's weights say about the hyperparameters of a model here."""
from typing import Sequence, Tuple

from errors import UserError


def early_outputs(channels: Sequence[int]) -> Tuple[int, int]:
    """(n_early_every, n_early_size) of a flow from the channels that each of its steps works on.

    Without an early output they are (len(channels), 0). Raises UserError for another pattern than
    that of `HParams.flow_channels`.
    """
    every = next((k for k, c in enumerate(channels) if c != channels[0]), len(channels))
    size = channels[0] - channels[every] if every < len(channels) else 0
    for k, c in enumerate(channels):
        if c != channels[0] - size * (k // every):
            raise UserError('its flows work on %s channels, and no model here has early outputs '
                            'of several sizes or at several intervals; take another checkpoint'
                            % ', '.join(map(str, channels[:20])))
    return every, size
