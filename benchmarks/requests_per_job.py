"""Count the requests of waiting jobs in the emulator's log: ours, and those of the Google provider's operator.

Our jobs wait as they do in a triggerer: many in one process, with the trigger's default settings. A young job is polled
more often than an old one: the requests of one minute are counted, those of a whole hour are computed with the
trigger's own rule (``triggers.job_pace.interval``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from benchmarks.clusters import create, environment
from benchmarks.counting_proxy import CountingProxy, counting_proxy
from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

JOBS = 20
POLL_INTERVAL = 15.0
"""The default of the operator and of the trigger."""

JOB_SECONDS = 60.0
HOUR = 3600.0
KIB = 1024
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
    from airflow_provider_vertex_ray.triggers.job_pace import interval

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


@dataclass(frozen=True)
class Waited:
    """What the waiting of the jobs of one minute cost.

    :param requests: requests for each of our jobs.
    :param size: bytes for each of our jobs, in both directions, with all headers.
    :param status_size: bytes of one status request of a bare client and its answer.
    :param peer_rate: the peer's requests an hour; None if it did not run.
    """

    requests: float
    size: float
    status_size: int
    peer_rate: float | None


def _status_size(proxy: CountingProxy, dashboard_uri: str) -> int:
    token = asyncio.run(EmulatorTokenSource(proxy.host).get())
    url = f"http://{proxy.host}/{dashboard_uri.rsplit('/', 1)[-1]}/api/jobs/job-0"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    before = proxy.total
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with opener.open(request, timeout=30) as answer:
        answer.read()
    return proxy.total - before


def _waited(arguments: tuple[str, ...], peer_too: bool) -> Waited:
    """Let our jobs and, if wanted, one of the peer's wait, each on its own cluster of a new emulator."""
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder, contextlib.ExitStack() as stack:
        # The Google provider recognises a Vertex AI address by its bare host name.
        given = ["--backend", "fake", "--dashboard-addresses", "google", *arguments]
        emulator = Emulator(Path(folder) / "state", given)
        emulator.start()
        stack.callback(emulator.stop)
        proxy = stack.enter_context(counting_proxy(emulator.host))
        home = {"AIRFLOW_HOME": str(Path(folder) / "airflow"), "VERTEX_RAY_EMULATOR_HOST": proxy.host}
        stack.enter_context(environment({**emulator.airflow_environment, **home}))
        # Airflow's task log would fill the screen with the jobs' output.
        own_log = stack.enter_context((Path(folder) / "own.log").open("w"))
        stack.enter_context(redirect_stdout(own_log))
        stack.enter_context(redirect_stderr(own_log))
        ours = create("ours")
        log = Path(folder) / "peer.log"
        if peer_too:
            stack.enter_context(_peer(emulator, create("peer").dashboard_uri, log))
        begun, before = time.time(), proxy.total
        asyncio.run(_wait_for_jobs(ours.name))
        size = (proxy.total - before) / JOBS
        count = len([call for call in _calls(emulator, "ours") if call["time"] >= begun]) / JOBS
        status_size = _status_size(proxy, ours.dashboard_uri)
        return Waited(count, size, status_size, _peer_rate(emulator, log) if peer_too else None)


def run() -> Iterator[Figure]:
    """Wait with websockets, beside the Google provider's operator, then without them."""
    found = _waited(("--without", "no-websockets"), True)
    peer_rate = found.peer_rate or 0.0
    peer = "Google provider's"
    yield Figure("requests for a job of one hour", requests_by_rule(HOUR), "", peer, peer_rate, GOAL)
    for what, printing in (("nothing", False), ("all the time", True)):
        name = f"requests for a job of one hour without websockets that prints {what}"
        yield Figure(name, requests_without_websockets(HOUR, printing), "", peer, peer_rate)
    # Ours are from the submission to the end of the log; the peer's are for the waiting alone.
    name = f"requests for a job of {JOB_SECONDS:.0f} s"
    yield Figure(name, found.requests, "", peer, peer_rate * JOB_SECONDS / HOUR)
    yield Figure(name, found.requests, "", "the rule", requests_by_rule(JOB_SECONDS), 1.5)
    # The measured minute, then what the rule says for the rest of the hour, at the mean size of the minute's requests.
    # The peer's are status requests, which a bare client makes with the fewest headers.
    beside = f"{peer} requests, bare"
    bare = peer_rate * found.status_size / KIB
    yield Figure("KiB for a job of one hour", _hour(found, requests_by_rule(HOUR)), "KiB", beside, bare)
    slow = _waited((), False)
    hourly = _hour(slow, requests_without_websockets(HOUR, False))
    yield Figure("KiB for a job of one hour without websockets", hourly, "KiB", beside, bare)


def _hour(found: Waited, requests: int) -> float:
    return requests * found.size / found.requests / KIB


def main() -> int:
    """Measure and print the figures."""
    print(f"Waiting for {JOBS} jobs in one process, poll_interval {POLL_INTERVAL:.0f} s; counted by the emulator.")
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
