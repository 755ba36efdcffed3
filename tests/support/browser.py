"""Headless browser: Debian's Chromium, driven by Selenium, with access to the loopback interface
only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.support.programs import require_program


@contextmanager
def browser(profile: Path, width: int = 1200, height: int = 1400) -> Iterator[Chrome]:
    """Start a browser with an empty profile. Skips the test when it is not installed."""
    options = ChromeOptions()
    options.binary_location = require_program("chromium")
    quiet = ("background-networking", "component-update", "sync", "gpu", "quic")
    for argument in (
        "headless",
        "no-sandbox",
        "no-first-run",
        f"user-data-dir={profile}",
        f"window-size={width},{height}",
    ):
        options.add_argument(f"--{argument}")
    for feature in quiet:
        options.add_argument(f"--disable-{feature}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(require_program("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
