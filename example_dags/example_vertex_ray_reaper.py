"""The hourly clean-up to copy: deletes the Ray clusters that nobody uses.

Vertex AI has no idle timeout: a cluster costs money until somebody deletes it. This DAG looks at all clusters of the
region that this package has created. In use is a cluster with a job, a Ray Client driver or a live lease, or of which
one of these can not be read. The others go after ``idle_for`` seconds; those in ERROR, and older generations of shared
clusters, at once. The task's log and its XCom say for each cluster what became of it, why, and what it has cost.

The region is taken from the Airflow variable ``vertex_ray_location`` (default ``us-central1``), the folder with the
leases from ``vertex_ray_lease_uri`` (default: none; then only what runs on the clusters counts as use).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.operators.idle import VertexRayDeleteIdleClustersOperator

with DAG(
    dag_id="example_vertex_ray_reaper",
    doc_md=__doc__,
    schedule=timedelta(hours=1),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["example", "vertex-ray"],
):
    VertexRayDeleteIdleClustersOperator(
        task_id="delete_idle_clusters",
        location="{{ var.value.get('vertex_ray_location', 'us-central1') }}",
        lease_uri="{{ var.value.get('vertex_ray_lease_uri', '') }}",
        idle_for=3600,
        max_age=30 * 24 * 3600,
        # For so long the last jobs of clusters that are too old, or superseded, may take to end.
        drain_timeout=600,
        deferrable=True,
    )
