"""Whether a cluster may be made smaller: not below what the jobs on it use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_vertex_ray.api.jobs import JobsApi
from airflow_provider_vertex_ray.cluster_state import Cluster
from airflow_provider_vertex_ray.errors import ClusterInUseError, VertexRayError

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
