"""The filter of a cluster's log entries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.google.query_filter import parse, read_path

from airflow_provider_vertex_ray.core.monitoring.log_query import SEVERITIES, check_severity
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.log_query import LogQuery

PLAIN = [
    'resource.labels.task_name="ray-cluster-logs"',
    'labels."ml.googleapis.com/ray_cluster_id"="etl"',
]
WORDS = st.text(
    st.characters(min_codepoint=32, exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=30
).filter(str.strip)


def test_everything_of_a_cluster() -> None:
    assert LogQuery("etl").filter().splitlines() == PLAIN
    assert LogQuery("etl").order == "timestamp asc"


def test_all_fields_together() -> None:
    query = LogQuery(
        "etl",
        submission_id="af-1",
        file="worker-",
        severity="WARNING",
        start=1769860800.25,
        end=1769860900,
        text='say "no"',
        newest_first=True,
    )
    assert query.filter().splitlines() == [
        *PLAIN,
        'jsonPayload.tailed_path:"job-driver-af-1.log"',
        'jsonPayload.tailed_path:"worker-"',
        "severity>=WARNING",
        'jsonPayload.message:"say \\"no\\""',
        'timestamp>="2026-01-31T12:00:00.250000Z"',
        'timestamp<"2026-01-31T12:01:40.000000Z"',
    ]
    assert query.order == "timestamp desc"


def test_default_is_every_severity() -> None:
    assert LogQuery("etl", severity="DEFAULT").filter().splitlines() == PLAIN


def entry(cluster: str, path: str, message: str) -> dict[str, Any]:
    return {
        "resource": {"labels": {"task_name": "ray-cluster-logs"}},
        "labels": {"ml.googleapis.com/ray_cluster_id": cluster},
        "jsonPayload": {"tailed_path": path, "message": message},
    }


@given(WORDS, WORDS, WORDS)
def test_whatever_a_value_is_it_stays_one(job: str, file: str, text: str) -> None:
    """Read by the emulator's grammar, which knows nothing of ours."""
    test = parse(LogQuery("etl", submission_id=job, file=file, text=text).filter(), read_path)
    path = f"/logs/{file}/job-driver-{job}.log"
    assert test(entry("etl", path, f"before {text} after"))
    assert not test(entry("other", path, text))
    assert not test(entry("etl", "/logs/" + file, text)) or f"job-driver-{job}.log".casefold() in file.casefold()
    assert not test(entry("etl", path, "")) or not text


@pytest.mark.parametrize("field", ["submission_id", "file", "text"])
@pytest.mark.parametrize("value", ["", " ", 'a"\nseverity="ERROR', "a\x00", "a\u2028b", "x" * 2001, 3])
def test_control_characters_are_rejected(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        LogQuery("etl", **{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("value", ["error", "FATAL", 500, ""])
def test_unknown_severities_are_rejected(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=", ".join(SEVERITIES)):
        LogQuery("etl", severity=value)
    check_severity("{{ params.severity }}")
