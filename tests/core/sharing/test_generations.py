"""The age of a generation counts from the moment at which it can be used."""

from __future__ import annotations

import pytest

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.sharing.generations import ClusterRequest, Step, plan, too_old

CREATED, STARTED = "2027-01-15T08:00:00Z", "2027-01-15T08:14:00Z"
T0 = 1_800_000_000.0
LABELS = {"vertex-ray-shared": "etl", "vertex-ray-generation": "1"}


def cluster(state: str, started: str | None) -> Cluster:
    body = {**ClusterSpec().to_persistent_resource("us-central1"), "labels": LABELS, "state": state}
    name = "projects/p/locations/us-central1/persistentResources/etl-g1"
    times = {"createTime": CREATED, **({"startTime": started} if started else {})}
    return Cluster.from_resource({**body, **times, "name": name})


@pytest.mark.parametrize(
    ("state", "started", "age", "step"),
    [
        # A create of 14 minutes is longer than the max_age of ten.
        ("PROVISIONING", None, 840.0, Step.WAIT),
        ("RUNNING", STARTED, 841.0, Step.ATTACH),
        ("RUNNING", STARTED, 840.0 + 599.0, Step.ATTACH),
        ("RUNNING", STARTED, 840.0 + 601.0, Step.CREATE),
        ("UPDATING", STARTED, 840.0 + 601.0, Step.CREATE),
        ("RUNNING", None, 601.0, Step.CREATE),
    ],
)
def test_new_work_goes_to(state: str, started: str | None, age: float, step: Step) -> None:
    wanted = ClusterRequest("etl", None, "attach", 600.0)
    assert plan([cluster(state, started)], wanted, T0 + age).step is step


def test_one_that_never_gets_ready_is_too_old_after_its_creation() -> None:
    assert too_old(cluster("PROVISIONING", None), 600.0, T0 + 601.0)
    assert not too_old(cluster("PROVISIONING", None), 600.0, T0 + 599.0)
