"""samples/index.html as a visitor hears it, in Chromium. Needs selenium, from Python 3.10 on."""
import os
import time

import chromium
import pytest
from conftest import HAS_CHROMIUM, ROOT
from selenium.webdriver.common.by import By

PAGE = 'file://' + os.path.join(ROOT, 'samples', 'index.html')
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_CHROMIUM, reason='no Chromium here')]


@pytest.fixture(scope='module')
def browser():
    with chromium.started() as found:
        yield found


def wait_until(true, what):
    deadline = time.time() + 60
    while not true():
        assert time.time() < deadline, what
        time.sleep(0.02)


def test_players_switch_at_the_same_moment(browser):
    """Of each utterance one player sounds at a time; the next goes on where the last one was."""
    browser.get(PAGE)

    def state(player):
        return browser.execute_script(
            'return [arguments[0].currentTime, arguments[0].paused, arguments[0].duration]', player)

    rows = browser.find_elements(By.CSS_SELECTOR, '.row')
    rows = [row for row in rows if len(row.find_elements(By.TAG_NAME, 'audio')) > 1]
    assert len(rows) >= 2
    for row in rows[:2]:
        players = row.find_elements(By.TAG_NAME, 'audio')
        browser.execute_script('arguments[0].play()', players[0])
        wait_until(lambda: state(players[0])[0] > 0.3, 'the first player does not play')
        for before, player in zip(players, players[1:]):
            browser.execute_script('arguments[0].play()', player)
            wait_until(lambda: state(before)[1], 'the player before still plays')
            stopped = state(before)[0]
            wait_until(lambda: state(player)[0] > stopped, 'the next player does not go on')
            assert 0.3 < stopped and state(player)[0] < stopped + 0.5
            browser.execute_script('arguments[0].currentTime = 0.4', player)
        browser.execute_script('arguments[0].pause()', players[-1])


def test_nothing_is_fetched_from_elsewhere(browser):
    browser.get(PAGE)
    urls = chromium.requested_urls(browser)
    folder = 'file://' + os.path.join(ROOT, 'samples') + '/'
    assert PAGE in urls
    assert not [url for url in urls if not url.startswith((folder, 'data:'))]
    for picture in browser.find_elements(By.TAG_NAME, 'img'):
        browser.execute_script('arguments[0].loading = "eager"', picture)
        wait_until(lambda: browser.execute_script(
            'return arguments[0].naturalWidth > 200 && arguments[0].naturalHeight > 100', picture),
            'a picture is not there')


def test_every_sound_can_be_played(browser):
    browser.get(PAGE)
    players = browser.find_elements(By.TAG_NAME, 'audio')
    browser.execute_script('for (const p of arguments[0]) p.preload = "metadata"', players)
    for player in players:
        wait_until(lambda: browser.execute_script(
            'return arguments[0].readyState > 0 && arguments[0].duration > 0.5', player),
            'a sound cannot be played')
    assert len(players) >= 8
