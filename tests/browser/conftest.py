"""A real browser for the tests of this folder: Chromium, which `make browser` installs."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Yields a running Chromium without a window; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: nothing drives a browser")
    program = os.environ.get("NEUMF_BROWSER") or next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium on the PATH: run make browser, or name one in NEUMF_BROWSER")
    with playwright.sync_playwright() as driver:
        # Containers run as root and have a small /dev/shm: Chromium's sandbox and its shared memory need more.
        running = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        )
        yield running
        running.close()
