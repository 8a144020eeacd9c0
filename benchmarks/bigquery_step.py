"""Compare the BigQuery step with a hand-written Ray script that uses Ray's own source and sink.

Both read the same table, apply the same function, and fill a table; alternately, on one cluster, against one emulator
of BigQuery. Ray's own sink leaves half a table behind when it fails; ours stages and publishes, and must not be slower.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

ROWS = 1_000_000
ROUNDS = 3
GOAL = 1.05
GOAL_MEMORY = 30.0
LOCATION = "us-central1"
BY_HAND = """
import ray

ray.data.DataContext.get_current().enable_progress_bars = False


def halved(batch):
    batch["y"] = batch["x"] / 2
    return batch


rows = ray.data.read_bigquery("demo-project", dataset="bench.source")
rows.map_batches(halved, batch_format="pandas").write_bigquery("demo-project", "bench.by_hand", overwrite_table=False)
"""


def halved(batch: Any) -> Any:
    """Halve a column, like the function in the script."""
    batch["y"] = batch["x"] / 2
    return batch


def _resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS.")


class _TaskInstance:
    """The part of a task instance that operators use."""

    dag_id, map_index, try_number, max_tries, id = "bench", -1, 1, 0, ""

    def __init__(self, task_id: str, number: int) -> None:
        self.task_id = task_id
        self.run_id = f"run-{number}"

    def xcom_push(self, key: str, value: Any) -> None:
        pass


def _ours(number: int) -> float:
    from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator

    operator = VertexRayBigQueryOperator(
        task_id="step",
        cluster_id="bench",
        location=LOCATION,
        source_table="bench.source",
        transform=halved,
        target_table="bench.ours",
        write_disposition="WRITE_TRUNCATE",
        poll_interval=0.5,
        stream_logs=False,
        deferrable=False,
    )
    begun = time.perf_counter()
    found = operator.execute({"ti": _TaskInstance("step", number)})  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    if (found["rows_read"], found["rows_written"]) != (ROWS, ROWS):
        raise RuntimeError(f"Rows were lost or duplicated: {found}")
    return seconds


def _by_hand(number: int, client: Any) -> float:
    from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

    client.query("CREATE OR REPLACE TABLE bench.by_hand AS SELECT x, x / 2 AS y FROM bench.source WHERE FALSE").result()

    operator = VertexRaySubmitJobOperator(
        task_id="by-hand",
        cluster_id="bench",
        location=LOCATION,
        entrypoint=["python", "-c", BY_HAND],
        poll_interval=0.5,
        stream_logs=False,
        deferrable=False,
    )
    begun = time.perf_counter()
    operator.execute({"ti": _TaskInstance("by-hand", number)})  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    (count,) = [row[0] for row in client.query("SELECT COUNT(*) FROM bench.by_hand").result()]
    if count != ROWS:
        raise RuntimeError(f"The hand-written script wrote {count} rows instead of {ROWS}.")
    return seconds


def _measure() -> tuple[list[float], list[float], float]:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    from airflow_provider_vertex_ray.core.threads import run_sync
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger

    client = bigquery.Client("demo-project", credentials=AnonymousCredentials())
    client.create_dataset("bench")
    client.query(f"CREATE TABLE bench.source AS SELECT x FROM UNNEST(GENERATE_ARRAY(1, {ROWS})) x").result()
    name = f"projects/demo-project/locations/{LOCATION}/persistentResources/bench"
    spec = {"worker_node_types": [{"machine_type": "n1-standard-8"}]}
    run_sync(lambda: VertexRayClusterAsyncHook().create_cluster(name, spec))
    ready = run_sync(lambda: VertexRayClusterReadyTrigger(cluster_name=name, poll_interval=0.5).outcome())
    if ready["status"] != "success":
        raise RuntimeError(f"The cluster did not become ready: {ready}")
    # The first run of each has cold workers, and loads the modules on Airflow's side.
    _ours(0), _by_hand(0, client)
    before = _resident_mib()
    ours, by_hand = [], []
    for number in range(1, ROUNDS + 1):
        ours.append(_ours(number))
        by_hand.append(_by_hand(number, client))
    return ours, by_hand, _resident_mib() - before


def run() -> list[Figure]:
    """Measure both alternately on one cluster."""
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
        emulator = Emulator(Path(folder) / "state", ("--with", "bigquery"))
        emulator.start(600.0)
        try:
            os.environ.update({**emulator.airflow_environment, "AIRFLOW_HOME": str(Path(folder) / "airflow")})
            ours, by_hand, memory = _measure()
        finally:
            emulator.stop()
    return [
        Figure(
            f"BigQuery step of {ROWS:,} rows",
            statistics.median(ours),
            "s",
            "hand-written script",
            statistics.median(by_hand),
            GOAL,
        ),
        Figure(f"memory added on Airflow's side by {ROUNDS} steps", max(memory, 0.0), "MiB", "goal", GOAL_MEMORY, 1.0),
    ]


def main() -> int:
    """Measure and print the figures."""
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
