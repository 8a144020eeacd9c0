"""Both ways to wait, in the worker and deferred, and what the task's log gets."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from airflow_provider_vertex_ray.hooks.calls.base import BaseCalls
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.triggers.base import WaitTrigger
from tests.support.patience import limits_for_a_busy_machine

if TYPE_CHECKING:
    from emulator_support.process import EmulatorProcess

    from tests.support.bigquery import BigQuery

__all__ = ["limits_for_a_busy_machine"]


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
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """The emulator without Ray, with a running cluster ``shared``."""
    from tests.support.clusters import start

    start(fake_emulator)
    return fake_emulator


@pytest.fixture
def task_log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of the operator, its trigger and its hook, in order, on Airflow 3 and 2 alike."""
    lines: list[str] = []
    # A logger that is registered nowhere, so that nothing of it outlives the test.
    logger = logging.Logger("task", logging.DEBUG)
    logger.addHandler(_Keep(lines))
    for kind in (VertexRayBaseOperator, WaitTrigger, BaseCalls):
        monkeypatch.setattr(kind, "log", logger, raising=False)
    return lines


@pytest.fixture(scope="package")
def bigquery_process() -> Iterator[EmulatorProcess]:
    """An emulator with BigQuery beside it, and a cluster ``shared``, for the modules of this folder."""
    from tests.support.bigquery import bigquery_process
    from tests.support.clusters import start

    with bigquery_process() as process:
        start(process)
        yield process


@pytest.fixture(scope="module")
def bigquery_emulator(bigquery_process: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """The emulator with BigQuery, used by this module's hooks."""
    from tests.support.bigquery import used

    with used(bigquery_process):
        yield bigquery_process


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


@pytest.fixture
def revoked_once(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token expires before the first repetition of a call."""
    from airflow_provider_vertex_ray.core.http.retry import RetryPolicy

    revoked: list[bool] = []

    def delay(policy: RetryPolicy, failures: int, retry_after: str | None) -> float:
        if not revoked:
            revoked.append(True)
            fake_emulator.admin("POST", "tokens/revoke")
        return 0.01

    monkeypatch.setattr(RetryPolicy, "delay", delay)


@pytest.fixture
def nothing_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow masks nothing that earlier tests of this process have masked; on 2.11, that may be a single letter."""
    from airflow_provider_vertex_ray.operators import masking

    masker = masking._masker("_secrets_masker")()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
