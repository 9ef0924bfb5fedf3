"""The page that evaluate.py draws: one HTML file that holds its audio and pictures."""
import base64
import html
import io
from typing import Dict, List

import matplotlib
import numpy as np
import PIL.Image

from datasets import audio_files
from metrics import measures
from synthesis.stft import stft

DYNAMIC_RANGE = 80      # dB from the loudest of the original to black
LOW = 4000              # Hz: up to here there is a picture at which one sees harmonics

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
figure { margin: 0 0 1rem; display: grid; grid-template-columns: 14rem 1fr 1fr; gap: .5rem 1rem }
figcaption span { color: #777; display: block; font-size: .9rem }
audio { width: 100%%; margin: .5rem 0 }
.picture { position: relative; padding-left: 3rem; font-size: .8rem; color: #777 }
.picture span { position: absolute; left: 0 }
.picture span:last-of-type { bottom: 0 }
img { width: 100%%; height: 14rem; display: block }
dt { font-weight: 600; float: left; clear: left; margin-right: .5rem }
@media (max-width: 50rem) { figure { grid-template-columns: 1fr } }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; font-weight: 600 }
</style></head><body>
<h1>%(title)s</h1>
<p>%(about)s</p>
'''

# A player that starts goes on where the one that plays is, which stops.
SCRIPT = '''<script>
for (const row of document.querySelectorAll('.row')) {
  const players = [...row.querySelectorAll('audio')];
  for (const player of players) player.addEventListener('play', () => {
    for (const other of players) if (other !== player && !other.paused) {
      player.currentTime = other.currentTime;
      other.pause();
    }
  });
}
</script>
'''


def render(title: str, about: str, systems: Dict[str, str], summary: dict,
           utterances: List[tuple], sample_rate: int) -> str:
    """The page, a string.

    Args:
      about: a sentence or two, plain text.
      systems: {name: what it is, in one sentence}, in the order of columns; the first is the
        original.
      summary: {system: {key of metrics.METRICS: (mean, low, high)}}.
      utterances: [(name, {system: (audio [samples], {key: value})})] on the page.
    """
    parts = [HEAD % dict(title=html.escape(title), about=html.escape(about)),
             _table(list(systems), summary), '<dl>']
    parts += ['<dt>%s</dt><dd>%s</dd>' % (html.escape(name), html.escape(meaning))
              for name, meaning in systems.items()]
    parts.append('</dl>\n<p>Start another player of an utterance while one plays: it goes on at '
                 'the same moment. Frequency axes are linear.</p>')
    for name, by_system in utterances:
        parts.append('<h2>%s</h2>\n<div class="row">' % html.escape(name))
        loudest = _decibels(by_system[list(systems)[0]][0]).max()
        for system in systems:
            if system in by_system:
                audio, values = by_system[system]
                parts.append(_figure(name, system, audio, values, sample_rate, loudest))
        parts.append('</div>')
    return '\n'.join(parts + [SCRIPT + '</body></html>\n'])


def _table(systems, summary):
    rows = ['<table><tr><th></th>%s</tr>' % ''.join(
        '<th>%s</th>' % html.escape(system) for system in systems)]
    for key, metric in measures.METRICS.items():
        name = metric.title + (', ' + metric.unit if metric.unit else '')
        cells = []
        if not any(key in summary[system] for system in systems):
            continue
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
    level = np.clip(1 + (_decibels(audio) - loudest) / DYNAMIC_RANGE, 0, 1)
    low = 1 + int(LOW * (len(level) - 1) / (sample_rate / 2))
    pictures = ''.join(
        '<div class="picture"><span>%.3g kHz</span><span>0</span>'
        '<img src="data:image/jpeg;base64,%s" alt="Spectrogram: %s"></div>'
        % (sample_rate / 2000 * (len(shown) - 1) / (len(level) - 1), _base64(_jpeg(shown)), label)
        for shown in (level, level[:low]))
    return ('<figure><figcaption>%s <span>%s</span>\n'
            '<audio controls preload="auto" src="data:audio/flac;base64,%s" title="%s">'
            '</audio></figcaption>\n%s</figure>'
            % (html.escape(system), told, _base64(_flac(audio, sample_rate)), label, pictures))


def _base64(data):
    return base64.b64encode(data).decode('ascii')


def _flac(audio, sample_rate):
    return audio_files.flac_bytes(audio_files.to_pcm16(audio)[0], sample_rate)


def _decibels(audio):
    """[1 + n_fft // 2, frames] of the linear spectrogram in dB, bands from low to high."""
    spectrum = stft(np.asarray(audio, np.float32), n_fft=1024, hop_length=160, win_length=640)
    return 20 * np.log10(np.abs(spectrum).T + 1e-5)


def _jpeg(level):
    """A JPEG of levels [bands, frames] in 0..1: frequency upwards."""
    colours = matplotlib.colormaps['magma'](level[::-1], bytes=True)[..., :3]
    data = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(colours)).save(data, 'JPEG', quality=75)
    return data.getvalue()
