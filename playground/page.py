"""The page: what a person sees and sets, and what a press of a button starts, in Gradio."""
import collections
import contextlib
import ctypes
import gc
import html
import importlib.util
import os
import sys
import time
import traceback
import uuid
from typing import Callable, List, NamedTuple, Tuple

import gradio as gr

import errors
import files
from datasets import audio_files
from datasets.mel_definition import PROFILES
from errors import UserError
from playground import inputs
from playground.comparison import Comparison, Progress, Settings, System, compare
from playground.inputs import Given, Speaker
from playground.voices import Voices

OF_MODEL = "the model's own"
EXAMPLES = 'tt-weasels', 'auth-incorrect', 'queue-youarenext'       # of samples/wavs, held out
SESSIONS = 1000         # of which is known whether they cancelled
ARRIVED = 'waveglow.arrived'    # in the scope of a request: when it came, as time.time() tells
CSS = '''
.gradio-container {max-width: 1320px !important; margin: 0 auto !important}
#progress {align-items: center}
#progress #status, #progress #status * {padding: 0}
#progress #cancel {font-size: 1em; font-weight: normal; padding: .4em 1em}
.picture {border: none !important; background: none !important}
#progress #status p {margin: 0; padding: .6em .9em; border-radius: 6px;
           background: var(--background-fill-secondary)}
#progress #status .error {background: #fee2e2; color: #7f1d1d}
.dark #progress #status .error {background: #7f1d1d; color: #fee2e2}
#status progress {width: 14em; margin-right: .8em; vertical-align: middle}
'''


class Limits(NamedTuple):
    """What the page takes."""
    most_seconds: float = 600       # of speech, in a sound, a mel or a text
    most_mb: int = 64               # of an upload


# --- What is seen ---------------------------------------------------------------------------------

def build(voices: Voices, limits: Limits, folder: str) -> gr.Blocks:
    """The page. Results are written to `folder`."""
    with gr.Blocks(title='WaveGlow', analytics_enabled=False) as page:
        gr.Markdown('# WaveGlow\nGive a sound, a mel spectrogram or a sentence. Hear and see what '
                    'the model makes of it, beside Griffin-Lim, which needs no model.')
        with gr.Row():
            with gr.Column(scale=3):
                kinds = _input_tabs(limits)
            with gr.Column(scale=2):
                settings = _settings(voices)
        with gr.Row(elem_id='progress'):
            status = gr.HTML(_idle('Nothing was vocoded yet.'), elem_id='status')
            cancel = gr.Button('Cancel', elem_id='cancel', scale=0, min_width=120)
        with gr.Row():
            systems = [part for title in ('Original', 'Griffin-Lim', 'WaveGlow')
                       for part in _system(title)]
        desk = _Desk(voices, folder)
        for button, name, given, reader in kinds:
            def vocode(request: gr.Request, *values, reader=reader, count=len(given)):
                yield from desk.vocode(
                    request, lambda hp: reader(hp, limits.most_seconds, *values[:count]),
                    *values[count:])

            button.click(vocode, given + settings, [status] + systems, api_name=name,
                         show_progress='hidden', concurrency_id='vocoding', concurrency_limit=1)
        cancel.click(desk.cancel, None, None, queue=False, api_name='cancel',
                     show_progress='hidden')
    return page


def _input_tabs(limits):
    """[(button, name, [component], reader)]: reader(hp, most_seconds, value of each) is a Given."""
    kinds: List[Tuple[gr.Button, str, list, Callable[..., Given]]] = []
    speaker = Speaker()
    with gr.Tabs():
        with gr.Tab('Sound'):
            sound = _local(gr.Audio(sources=['upload', 'microphone'], type='filepath',
                                    label='Sound, of %d MB and %g s at most'
                                    % (limits.most_mb, limits.most_seconds), elem_id='sound',
                                    buttons=[]))
            gr.Examples([[os.path.join(files.ROOT, 'samples', 'wavs', name + '.wav')]
                         for name in EXAMPLES], sound, label='Held-out speech of the '
                        'bundled voice', example_labels=list(EXAMPLES), api_visibility='private')
            kinds.append((gr.Button('Vocode', variant='primary', elem_id='vocode_sound'),
                          'vocode_sound', [sound], _read_sound))
        with gr.Tab('Mel'):
            mel = _local(gr.File(type='filepath', label='Mel: .mel, .npy, .npz, .pt or .h5',
                                 elem_id='mel'))
            profile = gr.Dropdown([OF_MODEL] + list(PROFILES), value=OF_MODEL, label='Mel profile')
            changes = gr.Textbox(label='What is not as in the profile', max_length=500,
                                 placeholder='sample_rate=24000,fmin=0')
            kinds.append((gr.Button('Vocode', variant='primary', elem_id='vocode_mel'),
                          'vocode_mel', [mel, profile, changes], _read_mel))
        with gr.Tab('Text'):
            if importlib.util.find_spec('hibari'):
                text = gr.Textbox(label='A sentence in English', lines=3, elem_id='text',
                                  value='Any sentence can be said.',
                                  max_length=inputs.MOST_CHARACTERS)
                kinds.append((
                    gr.Button('Speak', variant='primary', elem_id='speak'), 'speak', [text],
                    lambda hp, most_seconds, text: speaker.say(text or '', hp, most_seconds)))
            else:
                gr.Markdown('Sentences take hibari-tts: `pip install -r requirements-tts.txt`, '
                            'then start the page again.')
    return kinds


def _read_sound(hp, most_seconds, path):
    if not path:
        raise UserError('there is no sound yet; drop one, record one, or take an example')
    return inputs.read_sound(_used(path), hp, most_seconds)


def _read_mel(hp, most_seconds, path, profile, changes):
    if not path:
        raise UserError('there is no mel yet; drop a file')
    return inputs.read_mel(_used(path), hp, most_seconds,
                           None if profile in (None, OF_MODEL) else profile, changes or '')


def _settings(voices) -> List[gr.components.Component]:
    """The components that choose a model, and how it vocodes."""
    run = voices.runs[0]
    hp = voices.hparams(run, voices.checkpoints(run)[0])
    with gr.Row():
        runs = gr.Dropdown(voices.runs, value=run, label='Run', elem_id='run')
        checkpoint = gr.Dropdown(voices.checkpoints(run), value=voices.checkpoints(run)[0],
                                 label='Checkpoint', elem_id='checkpoint',
                                 allow_custom_value=True)       # those of another run
    with gr.Row():
        sigma = gr.Slider(0, 1.5, hp.gen_sigma, step=0.05, min_width=200, elem_id='sigma',
                          label='Sigma')
        seed = gr.Slider(0, 1000, 0, step=1, min_width=200, label='Seed', elem_id='seed')
    with gr.Row():
        rounds = gr.Slider(0, 64, hp.gen_correction_rounds, step=1, min_width=200,
                           label='Mel correction', elem_id='rounds')
        strength = gr.Slider(0, 3, 0, step=0.1, min_width=200, label='Denoiser',
                             elem_id='denoiser')

    def choose(run):
        names = voices.checkpoints(run)
        hp = voices.hparams(run, names[0])
        return gr.Dropdown(names, value=names[0]), hp.gen_sigma, hp.gen_correction_rounds

    runs.input(_told(choose), runs, [checkpoint, sigma, rounds], api_name='choose_run',
               show_progress='hidden')
    return [runs, checkpoint, sigma, seed, rounds, strength]


def _system(title):
    """The player and the picture of a system."""
    name = title.lower().replace('-', '_')
    with gr.Column(min_width=300):
        player = gr.Audio(label=title, interactive=False, type='filepath', elem_id=name,
                          buttons=['download'])
        picture = gr.Image(label='%s: mel spectrogram' % title, show_label=False, height=220,
                           interactive=False, type='filepath', format='png', buttons=[],
                           elem_id=name + '_picture', elem_classes='picture')
    return player, picture


def _local(component):
    """A component whose files are uploads: Gradio would fetch the address of one, too."""
    move = component.async_move_resource_to_block_cache

    async def move_if_local(path):
        if path and str(path).lower().startswith(('http:', 'https:')):
            raise gr.Error('this page fetches nothing; upload the file', print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_if_local
    return component


def _used(path):
    """An upload, which is kept for longer as it is used."""
    with contextlib.suppress(OSError):
        os.utime(path)
    if not os.path.exists(path):
        raise UserError('the upload is no longer here; give the file again')
    return path


# --- What happens ---------------------------------------------------------------------------------

class _Desk:
    """Where requests are answered, and cancelled."""

    def __init__(self, voices: Voices, folder: str):
        self._voices, self._folder = voices, folder
        self._cancelled: 'collections.OrderedDict[str, float]' = collections.OrderedDict()

    def cancel(self, request: gr.Request):
        """Ends what a visitor has asked for until now, whether it runs or waits.

        Gradio's own `cancels` lets a progress come after it, and may keep the place of the request.
        """
        self._cancelled[request.session_hash or ''] = time.time()
        while len(self._cancelled) > SESSIONS:
            self._cancelled.popitem(last=False)

    def _is_cancelled(self, request):
        arrived = request.request.scope.get(ARRIVED, 0.0)
        return self._cancelled.get(request.session_hash or '', 0.0) > arrived

    def vocode(self, request: gr.Request, read: Callable[..., Given], run, checkpoint, sigma, seed,
               rounds, strength):
        """Yields values of the status and of every player and picture."""
        nothing: list = [None] * 6
        yield [_idle('Loading %s, %s.' % (run, checkpoint))] + nothing
        try:
            vocoder = self._voices.vocoder(run, checkpoint)
            settings = Settings(sigma, int(seed or 0), int(rounds or 0), strength)
            given = read(vocoder.hp)
            with contextlib.closing(compare(given, vocoder, settings)) as running:
                for found in running:
                    if self._is_cancelled(request):
                        yield [_idle('Cancelled.')] + nothing
                        return
                    if isinstance(found, Progress):
                        yield [_progress(found)] + [gr.skip()] * 6
                    else:
                        yield [_done(given, found)] + self._written(given.name, found)
        except Exception as error:
            yield [_failed(error)] + nothing
        finally:
            _free_memory()

    def _written(self, name: str, found: Comparison) -> list:
        """Paths of the wav and the picture of every system."""
        folder = os.path.join(self._folder, uuid.uuid4().hex)
        paths: list = []
        for title, system in (('original', found.original), ('griffin-lim', found.griffin_lim),
                              ('waveglow', found.waveglow)):
            paths += _write_system(os.path.join(folder, '%s-%s' % (name, title)), system)
        return paths


_malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if os.name == 'posix' else None


def _free_memory():
    """Frees pictures, which refer to themselves, and what malloc keeps."""
    gc.collect()
    if _malloc_trim:        # glibc's
        _malloc_trim(0)


def _write_system(stem: str, system: System) -> list:
    if system.audio is not None:
        audio_files.write_wav(stem + '.wav', system.audio, system.sample_rate)
    with files.atomic_open(stem + '.png', 'wb') as f:
        f.write(system.picture)
    return [stem + '.wav' if system.audio is not None else None, stem + '.png']


def _told(function):
    """A function of an event whose UserError is shown in a corner of the page."""
    def told(*values):
        try:
            return function(*values)
        except UserError as error:
            raise gr.Error(_sentence(error), print_exception=False) from error

    return told


def _idle(text):
    return '<p role="status">%s</p>' % html.escape(text)


def _progress(found):
    return ('<p role="status"><progress max="%g" value="%g"></progress>%s: %.0f of %.0f s</p>'
            % (found.total, found.seconds, found.system, found.seconds, found.total))


def _done(given, found):
    text = ('%.1f s of speech: WaveGlow took %.1f s, Griffin-Lim %.1f s.'
            % (given.seconds, found.waveglow.compute_seconds, found.griffin_lim.compute_seconds))
    if found.clipped:
        text += ' %d samples were beyond full scale and clipped.' % found.clipped
    return _idle(text)


def _failed(error):
    return '<p class="error" role="alert">%s</p>' % html.escape(_sentence(error))


def _sentence(error):
    """What a visitor is told of an error. The terminal gets what is no fault of the visitor."""
    if isinstance(error, UserError):
        text = str(error)
        folder = os.environ.get('GRADIO_TEMP_DIR')
        for path in [word.rstrip(':,;') for word in text.split() if folder and folder in word]:
            text = text.replace(path, os.path.basename(path))
        return text[:1].upper() + text[1:] + '.'
    if errors.is_out_of_memory(error):
        return 'There is not enough memory for this; give a shorter input.'
    traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    return ('This failed by a fault of the program (%s); the terminal of app.py has the details.'
            % type(error).__name__)
