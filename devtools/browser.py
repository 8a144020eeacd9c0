"""Chromium for the tests and screenshots of the page.

``python -m devtools.browser`` finds an installed one, or installs Debian's package as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
VARIABLE = "BROWSER_PATH"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HELP = f"Chromium was not found. Install it ('apt-get install chromium'), or set {VARIABLE} to its program."


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome; None if neither is installed."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Yield a headless browser, driven by Playwright.

    :raises RuntimeError: if no browser was found.
    """
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        raise RuntimeError(HELP)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


def install() -> bool:
    """Install Debian's package, as root or with a sudo that needs no password; return whether a browser exists now."""
    apt = shutil.which("apt-get")
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if apt is None or (prefix and shutil.which("sudo") is None):
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # Without its recommended packages Chromium has no fonts.
    wanted = ["chromium", "fonts-liberation"]
    for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *wanted]):
        if subprocess.run([*prefix, apt, *arguments], env=environment, check=False).returncode != 0:
            return False
    return find_browser() is not None


def main() -> int:
    """Find or install Chromium."""
    if find_browser() is None and not install():
        print(HELP, file=sys.stderr)
        return 1
    print(find_browser())
    return 0


if __name__ == "__main__":
    sys.exit(main())
