"""Resources of a cluster's nodes by Ray's state API: free ones for a pending job, and missing ones after a resize."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.answers import HolderAnswer, NodeAnswer
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import ClusterInUseError, UnreadableAnswerError, VertexRayError

MOST_NODES = 20
"""Maximum number of nodes that are listed individually."""

COUNTED = ("CPU", "GPU")
"""Resources that a smaller cluster must still have."""


async def free_resources(api: JobsApi) -> str:
    """Return a description such as ``head: no CPU; worker: 8 CPU (3 free)``; placement groups are not considered.

    :raises VertexRayError: the cluster cannot be reached
    """
    return describe(*await _nodes_and_holders(api))


async def _nodes_and_holders(api: JobsApi) -> tuple[list[NodeAnswer], list[HolderAnswer]]:
    """Return the nodes of a cluster, and the actors and tasks that hold resources on them."""
    nodes = await api.state(NodeAnswer, "nodes", detail=True)
    actors = await api.state(HolderAnswer, "actors", detail=True, state="ALIVE")
    tasks = await api.state(HolderAnswer, "tasks", detail=True, state="RUNNING")
    return nodes, [*actors, *(task for task in tasks if task.type != "ACTOR_TASK")]


def describe(nodes: Iterable[NodeAnswer], holders: Iterable[HolderAnswer]) -> str:
    """Describe the total and free resources of each node.

    :param nodes: nodes of Ray's state API, with ``resources_total``
    :param holders: actors and tasks of Ray's state API, with ``node_id`` and ``required_resources``
    """
    used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for holder in holders:
        for resource, amount in (holder.required_resources or {}).items():
            used[holder.node_id or ""][resource] += amount
    parts_by_node = []
    alive = [node for node in nodes if node.state == "ALIVE"]
    for node in alive[:MOST_NODES]:
        total = node.resources_total or {}
        taken = used[node.node_id or ""]
        parts = [
            f"{total[resource]:g} {resource} ({max(0.0, total[resource] - taken[resource]):g} free)"
            for resource in sorted(total)
            if resource in ("CPU", "GPU") or resource.startswith("accelerator_type:")
        ]
        role = "head" if node.is_head_node else "worker"
        parts_by_node.append(f"{role}: {', '.join(parts) or 'no CPU'}")
    more = f"; and {len(alive) - MOST_NODES} more" if len(alive) > MOST_NODES else ""
    return "; ".join(parts_by_node) + more if parts_by_node else "none is alive"


def shrinks(cluster: Cluster, replicas: Mapping[str, int]) -> int:
    """Return the number of nodes that a resize removes, over all pools that become smaller.

    :param cluster: the cluster
    :param replicas: new replica count by pool id
    """
    return sum(max(0, pool.replicas - replicas.get(pool.pool_id, pool.replicas)) for pool in cluster.pools)


async def check_shrink(api: JobsApi, cluster: Cluster, replicas: Mapping[str, int]) -> None:
    """Validate that a smaller cluster has enough resources for what runs on it; the service chooses the removed nodes.

    :param api: Jobs API of the cluster
    :param cluster: the cluster
    :param replicas: new replica count by pool id
    :raises ClusterInUseError: too few resources would remain, or their use cannot be read
    """
    fewer = shrinks(cluster, replicas)
    if not fewer:
        return
    try:
        if not cluster.dashboard_uri:
            raise UnreadableAnswerError("The service names no dashboard of it.")
        active = [job for job in await api.in_use() if not job.status.is_terminal]
        if not active:
            return
        nodes, holders = await _nodes_and_holders(api)
    except VertexRayError as error:
        raise ClusterInUseError(
            f"Cluster {cluster.cluster_id} is not scaled down, because its use cannot be read ({error.message})."
        ) from error
    lacking = lacks(nodes, holders, fewer)
    if lacking:
        jobs = ", ".join(sorted(job.submission_id for job in active)[:5])
        raise ClusterInUseError(
            f"Cluster {cluster.cluster_id} is not scaled down by {fewer} nodes: {lacking}. Active jobs: {jobs}.",
            {"cluster": cluster.name, "replicas": dict(replicas)},
        )


def lacks(nodes: Iterable[NodeAnswer], holders: Iterable[HolderAnswer], fewer: int) -> str:
    """Describe what would be missing with fewer workers; empty for nothing.

    The check assumes that the largest nodes are removed, because it is unknown which ones will be.

    :param nodes: nodes of Ray's state API, with ``resources_total``
    :param holders: actors and tasks of Ray's state API, with ``node_id`` and ``required_resources``
    :param fewer: number of workers to remove
    """
    workers = {
        node.node_id or "": node.resources_total or {}
        for node in nodes
        if node.state == "ALIVE" and not node.is_head_node
    }
    used: dict[str, float] = defaultdict(float)
    busy = set()
    for holder in holders:
        if (node_id := holder.node_id or "") not in workers:
            continue
        busy.add(node_id)
        for resource, amount in (holder.required_resources or {}).items():
            used[resource] += amount
    left = len(workers) - fewer
    if left < len(busy):
        return f"{left} workers would remain, but {len(busy)} are in use"
    for resource in COUNTED:
        sizes = sorted(total.get(resource, 0.0) for total in workers.values())
        if used[resource] > sum(sizes[: max(0, left)]):
            return f"{sum(sizes[: max(0, left)]):g} {resource} would remain, but {used[resource]:g} are in use"
    return ""
