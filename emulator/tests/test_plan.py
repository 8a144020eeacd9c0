from __future__ import annotations

from typing import Any

from emulator_support.process import cluster_body
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from vertex_ray_emulator.project.plan import count_by_pool, node_plan, without_last_worker
from vertex_ray_emulator.wire.protos import PersistentResource

pool_sizes = st.lists(st.integers(min_value=1, max_value=12), min_size=1, max_size=5)


def parse(body: dict[str, Any]) -> Any:
    return json_format.ParseDict(body, PersistentResource())


def resource(sizes: list[int], head: int = 0) -> Any:
    body = cluster_body()
    body["resourcePools"] = [
        {"id": f"pool-{i}", "replicaCount": size, "machineSpec": {"machineType": "n1-standard-8"}}
        for i, size in enumerate(sizes)
    ]
    body["resourceRuntimeSpec"]["raySpec"] = {"headNodeResourcePoolId": f"pool-{head}" if head else ""}
    return parse(body)


@given(pool_sizes, st.data())
def test_plan_has_one_head_and_every_replica(sizes: list[int], data: st.DataObject) -> None:
    head = data.draw(st.integers(min_value=0, max_value=len(sizes) - 1))
    nodes = node_plan(resource(sizes, head))
    assert len(nodes) == sum(sizes)
    assert [node.is_head for node in nodes] == [True] + [False] * (len(nodes) - 1)
    assert nodes[0].node_id == "head"
    assert nodes[0].pool_id == f"pool-{head}"
    assert len({node.node_id for node in nodes}) == len(nodes)
    assert count_by_pool(nodes) == {f"pool-{i}": size for i, size in enumerate(sizes)}


@given(pool_sizes, st.data())
def test_node_ids_survive_resize(sizes: list[int], data: st.DataObject) -> None:
    grown = [size + data.draw(st.integers(min_value=0, max_value=3)) for size in sizes]
    before = {node.node_id: node for node in node_plan(resource(sizes))}
    after = {node.node_id: node for node in node_plan(resource(grown))}
    assert before.items() <= after.items()


def test_node_has_machine_and_accelerator() -> None:
    body = cluster_body()
    body["resourcePools"][1]["machineSpec"] |= {"acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 2}
    head, worker = node_plan(parse(body))
    assert (head.cpus, head.gpus, head.accelerator) == (16, 0, None)
    assert (worker.cpus, worker.gpus, worker.accelerator) == (16, 2, "T4")
    assert worker.memory_bytes == 60 << 30


def test_autoscaling_pool_runs_at_minimum() -> None:
    body = cluster_body()
    del body["resourcePools"][1]["replicaCount"]
    body["resourcePools"][1]["autoscalingSpec"] = {"minReplicaCount": "3", "maxReplicaCount": "9"}
    assert count_by_pool(node_plan(parse(body))) == {"head-node": 1, "worker-pool1": 3}


def test_partial_cluster_lacks_last_worker_and_never_head() -> None:
    assert [node.node_id for node in without_last_worker(node_plan(resource([1, 2])))] == ["head", "pool-1-0"]
    assert [node.node_id for node in without_last_worker(node_plan(resource([1])))] == ["head"]
