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

# Groups of files that one process runs one after the other. Both begin at once, as they take longest: one Airflow at a
# time, and one real Ray beside it. Other processes run the light files beside them.
GROUPS = ("system", "ray")

# The files of the emulator with a real Ray go to any process, when the light files of the provider are through: as a
# part of the group they would be what the others wait for. The emulator's light files fill what then is left.
EMULATOR = "emulator/"


@functools.cache
def _mark(file: str) -> str | None:
    text = (REPOSITORY / file).read_text("utf-8")
    return next((mark for mark in GROUPS if re.search(rf"mark\.{mark}\b", text)), None)


def _group(file: str) -> str:
    """Return the group of a file; its own name where it may run in any process."""
    mark = _mark(file)
    return file if mark is None or file.startswith(EMULATOR) else mark


def _rank(nodeid: str) -> int:
    file = _file(nodeid)
    mark = _mark(file)
    if file.startswith(EMULATOR):
        return len(GROUPS) + (1 if mark else 2)
    return GROUPS.index(mark) if mark else len(GROUPS)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups into their order; the long tests may take long."""
    for item in items:
        if item.get_closest_marker("soak") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))
    items.sort(key=lambda item: _rank(item.nodeid))


# Its own groups by mark (--dist loadgroup) come to nothing with pytest 9.2.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread the tests of ``make test`` over processes."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(_file(nodeid))

    return ByGroup(config, log)
