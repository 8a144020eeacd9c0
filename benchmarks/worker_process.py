"""One worker process of ``worker_part``: load what Airflow's worker loads, run one task, and print the cost as JSON.

It also runs in a peer's environment, which has neither this package nor its requirements.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

LOCATION = "us-central1"


class TaskInstance:
    """The part of a task instance that operators use."""

    dag_id, map_index, try_number, max_tries, id = "bench", -1, 1, 0, ""

    def __init__(self, task_id: str, run_id: str) -> None:
        self.task_id = task_id
        self.run_id = run_id

    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        """Ignore what the operator stores for its links."""

    def xcom_pull(self, *_: Any, **__: Any) -> None:
        """Return nothing."""


def context_of(run_id: str, task: Any = None) -> Any:
    """Return as much of a task's context as the operators use."""
    task_instance = TaskInstance("job", run_id)
    return {"ti": task_instance, "task_instance": task_instance, "task": task}


def worker_modules() -> tuple[str, ...]:
    """Return what a worker has loaded when it begins to execute a task of a DAG file."""
    if importlib.util.find_spec("airflow.sdk") is not None:
        return ("airflow.sdk", "airflow.sdk.execution_time.task_runner", "airflow.sdk.execution_time.supervisor")
    return (
        "airflow.models.dag",
        "airflow.models.baseoperator",
        "airflow.task.task_runner.standard_task_runner",
        "airflow.cli.commands.task_command",
    )


def _load_listeners() -> None:
    """Load the plugins, as Airflow's task runner does before it executes a task."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:
        from airflow.listeners.listener import get_listener_manager
    get_listener_manager()


def _empty(target: str, run_id: str) -> None:
    from airflow.providers.common.compat.sdk import BaseOperator

    class Empty(BaseOperator):
        def execute(self, context: Any) -> None:
            """Do nothing."""

    Empty(task_id="empty").execute(context_of(run_id))


def _deferred(target: str, run_id: str) -> Any:
    """Submit a job, and return the trigger of its wait."""
    from airflow.providers.common.compat.sdk import TaskDeferred

    from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

    operator = VertexRaySubmitJobOperator(
        task_id="job", cluster_id=target, entrypoint="true", deferrable=True, poll_interval=0.2
    )
    try:
        operator.execute(context_of(run_id))
    except TaskDeferred as deferral:
        return deferral.trigger
    raise RuntimeError("The task ended instead of deferring.")


def _submit(target: str, run_id: str) -> None:
    _deferred(target, run_id)


def _wait(target: str, run_id: str) -> None:
    """Do what a triggerer's process does for its first job; later ones share the imports.

    What the submission before it imports is a part of it, because a triggerer must import it as well.
    """
    outcome = asyncio.run(_deferred(target, run_id).outcome())
    if outcome["status"] != "success":
        raise RuntimeError(f"The job failed: {outcome}")


def _collect(target: str, run_id: str) -> None:
    """Take the result of a job that has ended, as the second worker of a deferred task does."""
    from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

    operator = VertexRaySubmitJobOperator(task_id="job", cluster_id=target, entrypoint="true", deferrable=True)
    passed = {"cluster_id": "bench", "dashboard_url": "https://bench", "adopted": False}
    result = {"submission_id": "job", "status": "SUCCEEDED", "exit_code": 0, "logs_tail": [], "result": None}
    operator.execute_complete(context_of(run_id), {"status": "success", "result": result, "passthrough": passed})


def _credentials(target: str, run_id: str) -> None:
    """Find and use the credentials of a plain connection, as on a machine of Google Cloud.

    The emulator's metadata server answers. With the emulator as the service, a task needs none of this.
    """
    from airflow_provider_vertex_ray.hooks.connection import GoogleConnection

    host = os.environ.pop("VERTEX_RAY_EMULATOR_HOST")
    os.environ["GCE_METADATA_HOST"] = os.environ["GCE_METADATA_IP"] = host
    asyncio.run(GoogleConnection("google_cloud_default").token_source().get())


def _google(target: str, run_id: str) -> None:
    """Submit a job with the Google provider's operator, which does not wait."""
    from airflow.providers.google.cloud.operators.ray import RaySubmitJobOperator

    operator = RaySubmitJobOperator(task_id="job", cluster_address=target, entrypoint="true", wait_for_job_done=False)
    operator.execute(context_of(run_id, operator))


def _astro(target: str, run_id: str) -> None:
    """Submit a job with astro-provider-ray, which defers unless the job has already ended."""
    from airflow.exceptions import TaskDeferred
    from ray_provider.operators import SubmitRayJob  # type: ignore[import-not-found]

    operator = SubmitRayJob(task_id="job", conn_id="ray_bench", entrypoint="sleep 60", runtime_env={}, fetch_logs=False)
    try:
        operator.execute(context_of(run_id, operator))
    except TaskDeferred:
        return
    raise RuntimeError("The task ended instead of deferring.")


WAYS: dict[str, Callable[[str, str], None]] = {
    "empty": _empty,
    "submit": _submit,
    "wait": _wait,
    "collect": _collect,
    "credentials": _credentials,
    "google": _google,
    "astro": _astro,
}


def main(way: str, target: str, run_id: str) -> int:
    """Measure, and print the result as the last line."""
    for name in worker_modules():
        importlib.import_module(name)
    _load_listeners()
    logging.disable(logging.INFO)
    floor, begun = time.process_time(), time.perf_counter()
    WAYS[way](target, run_id)
    cost = {"floor": floor, "cpu": time.process_time() - floor, "seconds": time.perf_counter() - begun}
    print(json.dumps(cost), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
