"""A service whose answers the tests write byte by byte."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from airflow_provider_vertex_ray.core.http.retry import RetryPolicy
from tests.support.patience import limits_for_a_busy_machine
from tests.support.raw_service import PROJECT, RawService, raw_service

__all__ = ["limits_for_a_busy_machine"]


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RawService]:
    """A service that this process's hooks find, with quick retries."""
    monkeypatch.setattr(RetryPolicy, "delay", lambda self, failures, retry_after: 0.0001)
    async with raw_service() as found:
        monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", found.host)
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", f"google-cloud-platform://?project={PROJECT}")
        yield found
