"""A driver that fits on no node is refused, with the sizes of those that there are."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.driver_size import check_driver_fits
from airflow_provider_vertex_ray.errors import InvalidArgumentError

GIB = 1 << 30
NAME = "projects/p/locations/us-central1/persistentResources/shared"


def cluster(*workers: dict[str, Any], head: dict[str, Any] | None = None) -> Cluster:
    spec = ClusterSpec(worker_node_types=workers, **({"head_node_type": head} if head else {}))  # type: ignore[arg-type]
    return Cluster.from_resource({**spec.to_persistent_resource("us-central1"), "name": NAME, "state": "RUNNING"})


EIGHT = {"machine_type": "n1-standard-8", "node_count": 2}
LIKE_THE_HEAD = {"machine_type": "n1-standard-16", "node_count": 1}
T4 = {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 2}
SCALING = {"machine_type": "n1-standard-32", "autoscaling_spec": {"min_replica_count": 1, "max_replica_count": 4}}


@pytest.mark.parametrize(
    ("workers", "reserved"),
    [
        ([EIGHT], (None, None, None)),
        ([EIGHT], (8, 0, None)),
        ([EIGHT], (0.5, None, 30 * GIB)),
        # On the head: it has memory and no CPU.
        ([EIGHT], (0, None, 60 * GIB)),
        ([LIKE_THE_HEAD], (16, None, None)),
        ([EIGHT, T4], (8, 2, None)),
        ([SCALING], (32, None, None)),
        # Known at run time only, or in another unit: not this check's.
        ([EIGHT], ("{{ params.cpus }}", None, None)),
        ([{"machine_type": "z9-standard-8"}], (64, None, None)),
    ],
)
def test_drivers_that_fit(workers: list[dict[str, Any]], reserved: tuple[Any, Any, Any]) -> None:
    check_driver_fits(cluster(*workers), *reserved)


@pytest.mark.parametrize(
    ("workers", "reserved", "field", "text"),
    [
        ([EIGHT], (9, None, None), "entrypoint_num_cpus", "n1-standard-8 (8 CPU, 30 GiB)"),
        ([EIGHT], (8.5, None, None), "entrypoint_num_cpus", "has as much"),
        ([EIGHT], (None, 1, None), "entrypoint_num_gpus", "has as much"),
        ([EIGHT, T4], (1, 3, None), "entrypoint_num_gpus", "n1-standard-8 (8 CPU, 2 GPU, 30 GiB)"),
        ([EIGHT], (None, None, 61 * GIB), "entrypoint_memory", "has as much"),
        # Each of them is there, but on different nodes.
        ([EIGHT], (1, None, 31 * GIB), "entrypoint_num_cpus", "has all that the driver reserves"),
        ([SCALING], (33, None, None), "entrypoint_num_cpus", "n1-standard-32"),
    ],
)
def test_drivers_that_fit_nowhere(
    workers: list[dict[str, Any]], reserved: tuple[Any, Any, Any], field: str, text: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_driver_fits(cluster(*workers), *reserved)
    assert caught.value.field == field
    assert caught.value.value in reserved
    assert text in str(caught.value)
    assert "Reserve less" in str(caught.value)
