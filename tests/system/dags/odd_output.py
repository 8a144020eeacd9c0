"""Jobs that wait together until one of them prints everything that Airflow cannot store, and the others after it."""

from __future__ import annotations

import os
import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator, VertexRayDeleteClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

SAMPLE, ALL = 5, 20
ODD = 2
"""Map index of the job with the odd output."""

# Read by the shell and Python on the cluster: NUL, bytes that are not UTF-8 (one of them half of a surrogate pair),
# numbers, depth and names that Airflow cannot store; each in a line, and all of them in the result.
PRINTED = r"""
import json, sys
deep = '[' * 5000 + ']' * 5000
result = {"seed": 18446744073709551616, "loss": float("nan"), "best": float("inf"), "text": "a\0b\ud800"}
lines = [b"a\0b", b"caf\xe9", b"\xed\xa0\x80", deep.encode(), b'{"__classname__": "x"}', json.dumps(result).encode()]
for line in [*lines, b"VERTEX_RAY_RESULT " + json.dumps(result).encode()]:
    sys.stdout.buffer.write(line + b"\n")
"""


def gate(folder: Path | str, count: int, name: str) -> Path:
    """The file for which the jobs of a run wait: ``odd`` for the one with the odd output, ``rest`` for the others."""
    return Path(folder) / f"odd-output-{count}-{name}"


def entrypoint(count: int, number: int) -> str:
    """The program of a job."""
    own = f"python -c {shlex.quote(PRINTED)}" if number == ODD else f"echo VERTEX_RAY_RESULT {number}"
    opened = shlex.quote(str(gate(os.environ.get("SYSTEM_TEST_FOLDER", ""), count, "odd" if number == ODD else "rest")))
    return f"until [ -e {opened} ]; do sleep 0.5; done; {own}"


for jobs in (SAMPLE, ALL):
    with DAG(
        dag_id=f"odd_output_{jobs}",
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
        catchup=False,
    ) as dag:
        cluster: dict[str, Any] = {"cluster_id": "odd-output-{{ run_id }}", "location": "us-central1"}
        create = VertexRayCreateClusterOperator(
            task_id="create_cluster",
            spec=ClusterSpec(
                head_node_type=Resources(machine_type="n1-standard-16"),
                worker_node_types=[Resources(machine_type="n1-standard-4", node_count=1)],
            ),
            poll_interval=2,
            deferrable=True,
            **cluster,
        )
        job = VertexRaySubmitJobOperator.partial(
            task_id="job", poll_interval=2, job_timeout=900, deferrable=True, **cluster
        ).expand(entrypoint=[entrypoint(jobs, number) for number in range(jobs)])
        delete = VertexRayDeleteClusterOperator(task_id="delete_cluster", poll_interval=2, deferrable=True, **cluster)
        create >> job >> delete.as_teardown(setups=create)
    globals()[dag.dag_id] = dag
