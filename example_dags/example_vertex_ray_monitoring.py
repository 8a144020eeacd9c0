"""A report on a Ray cluster, once it has calmed down: a plot of what it did, and what it complained about.

``wait_until_quiet`` waits, without a worker slot, until the CPUs were under 10 percent for half an hour; a sample that
is missing counts as busy. Then two tasks write the day's report: ``plot.svg`` with CPU, memory, GPU, tasks and nodes,
and ``warnings.log`` with all log lines of at least WARNING, from Cloud Logging, page by page. Both also work when the
cluster is gone.

The cluster is taken from the Airflow variable ``vertex_ray_cluster`` (an id), the region from ``vertex_ray_location``
(default ``us-central1``), the folder for the reports from ``vertex_ray_reports`` (default ``file:///tmp/vertex-ray``;
on Cloud Composer rather ``gs://BUCKET/reports``). The connection's account needs roles/logging.viewer and
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
        # A cluster that is busy for the whole night is no failure, and there is no report on it.
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
