"""A DAG whose jobs run and wait together on one cluster, which it creates and deletes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator


def jobs_on_one_cluster(dag_id: str, cluster_id: str, entrypoints: Sequence[str], **job: Any) -> DAG:
    """Return the DAG.

    :param dag_id: its id.
    :param cluster_id: id of the cluster; a template of the run.
    :param entrypoints: one job for each.
    :param job: further arguments of the jobs.
    """
    with DAG(dag_id=dag_id, schedule=None, start_date=datetime(2025, 1, 1, tzinfo=timezone.utc), catchup=False) as dag:
        cluster: dict[str, Any] = {"cluster_id": cluster_id, "location": "us-central1", "deferrable": True}
        create = VertexRayCreateClusterOperator(
            task_id="create_cluster",
            spec=ClusterSpec(
                head_node_type=Resources(machine_type="n1-standard-16"),
                worker_node_types=[Resources(machine_type="n1-standard-4", node_count=1)],
            ),
            poll_interval=2,
            **cluster,
        )
        jobs = VertexRaySubmitJobOperator.partial(task_id="job", **job, **cluster).expand(entrypoint=entrypoints)
        delete = VertexRayDeleteClusterOperator(task_id="delete_cluster", poll_interval=2, **cluster)
        create >> jobs >> delete.as_teardown(setups=create)
    return dag
