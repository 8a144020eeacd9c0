"""The cluster hook, from synchronous and asynchronous code."""

from __future__ import annotations

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    InvalidArgumentError,
    NotARayClusterError,
    PreconditionError,
)
from airflow_provider_vertex_ray.hooks.calls.cluster import check_replicas
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook, VertexRayClusterHook
from tests.support.clusters import BODY, LOCATION, SPEC, start


@pytest.fixture
def hook(fake_emulator: EmulatorProcess) -> VertexRayClusterHook:
    return VertexRayClusterHook(location=LOCATION)


def running(hook: VertexRayClusterHook, cluster_id: str) -> Cluster:
    def look() -> Cluster | None:
        cluster = hook.get_cluster(cluster_id)
        return cluster if cluster.state is ClusterState.RUNNING else None

    found = until(look)
    assert found is not None
    return found


def test_cluster_from_creation_to_deletion(hook: VertexRayClusterHook) -> None:
    operation = hook.create_cluster("fresh", SPEC, {"team": "a"})
    assert operation is not None
    cluster = running(hook, "fresh")
    assert cluster.labels["team"] == "a"
    assert hook.get_operation(operation)["done"] is True
    until(lambda: hook.dashboard_problem(cluster) is None)
    assert hook.live_nodes(cluster) == 3
    (worker,) = [pool.pool_id for pool in cluster.pools if pool.pool_id != cluster.head_pool_id]
    assert hook.resize_cluster("fresh", {worker: 4}) is not None
    assert running(hook, "fresh").node_count == 5
    assert hook.resize_cluster("fresh", {worker: 4}) is None
    assert hook.delete_cluster("fresh") is not None
    until(lambda: hook.list_clusters() == [])
    assert hook.delete_cluster("fresh") is None
    with pytest.raises(ClusterNotFoundError):
        hook.get_cluster("fresh")


async def test_async_hook_works_in_an_event_loop(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    hook = VertexRayClusterAsyncHook(location=LOCATION)
    cluster = await hook.get_cluster("shared")
    assert await hook.dashboard_problem(cluster) is None
    assert await hook.live_nodes(cluster) == 3
    assert [each.cluster_id for each in await hook.list_clusters()] == ["shared"]


def test_spec_may_be_a_dict_with_labels(hook: VertexRayClusterHook) -> None:
    spec = {"worker_node_types": [{"machine_type": "n1-standard-8", "node_count": 1}], "labels": {"team": "b"}}
    hook.create_cluster("fresh", spec, {"run": "1"})
    assert {"team": "b", "run": "1"}.items() <= hook.get_cluster("fresh").labels.items()


def test_invalid_spec_makes_no_request(hook: VertexRayClusterHook, fake_emulator: EmulatorProcess) -> None:
    with pytest.raises(InvalidArgumentError, match="worker_node_types"):
        hook.create_cluster("fresh", {"worker_node_types": []})
    assert fake_emulator.calls() == []


def test_list_filters_by_label_and_omits_other_resources(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess
) -> None:
    start(fake_emulator, "one", labels={"team": "a", "env": "x"})
    start(fake_emulator, "two", labels={"team": "b", "env": "x"})
    fake_emulator.create("plain", {"resourcePools": BODY["resourcePools"]})
    assert [cluster.cluster_id for cluster in hook.list_clusters()] == ["one", "two"]
    assert [cluster.cluster_id for cluster in hook.list_clusters({"env": "x", "team": "b"})] == ["two"]
    assert hook.list_clusters({"team": "c"}) == []


def test_dashboard_does_not_answer_yet(hook: VertexRayClusterHook, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    cluster = hook.get_cluster("shared")
    with fake_emulator.fault(scope="dashboard", status=524, times=1):
        assert "524" in str(hook.dashboard_problem(cluster))
    assert hook.dashboard_problem(cluster) is None
    fault = fake_emulator.fault(scope="auth", method="GET /api/version", times=None, status=403)
    with fault:
        assert "403" in str(hook.dashboard_problem(cluster))


def test_cluster_without_dashboard_does_not_answer(hook: VertexRayClusterHook, fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck", delay=600):
        hook.create_cluster("slow", SPEC)
        assert "no dashboard" in str(hook.dashboard_problem(hook.get_cluster("slow")))
        with pytest.raises(PreconditionError):
            hook.delete_cluster("slow")


@pytest.mark.parametrize(
    ("replicas", "text"),
    [
        ({"nowhere": 2}, r"replicas\['nowhere'\]: 2\. Use a pool of cluster .*: head-node, worker-pool1"),
        ({"worker-pool1": 0}, r"replicas\['worker-pool1'\]: 0\. Use a whole number from 1 to 1000"),
        ({"worker-pool1": 1001}, r"1 to 1000"),
        ({"worker-pool1": True}, r"1 to 1000"),
        ({"worker-pool1": "3"}, r"1 to 1000"),
        ({"head-node": 0}, r"1 to 1000"),
    ],
)
def test_invalid_replica_counts_are_rejected(
    hook: VertexRayClusterHook, fake_emulator: EmulatorProcess, replicas: dict[str, int], text: str
) -> None:
    start(fake_emulator)
    with pytest.raises(InvalidArgumentError, match=text):
        hook.resize_cluster("shared", replicas)
    assert fake_emulator.calls("UpdatePersistentResource") == []


def test_autoscaling_pool_is_not_resized(hook: VertexRayClusterHook, fake_emulator: EmulatorProcess) -> None:
    workers = Resources(machine_type="n1-standard-8", autoscaling_spec={"min_replica_count": 1, "max_replica_count": 4})
    start(fake_emulator, **ClusterSpec(worker_node_types=[workers]).to_persistent_resource(LOCATION))
    with pytest.raises(InvalidArgumentError, match="The pool autoscales"):
        hook.resize_cluster("shared", {"worker-pool1": 3})


def test_resize_keeps_a_worker() -> None:
    resource = {
        "name": f"projects/p/locations/{LOCATION}/persistentResources/x",
        "resourcePools": [{"id": "head-node", "replicaCount": "3", "machineSpec": {"machineType": "m"}}],
        "resourceRuntimeSpec": {"raySpec": {}},
    }
    cluster = Cluster.from_resource(resource)
    check_replicas(cluster, {"head-node": 2})
    with pytest.raises(InvalidArgumentError, match="Keep at least one worker"):
        check_replicas(cluster, {"head-node": 1})


def test_resource_without_ray_is_not_resized(hook: VertexRayClusterHook, fake_emulator: EmulatorProcess) -> None:
    fake_emulator.create("plain", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError):
        hook.resize_cluster("plain", {"worker-pool1": 3})
