"""How the tests of both distributions are spread over processes."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parent

# On a busy machine an example may take long: that says nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


# Two heavy groups, one for each of two processes: one Airflow at a time, and beside it one real Ray at a time.
HEAVY = {"system": 0, "ray": 1}


@functools.cache
def _group(file: str) -> tuple[int, str]:
    """Return the rank and the name of the group that one process runs: heavy ones begin first and take longest."""
    text = (REPOSITORY / file).read_text("utf-8")
    for mark, rank in HEAVY.items():
        if re.search(rf"mark\.{mark}\b", text):
            return rank, mark
    return len(HEAVY), file


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the heavy groups first, so that nothing waits for them at the end."""
    items.sort(key=lambda item: _group(_file(item.nodeid))[0])


# Its own groups by mark (--dist loadgroup) come to nothing with pytest 9.2.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread the tests of ``make test`` over processes."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(_file(nodeid))[1]

    return ByGroup(config, log)
