"""Arguments with the names that the Google provider's Ray operators have, where they mean the same.

So a DAG that was written for those operators changes its imports, see ``vertex-ray-migrate``. Each name stands for an
argument of this package; both at once are an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import known_at_run_time
from airflow_provider_vertex_ray.core.cluster.name import validate_cluster_id
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.job.state import owner_key
from airflow_provider_vertex_ray.errors import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.cluster.state import Cluster

__all__ = ["either", "flat_spec", "generated_cluster_id", "replicas_of_workers"]

_STRUCTURES = frozenset(
    {"custom_images", "head_node_type", "labels", "psc_interface_config", "reserved_ip_ranges", "worker_node_types"}
)


def either(name: str, value: Any, other_name: str, other: Any) -> Any:
    """Return the value of an argument that has two names.

    :param name: name of the argument
    :param value: its value; None if it is not set
    :param other_name: its name in the Google provider
    :param other: its value under that name; None if it is not set
    :raises InvalidArgumentError: both are set
    """
    if other is None:
        return value
    if value is not None:
        raise InvalidArgumentError(other_name, other, f"Remove it: it is another name of {name}, which is set.")
    return other


def flat_spec(spec: Any, flat: Mapping[str, Any]) -> Any:
    """Return the spec of a cluster, which is given as one argument or as one argument for each field.

    :param spec: the argument ``spec``
    :param flat: the other arguments, by name; those that are None are not set
    :return: a dict of fields, in which Airflow renders templates; or ``spec``, if it is known only at run time
    :raises InvalidArgumentError: both are set, or a field breaks a rule
    """
    given = {name: value for name, value in flat.items() if value is not None}
    if spec is not None:
        for name, value in given.items():
            raise InvalidArgumentError(name, value, "Set it as a field of spec, or leave spec out.")
        return spec if known_at_run_time(spec) else ClusterSpec.from_value(spec).to_dict()
    later = {name for name, value in given.items() if _is_later(name, value)}
    checked = ClusterSpec.from_value({name: value for name, value in given.items() if name not in later}).to_dict()
    return {**checked, **{name: given[name] for name in later}}


def _is_later(name: str, value: Any) -> bool:
    """Tell whether a field is known only at run time as a whole; a field that is text may contain a template."""
    return known_at_run_time(value) and (name in _STRUCTURES or not isinstance(value, str))


def generated_cluster_id(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the id of a cluster for which none is given: the same in each try of a task instance."""
    key = owner_key(dag_id, run_id, task_id, map_index)
    return validate_cluster_id(f"ray-{key[:16]}")


def replicas_of_workers(cluster: Cluster, workers: Any) -> dict[str, int]:
    """Return the replica counts with which a cluster has these worker types.

    :param cluster: the cluster as it is
    :param workers: worker types, each with its new ``node_count``
    :raises InvalidArgumentError: the worker types are not those of the cluster
    """
    wanted = ClusterSpec.from_value({"worker_node_types": workers}).worker_node_types
    found: dict[str, int] = {}
    for place, worker in enumerate(wanted):
        kind = (worker.machine_type, worker.accelerator_type, worker.accelerator_count)
        pools = [
            pool
            for pool in cluster.pools
            if (pool.machine_type, pool.accelerator_type, pool.accelerator_count) == kind and pool.pool_id not in found
        ]
        if not pools:
            kinds = ", ".join(sorted({pool.machine_type for pool in cluster.pools}))
            raise InvalidArgumentError(
                f"worker_node_types[{place}]", worker, f"Use the machine types of the cluster's pools: {kinds}."
            )
        pool = pools[0]
        if pool.autoscaling:
            raise InvalidArgumentError(
                f"worker_node_types[{place}]", worker, f"Pool {pool.pool_id} is autoscaling and cannot be resized."
            )
        found[pool.pool_id] = worker.node_count + (pool.pool_id == cluster.head_pool_id)
    return found
