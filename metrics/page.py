"""The page that evaluate.py draws: one HTML file that holds its audio and pictures."""
import base64
import html
import io
from typing import List

import matplotlib
import numpy as np
import PIL.Image
import soundfile

from datasets import audio_files
from metrics import measures
from synthesis.stft import stft

DYNAMIC_RANGE = 80      # dB from the loudest of the original to black

HEAD = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>%(title)s</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.interval { color: #777; font-size: .8rem; display: block }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem }
figure { margin: 0 }
figcaption { font-size: .9rem }
figcaption span { color: #777; display: block; min-height: 1.4rem }
audio { width: 100%%; margin: .3rem 0 }
img { width: 100%%; height: 14rem; display: block }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; font-weight: 600 }
</style></head><body>
<h1>%(title)s</h1>
<p>%(about)s</p>
'''


def render(title: str, about: str, systems: List[str], summary: dict, utterances: List[tuple],
           sample_rate: int) -> str:
    """The page, a string.

    Args:
      about: a sentence or two, plain text.
      systems: names, in the order of columns; the first is the original.
      summary: {system: {key of metrics.METRICS: (mean, low, high)}}.
      utterances: [(name, {system: (audio [samples], {key: value})})] on the page.
    """
    parts = [HEAD % dict(title=html.escape(title), about=html.escape(about)),
             _table(systems, summary)]
    for name, by_system in utterances:
        parts.append('<h2>%s</h2>\n<div class="row">' % html.escape(name))
        loudest = _decibels(by_system[systems[0]][0]).max()
        for system in systems:
            if system in by_system:
                audio, values = by_system[system]
                parts.append(_figure(name, system, audio, values, sample_rate, loudest))
        parts.append('</div>')
    return '\n'.join(parts + ['</body></html>\n'])


def _table(systems, summary):
    rows = ['<table><tr><th></th>%s</tr>' % ''.join(
        '<th>%s</th>' % html.escape(system) for system in systems)]
    for key, metric in measures.METRICS.items():
        name = metric.title + (', ' + metric.unit if metric.unit else '')
        cells = []
        for system in systems:
            found = summary[system].get(key)
            cells.append('<td></td>' if found is None else
                         '<td>%.*f <span class="interval">%.*f to %.*f</span></td>' % (
                             metric.digits, found[0], metric.digits, found[1], metric.digits,
                             found[2]))
        rows.append('<tr><td title="%s">%s</td>%s</tr>'
                    % (html.escape(metric.meaning), html.escape(name), ''.join(cells)))
    return '\n'.join(rows + ['</table>',
                             '<p>Means over utterances, with 95% bootstrap intervals.</p>'])


def _figure(name, system, audio, values, sample_rate, loudest):
    told = ', '.join('%s %.*f' % (measures.METRICS[key].title, measures.METRICS[key].digits,
                                  values[key]) for key in ('pesq', 'stoi') if key in values)
    label = html.escape('%s, %s' % (name, system))
    return ('<figure><figcaption>%s <span>%s</span></figcaption>\n'
            '<audio controls preload="metadata" src="data:audio/flac;base64,%s" title="%s">'
            '</audio>\n'
            '<img src="data:image/jpeg;base64,%s" alt="Spectrogram: %s"></figure>'
            % (html.escape(system), told, _base64(_flac(audio, sample_rate)), label,
               _base64(_spectrogram(audio, loudest)), label))


def _base64(data):
    return base64.b64encode(data).decode('ascii')


def _flac(audio, sample_rate):
    data = io.BytesIO()
    soundfile.write(data, audio_files.to_pcm16(audio)[0], sample_rate, 'PCM_16', format='FLAC')
    return data.getvalue()


def _decibels(audio):
    """[1 + n_fft // 2, frames] of the linear spectrogram in dB, bands from low to high."""
    spectrum = stft(np.asarray(audio, np.float32), n_fft=1024, hop_length=160, win_length=640)
    return 20 * np.log10(np.abs(spectrum).T + 1e-5)


def _spectrogram(audio, loudest):
    """A JPEG: frequency upwards, from 0 to half the sample rate."""
    level = np.clip(1 + (_decibels(audio) - loudest) / DYNAMIC_RANGE, 0, 1)
    colours = matplotlib.colormaps['magma'](level[::-1], bytes=True)[..., :3]
    data = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(colours)).save(data, 'JPEG', quality=75)
    return data.getvalue()
