"""One Ray cluster on Vertex AI, shared by many short jobs of a DAG run.

Steps: check the prerequisites -> create the cluster -> round 1: many jobs in parallel -> round 2: as many jobs, on the
data that round 1 left in the cluster's memory -> combine the results -> delete the cluster.

The jobs count primes and twin primes below ``limit``, so the result can be checked. While a job runs, its task is
deferred and holds no worker slot. A teardown task deletes the cluster, even if a job fails.

The DAG runs on Google Cloud with a connection ``google_cloud_default`` whose project has Vertex AI enabled. The Airflow
variable ``vertex_ray_location`` sets the region (default ``us-central1``). If ``VERTEX_RAY_EMULATOR_HOST`` is set, it
runs on the local emulator instead. On Airflow 3, ``airflow.sdk`` can replace ``airflow.providers.common.compat.sdk``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, Param, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.preflight import VertexRayPreflightOperator

LOCATION = "{{ var.value.get('vertex_ray_location', 'us-central1') }}"
CLUSTER_ID = "{{ ti.xcom_pull(task_ids='create_cluster')['cluster_id'] }}"

SPEC = ClusterSpec(
    head_node_type=Resources(machine_type="n1-standard-16"),
    # The head node runs no work: it has 0 logical CPUs.
    worker_node_types=[Resources(machine_type="n1-standard-4", node_count=2)],
    labels={"example": "shared-cluster"},
)

# limit -> primes below it (https://oeis.org/A006880), twin prime pairs below it (https://oeis.org/A007508).
PUBLISHED = {
    1_000_000: (78_498, 8_169),
    10_000_000: (664_579, 58_980),
    100_000_000: (5_761_455, 440_312),
    1_000_000_000: (50_847_534, 3_424_506),
}


def keep_if_asked(context: Any) -> None:
    """Skip the deletion of the cluster when the run was triggered with ``delete_cluster`` off."""
    if not context["params"]["delete_cluster"]:
        raise AirflowSkipException("The cluster is kept; it incurs charges until it is deleted.")


@task
def make_commands(kind: str, params: dict[str, Any] | None = None) -> list[list[str]]:
    """Return the commands of the jobs of a round, one for each shard."""
    assert params is not None
    limit, shards = params["limit"], params["shards"]
    return [
        ["python", "primes.py", kind, f"--limit={limit}", f"--shard={shard}", f"--shards={shards}"]
        for shard in range(shards)
    ]


@task
def combine(counted: Any, paired: Any, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Add up the results of both rounds, and compare them with the published numbers."""
    assert params is not None
    first, second = [job["result"] for job in counted], [job["result"] for job in paired]
    primes = sum(shard["found"] for shard in first)
    twins = sum(shard["found"] for shard in second)
    published = PUBLISHED[params["limit"]]
    if (primes, twins) != published:
        raise ValueError(f"found {primes} primes and {twins} twin pairs, but {published} are known")
    return {
        "limit": params["limit"],
        "primes": primes,
        "twin_pairs": twins,
        "published": list(published),
        "pieces": sum(shard["pieces"] for shard in second),
        "pieces_from_cache": sum(shard["from_cache"] for shard in second),
        "seconds_first_round": round(sum(shard["seconds"] for shard in first), 3),
        "seconds_second_round": round(sum(shard["seconds"] for shard in second), 3),
    }


with DAG(
    dag_id="example_vertex_ray_shared_cluster",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["example", "vertex-ray"],
    doc_md=__doc__,
    params={
        "limit": Param(100_000_000, enum=list(PUBLISHED), description="Count the primes below this"),
        "shards": Param(8, type="integer", minimum=1, maximum=500, description="Jobs in each round"),
        "delete_cluster": Param(True, type="boolean", description="Delete the cluster at the end"),
    },
) as dag:
    # Reports a missing API, role or quota within seconds instead of after a quarter of an hour.
    preflight = VertexRayPreflightOperator(task_id="preflight", location=LOCATION, spec=SPEC)

    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        # A new ID for each run: the ID of a deleted cluster cannot be used again for up to two hours.
        cluster_id="primes-{{ dag_run.start_date.strftime('%Y%m%d-%H%M%S-%f') }}",
        location=LOCATION,
        spec=SPEC,
        deferrable=True,
    )

    job_arguments: dict[str, Any] = {
        "cluster_id": CLUSTER_ID,
        "location": LOCATION,
        # Uploaded to the cluster once, however many jobs use it. The URI of a gs://….zip file works as well.
        "working_dir": str(Path(__file__).parent / "ray_jobs"),
        "job_timeout": 1800,
        "deferrable": True,
        # A retry waits for the job of the lost try if it still runs; otherwise it runs the job again.
        "retries": 2,
        "retry_delay": timedelta(seconds=5),
    }
    count_primes = VertexRaySubmitJobOperator.partial(task_id="count_primes", **job_arguments).expand(
        entrypoint=make_commands.override(task_id="count_commands")("count")
    )
    pair_primes = VertexRaySubmitJobOperator.partial(task_id="pair_primes", **job_arguments).expand(
        entrypoint=make_commands.override(task_id="pair_commands")("twins")
    )

    delete = VertexRayDeleteClusterOperator(
        task_id="delete_cluster",
        cluster_id=CLUSTER_ID,
        location=LOCATION,
        pre_execute=keep_if_asked,
        deferrable=True,
    )

    answer = combine(count_primes.output, pair_primes.output)
    preflight >> create >> count_primes >> pair_primes >> answer >> delete.as_teardown(setups=create)
