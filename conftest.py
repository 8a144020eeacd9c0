"""How the tests of both distributions are spread over processes."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent


@functools.cache
def _place(file: str) -> str:
    """What runs in one process: a file; and all files with a real Ray or a real Airflow, one after the other."""
    heavy = re.search(r"mark\.(ray|system)\b", (REPOSITORY / file).read_text("utf-8"))
    return "clusters" if heavy else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs a Ray or an Airflow comes first: it takes longest, so nobody waits for it at the end."""
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0]) != "clusters")


# Its own groups by mark (--dist loadgroup) come to nothing with pytest 9.2.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How ``make test`` spreads the tests over processes."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _place(nodeid.partition("::")[0])

    return ByPlace(config, log)
