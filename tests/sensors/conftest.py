"""Each test with ``deferrable`` runs twice: the sensor pokes, or waits in the triggerer."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["poking", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
