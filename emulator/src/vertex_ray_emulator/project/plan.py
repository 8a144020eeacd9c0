"""Nodes of a Ray cluster, derived from its persistent resource."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.project.catalog import ACCELERATORS, MACHINES
from vertex_ray_emulator.wire.protos import accelerator_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

HEAD = "head"
SMALLEST_HEAD = MACHINES["n1-standard-16"]
"""The smallest head whose dashboard is known to come up."""


@dataclass(frozen=True)
class NodePlan:
    """A node that a cluster is to have.

    :param node_id: ``head``, or ``<pool id>-<k>``; unchanged by resizes.
    :param pool_id: resource pool of the node.
    :param is_head: whether this is the head, which has no logical CPUs on the service.
    :param machine_type: machine type of Compute Engine, such as ``n1-standard-16``.
    :param cpus: number of vCPUs of the machine type.
    :param gpus: number of accelerators.
    :param accelerator: Ray's name of the accelerator, such as ``T4``; None without accelerators.
    :param memory_bytes: logical memory in bytes.
    """

    node_id: str
    pool_id: str
    is_head: bool
    machine_type: str
    cpus: int
    gpus: int
    accelerator: str | None
    memory_bytes: int


def is_ray(resource: Any) -> bool:
    """Return whether a persistent resource is a Ray cluster; without a Ray spec it serves other training jobs."""
    return bool(resource.resource_runtime_spec.HasField("ray_spec"))


def replicas(pool: Any) -> int:
    """Return the number of nodes of a pool: its replica count, or the minimum of an autoscaling pool."""
    if pool.HasField("autoscaling_spec") and not pool.replica_count:
        return int(pool.autoscaling_spec.min_replica_count)
    return int(pool.replica_count)


def head_pool_id(resource: Any) -> str:
    """Return the id of the head's pool: the one that the Ray spec names, by default the first."""
    return str(resource.resource_runtime_spec.ray_spec.head_node_resource_pool_id or resource.resource_pools[0].id)


def _node(pool: Any, node_id: str) -> NodePlan:
    machine = MACHINES[pool.machine_spec.machine_type]
    accelerator = accelerator_name(pool.machine_spec)
    return NodePlan(
        node_id=node_id,
        pool_id=pool.id,
        is_head=node_id == HEAD,
        machine_type=machine.name,
        cpus=machine.cpus,
        gpus=int(pool.machine_spec.accelerator_count),
        accelerator=ACCELERATORS[accelerator].ray_name if accelerator else None,
        memory_bytes=machine.memory_bytes,
    )


def node_plan(resource: Any, present: Collection[str] = ()) -> list[NodePlan]:
    """Return the nodes of a Ray cluster, the head first.

    :param resource: the persistent resource.
    :param present: ids of nodes that exist; as many of them as possible are kept.
    """
    head = head_pool_id(resource)
    nodes: list[NodePlan] = []
    for pool in resource.resource_pools:
        workers = replicas(pool)
        # The ids of the workers in the head's pool begin with 1.
        first = 0
        if pool.id == head and workers:
            nodes.insert(0, _node(pool, HEAD))
            workers, first = workers - 1, 1
        kept = present_of(pool.id, present)[:workers]
        free = (f"{pool.id}-{k}" for k in itertools.count(first))
        new = itertools.islice((each for each in free if each not in kept), workers - len(kept))
        nodes.extend(_node(pool, node_id) for node_id in sorted([*kept, *new], key=_index))
    return nodes


def present_of(pool_id: str, present: Iterable[str]) -> list[str]:
    """Return the ids of a pool's workers out of the ids of nodes, in their order."""
    found = [node_id for node_id in present if node_id != HEAD and node_id.rpartition("-")[0] == pool_id]
    return sorted(found, key=_index)


def _index(node_id: str) -> int:
    return int(node_id.rpartition("-")[2])


def has_small_head(resource: Any) -> bool:
    """Return whether the head is smaller than 16 vCPUs and 60 GB, with which dashboards were reported to stay dead."""
    pool = next(pool for pool in resource.resource_pools if pool.id == head_pool_id(resource))
    machine = MACHINES[pool.machine_spec.machine_type]
    return machine.cpus < SMALLEST_HEAD.cpus or machine.memory_bytes < SMALLEST_HEAD.memory_bytes


def without_last_worker(nodes: list[NodePlan]) -> list[NodePlan]:
    """Return a plan without its last worker, as for a cluster that started only partially."""
    return nodes[:-1] if len(nodes) > 1 else nodes


def count_by_pool(nodes: list[NodePlan]) -> dict[str, int]:
    """Return the number of nodes of each pool."""
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.pool_id] = counts.get(node.pool_id, 0) + 1
    return counts
