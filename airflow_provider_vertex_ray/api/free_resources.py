"""What a cluster's nodes have and what of it is free, by Ray's state API: for a job that finds no place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from airflow_provider_vertex_ray.api.jobs import JobsApi

MOST_NODES = 20
"""Nodes that are named one by one."""


async def free_resources(api: JobsApi) -> str:
    """A sentence such as ``head: no CPU; 2 nodes: 8 CPU (3 free)``. Placement groups are not looked at.

    :raises VertexRayError: The cluster can not be asked.
    """
    nodes = await api.state("nodes", detail=True)
    actors = await api.state("actors", detail=True, state="ALIVE")
    tasks = await api.state("tasks", detail=True, state="RUNNING")
    return describe(nodes, [*actors, *(task for task in tasks if task.get("type") != "ACTOR_TASK")])


def describe(nodes: Iterable[dict[str, Any]], holders: Iterable[dict[str, Any]]) -> str:
    """The sentence, from what Ray's state API lists.

    :param nodes: Nodes with ``resources_total``.
    :param holders: Actors and tasks with ``node_id`` and ``required_resources``.
    """
    used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for holder in holders:
        for resource, amount in (holder.get("required_resources") or {}).items():
            used[str(holder.get("node_id"))][resource] += float(amount)
    said = []
    alive = [node for node in nodes if node.get("state") == "ALIVE"]
    for node in alive[:MOST_NODES]:
        total = node.get("resources_total") or {}
        taken = used[str(node.get("node_id"))]
        parts = [
            f"{total[resource]:g} {resource} ({max(0.0, total[resource] - taken[resource]):g} free)"
            for resource in sorted(total)
            if resource in ("CPU", "GPU") or resource.startswith("accelerator_type:")
        ]
        role = "head" if node.get("is_head_node") else "worker"
        said.append(f"{role}: {', '.join(parts) or 'no CPU'}")
    more = f"; and {len(alive) - MOST_NODES} more" if len(alive) > MOST_NODES else ""
    return "; ".join(said) + more if said else "none is alive"
