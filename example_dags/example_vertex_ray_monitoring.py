"""A daily report on a Ray cluster: a plot of its metrics, and the warnings in its logs.

``wait_until_quiet`` waits, without a worker slot, until the CPU utilisation was below 10 percent for half an hour; a
missing sample counts as busy. Then two tasks write the report of the day: ``plot.svg`` with CPU, memory, GPU, tasks and
nodes, and ``warnings.log`` with all log entries of at least WARNING from Cloud Logging. Both also work after the
cluster is deleted.

Airflow variables set the cluster (``vertex_ray_cluster``, an ID), the region (``vertex_ray_location``, default
``us-central1``) and the folder for the reports (``vertex_ray_reports``, default ``file:///tmp/vertex-ray``; on Cloud
Composer, use ``gs://BUCKET/reports``). The account of the connection needs roles/logging.viewer and
roles/monitoring.viewer, and the plot needs the extra ``plots`` of this package.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.operators.monitoring import (
    VertexRayClusterLogsOperator,
    VertexRayClusterMetricsOperator,
)
from airflow_provider_vertex_ray.sensors.monitoring import VertexRayMetricSensor

DAY = 24 * 3600
FOLDER = "{{ var.value.get('vertex_ray_reports', 'file:///tmp/vertex-ray') }}/{{ run_id | replace(':', '-') }}"

with DAG(
    dag_id="example_vertex_ray_monitoring",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={
        "cluster_id": "{{ var.value.vertex_ray_cluster }}",
        "location": "{{ var.value.get('vertex_ray_location', 'us-central1') }}",
    },
    tags=["example", "vertex-ray"],
):
    quiet = VertexRayMetricSensor(
        task_id="wait_until_quiet",
        metric="cpu",
        comparison="<",
        threshold=10,
        for_seconds=1800,
        poke_interval=60,
        timeout=12 * 3600,
        deferrable=True,
        # A cluster that is busy all night is not a failure; it gets no report.
        soft_fail=True,
    )
    plot = VertexRayClusterMetricsOperator(
        task_id="plot",
        metrics=["cpu", "memory", "gpu", "tasks", "nodes"],
        window=DAY,
        plot_path=FOLDER + "/plot.svg",
    )
    warnings = VertexRayClusterLogsOperator(
        task_id="warnings",
        severity="WARNING",
        window=DAY,
        max_entries=100,
        output_path=FOLDER + "/warnings.log",
    )
    quiet >> [plot, warnings]
