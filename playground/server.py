"""Serves the page of playground/page.py, and removes what is uploaded to it.

Nothing of the page is fetched from anywhere but its own server, and it reports nothing to anybody.
"""
import contextlib
import ctypes
import os
import socket
import tempfile
import threading
import time
from typing import Iterator

import gradio as gr
from starlette.middleware import Middleware

import errors
from playground import page
from playground.voices import Voices

WAITING = 40            # requests at most; further ones are told to come back
THREADS = 4
M_ARENA_MAX = -8        # of glibc's mallopt
KEPT_SECONDS = 15 * 60  # of an upload or a result, after its last use
# What the browser may load: nothing from elsewhere, whatever Gradio's own page asks for.
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
          "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
          "media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
          "worker-src 'self' blob:")
FONTS = ['system-ui', '-apple-system', 'Segoe UI', 'Helvetica', 'Arial', 'sans-serif']


@contextlib.contextmanager
def serving(voices: Voices, limits: page.Limits, host: str, port: int,
            kept_seconds: int = KEPT_SECONDS) -> Iterator[str]:
    """Serves the page while the block runs: yields its address.

    Uploads and results lie in a temporary folder. They are removed kept_seconds after their last
    use, and all of them at the end. port 0 takes a free one.

    Raises UserError if the port is taken.
    """
    _share_memory()
    with tempfile.TemporaryDirectory(prefix='waveglow-page-') as folder:
        before = os.environ.get('GRADIO_TEMP_DIR')
        os.environ['GRADIO_TEMP_DIR'] = folder          # which Gradio looks up at every upload
        blocks = page.build(voices, limits, folder)
        sweeper = _Sweeper(folder, kept_seconds)
        with errors.as_user_error('cannot listen on %s:%d' % (host, port),
                                  'give another --host or --port', OSError):
            port = port or _free_port(host)
            _, address, _ = blocks.queue(max_size=WAITING).launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True,
                max_threads=THREADS, share=False, inbrowser=False, ssr_mode=False, pwa=False,
                mcp_server=False, enable_monitoring=False, run_history=False, footer_links=[],
                max_file_size='%dmb' % limits.most_mb, css=page.CSS,
                theme=gr.themes.Base(font=FONTS, font_mono=['ui-monospace', 'monospace']),
                app_kwargs={'middleware': [Middleware(_Policy)]})
        try:
            with sweeper:
                yield address
        finally:
            blocks.close(verbose=False)
            os.environ.pop('GRADIO_TEMP_DIR')
            if before is not None:
                os.environ['GRADIO_TEMP_DIR'] = before


def _share_memory():
    """Lets all threads take memory from one place, where glibc's malloc can.

    Else each keeps some of its own: the process grew by 1 MB a request over 100 requests.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt:
        mallopt(M_ARENA_MAX, 1)


def _free_port(host):
    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as free:
        free.bind((host, 0))
        return free.getsockname()[1]


class _Policy:
    """ASGI middleware that adds POLICY to every answer, and ARRIVED to every request."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def sending(message):
            if message['type'] == 'http.response.start':
                message['headers'] = list(message['headers']) + [
                    (b'content-security-policy', POLICY.encode()),
                    (b'referrer-policy', b'no-referrer')]
            await send(message)

        await self._app(dict(scope, **{page.ARRIVED: time.time()}), receive, sending)


class _Sweeper:
    """Removes files from a folder that nobody used for some time, while a block runs.

    Those that are there at the beginning, the page's examples, stay. Gradio's own `delete_cache`
    ends for good when a file is added while it looks.
    """

    def __init__(self, folder: str, kept_seconds: float):
        self._folder, self._kept_seconds = folder, kept_seconds
        self._examples = set(_files_under(folder))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self):
        while not self._ended.wait(min(30.0, self._kept_seconds)):
            for path in set(_files_under(self._folder)) - self._examples:
                with contextlib.suppress(OSError):      # it is gone, or its folder is not empty
                    if time.time() - os.path.getmtime(path) > self._kept_seconds:
                        os.remove(path)
                        os.rmdir(os.path.dirname(path))


def _files_under(folder):
    return [os.path.join(found, name) for found, _, names in os.walk(folder) for name in names]
