"""The filters of Cloud Logging and Cloud Monitoring."""

from __future__ import annotations

from typing import Any

import pytest
from vertex_ray_emulator.google.query_filter import Read, parse, parse_time, read_path
from vertex_ray_emulator.wire.errors import ApiError

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z
ENTRY: dict[str, Any] = {
    "severity": "ERROR",
    "timestamp": NOON + 0.25,
    "labels": {"ml.googleapis.com/ray_cluster_id": "etl", "n": 3},
    "resource": {"labels": {"location": "us-central1"}},
    "jsonPayload": {"message": 'it said "no" - twice', "tailed_path": "/logs/job-driver-x_1.log"},
}


def fields(path: tuple[str, ...]) -> Read | None:
    return read_path(path) if path[0] in ENTRY else None


def fits(text: str) -> bool:
    return parse(text, fields, times=frozenset({"timestamp"}))(ENTRY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ('labels."ml.googleapis.com/ray_cluster_id"="etl"', True),
        ('labels."ml.googleapis.com/ray_cluster_id" = "ETL"', True),
        ('labels."ml.googleapis.com/ray_cluster_id"!="etl"', False),
        ("labels.other=x", False),
        ("labels.other!=x", True),
        ("labels.other:*", False),
        ('labels."ml.googleapis.com/ray_cluster_id":*', True),
        ("labels.n>=3", True),
        ("labels.n>3", False),
        ('jsonPayload.tailed_path:"job-driver-X_1"', True),
        ('jsonPayload.tailed_path=~"x_[0-9]+[.]log$"', True),
        ('jsonPayload.tailed_path=~"X_1"', False),
        ('jsonPayload.tailed_path!~"x_1"', False),
        (r'jsonPayload.message:"\"no\" -"', True),
        ("severity>=WARNING", True),
        ("severity>ERROR", False),
        ("severity<=error", True),
        ("severity=ERROR", True),
        ("severity=(INFO OR ERROR)", True),
        ("severity=(INFO OR DEBUG)", False),
        ('jsonPayload.message:("no" AND "twice")', True),
        ('timestamp>="2026-01-01T12:00:00Z"', True),
        ('timestamp>="2026-01-01T12:00:00.25Z"', True),
        ('timestamp>"2026-01-01T12:00:00.250000Z"', False),
        ('timestamp<"2026-01-01T13:00:00.250001+01:00"', True),
        ('timestamp>"2026-01-01"', True),
        ('severity=ERROR\nresource.labels.location="us-central1"', True),
        ('severity=ERROR resource.labels.location="us-east1"', False),
        ("NOT severity=ERROR", False),
        ("-severity=ERROR", False),
        ("-(severity=ERROR AND labels.n=4)", True),
        ("severity=INFO OR severity=ERROR AND labels.n=4", False),
        ("severity=INFO OR (severity=ERROR AND labels.n=3)", True),
    ],
)
def test_filter_matches(text: str, expected: bool) -> None:
    assert fits(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        "severity", "severity=", "=ERROR", "severity=LOUD", "severity~ERROR", "(severity=ERROR", "severity=ERROR)",
        "unknown=1", 'timestamp>="noon"', "timestamp:2026", 'labels.n=~"("', "labels.n>many", '"bare text"',
        "severity=(INFO OR ERROR AND DEBUG)", "severity=(INFO", 'labels."x', "severity=ERROR AND",
    ],
)  # fmt: skip
def test_invalid_filter_is_rejected(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        fits(text)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01T12:00:00.123456789Z", NOON + 0.123456789),
        ("2026-01-01T12:00:00-01:30", NOON + 5400),
        ("2026-01-01T12:00:00+0000", NOON),
        ("2026-01-01", NOON - 12 * 3600),
        ("2026-13-01", None),
        ("12:00", None),
    ],
)
def test_time_is_parsed(text: str, expected: float | None) -> None:
    assert parse_time(text) == (None if expected is None else pytest.approx(expected, abs=1e-6))
