"""Times and time windows as users give them."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.monitoring.time_window import check_window, moment, span
from airflow_provider_vertex_ray.errors import InvalidArgumentError

NOON = 1769860800.0
UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        int(NOON),
        "1769860800.0",
        " 2026-01-31T12:00:00+00:00 ",
        datetime.datetime(2026, 1, 31, 12, tzinfo=UTC),
        datetime.datetime(2026, 1, 31, 12),  # noqa: DTZ001
    ],
)
def test_what_a_user_gives(value: Any) -> None:
    assert moment("start", value) == NOON


@pytest.mark.parametrize("value", ["yesterday", True, -1, 1e12, [], ""])
def test_other_values_are_not_times(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="^Invalid value for start: "):
        moment("start", value)


def test_the_span() -> None:
    assert span(NOON, NOON + 60, None, 3600) == (NOON, NOON + 60)
    assert span(None, NOON, 60, 3600) == (NOON - 60, NOON)
    assert span("", NOON, None, 3600) == (NOON - 3600, NOON)
    begin, end = span(None, None, 60, 3600)
    assert end - begin == 60
    assert abs(end - time.time()) < 5
    with pytest.raises(InvalidArgumentError, match="The end must be after the start"):
        span(NOON, NOON, None, 3600)


@pytest.mark.parametrize(
    ("start", "end", "window", "field"),
    [
        (NOON, NOON - 1, None, "end"),
        (NOON, None, 60, "window"),
        ("{{ x }}", None, 60, "window"),
        (None, None, 0, "window"),
        (None, None, True, "window"),
        (None, None, "60", "window"),
        (None, None, 1e9, "window"),
        ("soon", None, None, "start"),
        (None, "soon", None, "end"),
    ],
)
def test_invalid_time_windows_are_rejected(start: Any, end: Any, window: Any, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_window(start, end, window)
    assert caught.value.field == field


def test_templates_pass() -> None:
    check_window("{{ dag_run.start_date }}", NOON, None)
    check_window(NOON, "{{ end }}", None)
    check_window(None, None, 60)
