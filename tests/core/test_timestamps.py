"""RFC 3339 timestamps: reading and writing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339, rfc3339

NOON = 1769860800.0


@given(st.integers(0, 4_000_000_000_000_000))
def test_timestamp_survives_writing_and_reading(micros: int) -> None:
    assert parse_rfc3339(rfc3339(micros / 1e6)) == pytest.approx(micros / 1e6, abs=2e-6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T12:00:00.123456789Z", NOON + 0.123456789),
        ("2026-01-31T14:00:00+02:00", NOON),
        ("2026-01-31T14:00:00+0200", NOON),
        ("2026-01-31 12:00:00", NOON),
        ("2026-01-31T12:00:00.5", NOON + 0.5),
        ("2026-01-32T12:00:00Z", None),
        ("2026-01-31", None),
        ("now", None),
        ("", None),
        (None, None),
    ],
)
def test_timestamps_are_read_as_google_writes_them(text: str | None, seconds: float | None) -> None:
    assert parse_rfc3339(text) == (None if seconds is None else pytest.approx(seconds))


def test_timestamp_is_written_in_utc_with_microseconds() -> None:
    assert rfc3339(NOON) == "2026-01-31T12:00:00.000000Z"
    assert rfc3339(NOON + 0.25) == "2026-01-31T12:00:00.250000Z"
