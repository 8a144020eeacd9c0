"""A PersistentResource, read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.cluster.state import BILLED_STATES, Cluster, ClusterState
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    NotARayClusterError,
    QuotaExceededError,
    StockoutError,
    VertexRayError,
)

NAME = "projects/123456789012/locations/us-central1/persistentResources/shared"


def resource(**more: Any) -> dict[str, Any]:
    return {
        "name": NAME,
        "state": "RUNNING",
        "resourcePools": [
            {"id": "head-node", "replicaCount": "1", "machineSpec": {"machineType": "n1-standard-16"}},
            {
                "id": "worker-pool1",
                "replicaCount": "3",
                "machineSpec": {
                    "machineType": "n1-standard-8",
                    "acceleratorType": "NVIDIA_TESLA_T4",
                    "acceleratorCount": 2,
                },
            },
        ],
        "resourceRuntimeSpec": {"raySpec": {"headNodeResourcePoolId": "head-node"}},
        "resourceRuntime": {"accessUris": {"RAY_DASHBOARD_URI": "abc.aiplatform-training.googleusercontent.com"}},
        "labels": {"team": "a"},
        "createTime": "2026-11-23T21:00:00Z",
        **more,
    }


def test_all_that_a_resource_says() -> None:
    cluster = Cluster.from_resource(resource())
    assert (cluster.project, cluster.location, cluster.cluster_id) == ("123456789012", "us-central1", "shared")
    assert cluster.state is ClusterState.RUNNING
    assert cluster.node_count == 4
    assert cluster.head_pool_id == "head-node"
    assert cluster.dashboard_uri == "abc.aiplatform-training.googleusercontent.com"
    assert (cluster.pools[1].accelerator_type, cluster.pools[1].accelerator_count) == ("NVIDIA_TESLA_T4", 2)
    assert cluster.require_ray() is cluster


def test_a_summary_is_json() -> None:
    summary = Cluster.from_resource(resource()).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["dashboard_url"] == "https://abc.aiplatform-training.googleusercontent.com"
    assert summary["pools"]["worker-pool1"]["replicas"] == 3
    assert summary["error"] is None


def test_a_resource_with_hardly_anything() -> None:
    cluster = Cluster.from_resource({"name": NAME})
    assert cluster.state is ClusterState.UNKNOWN
    assert (cluster.pools, cluster.head_pool_id, cluster.dashboard_uri) == ((), None, None)
    assert cluster.summary()["dashboard_url"] is None


def test_an_autoscaling_pool_counts_its_minimum_until_it_has_a_count() -> None:
    scaling = {"minReplicaCount": "2", "maxReplicaCount": "5"}
    pool: dict[str, Any] = {"id": "p", "machineSpec": {"machineType": "m"}, "autoscalingSpec": scaling}
    (read,) = Cluster.from_resource(resource(resourcePools=[pool])).pools
    assert (read.autoscaling, read.replicas) == ((2, 5), 2)
    (read,) = Cluster.from_resource(resource(resourcePools=[{**pool, "replicaCount": "4"}])).pools
    assert read.replicas == 4


def test_without_a_head_pool_id_the_first_pool_has_the_head() -> None:
    assert Cluster.from_resource(resource(resourceRuntimeSpec={"raySpec": {}})).head_pool_id == "head-node"


@pytest.mark.parametrize("name", ["", "projects/p/locations/l", f"{NAME}/operations/1", "x" + NAME])
def test_other_resources_are_rejected(name: str) -> None:
    with pytest.raises(VertexRayError, match="not a persistent resource"):
        Cluster.from_resource(resource(name=name))


def test_a_persistent_resource_without_ray() -> None:
    cluster = Cluster.from_resource(resource(resourceRuntimeSpec={}))
    assert not cluster.is_ray
    with pytest.raises(NotARayClusterError, match=r"cluster_id='shared'.*without a raySpec.*created as a Ray cluster"):
        cluster.require_ray()


def test_states_of_another_day_are_unknown() -> None:
    assert ClusterState.of("HIBERNATING") is ClusterState.UNKNOWN
    assert ClusterState.of(None) is ClusterState.UNKNOWN
    assert {ClusterState.of(state.value) for state in ClusterState} == set(ClusterState)
    assert ClusterState.PROVISIONING not in BILLED_STATES


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 8, "message": "The following quota metrics exceed quota limits: x"}, QuotaExceededError),
        ({"code": 8, "message": "Resources are insufficient in region: us-central1."}, StockoutError),
        ({"code": 13, "message": "An internal error occurred on your cluster."}, ClusterFailedError),
        # A text that nobody has seen yet, with a code that in an answer would mean "try again".
        ({"code": 8, "message": "all out"}, ClusterFailedError),
        ({"code": 14, "message": "no contact"}, ClusterFailedError),
        ({"code": 5, "message": "image not found"}, ClusterFailedError),
        ({}, ClusterFailedError),
    ],
)
def test_failure_of_a_cluster_is_typed(error: dict[str, Any], kind: type[VertexRayError]) -> None:
    failure = Cluster.from_resource(resource(state="ERROR", error=error)).failure()
    assert type(failure) is kind
    assert failure.message.startswith("Cluster shared is in state ERROR: ")
    assert error.get("message", "gave no reason") in failure.message
    assert failure.details["cluster"] == NAME
