"""A DAG from create to delete, one whose tasks end in the triggerer, and one whose job ends only when it is stopped."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster

ARGUMENTS = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc), "catchup": False}
SPEC = ClusterSpec(
    head_node_type=Resources(machine_type="n1-standard-16"),
    worker_node_types=[Resources(machine_type="n1-standard-8", node_count=1)],
)

with DAG(dag_id="steps", **ARGUMENTS):  # type: ignore[arg-type]
    with VertexRayCluster(
        "ray", spec=SPEC, cluster_id="steps", location="us-central1", deferrable=True, create={"poll_interval": 1.0}
    ):
        VertexRaySubmitJobOperator(
            task_id="job",
            entrypoint=["python", "-c", "print('VERTEX_RAY_RESULT', 6 * 7)"],
            poll_interval=1,
            deferrable=True,
        )

with DAG(dag_id="forced", **ARGUMENTS):  # type: ignore[arg-type]
    for name, code in (("good", "print('VERTEX_RAY_RESULT', 6 * 7)"), ("bad", "raise SystemExit(3)")):
        VertexRaySubmitJobOperator(
            task_id=name,
            cluster_id="kills",
            location="us-central1",
            entrypoint=["python", "-c", code],
            poll_interval=1,
            deferrable=True,
            end_from_trigger=True,
        )

with DAG(dag_id="kills", **ARGUMENTS):  # type: ignore[arg-type]
    VertexRaySubmitJobOperator(
        task_id="job",
        cluster_id="kills",
        location="us-central1",
        entrypoint="sleep 3600",
        metadata={"run": "{{ run_id }}"},
        poll_interval=5,
        deferrable=True,
    )
