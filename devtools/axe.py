"""The accessibility rules of axe-core, for the tests of the page."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab


def violations(tab: Tab) -> list[str]:
    """Return the violations of all of axe's rules in a tab, each with its elements.

    Its own runner adds a script element, which the page's policy forbids.

    :param tab: the tab.
    """
    tab.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found: dict[str, Any] = tab.evaluate("async () => await axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['help']}: " + " | ".join(node["html"][:160] for node in each["nodes"][:5])
        for each in found["violations"]
    ]
