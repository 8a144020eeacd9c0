"""A shared cluster around a group of tasks, in the shortest form.

The group ensures the shared cluster ``examples``: it uses the one that is there, whoever created it, or creates it. The
tasks inside name no cluster; they get this one. At the end the run gives its hold on the cluster back, and the cluster
stays, for the next run and for other DAGs: ``example_vertex_ray_reaper`` deletes it once nobody uses it.

The region is taken from the Airflow variable ``vertex_ray_location`` (default ``us-central1``), the folder with the
leases from ``vertex_ray_lease_uri``, which must be set.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster

SPEC = ClusterSpec(
    head_node_type=Resources(machine_type="n1-standard-16"),
    worker_node_types=[Resources(machine_type="n1-standard-8", node_count=1)],
)

with DAG(
    dag_id="example_vertex_ray_cluster_group",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
):
    with VertexRayCluster(
        "ray",
        spec=SPEC,
        shared_name="examples",
        lease_uri="{{ var.value.vertex_ray_lease_uri }}",
        location="{{ var.value.get('vertex_ray_location', 'us-central1') }}",
        deferrable=True,
    ):

        @task.vertex_ray(deferrable=True)
        def square(number: int) -> int:
            """Runs on the cluster."""
            import ray

            @ray.remote
            def squared(value: int) -> int:
                return value * value

            return int(ray.get(squared.remote(number)))

        squares = square.expand(number=[1, 2, 3, 4])

    @task
    def add_up(numbers: list[int]) -> int:
        """Runs in Airflow."""
        return sum(numbers)

    add_up(squares)
