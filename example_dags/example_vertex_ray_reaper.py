"""Hourly clean-up DAG that deletes idle Ray clusters; copy it to your own deployment.

Vertex AI has no idle timeout: a cluster incurs charges until it is deleted. This DAG checks all clusters of the region
that this package created. A cluster is in use if it has a job, a Ray Client driver or a live lease, or if one of these
could not be read. Other clusters are deleted after ``idle_for`` seconds; clusters in ERROR, and superseded generations
of shared clusters whose lease is free, are deleted at once. The task log and XCom report for each cluster what was
done, why, and its cost.

The Airflow variable ``vertex_ray_location`` sets the region (default ``us-central1``), and ``vertex_ray_lease_uri`` the
folder with the leases (default: none; then only jobs and drivers on the clusters count as use).
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
        # Seconds to wait for the last jobs on clusters that are too old or superseded.
        drain_timeout=600,
        deferrable=True,
    )
