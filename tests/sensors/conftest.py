"""Each test with ``deferrable`` runs twice: the sensor pokes, or waits in the triggerer."""

from __future__ import annotations

import pytest

from tests.support.patience import limits_for_a_busy_machine

__all__ = ["limits_for_a_busy_machine"]


@pytest.fixture(params=[False, True], ids=["poking", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(autouse=True)
def _retry_at_once(quick_retries: None) -> None:
    """How long a call waits before it is repeated is tested in ``tests/core/http``."""
