"""A DAG whose task waits in the triggerer for a job that ends only when it is stopped."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

with DAG(dag_id="kills", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False):
    VertexRaySubmitJobOperator(
        task_id="job",
        cluster_id="kills",
        location="us-central1",
        entrypoint="sleep 3600",
        metadata={"run": "{{ run_id }}"},
        poll_interval=5,
        deferrable=True,
    )
