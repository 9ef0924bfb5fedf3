"""The page of app.py: by HTTP, twenty at a time, and as a visitor sees it, in Chromium.

Needs gradio and selenium, which requirements-test.txt asks for from Python 3.10 on.
"""
import contextlib
import glob
import os
import socket
import time
import traceback

import chromium
import numpy as np
import pytest
import soundfile
from conftest import HAS_CHROMIUM
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from speech import SPEECH, speech

import app
import utils
from datasets import mel_files
from datasets.mel_definition import PROFILES
from datasets.mel_transform import mel_spectrogram
from playground import page, server
from playground.voices import BUNDLED, NEWEST, Voices

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore::Warning:gradio')]
LIMITS = page.Limits(most_seconds=60, most_mb=4)
needs_chromium = pytest.mark.skipif(not HAS_CHROMIUM, reason='no Chromium here')
SETTINGS = BUNDLED, NEWEST, 0.5, 3, 2, 0.0


@pytest.fixture(scope='module')
def hosts():
    """Names of the hosts that this process looks up for the server, and not for the client."""
    looked_up, getaddrinfo = set(), socket.getaddrinfo

    def recorded(host, *args, **kwargs):
        if not any('gradio_client' in frame.filename for frame in traceback.extract_stack()):
            looked_up.add(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, 'getaddrinfo', recorded)
        yield looked_up


@pytest.fixture(scope='module')
def voices():
    return Voices([utils.BUNDLED_MODEL])


@pytest.fixture(scope='module')
def address(voices, hosts):
    with server.serving(voices, LIMITS, '127.0.0.1', 0) as found:
        yield found


@pytest.fixture(scope='module')
def client(address, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GRADIO_ANALYTICS_ENABLED', 'False')       # after the page's were decided on
        found = Client(address, verbose=False, analytics_enabled=False,
                       download_files=str(tmp_path_factory.mktemp('downloads')))
    yield found
    found.close()


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    """A wav of 0.6 s."""
    path = str(tmp_path_factory.mktemp('sound') / 'hello.wav')
    soundfile.write(path, speech(0.6), 16000)
    return path


def audio_of(path):
    audio, rate = soundfile.read(path, dtype='float32')
    assert rate == 16000
    return audio


# --- By HTTP --------------------------------------------------------------------------------------

def test_a_sound_is_vocoded_as_by_the_library(client, voices, sound):
    status, original, picture, griffin_lim, _, waveglow, _ = client.predict(
        handle_file(sound), *SETTINGS, api_name='/vocode_sound')
    assert '0.6 s of speech: WaveGlow took' in status
    vocoder = voices.vocoder(BUNDLED, NEWEST)
    expected = vocoder.vocode(mel_spectrogram(speech(0.6), vocoder.hp.mel), 0.5, 3, 2)
    assert np.abs(audio_of(waveglow) - np.clip(expected, -1, 1)).max() < 2e-4
    assert np.abs(audio_of(original) - speech(0.6)).max() < 1e-4
    assert len(audio_of(griffin_lim)) == len(expected)
    assert os.path.basename(waveglow) == 'hello-waveglow.wav'
    with open(picture, 'rb') as f:
        assert f.read(4) == b'\x89PNG'


def test_a_mel_of_a_named_definition_and_a_sentence(client, tmp_path):
    path = str(tmp_path / 'a.npy')
    mel = mel_spectrogram(speech(0.5), PROFILES['hifigan'].replace(sample_rate=16000))
    np.save(path, mel)
    found = client.predict(handle_file(path), 'hifigan', 'sample_rate=16000', *SETTINGS,
                           api_name='/vocode_mel')
    assert found[1] is None and len(audio_of(found[5])) == 256 * len(mel)
    pytest.importorskip('hibari')
    status, *found = client.predict('Hello there.', *SETTINGS, api_name='/speak')
    assert 's of speech' in status and len(audio_of(found[4])) > 8000


def test_twenty_requests_at_once_of_which_five_are_bad(client, sound, tmp_path):
    text, empty, mel = (str(tmp_path / name) for name in ('notes.wav', 'empty.wav', 'a.mel'))
    with open(text, 'w') as f:
        f.write('no sound')
    soundfile.write(empty, np.zeros(0, np.float32), 16000)
    mel_files.save_mel(mel, np.zeros([3, 77], np.float32))
    bad = [((handle_file(text),), SETTINGS, '/vocode_sound', 'not audio that can be read'),
           ((handle_file(empty),), SETTINGS, '/vocode_sound', 'holds no samples'),
           ((handle_file(mel), page.OF_MODEL, ''), SETTINGS, '/vocode_mel', 'not whole frames'),
           ((None,), SETTINGS, '/vocode_sound', 'there is no sound yet'),
           ((handle_file(sound),), (BUNDLED, 'step 5') + SETTINGS[2:], '/vocode_sound',
            'has no checkpoint step 5')]
    good = [((handle_file(sound),), SETTINGS[:3] + (seed,) + SETTINGS[4:], '/vocode_sound', None)
            for seed in range(15)]
    jobs = [(client.submit(*given, *settings, api_name=name), said)
            for five in zip(*[iter(good)] * 3, bad) for given, settings, name, said in five]
    assert len(jobs) == 20
    answers, firsts = [(job.result(timeout=300), said) for job, said in jobs], set()
    for (status, *found), said in answers:
        if said:
            assert 'class="error"' in status and said.lower() in status.lower()
            assert found == [None] * 6 and page.__file__ not in status and '/tmp' not in status
        else:
            assert 'class="error"' not in status
            firsts.add(tuple(audio_of(found[4])[4000:4010]))
    assert len(firsts) == 15        # each with the noise of its own seed


def test_a_fault_of_the_program_is_a_sentence_too(client, sound, monkeypatch, capsys):
    monkeypatch.setattr(page, 'compare', lambda *_: 1 / 0)
    status, *_ = client.predict(handle_file(sound), *SETTINGS, api_name='/vocode_sound')
    assert 'a fault of the program (ZeroDivisionError)' in status
    assert 'division by zero' in capsys.readouterr().err
    monkeypatch.undo()
    status, *_ = client.predict(handle_file(sound), *SETTINGS, api_name='/vocode_sound')
    assert '0.6 s of speech' in status


def test_nothing_is_fetched_and_large_uploads_are_refused(client, hosts, address, tmp_path):
    elsewhere = {'path': 'http://example.com/a.wav', 'meta': {'_type': 'gradio.FileData'}}
    with pytest.raises(AppError, match='this page fetches nothing'):
        client.predict(elsewhere, *SETTINGS, api_name='/vocode_sound')
    large = tmp_path / 'large.wav'
    large.write_bytes(bytes((LIMITS.most_mb << 20) + 10))
    import requests
    with open(str(large), 'rb') as f:
        answer = requests.post(address + 'gradio_api/upload', files={'files': f})
    assert answer.status_code == 413
    assert hosts <= {'127.0.0.1', 'localhost', None}
    policy = requests.get(address).headers['Content-Security-Policy']
    assert "default-src 'self'" in policy and 'http' not in policy


def test_uploads_and_results_are_removed(voices, sound):
    with server.serving(voices, LIMITS, '127.0.0.1', 0, kept_seconds=1) as address:
        folder = os.environ['GRADIO_TEMP_DIR']
        client = Client(address, verbose=False, analytics_enabled=False, download_files=False)
        client.predict(handle_file(sound), *SETTINGS, api_name='/vocode_sound')
        deadline = time.time() + 60
        while wavs_under(folder) and time.time() < deadline:
            time.sleep(0.2)
        assert not wavs_under(folder)
        status, *_ = client.predict(handle_file(sound), *SETTINGS, api_name='/vocode_sound')
        assert 's of speech' in status
        client.close()
    assert not os.path.exists(folder)


def wavs_under(folder):
    return [path for path in glob.glob(folder + '/**/*.wav', recursive=True)
            if 'hello' in os.path.basename(path)]


# --- In Chromium ----------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def browser():
    with chromium.started() as found:
        yield found


class Visit:
    """A visitor of the page."""

    def __init__(self, browser, address):
        self.browser, self.wait = browser, WebDriverWait(browser, 300)
        browser.get(address)
        self.find('#vocode_sound')

    def find(self, selector):
        """The element of a CSS selector, as soon as it is there."""
        return self.wait.until(lambda browser: browser.find_elements(By.CSS_SELECTOR, selector))[0]

    def give(self, path):
        """Drops a sound; waits until its waveform is drawn."""
        for close in self.browser.find_elements(By.CSS_SELECTOR, '#sound [aria-label="Clear"]'):
            close.click()
        for _ in range(5):      # a page that is still starting does not hear it
            self.find('#sound input[type=file]').send_keys(path)
            with contextlib.suppress(TimeoutException):
                WebDriverWait(self.browser, 20).until(lambda browser: browser.find_elements(
                    By.CSS_SELECTOR, '#sound .waveform-container'))
                return
        raise AssertionError('the page takes no sound')

    def press(self, name):
        self.browser.execute_script('arguments[0].click()', self.find('#' + name))

    def status(self, *words):
        """The text of the status, as soon as it has one of the words."""
        deadline = time.time() + 300
        while True:
            text = self.find('#status').text
            if any(word in text for word in words):
                return text
            assert time.time() < deadline, 'the status is still %r' % text
            time.sleep(0.1)

    def played(self, name):
        """Starts a player; whether its time goes on."""
        for _ in range(10):     # a player that still loads its sound does not hear it
            self.press(name + ' .play-pause-button')
            with contextlib.suppress(TimeoutException):
                return WebDriverWait(self.browser, 15).until(
                    lambda _: self.find('#%s #time' % name).text not in ('', '0:00'))
        return False


@needs_chromium
def test_a_visit(browser, address, tmp_path, monkeypatch):
    """Upload, vocode, play, error, cancel; nothing is asked of another host."""
    visit = Visit(browser, address)
    visit.give(SPEECH)
    visit.press('vocode_sound')
    assert '5.0 s of speech' in visit.status('took', 'error')
    for name in ('original', 'griffin_lim', 'waveglow'):
        assert visit.played(name)
        image = visit.find('#%s_picture img' % name)
        assert visit.wait.until(lambda b: b.execute_script(
            'return arguments[0].naturalWidth', image)) == 600
        assert visit.find('#%s a.download-link' % name).get_attribute('download') == (
            'pbx-invalidpark-%s.wav' % name.replace('_', '-'))

    text = tmp_path / 'notes.wav'
    text.write_text('no sound')
    visit.give(str(text))
    visit.press('vocode_sound')
    assert visit.status('otes.wav').startswith('Notes.wav: not audio that can be read')

    stopped, compare = [], page.compare

    def endless(*args):
        """A comparison that goes no further after its second progress."""
        with contextlib.closing(compare(*args)) as running:
            next(running)
            found = next(running)
            try:
                while True:
                    yield found
                    time.sleep(0.1)
            finally:
                stopped.append(True)

    monkeypatch.setattr(page, 'compare', endless)
    visit.give(SPEECH)
    visit.press('vocode_sound')
    visit.status('of 5 s')
    assert visit.find('#status progress').get_attribute('max') == '4.96'
    visit.press('cancel')
    visit.status('Cancelled')
    assert stopped
    monkeypatch.undo()
    visit.press('vocode_sound')
    assert '5.0 s of speech' in visit.status('took')
    urls = chromium.requested_urls(browser)
    assert len(urls) > 20
    assert not [url for url in urls if not url.startswith((address, 'data:', 'blob:'))]


# --- The command ----------------------------------------------------------------------------------

def test_refusals(monkeypatch, capsys, tmp_path, address):
    from speech import refusal
    port = address.rstrip('/').rsplit(':', 1)[1]
    assert 'give another --host or --port' in refusal(monkeypatch, capsys, app, '--port=' + port)
    assert 'there is no checkpoint' in refusal(monkeypatch, capsys, app,
                                               '--restore_from=%s' % (tmp_path / 'a'))
    assert '--max_seconds is above 0' in refusal(monkeypatch, capsys, app, '--max_seconds=0')
