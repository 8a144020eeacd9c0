"""How many nodes the pools of an autoscaling cluster need, from what Ray waits for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.project.plan import HEAD, head_pool_id, node_plan, present_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vertex_ray_emulator.project.plan import NodePlan

_EPSILON = 1e-6


@dataclass(frozen=True)
class Demand:
    """What a cluster's workload needs, as Ray reports it to its autoscaler.

    :param pending: resources of tasks, actors and bundles that are not placed, with their numbers.
    :param available: free resources of each node, by node id.
    :param idle: seconds for which each node has had nothing to do, by node id.
    """

    pending: Sequence[tuple[Mapping[str, float], int]] = ()
    available: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    idle: Mapping[str, float] = field(default_factory=dict)


def autoscales(resource: Any) -> bool:
    """Return whether a pool of a persistent resource autoscales."""
    return any(pool.HasField("autoscaling_spec") for pool in resource.resource_pools)


def scaled(resource: Any, present: Sequence[str], demand: Demand, idle_seconds: float) -> dict[str, list[str]]:
    """Return the ids of the nodes that each autoscaling pool is to have.

    A pool grows as far as its maximum allows when something waits that its nodes can run and no free node can. It
    shrinks to its minimum by nodes that have been idle for long enough, while nothing waits for nodes like them.

    :param resource: the persistent resource.
    :param present: ids of the nodes that exist.
    :param demand: what waits, and what is free or idle.
    :param idle_seconds: how long a node must be idle to be removed.
    :return: only the pools that change; a new node has an id that no other node has.
    """
    head = head_pool_id(resource)
    pools = [pool for pool in resource.resource_pools if pool.HasField("autoscaling_spec")]
    have = {pool.id: [*([HEAD] if pool.id == head else []), *present_of(pool.id, present)] for pool in pools}
    wanted = {pool.id: list(have[pool.id]) for pool in pools}
    free = [dict(amounts) for amounts in demand.available.values()]
    needed: set[str] = set()
    for shape, count in demand.pending:
        left = _place(shape, count, free)
        # A node with GPUs is the last choice for what needs none.
        for pool in sorted(pools, key=lambda pool: _wastes_gpus(pool, shape)):
            template = _resources(_template(resource, pool))
            while left > 0 and _fits(shape, template):
                needed.add(pool.id)
                if len(wanted[pool.id]) >= pool.autoscaling_spec.max_replica_count:
                    break
                wanted[pool.id].append(_free_id(pool.id, wanted[pool.id]))
                free.append(dict(template))
                left = _place(shape, left, free[-1:])
    for pool in pools:
        if pool.id in needed:
            continue
        spare = len(wanted[pool.id]) - int(pool.autoscaling_spec.min_replica_count)
        for node_id in reversed(present_of(pool.id, wanted[pool.id])):
            if spare > 0 and demand.idle.get(node_id, -1.0) >= idle_seconds:
                wanted[pool.id].remove(node_id)
                spare -= 1
    return {pool_id: ids for pool_id, ids in wanted.items() if ids != have[pool_id]}


def _template(resource: Any, pool: Any) -> NodePlan:
    """Return the plan of any worker of a pool."""
    one = type(resource)()
    one.CopyFrom(resource)
    for each in one.resource_pools:
        if each.id == pool.id:
            each.ClearField("autoscaling_spec")
            each.replica_count = 2
    return next(plan for plan in node_plan(one) if plan.pool_id == pool.id and not plan.is_head)


def _resources(plan: NodePlan) -> dict[str, float]:
    found = {"CPU": float(plan.cpus), "GPU": float(plan.gpus), "memory": float(plan.memory_bytes)}
    if plan.accelerator and plan.gpus:
        found[f"accelerator_type:{plan.accelerator}"] = 1.0
    return found


def _fits(shape: Mapping[str, float], amounts: Mapping[str, float]) -> bool:
    return all(amounts.get(name, 0.0) + _EPSILON >= amount for name, amount in shape.items())


def _place(shape: Mapping[str, float], count: int, nodes: Sequence[dict[str, float]]) -> int:
    """Take a shape from the free resources of nodes as often as it fits; return how many are left."""
    wanted = {name: amount for name, amount in shape.items() if amount > 0}
    for node in nodes:
        if count <= 0:
            break
        if not wanted:
            return 0
        times = min(int((node.get(name, 0.0) + _EPSILON) / amount) for name, amount in wanted.items())
        times = min(times, count)
        for name, amount in wanted.items():
            node[name] = node.get(name, 0.0) - amount * times
        count -= times
    return count


def _wastes_gpus(pool: Any, shape: Mapping[str, float]) -> bool:
    return bool(pool.machine_spec.accelerator_count) and not shape.get("GPU")


def _free_id(pool_id: str, taken: Sequence[str]) -> str:
    number = 1 if HEAD in taken else 0
    while f"{pool_id}-{number}" in taken:
        number += 1
    return f"{pool_id}-{number}"
