"""Tasks whose ends differ: in the triggerer or in a worker, well, failed, retried, skipped."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.sensors.job import VertexRayJobSensor

FOLDER = Path(os.environ.get("SYSTEM_TEST_FOLDER", "/nowhere"))
CLUSTER: dict[str, Any] = {"cluster_id": "ends-{{ run_id }}", "location": "us-central1", "deferrable": True}
JOB: dict[str, Any] = {**CLUSTER, "poll_interval": 2, "job_timeout": 600, "retry_delay": dt.timedelta(seconds=1)}
FAILURE_NOTE, SUCCESS_NOTE, TRIED = FOLDER / "told-of-failure", FOLDER / "told-of-success", FOLDER / "tried-once"
SENSOR_WAITS = "the-sensor-waits"
"""File for which the job of the sensor waits."""


def note_failure(context: Any) -> None:
    FAILURE_NOTE.write_text(type(context["exception"]).__name__)


def note_success(context: Any) -> None:
    SUCCESS_NOTE.write_text(context["ti"].task_id)


def job(task_id: str, entrypoint: str, **more: Any) -> VertexRaySubmitJobOperator:
    return VertexRaySubmitJobOperator(task_id=task_id, entrypoint=entrypoint, **{**JOB, **more})


@task.vertex_ray(**JOB)
def outputs() -> dict[str, int]:
    return {"a": 1, "b": 2}


@task.vertex_ray(**JOB)
def typed() -> Any:
    import datetime

    return 1, datetime.date(2025, 1, 2), {"x": None}


@task.vertex_ray(**JOB)
def nothing() -> None:
    return None


@task.vertex_ray(**JOB, retries=2)
def at_once() -> None:
    from airflow.exceptions import AirflowFailException

    raise AirflowFailException("never again")


@task.vertex_ray(**JOB)
def numbers() -> list[int]:
    return [10, 20]


@task
def each(number: int) -> int:
    return number + 1


@task
def seen(value: Any, a: Any, none: Any, mapped: Any) -> list[str]:
    """What a task downstream gets, with its types."""
    return [repr(value), repr(a), repr(none), repr(sorted(found["result"] for found in mapped))]


with DAG(
    dag_id="ends", schedule=None, start_date=dt.datetime(2025, 1, 1, tzinfo=dt.timezone.utc), catchup=False
) as dag:
    create = VertexRayCreateClusterOperator(
        task_id="create_cluster",
        spec=ClusterSpec(
            head_node_type=Resources(machine_type="n1-standard-16"),
            worker_node_types=[Resources(machine_type="n1-standard-4", node_count=1)],
        ),
        poll_interval=2,
        **CLUSTER,
    )
    delete = VertexRayDeleteClusterOperator(task_id="delete_cluster", poll_interval=2, **CLUSTER)
    mapped = VertexRaySubmitJobOperator.partial(task_id="mapped", **JOB).expand(
        entrypoint=[f"echo VERTEX_RAY_RESULT {number}" for number in range(3)]
    )
    told = [outputs(), typed(), nothing()]
    listed = numbers()
    waiting = f"until [ -e {FOLDER / SENSOR_WAITS} ]; do sleep 0.5; done; echo VERTEX_RAY_RESULT 1"
    slow = job("slow", waiting, wait_for_completion=False)
    sensor = VertexRayJobSensor(
        task_id="sensor",
        submission_id="{{ ti.xcom_pull(task_ids='slow')['submission_id'] }}",
        poke_interval=2,
        **CLUSTER,
    )
    ends = [
        job("plain", """echo 'VERTEX_RAY_RESULT {"n": 1}'"""),
        job("silent", "echo VERTEX_RAY_RESULT 1", do_xcom_push=False),
        job("retried", f"[ -e {TRIED} ] || {{ touch {TRIED}; exit 3; }}; echo VERTEX_RAY_RESULT 7", retries=1),
        job("failing", "echo before the end; exit 4"),
        job("noted", "exit 5", on_failure_callback=note_failure),
        job("pleased", "true", on_success_callback=note_success),
        job("skipped", "exit 99", skip_on_exit_code=99),
        job("outlet", "true", outlets=[Asset("gs://bucket/ends")]),
        job("by_worker", "true", end_from_trigger=False),
        at_once(),
        mapped,
        listed,
        slow,
        *told,
    ]
    shown = seen(told[1], told[0]["a"], told[2], mapped.output)
    after = each.expand(number=listed)
    slow >> sensor
    create >> ends
    [*ends, shown, after, sensor] >> delete.as_teardown(setups=create)
