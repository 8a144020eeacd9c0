"""A cluster that is resized: the nodes that Ray sees count, not what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.cluster_spec import AutoscalingSpec, ClusterSpec, Resources
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    ClusterInUseError,
    ClusterNotFoundError,
    InvalidArgumentError,
    LeaseHeldError,
    NotARayClusterError,
    QuotaExceededError,
    ResizeFailedError,
    StockoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.operators.cluster import VertexRayResizeClusterOperator
from tests.operators.builders import COMMON, resize
from tests.support.clusters import BODY, LOCATION, SPEC, start, submit
from tests.support.leases import hold, lease_of
from tests.support.tasks import context_of, deferral_of, run_task

HEAD, WORKERS = (pool.pool_id for pool in SPEC.pools())


def updates(emulator: EmulatorProcess) -> int:
    return len(emulator.calls("UpdatePersistentResource"))


def live_nodes(emulator: EmulatorProcess) -> int:
    (cluster,) = emulator.admin("GET", "clusters")["clusters"]
    return sum(1 for node in cluster["nodes"] if node["alive"])


@pytest.mark.parametrize("count", [5, 1])
def test_up_and_down(fake_emulator: EmulatorProcess, deferrable: bool, count: int) -> None:
    start(fake_emulator)
    result = run_task(resize("shared", {WORKERS: count}, deferrable=deferrable))
    assert (result["state"], result["node_count"], result["live_nodes"]) == ("RUNNING", 1 + count, 1 + count)
    assert result["pools"][WORKERS]["replicas"] == count
    assert result["pools"][HEAD]["replicas"] == 1
    assert live_nodes(fake_emulator) == 1 + count


def test_templates(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    operator = resize("{{ name }}", {WORKERS: "{{ count }}"}, deferrable=deferrable)
    assert run_task(operator, context_of(operator, name="shared", count=4))["live_nodes"] == 5


def test_the_size_that_it_has_already(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    assert run_task(resize("shared", {WORKERS: 2}, deferrable=deferrable))["live_nodes"] == 3
    assert updates(fake_emulator) == 0


def test_a_node_that_does_not_come(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    with (
        fake_emulator.fault(scope="provisioning", outcome="partial"),
        pytest.raises(ResizeFailedError, match="Ray reports 4 nodes as alive, and 5 are expected"),
    ):
        run_task(resize("shared", {WORKERS: 4}, deferrable=deferrable, resize_timeout=5))


@pytest.mark.parametrize(("outcome", "kind"), [("quota", QuotaExceededError), ("stockout", StockoutError)])
def test_what_the_service_refuses(
    fake_emulator: EmulatorProcess, deferrable: bool, outcome: str, kind: type[VertexRayError]
) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="provisioning", outcome=outcome), pytest.raises(kind):
        run_task(resize("shared", {WORKERS: 4}, deferrable=deferrable))
    # It runs on as it was.
    assert fake_emulator.api("GET", "persistentResources/shared")[1]["state"] == "RUNNING"
    assert live_nodes(fake_emulator) == 3


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"replicas": {}}, "replicas"),
        ({"replicas": {WORKERS: 0}}, f"replicas[{WORKERS!r}]"),
        ({"cluster_id": "Bad_Id", "replicas": {WORKERS: 2}}, "cluster_id"),
        ({"replicas": {WORKERS: 2}, "resize_timeout": 0}, "resize_timeout"),
    ],
    ids=str,
)
def test_at_dag_parse(fake_emulator: EmulatorProcess, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        resize(arguments.pop("cluster_id", "shared"), arguments.pop("replicas"), **arguments)
    assert caught.value.field == field
    assert fake_emulator.calls() == []


def refused(emulator: EmulatorProcess, replicas: dict[str, Any], deferrable: bool) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(resize("shared", replicas, deferrable=deferrable))
    assert updates(emulator) == 0
    return caught.value


@pytest.mark.parametrize(
    ("replicas", "field", "rule"),
    [
        ({"worker-pool9": 2}, "replicas['worker-pool9']", f"Use a pool of cluster shared: {HEAD}, {WORKERS}."),
        ({WORKERS: "0"}, f"replicas[{WORKERS!r}]", "from 1 to 1000"),
        ({WORKERS: 1001}, f"replicas[{WORKERS!r}]", "from 1 to 1000"),
        ({WORKERS: "many"}, f"replicas[{WORKERS!r}]", "from 1 to 1000"),
    ],
    ids=str,
)
def test_counts_that_can_not_be(
    fake_emulator: EmulatorProcess, deferrable: bool, replicas: dict[str, Any], field: str, rule: str
) -> None:
    start(fake_emulator)
    error = refused(fake_emulator, replicas, deferrable)
    assert error.field == field
    assert rule in error.rule


def test_a_head_alone_would_be_left(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    spec = ClusterSpec(worker_node_types=[Resources(node_count=2)])
    (pool,) = spec.pools()
    fake_emulator.create("shared", spec.to_persistent_resource(LOCATION))
    error = refused(fake_emulator, {pool.pool_id: 1}, deferrable)
    assert "Keep at least one worker" in error.rule


def test_an_autoscaling_pool(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    workers = Resources("n1-standard-8", autoscaling_spec=AutoscalingSpec(1, 3))
    spec = ClusterSpec(worker_node_types=[workers])
    fake_emulator.create("shared", spec.to_persistent_resource(LOCATION))
    error = refused(fake_emulator, {spec.pools()[1].pool_id: 2}, deferrable)
    assert "autoscales" in error.rule


def test_no_such_cluster(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(ClusterNotFoundError):
        run_task(resize("shared", {WORKERS: 2}, deferrable=deferrable))


def test_one_without_ray(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    fake_emulator.create("shared", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError):
        run_task(resize("shared", {WORKERS: 3}, deferrable=deferrable))


def total(count: Any, **more: Any) -> VertexRayResizeClusterOperator:
    arguments = {"task_id": "resize", "cluster_id": "shared", "total_nodes": count, **COMMON, **more}
    return VertexRayResizeClusterOperator(**arguments)


def test_by_the_number_of_all_nodes(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    start(fake_emulator)
    assert run_task(total(5, deferrable=deferrable))["pools"][WORKERS]["replicas"] == 4
    operator = total("{{ 1 + 1 }}", deferrable=deferrable)
    assert run_task(operator)["live_nodes"] == 2


def test_a_total_needs_one_pool(fake_emulator: EmulatorProcess) -> None:
    workers = [Resources(machine_type="n1-standard-8"), Resources(machine_type="n1-standard-32")]
    body = ClusterSpec(worker_node_types=workers).to_persistent_resource(LOCATION)
    fake_emulator.create("shared", body)
    with pytest.raises(InvalidArgumentError, match=r"total_nodes: 5\. Set the pools in replicas instead"):
        run_task(total(5, deferrable=False))
    assert updates(fake_emulator) == 0


@pytest.mark.parametrize("count", [1, 0, -3, 2001, 2.5, True, "many"])
def test_totals_that_are_none(count: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="total_nodes"):
        total(count)
    with pytest.raises(InvalidArgumentError, match="replicas"):
        VertexRayResizeClusterOperator(task_id="resize", cluster_id="a", replicas={"p": 1}, total_nodes=3, **COMMON)
    with pytest.raises(InvalidArgumentError, match="replicas"):
        VertexRayResizeClusterOperator(task_id="resize", cluster_id="a", **COMMON)


def test_it_does_not_get_smaller_while_its_use_is_not_known(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    # The emulator without Ray does not say what its jobs use.
    start(fake_emulator)
    submit(fake_emulator, "shared", "long", "sleep 600")
    with pytest.raises(ClusterInUseError, match="its use cannot be read"):
        run_task(resize("shared", {WORKERS: 1}, deferrable=deferrable))
    assert updates(fake_emulator) == 0
    assert run_task(resize("shared", {WORKERS: 3}, deferrable=deferrable))["live_nodes"] == 4
    assert run_task(resize("shared", {WORKERS: 1}, deferrable=deferrable, force=True))["live_nodes"] == 2


def test_a_cluster_that_others_hold_does_not_get_smaller(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, deferrable: bool
) -> None:
    start(fake_emulator)
    hold(storage, "other/run")
    with pytest.raises(LeaseHeldError, match="other/run"):
        run_task(resize("shared", {WORKERS: 1}, deferrable=deferrable, lease_uri=storage.uri))
    assert updates(fake_emulator) == 0
    # Bigger is no harm.
    assert run_task(resize("shared", {WORKERS: 3}, deferrable=deferrable, lease_uri=storage.uri))["live_nodes"] == 4


def test_while_it_gets_smaller_it_takes_no_new_work(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, deferrable: bool
) -> None:
    start(fake_emulator)
    # This run's own holds are no reason.
    hold(storage, "dag/run-1")
    hold(storage, "team-x", scope="dag/run-1/ensure")
    waiting = deferral_of(resize("shared", {WORKERS: 1}, deferrable=True, lease_uri=storage.uri))
    with pytest.raises(ClusterClosingError, match="it is being scaled down"):
        hold(storage, "other/run")
    assert waiting.trigger is not None
    operator = resize("shared", {WORKERS: 1}, deferrable=deferrable, lease_uri=storage.uri)
    assert run_task(operator)["live_nodes"] == 2


def test_the_lease_opens_again_also_after_a_failure(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    start(fake_emulator)
    refusal = {"scope": "control_plane", "method": "Update*", "action": "status", "status": 400}
    with fake_emulator.fault(**refusal), pytest.raises(VertexRayError):
        run_task(resize("shared", {WORKERS: 1}, deferrable=False, lease_uri=storage.uri))
    assert lease_of(storage).closing is None
    hold(storage, "other/run")
