"""100,000 rows over random nested schemas through every batch format, and as many odd ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.function.bigquery_step import BATCH_FORMATS
from tests.remote.test_bigquery_values import differences, odd_rows

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

ROWS = 100_000


def until_enough(look: Callable[[Any], int]) -> int:
    """Draw and look until enough rows were seen; how many these were."""
    seen = 0

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(data=st.data())
    def some(data: st.DataObject) -> None:
        nonlocal seen
        seen += look(data.draw)

    while seen < ROWS:
        some()
    return seen


@pytest.mark.parametrize("batch_format", BATCH_FORMATS)
def test_values_arrive_unchanged(batch_format: str) -> None:
    assert until_enough(lambda draw: differences(draw, batch_format, 200)) >= ROWS


def test_other_values_are_refused_and_never_changed() -> None:
    assert until_enough(odd_rows) >= ROWS
