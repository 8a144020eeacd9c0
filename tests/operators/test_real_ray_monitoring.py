"""Logs and metrics of a real Ray's jobs, through the operators and the sensor, and a head that dies under a job."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.core.monitoring.logs import LogsApi
from airflow_provider_vertex_ray.errors import JobLostError
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.monitoring import (
    VertexRayClusterLogsOperator,
    VertexRayClusterMetricsOperator,
)
from airflow_provider_vertex_ray.sensors.monitoring import VertexRayMetricSensor
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.conftest import use
from tests.support.clusters import LOCATION
from tests.support.tasks import deferral_of, first_event, round_trip, run_task

pytestmark = pytest.mark.ray

SPEC = ClusterSpec(
    head_node_type=Resources("n1-standard-16"), worker_node_types=[Resources("n1-standard-4", node_count=1)]
)
LINES = 120
NOISY = f"""
import sys
for k in range({LINES}):
    print("number", k)
print("WARNING: nearly done", file=sys.stderr)
"""
BUSY = """
import time
import ray

ray.init()

@ray.remote
def work():
    time.sleep(600)

print("two tasks are running", flush=True)
ray.get([work.remote(), work.remote()])
"""


def common(task_id: str, **more: Any) -> dict[str, Any]:
    return {"task_id": task_id, "cluster_id": "real", "location": LOCATION, **more}


def submit(task_id: str, program: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = run_task(
        VertexRaySubmitJobOperator(
            entrypoint=["python", "-u", "-c", program],
            **common(task_id, deferrable=True, poll_interval=0.5, job_timeout=PATIENCE, **more),
        )
    )
    return found


def sensor(**more: Any) -> VertexRayMetricSensor:
    return VertexRayMetricSensor(**common("wait", deferrable=True, poke_interval=0.5, timeout=PATIENCE, **more))


@pytest.fixture(scope="module")
def ray_process() -> Iterator[EmulatorProcess]:
    """One that reads the nodes' metrics often."""
    with (
        tempfile.TemporaryDirectory(prefix="vre-") as folder,
        EmulatorProcess(Path(folder), ["--scrape-seconds", "0.5"]) as process,
    ):
        yield process


@pytest.fixture(scope="module")
def cluster(ray_process: EmulatorProcess) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(ray_process, monkeypatch)
        run_task(VertexRayCreateClusterOperator(spec=SPEC, poll_interval=0.5, **common("create")))
        yield


@pytest.fixture(scope="module")
def busy(cluster: None, ray_process: EmulatorProcess) -> str:
    """A job whose two tasks run until its cluster dies."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(ray_process, monkeypatch)
        return str(submit("busy", BUSY, wait_for_completion=False)["submission_id"])


def test_the_logs_of_a_job_page_by_page(
    cluster: None, ray_emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit("noisy", NOISY)
    ray_emulator.admin("DELETE", "calls")
    ray_emulator.admin("POST", "tokens/revoke")
    monkeypatch.setitem(LogsApi.pages.__kwdefaults__, "page_size", 50)
    with ray_emulator.fault(scope="control_plane", method="ListLogEntries", status=429, times=2):
        result = run_task(
            VertexRayClusterLogsOperator(
                submission_id=job["submission_id"],
                output_path=f"file://{tmp_path}/noisy.jsonl",
                **common("logs"),
            )
        )
    said = [json.loads(line)["message"] for line in (tmp_path / "noisy.jsonl").read_text().splitlines()]
    assert [line for line in said if line.startswith("number")] == [f"number {k}" for k in range(LINES)]
    assert said[-1] == "WARNING: nearly done"
    assert result["written"] == len(said)
    answers = [call["status"] for call in ray_emulator.calls("ListLogEntries")]
    assert sorted(answers) == [200] * -(-len(said) // 50) + [401] * answers.count(401) + [429, 429]
    warned = run_task(
        VertexRayClusterLogsOperator(submission_id=job["submission_id"], severity="WARNING", **common("logs"))
    )
    assert [entry["message"] for entry in warned["entries"]] == ["WARNING: nearly done"]
    nodes = run_task(VertexRayClusterLogsOperator(file="raylet", newest_first=True, max_entries=5, **common("logs")))
    assert nodes["count"] == 5


def test_a_condition_on_the_tasks_of_a_job(busy: str, ray_emulator: EmulatorProcess) -> None:
    """Ray's own task of the job and its two; deferred, with a token that has expired and rate limits on the way."""
    deferral = deferral_of(sensor(metric="tasks", comparison=">=", threshold=3, for_seconds=2))
    ray_emulator.admin("POST", "tokens/revoke")
    with ray_emulator.fault(scope="control_plane", method="QueryRangePrometheus", status=429, times=2):
        event = asyncio.run(first_event(round_trip(deferral.trigger)))
    result = result_of(event)
    assert result["value"] >= 3
    assert result["at"] - result["since"] >= 1.99


def test_the_metrics_of_a_cluster(busy: str, ray_emulator: EmulatorProcess, tmp_path: Path) -> None:
    run_task(sensor(metric="nodes", comparison="==", threshold=2))

    def with_both_nodes() -> dict[str, Any] | None:
        result = run_task(
            VertexRayClusterMetricsOperator(
                metrics=["cpu", "memory", "tasks", "actors", "nodes", "gpu"],
                queries={"each node": 'ray_node_mem_used{cluster="real"}'},
                window=60,
                step=1,
                plot_path=f"file://{tmp_path}/plot.svg",
                **common("metrics"),
            )
        )
        return dict(result["metrics"]) if result["metrics"]["nodes"]["last"] == 2 else None

    # A node whose metrics were not read for a while is not counted.
    found = until(with_both_nodes, "the metrics of a node are missing")
    assert found is not None
    assert 0 <= found["cpu"]["min"] <= found["cpu"]["max"] <= 100
    assert 0 < found["memory"]["last"] < 100
    # The job's supervisor is an actor, and its run() a task.
    assert found["tasks"]["max"] >= 3
    assert found["actors"]["max"] >= 1
    assert found["gpu"]["count"] == 0
    assert len(found["each node"]["series"]) == 2
    assert (tmp_path / "plot.svg").read_bytes().startswith(b"<?xml")


async def test_a_lost_job_still_shows_its_last_lines(busy: str, ray_emulator: EmulatorProcess) -> None:
    name = f"projects/{ray_emulator.project}/locations/{LOCATION}/persistentResources/real"
    trigger = VertexRayJobTrigger(cluster_name=name, submission_id=busy, poll_interval=0.5, lost_timeout=1)
    ray_emulator.admin("DELETE", "calls")
    work = asyncio.create_task(first_event(trigger))
    # The trigger asks for the job by its id, which nobody else does.
    await asyncio.to_thread(until, lambda: ray_emulator.calls(f"GET /api/jobs/{busy}"), "nobody asks")
    await asyncio.to_thread(ray_emulator.admin, "POST", "clusters/real/kill", {"part": "head"})
    with pytest.raises(JobLostError, match="Last lines of its output, from Cloud Logging:") as caught:
        result_of(await asyncio.wait_for(work, PATIENCE))
    assert "two tasks are running" in "\n".join(caught.value.details["logs_tail"])
    assert str(caught.value).endswith(JobLostError.remedy)
