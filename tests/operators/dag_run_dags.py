"""The DAGs of ``test_dag_run``: create -> mapped jobs -> what they found -> delete as teardown.

A file of their own, because ``dag.test()`` of Airflow 3 runs only what a DAG bundle has.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayDeleteClusterOperator,
)
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from tests.support.clusters import SPEC

CLUSTER_ID = "{{ ti.xcom_pull(task_ids='create')['cluster_id'] }}"

GOOD = [f"sleep 0.1 && echo 'VERTEX_RAY_RESULT {number}'" for number in range(3)]
BAD = ["echo fine", "echo broken && exit 3"]


def dag_with(dag_id: str, entrypoints: list[str], deferrable: bool) -> DAG:
    common: dict[str, Any] = {"location": "us-central1", "poll_interval": 0.05, "deferrable": deferrable}
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False) as dag:
        made = VertexRayCreateClusterOperator(
            task_id="create", cluster_id=f"{dag_id}-{{{{ 40 + 2 }}}}", spec=SPEC, **common
        )
        jobs = VertexRaySubmitJobOperator.partial(task_id="jobs", cluster_id=CLUSTER_ID, **common).expand(
            entrypoint=entrypoints
        )

        @task
        def combine(found: Any) -> None:
            assert [job["result"] for job in found] == [0, 1, 2]

        gone = VertexRayDeleteClusterOperator(task_id="delete", cluster_id=CLUSTER_ID, **common)
        made >> jobs >> combine(jobs.output) >> gone.as_teardown(setups=made)
    return dag


good_waiting = dag_with("good-waiting", GOOD, False)
good_deferred = dag_with("good-deferred", GOOD, True)
bad_waiting = dag_with("bad-waiting", BAD, False)
bad_deferred = dag_with("bad-deferred", BAD, True)
