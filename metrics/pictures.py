"""Pictures of spectrograms."""
import io
from typing import List, Tuple

import numpy as np


def spectrogram_png(rows: List[Tuple[str, np.ndarray]]) -> bytes:
    """A PNG of mel spectrograms, one above the other, for comparing by eye.

    Args:
      rows: [(title, mel [frames, n_mels])]. All share one colour scale, that of the first.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 2.2 * len(rows)), dpi=80)
    canvas = FigureCanvasAgg(figure)
    low, high = np.percentile(rows[0][1], [1, 99.9])
    for i, (title, mel) in enumerate(rows):
        axes = figure.add_subplot(len(rows), 1, i + 1)
        axes.imshow(np.asarray(mel).T, origin='lower', aspect='auto', vmin=low, vmax=high,
                    interpolation='nearest', cmap='magma')
        axes.set_title(title, fontsize=9, loc='left')
        axes.set_ylabel('mel band', fontsize=8)
        axes.tick_params(labelsize=7)
    axes.set_xlabel('frame', fontsize=8)
    figure.tight_layout()
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()
