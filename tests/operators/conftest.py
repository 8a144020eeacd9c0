"""Both ways to wait, in the worker and deferred, and what the task's log gets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from airflow_provider_vertex_ray.hooks.base import VertexRayBaseAsyncHook
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from emulator_support.process import EmulatorProcess

    from tests.support.bigquery import BigQuery


class _Keep(logging.Handler):
    """Appends each message to a list."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@pytest.fixture(params=[False, True], ids=["in-worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def task_log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of the operator, its trigger and its hook, in order, on Airflow 3 and 2 alike."""
    lines: list[str] = []
    # A logger that is registered nowhere, so that nothing of it outlives the test.
    logger = logging.Logger("task", logging.DEBUG)
    logger.addHandler(_Keep(lines))
    for kind in (VertexRayBaseOperator, WaitTrigger, VertexRayBaseAsyncHook):
        monkeypatch.setattr(kind, "log", logger, raising=False)
    return lines


@pytest.fixture(scope="module")
def bigquery_emulator() -> Iterator[EmulatorProcess]:
    """An emulator with BigQuery beside it, and a cluster ``shared``."""
    from tests.support.bigquery import emulator_with_bigquery
    from tests.support.clusters import start

    with emulator_with_bigquery() as process:
        start(process)
        yield process


@pytest.fixture
def warehouse(bigquery_emulator: EmulatorProcess) -> Iterator[BigQuery]:
    """BigQuery beside the emulator; a test leaves no staging table."""
    from tests.support.bigquery import BigQuery

    found = BigQuery(bigquery_emulator)
    yield found
    assert found.staging() == set()


@pytest.fixture(autouse=True)
def _retry_at_once(quick_retries: None) -> None:
    """How long a call waits before it is repeated is tested in ``tests/core/http``."""
