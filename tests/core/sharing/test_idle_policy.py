"""When the reaper deletes a cluster that is to go anyway: not between two jobs of a run."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.core.sharing.activity import QUIET_SECONDS, activity_of
from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL, SHARED_LABEL
from airflow_provider_vertex_ray.core.sharing.idle_policy import Decision, Policy, Verdict, verdict
from airflow_provider_vertex_ray.core.sharing.lease import Lease

NOW = 1_800_000_000.0
SHARED = {SHARED_LABEL: "etl", GENERATION_LABEL: "1"}
FREE = Lease({}, None)
REASONS: dict[str, Any] = {"superseded": {"superseded": True}, "too old": {"max_age": 3600.0}}


def decided(
    idle: float,
    *,
    idle_for: float = 3600.0,
    max_age: float | None = None,
    superseded: bool = False,
    labels: dict[str, str] | None = None,
    lease: Lease | None = None,
) -> Verdict:
    cluster = Cluster.from_resource(
        {
            "name": "projects/p/locations/us-central1/persistentResources/c",
            "state": "RUNNING",
            "createTime": "2026-01-01T00:00:00Z",
            "startTime": "2026-01-01T00:10:00Z",
            "labels": labels or {},
        }
    )
    last = Job("last", JobStatus("SUCCEEDED"), end_time=int((NOW - idle) * 1000))
    return verdict(
        cluster, activity_of(cluster, [last], lease, NOW), Policy(idle_for, max_age), NOW, superseded=superseded
    )


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
@pytest.mark.parametrize(("labels", "lease"), [({}, None), (SHARED, None), ({}, FREE)], ids=["own", "shared", "leased"])
def test_cluster_that_is_to_go_stays_for_a_while_after_a_job(
    reason: dict[str, Any], labels: dict[str, str], lease: Lease | None
) -> None:
    found = decided(5.0, labels=labels, lease=lease, **reason)
    assert found.decision is Decision.DRAIN
    assert found.why.endswith(", but idle for only 5 s of 10 min")
    assert decided(QUIET_SECONDS, labels=labels, lease=lease, **reason).decision is Decision.DELETE


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_idle_for_may_be_shorter_than_that(reason: dict[str, Any]) -> None:
    assert decided(50.0, idle_for=60.0, **reason).decision is Decision.DRAIN
    assert decided(60.0, idle_for=60.0, **reason).decision is Decision.DELETE


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_shared_cluster_whose_lease_is_free_goes_at_once(reason: dict[str, Any]) -> None:
    assert decided(1.0, labels=SHARED, lease=FREE, **reason).decision is Decision.DELETE
