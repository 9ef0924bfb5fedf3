"""Pictures of spectrograms and of losses."""
import io
from typing import Dict, List, Tuple

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
    levels = colour_range(rows[0][1])
    for i, (title, mel) in enumerate(rows):
        axes = figure.add_subplot(len(rows), 1, i + 1)
        _draw(axes, mel, levels)
        axes.set_title(title, fontsize=9, loc='left')
        axes.set_ylabel('mel band', fontsize=8)
        axes.tick_params(labelsize=7)
    axes.set_xlabel('frame', fontsize=8)
    _set_margins(figure, len(rows), left=0.55)
    return _png(canvas)


def colour_range(mel: np.ndarray) -> Tuple[float, float]:
    """The values of a mel [frames, n_mels] that are drawn darkest and brightest."""
    low, high = np.percentile(mel, [1, 99.9])
    return float(low), float(high)


def panel_png(mel: np.ndarray, levels: Tuple[float, float], frame_seconds: float) -> bytes:
    """A PNG of one mel spectrogram [frames, n_mels] over seconds, to stand beside others.

    levels: as `colour_range` gives them, the same for all that stand together.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(6, 3), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.07, 0.13, 0.92, 0.84))
    _draw(axes, mel, levels, (0, len(mel) * frame_seconds, 0, np.shape(mel)[1]))
    axes.set_xlabel('seconds', fontsize=8, labelpad=1)
    axes.set_ylabel('mel band', fontsize=8, labelpad=2)
    axes.tick_params(labelsize=8)
    return _png(canvas)


def _draw(axes, mel, levels, extent=None):
    axes.imshow(np.asarray(mel).T, origin='lower', aspect='auto', vmin=levels[0], vmax=levels[1],
                interpolation='nearest', cmap='magma', extent=extent)


def losses_png(panels: Dict[str, Dict[str, Dict[int, float]]]) -> bytes:
    """A PNG of losses over training steps, one panel above the other.

    Args:
      panels: {title: {name of a curve: {step: loss}}}. The first losses of a training are far above
        the rest: the vertical axis covers those after the first tenth of the steps.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 3.2 * len(panels)), dpi=80)
    canvas = FigureCanvasAgg(figure)
    for i, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(len(panels), 1, i + 1)
        for name, losses in curves.items():
            steps = sorted(losses)
            axes.plot(steps, [losses[step] for step in steps], label=name, linewidth=1.2,
                      marker='.' if len(steps) < 50 else None)
        axes.set_ylim(*_range_after_the_start(curves))
        axes.set_title(title, fontsize=9, loc='left')
        axes.set_xlabel('step', fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _set_margins(figure, len(panels), left=0.6)
    return _png(canvas)


def _range_after_the_start(curves):
    """(bottom, top) of the axis of a panel of `losses_png`."""
    last = max(step for losses in curves.values() for step in losses)
    later = [value for losses in curves.values() for step, value in losses.items()
             if step >= last / 10]
    low, high = min(later), max(later)
    margin = 0.1 * (high - low) or 0.1 * abs(low) or 1.0
    return low - margin, high + margin


def _set_margins(figure, rows, left):
    """Sets margins in inches. figure.tight_layout would take as long as the drawing."""
    width, height = figure.get_size_inches()
    top, bottom, between = 0.3, 0.5, 0.6
    inside = (height - top - bottom - between * (rows - 1)) / rows
    figure.subplots_adjust(left=left / width, right=1 - 0.2 / width, top=1 - top / height,
                           bottom=bottom / height, hspace=between / inside)


def _png(canvas):
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()
