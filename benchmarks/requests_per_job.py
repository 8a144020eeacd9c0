"""Count the requests of waiting jobs in the emulator's log: ours, and those of the Google provider's operator.

Our jobs wait as they do in a triggerer: many in one process, with the trigger's default settings. A young job is polled
more often than an old one: the requests of one minute are counted, those of a whole hour are computed with the
trigger's own rule (``triggers.polling.interval``).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

JOBS = 20
POLL_INTERVAL = 15.0
"""The default of the operator and of the trigger."""

JOB_SECONDS = 60.0
HOUR = 3600.0
PEER_SECONDS = 31.0
PEER_LIMIT = 150.0
GOAL = 0.50
SERVICE = ("rest", "grpc", "dashboard")
"""Surfaces of the emulator that count as the service; tokens come from elsewhere."""


def requests_by_rule(seconds: float) -> int:
    """Return the number of requests for one job in this time, where websockets pass.

    These are the status requests, the connection and the checks of the log, and the read of its end.
    """
    from airflow_provider_vertex_ray.core.job.log_pace import FIRST_CHECK, LONGEST_CHECK

    check, age, count = FIRST_CHECK, FIRST_CHECK, 2
    while age < seconds:
        count += 1
        check = min(check * 2, LONGEST_CHECK)
        age += check
    return count + _status_requests(seconds)


def requests_without_websockets(seconds: float, printing: bool) -> int:
    """Return the number of requests for one job in this time, where websockets do not pass.

    :param printing: whether the job prints all the time, so that each read of its log finds something
    """
    from airflow_provider_vertex_ray.core.job.log_pace import read_pause

    age, count = 0.0, 1
    while age < seconds:
        count += 1
        age += read_pause(age, printing, JOBS)
    return count + _status_requests(seconds)


def _status_requests(seconds: float) -> int:
    from airflow_provider_vertex_ray.triggers.polling import interval

    age, count = 0.0, 0
    while age < seconds:
        count += 1
        age += interval(POLL_INTERVAL, age, JOBS)
    return count


async def _wait_for_jobs(cluster: str) -> None:
    """Submit all jobs and wait for their end."""
    from airflow_provider_vertex_ray.core.job.client import JobRequest
    from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
    from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

    hook = VertexRayJobAsyncHook()

    async def one(place: int) -> None:
        # The phases are spread evenly over one poll interval.
        await asyncio.sleep(place * POLL_INTERVAL / JOBS)
        await hook.submit_job(cluster, JobRequest(f"echo begin && sleep {JOB_SECONDS} && echo end", f"job-{place}"))
        outcome = await VertexRayJobTrigger(cluster_name=cluster, submission_id=f"job-{place}").outcome()
        if outcome["status"] != "success":
            raise RuntimeError(f"Job {place} failed: {outcome}")

    async with hook.session():
        await asyncio.gather(*(one(place) for place in range(JOBS)))


def _create(cluster_id: str) -> Any:
    from airflow_provider_vertex_ray.hooks.base import run_sync
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterHook
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger

    hook = VertexRayClusterHook(location="us-central1")
    hook.create_cluster(cluster_id, {"worker_node_types": [{"machine_type": "n1-standard-8"}]})
    name = f"projects/{hook.known_project()}/locations/us-central1/persistentResources/{cluster_id}"
    outcome = run_sync(VertexRayClusterReadyTrigger(cluster_name=name, poll_interval=1.0).outcome)
    if outcome["status"] != "success":
        raise RuntimeError(f"Cluster {cluster_id} did not become ready: {outcome}")
    return hook.get_cluster(name)


@contextmanager
def _peer(emulator: Emulator, address: str, log: Path) -> Iterator[None]:
    """Run the Google provider's operator, waiting for a job that outlives the measurement."""
    command = [sys.executable, "-m", "vertex_ray_emulator", "env", "--json"]
    shown = subprocess.run([*command, "--state-dir", str(emulator.state_dir)], capture_output=True, check=True)
    own = {key: value for key, value in os.environ.items() if key.lower() not in ("http_proxy", "https_proxy")}
    connection = {"AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": "google-cloud-platform://"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer_job", address, "sleep 3600"],
            env={**own, **json.loads(shown.stdout), **connection},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _calls(emulator: Emulator, cluster: str) -> list[dict[str, Any]]:
    return [
        call
        for call in emulator.calls("*")
        if call["surface"] in SERVICE and call["resource"].rsplit("/", 1)[-1] == cluster
    ]


def _peer_rate(emulator: Emulator, log: Path) -> float:
    """Return the peer's requests per hour while it waits, once it has waited long enough."""
    deadline = time.monotonic() + PEER_LIMIT
    while True:
        # Only requests about the job: those before them were its submission and the client's set-up.
        calls = _calls(emulator, "peer")
        first = next((i for i, call in enumerate(calls) if "GET /api/jobs/" in call["method"]), len(calls))
        times: list[float] = [call["time"] for call in calls[first:]]
        if times and times[-1] - times[0] >= PEER_SECONDS:
            return (len(times) - 1) / (times[-1] - times[0]) * 3600
        if time.monotonic() > deadline:
            raise RuntimeError(f"The Google provider's operator does not wait:\n{log.read_text()[-3000:]}")
        time.sleep(1.0)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run() -> list[Figure]:
    """Wait for jobs in both ways at the same time, each on its own cluster."""
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
        # The Google provider recognises a Vertex AI address by its bare host name.
        arguments = ["--backend", "fake", "--dashboard-addresses", "google", "--without", "no-websockets"]
        emulator = Emulator(Path(folder) / "state", arguments)
        emulator.start()
        try:
            home = {"AIRFLOW_HOME": str(Path(folder) / "airflow")}
            # Airflow's task log would fill the screen with the jobs' output.
            with (
                _environment({**emulator.airflow_environment, **home}),
                (Path(folder) / "own.log").open("w") as own_log,
                redirect_stdout(own_log),
                redirect_stderr(own_log),
            ):
                ours, peer = _create("ours"), _create("peer")
                log = Path(folder) / "peer.log"
                with _peer(emulator, peer.dashboard_uri, log):
                    begun = time.time()
                    asyncio.run(_wait_for_jobs(ours.name))
                    peer_rate = _peer_rate(emulator, log)
                calls = [call["time"] for call in _calls(emulator, "ours") if call["time"] >= begun]
        finally:
            emulator.stop()
    whole = len(calls) / JOBS
    during = peer_rate * JOB_SECONDS / HOUR
    return [
        Figure("requests for a job of one hour", requests_by_rule(HOUR), "", "Google provider's", peer_rate, GOAL),
        *(
            Figure(
                f"requests for a job of one hour without websockets that prints {what}",
                requests_without_websockets(HOUR, printing),
                "",
                "Google provider's",
                peer_rate,
            )
            for what, printing in (("nothing", False), ("all the time", True))
        ),
        # Ours are from the submission to the end of the log; the peer's are for the waiting alone.
        Figure(f"requests for a job of {JOB_SECONDS:.0f} s", whole, "", "Google provider's", during),
        Figure(f"requests for a job of {JOB_SECONDS:.0f} s", whole, "", "the rule", requests_by_rule(JOB_SECONDS), 1.5),
    ]


def main() -> int:
    """Measure and print the figures."""
    print(f"Waiting for {JOBS} jobs in one process, poll_interval {POLL_INTERVAL:.0f} s; counted by the emulator.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
