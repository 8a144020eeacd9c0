"""The operators on a real Ray: what the stand-in of the other tests can not prove."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.errors import ClusterInUseError, JobFailedError
from airflow_provider_vertex_ray.operators.cluster import (
    VertexRayCreateClusterOperator,
    VertexRayDeleteClusterOperator,
    VertexRayResizeClusterOperator,
)
from airflow_provider_vertex_ray.operators.job import VertexRayStopJobOperator, VertexRaySubmitJobOperator
from tests.conftest import use
from tests.support.clusters import LOCATION, cluster_ids, jobs_of
from tests.support.tasks import run_task

pytestmark = pytest.mark.ray

SPEC = ClusterSpec(
    head_node_type=Resources("n1-standard-16"), worker_node_types=[Resources("n1-standard-4", node_count=1)]
)
WORKERS = SPEC.pools()[1].pool_id

SQUARES = """
import json, os
import ray
from numbers_of_the_job import NUMBERS

@ray.remote
def square(number):
    return number * number

ray.init()
total = sum(ray.get([square.remote(number) for number in NUMBERS]))
print("VERTEX_RAY_RESULT " + json.dumps({"total": total, "word": os.environ["WORD"]}))
"""


def common(task_id: str) -> dict[str, Any]:
    return {"task_id": task_id, "cluster_id": "real", "location": LOCATION, "deferrable": False}


def submit(task_id: str, entrypoint: Any, **more: Any) -> Any:
    arguments = {**common(task_id), "poll_interval": 0.5, "job_timeout": PATIENCE, **more}
    return run_task(VertexRaySubmitJobOperator(entrypoint=entrypoint, **arguments))


@pytest.fixture(scope="module")
def cluster(ray_process: EmulatorProcess) -> Iterator[dict[str, Any]]:
    """What the create returned."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(ray_process, monkeypatch)
        yield run_task(VertexRayCreateClusterOperator(spec=SPEC, poll_interval=0.5, **common("create")))


def live_nodes(emulator: EmulatorProcess) -> int:
    (found,) = emulator.admin("GET", "clusters")["clusters"]
    return sum(1 for node in found["nodes"] if node["alive"])


def test_create(cluster: dict[str, Any], ray_emulator: EmulatorProcess) -> None:
    assert (cluster["state"], cluster["node_count"]) == ("RUNNING", 2)
    assert live_nodes(ray_emulator) == 2


def test_a_job_computes_on_the_workers(cluster: dict[str, Any], ray_emulator: EmulatorProcess, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SQUARES)
    (tmp_path / "numbers_of_the_job.py").write_text("NUMBERS = range(10)\n")
    result = submit("squares", ["python", "main.py"], working_dir=str(tmp_path), env_vars={"WORD": "two words"})
    assert (result["status"], result["exit_code"]) == ("SUCCEEDED", 0)
    assert result["result"] == {"total": 285, "word": "two words"}


def test_a_job_that_fails(cluster: dict[str, Any], ray_emulator: EmulatorProcess) -> None:
    program = "print('before the end'); raise SystemExit('no such shard')"
    with pytest.raises(JobFailedError) as caught:
        submit("failing", ["python", "-u", "-c", program])
    assert caught.value.details["exit_code"] == 1
    assert caught.value.details["logs_tail"][-2:] == ["before the end", "no such shard"]
    assert str(caught.value).rstrip().endswith("before the end\n    no such shard")


def test_a_running_job_is_stopped(cluster: dict[str, Any], ray_emulator: EmulatorProcess) -> None:
    job = submit("long", "sleep 300", wait_for_completion=False)["submission_id"]
    until(lambda: jobs_of(ray_emulator, "real")[job]["status"] == "RUNNING", "the job does not run")
    result = run_task(VertexRayStopJobOperator(submission_id=job, **common("stop")))
    assert (result["submission_id"], result["status"], result["was_running"]) == (job, "STOPPED", True)


def resize_to(count: int) -> dict[str, Any]:
    operator = VertexRayResizeClusterOperator(replicas={WORKERS: count}, poll_interval=0.5, **common("resize"))
    result: dict[str, Any] = run_task(operator)
    return result


def test_resize_up_and_down(cluster: dict[str, Any], ray_emulator: EmulatorProcess) -> None:
    result = resize_to(2)
    assert (result["state"], result["live_nodes"]) == ("RUNNING", 3)
    assert live_nodes(ray_emulator) == 3
    # Each takes more than half of a worker, so both workers are used.
    jobs = [
        submit(f"reserves-{number}", "sleep 300", wait_for_completion=False, entrypoint_num_cpus=3)["submission_id"]
        for number in range(2)
    ]
    until(lambda: all(jobs_of(ray_emulator, "real")[job]["status"] == "RUNNING" for job in jobs))
    with pytest.raises(ClusterInUseError, match="1 workers would remain, but 2 are in use"):
        resize_to(1)
    assert live_nodes(ray_emulator) == 3
    for job in jobs:
        run_task(VertexRayStopJobOperator(submission_id=job, **common("stop")))
    assert resize_to(1)["live_nodes"] == 2
    assert live_nodes(ray_emulator) == 2


def test_delete(cluster: dict[str, Any], ray_emulator: EmulatorProcess) -> None:
    assert run_task(VertexRayDeleteClusterOperator(poll_interval=0.5, **common("delete")))["existed"] is True
    assert cluster_ids(ray_emulator) == []
