"""What is said of a cluster's nodes."""

from __future__ import annotations

from typing import Any

from airflow_provider_vertex_ray.core.http.decoding import check_shape
from airflow_provider_vertex_ray.core.job import capacity
from airflow_provider_vertex_ray.core.job.answers import HolderAnswer, NodeAnswer
from airflow_provider_vertex_ray.core.job.capacity import MOST_NODES


def describe(nodes: list[dict[str, Any]], holders: list[dict[str, Any]]) -> str:
    return capacity.describe(
        [check_shape(each, NodeAnswer) for each in nodes], [check_shape(each, HolderAnswer) for each in holders]
    )


HEAD: dict[str, Any] = {"node_id": "h", "is_head_node": True, "state": "ALIVE", "resources_total": {"memory": 1e9}}
WORKER: dict[str, Any] = {
    "node_id": "w",
    "state": "ALIVE",
    "resources_total": {"CPU": 8.0, "GPU": 1.0, "memory": 1e9, "accelerator_type:T4": 1.0},
}


def test_free_resources_exclude_held_ones() -> None:
    holders = [
        {"node_id": "w", "required_resources": {"CPU": 2.0, "GPU": 0.5}},
        {"node_id": "w", "required_resources": {"CPU": 1.0}},
        {"node_id": "elsewhere", "required_resources": {"CPU": 100.0}},
        {"node_id": "w", "required_resources": None},
    ]
    assert describe([HEAD, WORKER], holders) == (
        "head: no CPU; worker: 8 CPU (5 free), 1 GPU (0.5 free), 1 accelerator_type:T4 (1 free)"
    )


def test_dead_nodes_are_left_out() -> None:
    assert describe([{**WORKER, "state": "DEAD"}], []) == "none is alive"


def test_many_nodes_are_not_all_named() -> None:
    said = describe([WORKER] * (MOST_NODES + 5), [])
    assert said.count("worker") == MOST_NODES
    assert said.endswith("; and 5 more")
