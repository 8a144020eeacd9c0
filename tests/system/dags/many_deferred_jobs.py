"""Many jobs on one cluster: more wait than there are worker slots. Twelve in the ordinary tests, fifty in the soak."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

SAMPLE, ALL = 6, 50
# Longer than it takes to submit a few jobs through two slots, so that they wait together.
JOB_SECONDS = 20

for jobs in (SAMPLE, ALL):
    with DAG(
        dag_id=f"deferred_jobs_{jobs}",
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
        catchup=False,
    ) as dag:
        cluster: dict[str, Any] = {"cluster_id": "many-jobs-{{ run_id }}", "location": "us-central1"}
        create = VertexRayCreateClusterOperator(
            task_id="create_cluster",
            spec=ClusterSpec(
                head_node_type=Resources(machine_type="n1-standard-16"),
                worker_node_types=[Resources(machine_type="n1-standard-4", node_count=1)],
            ),
            poll_interval=2,
            deferrable=True,
            **cluster,
        )
        # The driver does not use Ray: the test is about waiting, and this costs next to nothing.
        job = VertexRaySubmitJobOperator.partial(
            task_id="job", poll_interval=5, job_timeout=600, deferrable=True, **cluster
        ).expand(entrypoint=[f"sleep {JOB_SECONDS} && echo VERTEX_RAY_RESULT {n}" for n in range(jobs)])
        delete = VertexRayDeleteClusterOperator(task_id="delete_cluster", poll_interval=2, deferrable=True, **cluster)
        create >> job >> delete.as_teardown(setups=create)
    globals()[dag.dag_id] = dag
