"""Whether the driver of a job fits on any node of its cluster. Pure."""

from __future__ import annotations

from airflow_provider_vertex_ray.core.checks import is_number
from airflow_provider_vertex_ray.core.cluster.machines import machine_named
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.errors import InvalidArgumentError

GIB = 1 << 30
"""Bytes of a GiB."""

FIELDS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory")


def check_driver_fits(cluster: Cluster, cpus: object, gpus: object, memory: object) -> None:
    """Validate that some node of the cluster is large enough for a driver, which would otherwise never start.

    Sizes are those of the machine types. Custom resources are not checked, and nothing is if a machine type is unknown.

    :param cluster: the cluster
    :param cpus: CPUs that the driver reserves; None for none
    :param gpus: GPUs that it reserves; None for none
    :param memory: bytes that it reserves; None for none
    :raises InvalidArgumentError: no node is large enough
    """
    wanted = [float(amount) if is_number(amount) else 0.0 for amount in (cpus, gpus, memory)]
    nodes: list[tuple[float, float, float]] = []
    workers: list[str] = []
    for pool in cluster.pools:
        machine = machine_named(pool.machine_type)
        if machine is None:
            return
        gpu, is_head = pool.accelerator_count or machine.gpu_count, pool.pool_id == cluster.head_pool_id
        if is_head:
            # The service sets the head's logical CPUs to 0.
            nodes.append((0.0, gpu, machine.gib * GIB))
        if not is_head or pool.replicas > 1 or pool.autoscaling:
            nodes.append((machine.vcpus, gpu, machine.gib * GIB))
            has_gpu = f"{gpu} GPU, " if gpu else ""
            workers.append(f"{machine.name} ({machine.vcpus} CPU, {has_gpu}{machine.gib:g} GiB)")
    if not nodes or any(all(have >= need for have, need in zip(node, wanted, strict=True)) for node in nodes):
        return
    too_much = [place for place, need in enumerate(wanted) if need > max(node[place] for node in nodes)]
    place = too_much[0] if too_much else next(place for place, need in enumerate(wanted) if need)
    lack = "as much" if too_much else "all that the driver reserves"
    raise InvalidArgumentError(
        FIELDS[place],
        (cpus, gpus, memory)[place],
        f"No node of cluster {cluster.cluster_id} has {lack}, so the driver would never start. The workers are "
        f"{', '.join(dict.fromkeys(workers)) or 'none'}, and the head has 0 logical CPUs. Reserve less, or nothing to "
        "run the driver on the head.",
    )
