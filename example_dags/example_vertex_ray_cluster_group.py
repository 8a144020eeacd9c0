"""A task group on a shared cluster, in the shortest form.

The group ensures that the shared cluster ``examples`` exists: it uses the existing one, whoever created it, or creates
it. The tasks inside set no cluster, so they use this one. At the end the run releases its lease, and the cluster stays
for the next run and for other DAGs; ``example_vertex_ray_reaper`` deletes it once it is idle.

The Airflow variable ``vertex_ray_location`` sets the region (default ``us-central1``). ``vertex_ray_lease_uri``, the
folder with the leases, must be set.
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
            """Run on the cluster."""
            import ray

            @ray.remote
            def squared(value: int) -> int:
                return value * value

            return int(ray.get(squared.remote(number)))

        squares = square.expand(number=[1, 2, 3, 4])

    @task
    def add_up(numbers: list[int]) -> int:
        """Run in Airflow."""
        return sum(numbers)

    add_up(squares)
