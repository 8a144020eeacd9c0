"""Whether enough is left of a cluster that is made smaller."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.http.decoding import check_shape
from airflow_provider_vertex_ray.core.job import capacity
from airflow_provider_vertex_ray.core.job.answers import HolderAnswer, NodeAnswer


def lacks(nodes: list[dict[str, Any]], holders: list[dict[str, Any]], fewer: int) -> str:
    return capacity.lacks(
        [check_shape(each, NodeAnswer) for each in nodes], [check_shape(each, HolderAnswer) for each in holders], fewer
    )


def worker(name: str, cpus: float = 4.0, **more: Any) -> dict[str, Any]:
    return {"node_id": name, "state": "ALIVE", "is_head_node": False, "resources_total": {"CPU": cpus}, **more}


def user(node: str, cpus: float) -> dict[str, Any]:
    return {"node_id": node, "required_resources": {"CPU": cpus}}


HEAD = worker("head", 0.0, is_head_node=True)
THREE = [HEAD, worker("a"), worker("b"), worker("c")]


@pytest.mark.parametrize(
    ("users", "fewer", "said"),
    [
        ([], 2, ""),
        # What is on the head needs no worker.
        ([user("head", 0.0)], 2, ""),
        ([user("a", 4.0)], 2, ""),
        ([user("a", 1.0), user("b", 1.0)], 2, "1 workers would remain, but 2 are in use"),
        ([user("a", 1.0), user("b", 1.0)], 1, ""),
        ([user("a", 1.0), user("a", 4.0)], 2, "4 CPU would remain, but 5 are in use"),
        ([{"node_id": "a", "required_resources": {"GPU": 1.0}}], 1, "0 GPU would remain, but 1 are in use"),
        ([{"node_id": "a", "required_resources": None}], 2, ""),
    ],
)
def test_used_resources_must_remain(users: list[dict[str, Any]], fewer: int, said: str) -> None:
    assert lacks(THREE, users, fewer) == said


def test_largest_nodes_are_assumed_to_be_removed() -> None:
    nodes = [HEAD, worker("small", 2.0), worker("large", 8.0)]
    assert lacks(nodes, [user("large", 3.0)], 1) == "2 CPU would remain, but 3 are in use"


def test_dead_nodes_do_not_count() -> None:
    nodes = [HEAD, worker("a"), worker("b", state="DEAD")]
    assert lacks(nodes, [user("a", 1.0)], 1) == "0 workers would remain, but 1 are in use"


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8)), max_size=10),
    st.integers(0, 8),
)
def test_removing_more_nodes_never_helps(sizes: list[int], used: list[tuple[int, int]], fewer: int) -> None:
    nodes = [worker(str(place), float(size)) for place, size in enumerate(sizes)]
    users = [user(str(place), float(cpus)) for place, cpus in used]
    if lacks(nodes, users, fewer):
        assert lacks(nodes, users, fewer + 1)
