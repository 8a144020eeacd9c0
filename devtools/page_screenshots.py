"""Take the screenshots of the page in docs/images: ``python -m devtools.page_screenshots``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devtools.browser import launched
from devtools.page_world import LOCATION, PageWorld

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SOURCE = f"google_cloud_default.{LOCATION}"
PAUSE = 4.0
"""Seconds between two batches of jobs, so that the timeline has something to show."""

MOST_BYTES = 200_000


class Camera:
    """Take screenshots of one `PageWorld`."""

    def __init__(self, browser: Browser, world: PageWorld) -> None:
        self._browser = browser
        self._world = world

    def take(
        self, name: str, path: str, *, width: int = 1280, height: int = 760, dark: bool = False, **how: Any
    ) -> None:
        """Take a screenshot.

        :param name: file name, without the suffix.
        :param path: path below Airflow's address.
        :param width: width of the window.
        :param height: height of the window.
        :param dark: use dark mode.
        :param how: ``framed``: the page is shown within Airflow; ``before``: function to call with the tab before the
            screenshot; ``settle``: wait until the page has read everything.
        """
        home = self._world.url.removesuffix("/ray-clusters/")
        scheme: Any = "dark" if dark else "light"
        context = self._browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.add_cookies([{"name": "_token", "value": self._world.token("ada"), "url": home, "httpOnly": True}])
        tab = context.new_page()
        tab.add_init_script(f"localStorage.setItem('theme', '{scheme}')")
        tab.goto(home + path)
        root: Any = tab.frame_locator("iframe[title='Ray clusters']") if how.get("framed") else tab
        state = "[data-reading='0']" if how.get("settle", True) else ""
        root.locator(f"#live{state}").wait_for(timeout=30_000)
        if how.get("before"):
            how["before"](tab)
        file = IMAGES / f"{name}.png"
        tab.screenshot(path=file)
        context.close()
        size = file.stat().st_size
        print(f"{file.name}: {size / 1000:.0f} kB")
        if size > MOST_BYTES:
            raise SystemExit(f"{file.name} is larger than {MOST_BYTES} bytes")


def _dialog(tab: Page) -> None:
    tab.get_by_role("button", name="Delete…").click()


def _full(camera: Camera, world: PageWorld) -> None:
    cluster = f"/ray-clusters/{SOURCE}/etl-g7"
    camera.take("page-clusters", "/plugin/ray-clusters", framed=True)
    camera.take("page-clusters-dark", "/plugin/ray-clusters", framed=True, dark=True)
    camera.take("page-cluster", f"{cluster}?jobs=4", height=1180)
    camera.take("page-cluster-dark", f"{cluster}?jobs=4", height=1180, dark=True)
    camera.take("page-narrow", "/ray-clusters/", width=400, height=900)
    camera.take("page-cluster-narrow-dark", f"{cluster}?jobs=4", width=400, height=900, dark=True)
    camera.take("page-delete", cluster, before=_dialog)
    world.emulate("POST", "faults", {"scope": "dashboard", "resource": "train-g2", "action": "hang", "times": None})

    def until_said(tab: Page) -> None:
        tab.get_by_text("the dashboard does not answer").first.wait_for(timeout=60_000)

    camera.take("page-hanging", f"/ray-clusters/{SOURCE}/train-g2?jobs=4", height=620, before=until_said, settle=False)


def main() -> int:
    """Take all screenshots."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with launched() as browser:
        with tempfile.TemporaryDirectory(prefix="vrp-") as folder, PageWorld(Path(folder)) as world:
            world.fill(pause=PAUSE)
            _full(Camera(browser, world), world)
        with tempfile.TemporaryDirectory(prefix="vrp-") as folder, PageWorld(Path(folder), options={}) as world:
            Camera(browser, world).take("page-empty", "/ray-clusters/", height=460)
    return 0


if __name__ == "__main__":
    sys.exit(main())
