"""Compare waiting times and billed time of twenty short jobs on one shared cluster and on a cluster for each.

Runs on the emulator with a real Ray cluster, and a provisioning time of 30 s; the service takes 9 to 20 minutes.
A few separate clusters are measured, one after the other, and their mean stands for all twenty.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from airflow_provider_vertex_ray.core.cost.pricing import HOUR
from airflow_provider_vertex_ray.price_table import NodeKind
from benchmarks.report import Figure, print_figures
from devtools.emulator_process import Emulator

JOBS = 20
OWN_CLUSTERS = 2
PROVISIONING_SECONDS = 30.0
JOB = "python -c 'import ray, time; ray.init(); time.sleep(1)'"
PLOT = Path(__file__).resolve().parent.parent / "docs" / "images" / "amortisation.svg"
SPEC: dict[str, Any] = {
    "head_node_type": {"machine_type": "n1-standard-16"},
    "worker_node_types": [{"machine_type": "n1-standard-8", "node_count": 1}],
}
LOCATION = "us-central1"


@dataclass(frozen=True)
class MeasuredJob:
    """The measurements of one job.

    :param run_seconds: seconds from its submission to its end
    :param start_seconds: seconds that a cluster of its own needed until it could run the job
    :param billed_start_seconds: the part of them in which the cluster is already billed, from RUNNING to a dashboard
        that answers; PROVISIONING is free
    """

    run_seconds: float
    start_seconds: float
    billed_start_seconds: float = 0.0


def amortised(
    jobs: Sequence[MeasuredJob], nodes: Mapping[NodeKind, int], shared_seconds: float, shared_start_seconds: float
) -> dict[str, dict[str, float]]:
    """Return what the same jobs need on one shared cluster, and on a cluster of their own each.

    :param jobs: the jobs
    :param nodes: nodes of each cluster, by kind
    :param shared_seconds: seconds for which the shared cluster was billed, from RUNNING to its deletion, idle time
        included
    :param shared_start_seconds: seconds that the shared cluster needed until it could run the first job
    :return: ``shared`` and ``ephemeral``, each with ``node_hours``, ``waiting_seconds`` (for clusters, of all jobs
        together) and ``overhead`` (billed seconds for each second of work)
    """
    count = sum(nodes.values())
    work = sum(job.run_seconds for job in jobs)
    own = sum(job.billed_start_seconds + job.run_seconds for job in jobs)
    return {
        "shared": {
            "node_hours": count * shared_seconds / HOUR,
            "waiting_seconds": shared_start_seconds,
            "overhead": shared_seconds / work if work else 0.0,
        },
        "ephemeral": {
            "node_hours": count * own / HOUR,
            "waiting_seconds": sum(job.start_seconds for job in jobs),
            "overhead": own / work if work else 0.0,
        },
    }


async def _cluster(name: str) -> tuple[str, float, float]:
    """Create a cluster; return its full name, the seconds until it could run a job, and the billed part of them."""
    from airflow_provider_vertex_ray.core.timestamps import parse_rfc3339
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterReadyTrigger

    hook = VertexRayClusterAsyncHook(location=LOCATION)
    begin = time.time()
    async with hook.session() as (_, project):
        full = hook.cluster_name(name, project).full
        await hook.create_cluster(full, SPEC)
        outcome = await VertexRayClusterReadyTrigger(cluster_name=full, poll_interval=0.5).outcome()
    if outcome["status"] != "success":
        raise RuntimeError(f"Cluster {name} did not become ready: {outcome}")
    ready = time.time()
    running = parse_rfc3339(outcome["result"]["start_time"]) or ready
    return full, ready - begin, max(0.0, ready - running)


async def _job(cluster: str, job: str) -> float:
    from airflow_provider_vertex_ray.core.job.client import JobRequest
    from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
    from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger

    begin = time.time()
    await VertexRayJobAsyncHook().submit_job(cluster, JobRequest(JOB, job))
    outcome = await VertexRayJobTrigger(cluster_name=cluster, submission_id=job, stream_logs=False).outcome()
    if outcome["status"] != "success":
        raise RuntimeError(f"Job {job} failed: {outcome}")
    return time.time() - begin


async def _delete(cluster: str) -> None:
    from airflow_provider_vertex_ray.triggers.cluster import VertexRayClusterDeleteTrigger

    await VertexRayClusterDeleteTrigger(cluster_name=cluster, poll_interval=0.5).outcome()


async def _measure() -> dict[str, Any]:
    from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook

    # One session, with its imports, for all.
    async with VertexRayClusterAsyncHook(location=LOCATION).session():
        own = []
        for number in range(OWN_CLUSTERS):
            cluster, start, billed = await _cluster(f"own-{number}")
            own.append(MeasuredJob(await _job(cluster, "the-job"), start, billed))
            await _delete(cluster)
        cluster, shared_start, shared_billed = await _cluster("shared")
        begin = time.time()
        runs = [await _job(cluster, f"job-{number}") for number in range(JOBS)]
        shared_seconds = shared_billed + time.time() - begin
        await _delete(cluster)
    mean = MeasuredJob(*(statistics.mean(getattr(each, item.name) for each in own) for item in fields(MeasuredJob)))
    nodes = {NodeKind("n1-standard-16"): 1, NodeKind("n1-standard-8"): 1}
    return {
        "runs": runs,
        "own": own,
        "shared_start": shared_start,
        "found": amortised([mean] * JOBS, nodes, shared_seconds, shared_start),
        "elapsed": {
            "shared": shared_start + sum(runs),
            "ephemeral": JOBS * (mean.start_seconds + mean.run_seconds),
        },
        "mean": mean,
    }


def draw(measured: dict[str, Any], file: Path) -> None:
    """Plot where the time of the twenty jobs goes, for both ways."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "amortisation"
    from matplotlib import pyplot as plt

    mean = measured["mean"]
    starts: Sequence[float] = (measured["shared_start"], JOBS * mean.start_seconds)
    work: Sequence[float] = (sum(measured["runs"]), JOBS * mean.run_seconds)
    names = ("one shared cluster", f"{JOBS} separate clusters")
    figure, axes = plt.subplots(figsize=(8, 2.6))
    axes.barh(names, starts, label="waiting for clusters", color="#c44e52")
    axes.barh(names, work, left=starts, label="jobs", color="#4c72b0")
    for place, (start, busy) in enumerate(zip(starts, work, strict=True)):
        axes.text(start + busy, place, f"  {start + busy:.0f} s", va="center")
    axes.set_xlim(0, 1.15 * max(start + busy for start, busy in zip(starts, work, strict=True)))
    axes.set_xlabel(f"seconds for {JOBS} jobs in a row (emulator, provisioning {PROVISIONING_SECONDS:.0f} s)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2, frameon=False)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def run(plot: Path | None = None) -> list[Figure]:
    """Measure both ways.

    :param plot: file for the plot; None: no plot.
    """
    with tempfile.TemporaryDirectory(prefix="vrb-") as folder:
        arguments = ["--provisioning-seconds", str(PROVISIONING_SECONDS)]
        emulator = Emulator(Path(folder) / "state", arguments)
        emulator.start()
        try:
            os.environ.update({**emulator.airflow_environment, "AIRFLOW_HOME": str(Path(folder) / "airflow")})
            measured = asyncio.run(_measure())
        finally:
            emulator.stop()
    if plot is not None:
        draw(measured, plot)
    shared, own = measured["found"]["shared"], measured["found"]["ephemeral"]
    beside = f"{JOBS} separate clusters"
    return [
        Figure(
            f"time of {JOBS} jobs in a row on a shared cluster",
            measured["elapsed"]["shared"],
            "s",
            beside,
            measured["elapsed"]["ephemeral"],
            0.5,
        ),
        Figure("waiting for clusters", shared["waiting_seconds"], "s", beside, own["waiting_seconds"], 0.1),
        Figure("billed node-hours", shared["node_hours"], "h", beside, own["node_hours"]),
    ]


def main() -> int:
    """Measure, print and draw the figures."""
    print(f"{JOBS} jobs on one cluster; {OWN_CLUSTERS} on separate clusters, whose mean stands for {JOBS}.")
    return print_figures(run(PLOT))


if __name__ == "__main__":
    sys.exit(main())
