"""Measure submissions: the operator's, those of a bare HTTP client, and those of Ray's own client.

The operator looks up the cluster, looks for a job of an earlier try, and submits; the other two only submit. All run in
one process, so that no imports count, one submission after the other, against an emulator without delays.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from benchmarks.clusters import INSTANT, Bench, bench
from benchmarks.report import Figure, print_figures
from benchmarks.worker_process import context_of

SUBMISSIONS = 40
GOAL = 0.100
"""Seconds for a submission; a user sees no difference below that."""


def _seconds(submit: Callable[[str], object], name: str) -> float:
    """Return the median time of a submission; the first one is not counted."""
    times = []
    for number in range(SUBMISSIONS + 1):
        begun = time.perf_counter()
        submit(f"{name}-{number}")
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def _ours(where: Bench) -> Callable[[str], object]:
    from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

    def submit(job: str) -> object:
        operator = VertexRaySubmitJobOperator(
            task_id="job", cluster_id=where.cluster, entrypoint="true", wait_for_completion=False
        )
        return operator.execute(context_of(job))

    return submit


def _bare(address: str, token: str) -> Callable[[str], object]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def submit(job: str) -> object:
        body = json.dumps({"entrypoint": "true", "submission_id": job}).encode()
        with opener.open(urllib.request.Request(f"{address}/api/jobs/", body, headers), timeout=30) as answer:
            return json.load(answer)

    return submit


def _client(address: str, token: str) -> Callable[[str], object]:
    from ray.job_submission import JobSubmissionClient

    def submit(job: str) -> object:
        # A client for each, as in a worker.
        client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})
        return client.submit_job(entrypoint="true", submission_id=job)

    return submit


def run() -> Iterator[Figure]:
    """Measure all three."""
    with bench(INSTANT) as where:
        address = f"http://{where.emulator.host}/{where.dashboard_uri.rsplit('/', 1)[-1]}"
        token = asyncio.run(EmulatorTokenSource(where.emulator.host).get())
        ours = _seconds(_ours(where), "ours")
        what = "time of a submission, with lookup and search"
        yield Figure(what, ours, "s", "goal", GOAL, 1.0)
        yield Figure(what, ours, "s", "bare POST", _seconds(_bare(address, token), "bare"))
        yield Figure(what, ours, "s", "Ray's own client", _seconds(_client(address, token), "client"))


def main() -> int:
    """Measure and print the figures."""
    return print_figures(run())


if __name__ == "__main__":
    sys.exit(main())
