"""Many short jobs as one task, on a Ray cluster on Vertex AI.

Steps: create the cluster -> list the jobs -> run them all, some at a time -> check the results -> delete the cluster.

Each job counts the primes in a range of numbers. All jobs are one task in Airflow: they are submitted together, one
trigger waits for all of them, and a retry runs only those that did not succeed. If ``VERTEX_RAY_EMULATOR_HOST`` is set,
the DAG runs on the local emulator.
"""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.jobs import VertexRaySubmitJobsOperator

LOCATION = "{{ var.value.get('vertex_ray_location', 'us-central1') }}"
CLUSTER_ID = "{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}"

LIMIT = 100_000
PUBLISHED = 9_592
"""Number of primes below ``LIMIT`` (https://oeis.org/A006880)."""

PROGRAM = """
import sys
low, high = map(int, sys.argv[1:])
count = sum(all(n % d for d in range(2, int(n ** 0.5) + 1)) for n in range(max(low, 2), high))
print(f"VERTEX_RAY_RESULT {count}")
"""


@task
def make_jobs(params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return one job for each range of numbers."""
    assert params is not None
    edges = [LIMIT * n // params["shards"] for n in range(params["shards"] + 1)]
    return [
        {"key": f"from-{low}", "entrypoint": ["python", "-c", PROGRAM, str(low), str(high)]}
        for low, high in itertools.pairwise(edges)
    ]


@task
def check(found: list[dict[str, Any]]) -> int:
    """Compare the sum of all results with the published number."""
    primes: int = sum(job["result"] for job in found)
    if primes != PUBLISHED:
        raise ValueError(f"found {primes} primes below {LIMIT}, but there are {PUBLISHED}")
    return primes


with DAG(
    dag_id="example_vertex_ray_many_jobs",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
    doc_md=__doc__,
    params={"shards": Param(50, type="integer", minimum=1, maximum=1000, description="How many jobs share the work")},
) as dag:
    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        # A new ID for each run: the ID of a deleted cluster cannot be used again for up to two hours.
        cluster_id="many-jobs-{{ dag_run.start_date.strftime('%Y%m%d-%H%M%S-%f') }}",
        location=LOCATION,
        spec=ClusterSpec(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-4", node_count=2)],
            labels={"example": "many-jobs"},
        ),
        deferrable=True,
    )
    count = VertexRaySubmitJobsOperator(
        task_id="count_primes",
        cluster_id=CLUSTER_ID,
        location=LOCATION,
        jobs=make_jobs(),
        # On the worker nodes, as many at a time as these have CPUs.
        entrypoint_num_cpus=1,
        max_active=8,
        job_timeout=600,
        deferrable=True,
        retries=1,
    )
    delete = VertexRayDeleteClusterOperator(
        task_id="delete_cluster", cluster_id=CLUSTER_ID, location=LOCATION, deferrable=True
    )

    create >> count
    check(count.output) >> delete.as_teardown(setups=create)
