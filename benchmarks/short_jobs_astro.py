"""Run the same short jobs with astro-provider-ray's operator, ours and the Google provider's, in an Airflow 2.11.

astro-provider-ray ended with Airflow 2. All of them run one after the other in one Airflow, in an environment of its
own; the emulator is outside of it. astro-provider-ray waits in the triggerer too. Its log option is off, because it
needs a websocket, and its poll interval, 60 s by default, is as short as ours here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.clusters import INSTANT, Bench, bench
from benchmarks.peers import astro_connection, astro_python
from benchmarks.report import Figure, print_figures
from benchmarks.short_jobs import (
    JOB_SECONDS,
    JOBS,
    JOBS_OF_ONE_TASK,
    PEER_JOBS,
    TIMEOUT,
    Cost,
    airflow_with,
    at_rest_of,
    dag_files,
    measure,
)

ASTRO_DAG = """
import datetime

from airflow import DAG
from ray_provider.operators import SubmitRayJob

with DAG("bench_astro", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    SubmitRayJob.partial(
        task_id="job", conn_id="ray_bench", runtime_env={{}}, poll_interval=2, fetch_logs=False
    ).expand(entrypoint=["sleep {seconds}"] * {jobs})
"""
JOBS_OF = {
    "bench_empty": JOBS,
    "bench_ours": JOBS,
    "bench_one_task": JOBS_OF_ONE_TASK,
    "bench_astro": JOBS,
    "bench_google": PEER_JOBS,
}


def run() -> Iterator[Figure]:
    """Measure all of them, then compare.

    :raises RuntimeError: astro-provider-ray cannot be installed here.
    """
    python = astro_python()
    if python is None:
        raise RuntimeError("There is no environment with astro-provider-ray.")
    # The Google provider recognises a Vertex AI address by its bare host name.
    with bench((*INSTANT, "--dashboard-addresses", "google")) as where:
        costs = _measured(python, where)
    ours, one_task = costs["bench_ours"], costs["bench_one_task"]
    for peer, name in (("bench_astro", "astro-provider-ray"), ("bench_google", "Google provider's")):
        for what, mine in (("", ours), (f"{JOBS_OF_ONE_TASK} jobs as one task: ", one_task)):
            theirs = costs[peer]
            yield Figure(f"2.11: {what}slot seconds of a job", mine.slot_seconds, "s", name, theirs.slot_seconds, 1.0)
            yield Figure(f"2.11: {what}CPU seconds of Airflow for a job", mine.cpu, "s", name, theirs.cpu, 1.0)
            yield Figure(
                f"2.11: {what}jobs a minute", mine.per_minute, "", name, theirs.per_minute, 1.0, more_is_better=True
            )
    yield Figure(
        "2.11: slot seconds of a job", ours.slot_seconds, "s", "an empty task", costs["bench_empty"].slot_seconds
    )


def _measured(python: Path, where: Bench) -> dict[str, Cost]:
    variables = {
        **where.emulator.sdk_environment,
        **where.emulator.airflow_environment,
        "AIRFLOW_CONN_RAY_BENCH": astro_connection(where),
    }
    done = subprocess.run(
        [str(python), "-m", "benchmarks.short_jobs_astro", where.cluster, where.dashboard_uri, json.dumps(variables)],
        env=where.environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=len(JOBS_OF) * TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"Airflow 2.11 ended with {done.returncode}.")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return {name: Cost(**values) for name, values in found.items()}


def measure_here(cluster: str, dashboard_uri: str, variables: dict[str, str]) -> dict[str, Cost]:
    """Run the DAGs in this environment's Airflow, one after the other.

    :param cluster: full name of the cluster.
    :param dashboard_uri: its ``RAY_DASHBOARD_URI``.
    :param variables: variables for Airflow: the emulator's address, and the connections.
    """
    files = {**dag_files(cluster, dashboard_uri), "astro.py": ASTRO_DAG.format(jobs=JOBS, seconds=JOB_SECONDS)}
    with (
        tempfile.TemporaryDirectory(prefix="vrb-") as folder,
        airflow_with(Path(folder), files, variables) as airflow,
    ):
        airflow.wait_for_dags(list(JOBS_OF), TIMEOUT)
        at_rest = at_rest_of(airflow)
        return {dag: measure(airflow, dag, jobs, at_rest) for dag, jobs in JOBS_OF.items()}


def main(arguments: list[str]) -> int:
    """Measure and print the figures; with arguments the costs, for the process that compares them."""
    if not arguments:
        return print_figures(run())
    cluster, dashboard_uri, variables = arguments
    costs = measure_here(cluster, dashboard_uri, json.loads(variables))
    print(json.dumps({name: asdict(cost) for name, cost in costs.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
