"""Hook of MkDocs: checks code blocks and puts the changelog together. ``make docs`` runs MkDocs with it."""

from __future__ import annotations

import logging
import re
from typing import Any

import tomllib

from devtools.docs_blocks import ROOT, problems

# A warning of MkDocs' own logger fails a strict build.
log = logging.getLogger("mkdocs.hooks.docs_site")
OTHER_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "emulator/README.md", "changes/README.md")
"""Pages outside docs/, whose code blocks are checked as well."""

CHANGELOG = "<!-- changelog -->"
FETCHED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
RELEASES = "<!-- towncrier release notes start -->"


def on_pre_build(**_: Any) -> None:
    """Check the pages that are not part of the site."""
    for name in OTHER_PAGES:
        for problem in problems((ROOT / name).read_text()):
            log.warning("%s, %s", name, problem)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Check a page's code blocks, and fill in the changelog."""
    for problem in problems(markdown):
        log.warning("docs/%s, %s", page.file.src_uri, problem)
    return markdown.replace(CHANGELOG, changelog()) if CHANGELOG in markdown else markdown


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Check that a reader's browser fetches nothing from elsewhere."""
    for tag in FETCHED.findall(output):
        log.warning("docs/%s is shown with something from elsewhere: %s", page.file.src_uri, tag)
    return output


def changelog() -> str:
    """Return the changes of all releases, and before them those that are not released yet, as Markdown."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = ["### Not released yet"]
    for kind in project["tool"]["towncrier"]["type"]:
        fragments = sorted((ROOT / "changes").glob(f"*.{kind['directory']}.md"))
        if fragments:
            parts.append(f"#### {kind['name']}")
            parts.append("\n".join("- " + " ".join(path.read_text().split()) for path in fragments))
    released = (ROOT / "CHANGELOG.md").read_text().partition(RELEASES)[2]
    parts.append(re.sub(r"^(##+) ", r"#\1 ", released, flags=re.MULTILINE).strip())
    # Fragments link from changes/, releases from the root.
    return re.sub(r"\]\((?:\.\./)?docs/", "](", "\n\n".join(parts))
