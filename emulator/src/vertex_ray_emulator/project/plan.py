"""From a persistent resource to the nodes that it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vertex_ray_emulator.project.catalog import ACCELERATORS, MACHINES
from vertex_ray_emulator.wire.protos import accelerator_name

HEAD = "head"


@dataclass(frozen=True)
class NodePlan:
    """One node that a cluster should have.

    :param node_id: ``head``, or ``<pool id>-<k>``; stable over resizes.
    :param pool_id: The resource pool that the node belongs to.
    :param is_head: Whether this is the head; the service gives it no logical CPUs.
    :param machine_type: The Compute Engine machine type, such as ``n1-standard-16``.
    :param cpus: The machine type's vCPUs.
    :param gpus: Accelerators on the node.
    :param accelerator: Ray's name for the accelerator, such as ``T4``; None without one.
    :param memory_bytes: The logical memory, in bytes.
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
    """Whether a persistent resource is a Ray cluster; one without a ray spec serves other training jobs."""
    return bool(resource.resource_runtime_spec.HasField("ray_spec"))


def replicas(pool: Any) -> int:
    """How many nodes a pool has: its replica count, or of an autoscaling pool the minimum.

    Nothing scales an emulated pool up: the minimum is what the service starts with, too.
    """
    if pool.HasField("autoscaling_spec") and not pool.replica_count:
        return int(pool.autoscaling_spec.min_replica_count)
    return int(pool.replica_count)


def head_pool_id(resource: Any) -> str:
    """The pool whose first node is the head: the ray spec's, by default the first."""
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


def node_plan(resource: Any) -> list[NodePlan]:
    """The nodes of a Ray cluster, the head first.

    A node's id stays the same when the pools are resized: a resize adds and removes only what it must.
    """
    head = head_pool_id(resource)
    nodes: list[NodePlan] = []
    for pool in resource.resource_pools:
        for k in range(replicas(pool)):
            if pool.id == head and k == 0:
                nodes.insert(0, _node(pool, HEAD))
            else:
                nodes.append(_node(pool, f"{pool.id}-{k}"))
    return nodes


def one_short(nodes: list[NodePlan]) -> list[NodePlan]:
    """A plan that came up only in part: the last worker is missing."""
    return nodes[:-1] if len(nodes) > 1 else nodes


def count_by_pool(nodes: list[NodePlan]) -> dict[str, int]:
    """How many nodes of a plan each pool has."""
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.pool_id] = counts.get(node.pool_id, 0) + 1
    return counts
