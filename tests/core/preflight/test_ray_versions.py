"""Pairs of Ray and Python: which there are, until when, and which the Ray Client can use."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from airflow_provider_vertex_ray.core.cluster.versions import known_versions, offered_versions
from airflow_provider_vertex_ray.core.data_rows import NOTICE_DAYS
from airflow_provider_vertex_ray.core.preflight.ray_versions import client_finding, full_version, pair_finding
from airflow_provider_vertex_ray.core.preflight.report import Status

LONG_AGO = date(2026, 1, 1)
PAIRS = [(row.ray, python) for row in offered_versions().values() for python in row.pythons]


def test_each_version_has_its_end_and_its_full_name() -> None:
    for row in known_versions().values():
        assert full_version(row.ray) == row.full
        assert str(row.full).startswith(f"{row.ray}.")
        assert row.ended == (row.ends is None)


@pytest.mark.parametrize(("ray", "python"), PAIRS)
@pytest.mark.parametrize(
    ("days", "status"),
    [
        (NOTICE_DAYS + 1, Status.PASS),
        (NOTICE_DAYS, Status.WARN),
        (1, Status.WARN),
        (0, Status.FAIL),
        (-400, Status.FAIL),
    ],
)
def test_version_pair_is_available_until_its_end(ray: str, python: str, days: int, status: Status) -> None:
    end = offered_versions()[ray].ends
    assert end is not None
    found = pair_finding(ray, python, end - timedelta(days=days))
    assert found.status is status
    assert str(end) in found.found
    # There is nothing newer than the newest.
    assert ("2.47" in found.remedy) == (status is not Status.PASS and ray != "2.47")


@pytest.mark.parametrize(("ray", "python"), [("2.47", "3.10"), ("2.60", "3.12"), ("3.0", None)])
def test_unknown_version_pair_is_a_warning(ray: str, python: str | None) -> None:
    found = pair_finding(ray, python, LONG_AGO)
    assert found.status is Status.WARN
    assert "Ray 2.42 with Python 3.10 or 3.11" in found.found
    assert found.remedy == 'ray_version="2.47", python_version="3.11"'


@pytest.mark.parametrize("ray", ["2.33", "2.9"])
def test_version_that_has_ended_fails(ray: str) -> None:
    assert pair_finding(ray, "3.10", LONG_AGO).status is Status.FAIL


@pytest.mark.parametrize(
    ("own_ray", "own_python", "status"),
    [
        ("2.47.1", "3.11", Status.PASS),
        ("2.47.0", "3.11", Status.WARN),
        ("2.47.1", "3.12", Status.WARN),
        (None, "3.11", Status.WARN),
    ],
)
def test_the_ray_client_wants_the_very_same(own_ray: str | None, own_python: str, status: Status) -> None:
    found = client_finding("2.47", "3.11", own_ray, own_python)
    assert found.status is status
    assert ("ray[client]==2.47.1" in found.remedy) == (status is Status.WARN)
