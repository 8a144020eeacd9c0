"""A DAG with one job for each case of the matrix."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from tests.system.matrix.cases import CASES, CLUSTER, FOLDER_VARIABLE, TASK

FOLDER = Path(os.environ.get(FOLDER_VARIABLE, "/nowhere"))
PROGRAM = Path(__file__).resolve().parents[1] / "program.py"


class BlockingJobOperator(VertexRaySubmitJobOperator):
    """Stops in its first try before it waits, if it is told to, says so in a file, and waits to be killed."""

    def __init__(self, *, block_at: str = "", **arguments: Any) -> None:
        super().__init__(**arguments)
        self.block_at = block_at

    def _wait(self, context: Any, *arguments: Any, **more: Any) -> Any:
        self._block("wait", context)
        return super()._wait(context, *arguments, **more)

    def _block(self, step: str, context: Any) -> None:
        note = FOLDER / "blocked" / context["ti"].run_id
        if step == self.block_at and not note.exists():
            note.write_text(str(os.getpid()))
            while True:
                signal.pause()


class CompletingJobOperator(BlockingJobOperator):
    """Stops in its first try after the wait, if it is told to."""

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> dict[str, Any]:
        self._block("complete", context)
        return super().execute_complete(context, event)


for case in CASES:
    with DAG(
        dag_id=case.dag_id,
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        dagrun_timeout=timedelta(seconds=case.run_timeout) if case.run_timeout else None,
    ) as dag:
        arguments: dict[str, Any] = {"job_timeout": 900, **case.options}
        if case.by_worker:
            arguments["end_from_trigger"] = False
        # A task with code of its own for the end is never ended by its trigger.
        kind = CompletingJobOperator if case.block_at == "complete" else BlockingJobOperator
        kind(
            task_id=TASK,
            block_at=case.block_at,
            cluster_id=CLUSTER,
            location="us-central1",
            entrypoint=["python", "-u", str(PROGRAM), str(FOLDER), "{{ run_id }}"],
            metadata={"run": "{{ run_id }}"},
            deferrable=case.deferrable,
            poll_interval=5,
            retries=case.retries,
            retry_delay=timedelta(seconds=1),
            **arguments,
        )
    globals()[case.dag_id] = dag
