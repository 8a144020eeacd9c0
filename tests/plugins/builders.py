"""Clusters, jobs and facts for the page's tests."""

from __future__ import annotations

import time
from typing import Any

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.core.sharing.lease import Lease
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.owners import Owner
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts, Nodes
from airflow_provider_vertex_ray.plugins.page.sources import Source
from airflow_provider_vertex_ray.price_table import PriceTable
from tests.support.clusters import BODY, full_name

NOW = 1_800_000_000.0
OWNER = Owner("etl", "run 1", "load", -1)
UNREAD: Cached[Any] = Cached()


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def cluster(cluster_id: str = "shared", state: str = "RUNNING", age: float = 600.0, **more: Any) -> Cluster:
    resource = {
        **BODY,
        "name": full_name(cluster_id),
        "state": state,
        "createTime": stamp(NOW - age),
        "startTime": stamp(NOW - age),
        "resourceRuntime": {"accessUris": {"RAY_DASHBOARD_URI": "abc-dot-us-central1.example"}},
        **more,
    }
    return Cluster.from_resource(resource)


def job(submission_id: str = "job-1", status: str = "RUNNING", owner: Owner | None = OWNER, **more: Any) -> Job:
    metadata = {}
    if owner is not None:
        metadata = {
            "airflow_dag_id": owner.dag_id,
            "airflow_run_id": owner.run_id,
            "airflow_task_id": owner.task_id,
            "airflow_map_index": str(owner.map_index),
            "airflow_owner": owner.key,
        }
    start = int((NOW - 100) * 1000)
    return Job(submission_id, JobStatus(status), **{"start_time": start, "metadata": metadata, **more})


def seen(value: Any, age: float = 1.0) -> Cached[Any]:
    return Cached(value, NOW - age)


def facts(
    *,
    of: Cluster | None = None,
    jobs: Cached[tuple[Job, ...]] | None = None,
    lease: Cached[Lease] = UNREAD,
    prices: Cached[PriceTable] = UNREAD,
    nodes: Cached[Nodes] = UNREAD,
    superseded: bool = False,
    **source: Any,
) -> ClusterFacts:
    where = Source("google_cloud_default", "us-central1", label_filter={}, **source)
    return ClusterFacts(where, of or cluster(), superseded, seen(()) if jobs is None else jobs, nodes, lease, prices)
