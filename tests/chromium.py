"""Headless Chromium for the tests of pages. Needs selenium."""
import contextlib
import json
import shutil

from selenium import webdriver


@contextlib.contextmanager
def started():
    """A webdriver.Chrome that keeps a log of what it asks for."""
    options = webdriver.ChromeOptions()
    for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
                     '--window-size=1360,1100', '--autoplay-policy=no-user-gesture-required',
                     '--disable-background-networking', '--disable-component-update'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    browser = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which('chromedriver')))
    try:
        yield browser
    finally:
        browser.quit()


def requested_urls(browser):
    """The addresses that were asked for since the last call."""
    asked = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    return [event['params']['request']['url'] for event in asked
            if event['method'] == 'Network.requestWillBeSent']
