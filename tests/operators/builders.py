"""Operators with the arguments that the tests have in common: this region, and looks in quick succession."""

from __future__ import annotations

from typing import Any

from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayDeleteClusterOperator,
    VertexRayResizeClusterOperator,
)
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.jobs import VertexRaySubmitJobsOperator
from tests.support.clusters import LOCATION, SPEC

COMMON: dict[str, Any] = {"location": LOCATION, "poll_interval": 0.02}


def create(cluster_id: str = "made", **more: Any) -> VertexRayCreateClusterOperator:
    return VertexRayCreateClusterOperator(
        **{"task_id": "create", "cluster_id": cluster_id, "spec": SPEC, **COMMON, **more}
    )


def resize(cluster_id: str, replicas: Any, **more: Any) -> VertexRayResizeClusterOperator:
    return VertexRayResizeClusterOperator(
        **{"task_id": "resize", "cluster_id": cluster_id, "replicas": replicas, **COMMON, **more}
    )


def delete(cluster_id: str, **more: Any) -> VertexRayDeleteClusterOperator:
    return VertexRayDeleteClusterOperator(**{"task_id": "delete", "cluster_id": cluster_id, **COMMON, **more})


def echo(number: Any, seconds: float = 0) -> dict[str, Any]:
    """Return a job of ``submit_jobs`` whose result is a number, after some seconds."""
    wait = f"sleep {seconds} && " if seconds else ""
    return {"entrypoint": f"{wait}echo 'VERTEX_RAY_RESULT {number}'"}


def submit_job(entrypoint: Any = "echo hello", cluster_id: str = "shared", **more: Any) -> VertexRaySubmitJobOperator:
    return VertexRaySubmitJobOperator(
        **{"task_id": "submit", "cluster_id": cluster_id, "entrypoint": entrypoint, **COMMON, **more}
    )


def submit_jobs(jobs: Any, cluster_id: str = "shared", **more: Any) -> VertexRaySubmitJobsOperator:
    return VertexRaySubmitJobsOperator(
        **{"task_id": "submit", "cluster_id": cluster_id, "jobs": jobs, **COMMON, **more}
    )
