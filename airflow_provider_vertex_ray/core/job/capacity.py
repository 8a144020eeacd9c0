"""What a cluster's nodes have and what of it is free, by Ray's state API: for a job that finds no place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import ClusterInUseError, VertexRayError

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


COUNTED = ("CPU", "GPU")


def shrinks(cluster: Cluster, replicas: Mapping[str, int]) -> int:
    """How many nodes fewer there would be, of those pools that get smaller."""
    return sum(max(0, pool.replicas - replicas.get(pool.pool_id, pool.replicas)) for pool in cluster.pools)


async def check_shrink(api: JobsApi, cluster: Cluster, replicas: Mapping[str, int]) -> None:
    """Refuse to make a cluster smaller than what is used on it. Which nodes go is the service's choice.

    :param replicas: New replica count by pool id.
    :raises ClusterInUseError: Too little would be left, or what is used can not be read while jobs run.
    """
    fewer = shrinks(cluster, replicas)
    if not fewer:
        return
    try:
        active = [job for job in await api.list_all(drivers=True) if not job.status.is_terminal]
        if not active:
            return
        nodes = await api.state("nodes", detail=True)
        actors = await api.state("actors", detail=True, state="ALIVE")
        tasks = await api.state("tasks", detail=True, state="RUNNING")
    except VertexRayError as error:
        raise ClusterInUseError(
            f"Cluster {cluster.cluster_id} is not made smaller: what is used on it can not be read ({error.message})."
        ) from error
    holders = [*actors, *(task for task in tasks if task.get("type") != "ACTOR_TASK")]
    lacking = lacks(nodes, holders, fewer)
    if lacking:
        jobs = ", ".join(sorted(job.submission_id for job in active)[:5])
        raise ClusterInUseError(
            f"Cluster {cluster.cluster_id} is not made smaller by {fewer} nodes: {lacking}. Jobs: {jobs}.",
            {"cluster": cluster.name, "replicas": dict(replicas)},
        )


def lacks(nodes: Iterable[dict[str, Any]], holders: Iterable[dict[str, Any]], fewer: int) -> str:
    """What would be missing with so many workers fewer; empty for nothing.

    The largest nodes are taken to go, since nobody knows which will.

    :param nodes: Nodes with ``resources_total``, as Ray's state API lists them.
    :param holders: Actors and tasks with ``node_id`` and ``required_resources``.
    """
    workers = {
        str(node.get("node_id")): node.get("resources_total") or {}
        for node in nodes
        if node.get("state") == "ALIVE" and not node.get("is_head_node")
    }
    used: dict[str, float] = defaultdict(float)
    busy = set()
    for holder in holders:
        if str(holder.get("node_id")) not in workers:
            continue
        busy.add(str(holder.get("node_id")))
        for resource, amount in (holder.get("required_resources") or {}).items():
            used[resource] += float(amount)
    left = len(workers) - fewer
    if left < len(busy):
        return f"{left} workers would be left, and {len(busy)} are used"
    for resource in COUNTED:
        sizes = sorted(float(total.get(resource, 0)) for total in workers.values())
        if used[resource] > sum(sizes[: max(0, left)]):
            return f"{sum(sizes[: max(0, left)]):g} {resource} would be left, and {used[resource]:g} are used"
    return ""
