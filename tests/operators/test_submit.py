"""A job as a task: its result, its failure, its log, and which job it is."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, owner_key
from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    JobFailedError,
    JobLostError,
    JobPendingTimeoutError,
    JobStoppedError,
    JobTimeoutError,
    NotARayClusterError,
    SubmissionIdTakenError,
    VertexRayError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from tests.operators.builders import submit_job
from tests.support.clusters import BODY, dashboard_of, jobs_of, page_of, start, submit, until_exists
from tests.support.tasks import TaskInstance, context_of, deferral_of, first_event, round_trip, run_task

OWNER = owner_key("dag", "run-1", "submit", -1)
FIRST = f"af-dag-submit-{OWNER}"
"""The submission id of the task's first job."""


def uri_of(emulator: EmulatorProcess) -> str:
    """The dashboard's address as the service gives it, without a scheme."""
    found = emulator.api("GET", "persistentResources/shared")[1]
    return str(found["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"])


def submits(emulator: EmulatorProcess) -> int:
    return len(emulator.calls("POST /api/jobs/"))


def test_the_result_comes_back(shared: EmulatorProcess, deferrable: bool) -> None:
    operator = submit_job("""echo one && echo 'VERTEX_RAY_RESULT {"sum": 42}' && echo two""", deferrable=deferrable)
    context = context_of(operator)
    result = run_task(operator, context)
    assert (result["submission_id"], result["status"], result["exit_code"]) == (FIRST, "SUCCEEDED", 0)
    assert result["result"] == {"sum": 42}
    assert result["logs_tail"][-1] == "two"
    assert result["cluster_id"] == "shared"
    dashboard = uri_of(shared)
    assert result["dashboard_url"] == page_of(shared, "shared")
    assert context["ti"].xcoms[LINK_KEY] == {
        "project_id": shared.project,
        "location": "us-central1",
        "cluster_id": "shared",
        "dashboard_uri": dashboard,
        "submission_id": FIRST,
        "emulator": shared.host,
    }
    json.dumps(result)


def test_what_is_submitted(shared: EmulatorProcess, deferrable: bool) -> None:
    operator = submit_job(
        ["echo", "{{ word }}"],
        deferrable=deferrable,
        metadata={"team": "{{ team }}"},
        env_vars={"WORD": "{{ word }}"},
        runtime_env={"pip": ["emoji"], "env_vars": {"WORD": "under", "OTHER": "kept"}},
        entrypoint_num_cpus=1,
    )
    result = run_task(operator, context_of(operator, TaskInstance("submit", map_index=3), word="a b", team="tea"))
    job = jobs_of(shared, "shared")[result["submission_id"]]
    assert job["entrypoint"] == "echo 'a b'"
    assert job["runtime_env"] == {"pip": ["emoji"], "env_vars": {"WORD": "a b", "OTHER": "kept"}}
    assert (
        job["metadata"].items()
        >= {
            "team": "tea",
            "airflow_dag_id": "dag",
            "airflow_run_id": "run-1",
            "airflow_task_id": "submit",
            "airflow_map_index": "3",
            OWNER_KEY: owner_key("dag", "run-1", "submit", 3),
        }.items()
    )
    assert result["submission_id"].startswith("af-dag-submit-3-")


def test_a_failed_job_fails_the_task_with_its_reason(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(JobFailedError) as caught:
        run_task(submit_job("echo loading && echo 'no such shard' && exit 3", deferrable=deferrable))
    text = str(caught.value)
    assert f"Ray job {FIRST} failed with exit code 3: Job entrypoint command failed with exit code 3" in text
    assert text.rstrip().endswith("loading\n    no such shard")
    assert text.count("no such shard") == 1
    assert caught.value.details["exit_code"] == 3
    assert caught.value.details["logs_tail"][-2:] == ["loading", "no such shard"]


def test_a_job_that_somebody_stops(shared: EmulatorProcess, deferrable: bool) -> None:
    path = f"{dashboard_of(shared, 'shared')}/api/jobs/{FIRST}/stop"

    class Stopped(TaskInstance):
        """Its job is stopped when the first fact about it is kept, which is just before the wait."""

        def xcom_push(self, key: str, value: Any) -> None:
            first = not self.xcoms
            super().xcom_push(key, value)
            if not first:
                return
            until(lambda: jobs_of(shared, "shared")[FIRST]["status"] == "RUNNING")
            assert shared.request("POST", path, {}, token=shared.token()) == (200, {"stopped": True})

    operator = submit_job("sleep 600", deferrable=deferrable)
    with pytest.raises(JobStoppedError, match=f"Ray job {FIRST} was stopped"):
        run_task(operator, context_of(operator, Stopped("submit")))


def test_the_job_s_lines_are_in_the_task_s_log(shared: EmulatorProcess, deferrable: bool, task_log: list[str]) -> None:
    run_task(submit_job("echo first line && sleep 0.2 && echo second line", deferrable=deferrable))
    assert task_log.count("first line") == 1
    assert task_log.count("second line") == 1
    assert task_log.index("first line") < task_log.index("second line")
    # After the output, and only once.
    (closing,) = [line for line in task_log if f"{FIRST} is SUCCEEDED" in line]
    assert re.fullmatch(rf"Ray job {FIRST} is SUCCEEDED after \d+\.\d s, exit code 0", closing)
    assert task_log.index("second line") < task_log.index(closing)


def test_its_lines_stay_out_when_that_is_asked_for(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    result = run_task(submit_job("echo first line", deferrable=deferrable, stream_logs=False))
    assert any(line.startswith(f"Ray job {FIRST} is SUCCEEDED after ") for line in task_log)
    assert "first line" not in task_log
    assert result["logs_tail"][-1] == "first line"


def test_a_try_finds_the_job_of_an_earlier_one(shared: EmulatorProcess, deferrable: bool, tmp_path: Path) -> None:
    found = tmp_path / "found"

    class Found(TaskInstance):
        """Its job ends when the first fact about it is kept; one that had succeeded before would be run again."""

        def xcom_push(self, key: str, value: Any) -> None:
            super().xcom_push(key, value)
            found.touch()

    # The first try submits and is lost.
    deferral_of(submit_job(until_exists(found), deferrable=True))
    operator = submit_job(until_exists(found), deferrable=deferrable)
    result = run_task(operator, context_of(operator, Found("submit")))
    assert (result["submission_id"], result["status"]) == (FIRST, "SUCCEEDED")
    assert submits(shared) == 1


def test_a_retry_after_a_failure_is_another_job(shared: EmulatorProcess, deferrable: bool) -> None:
    for _ in range(2):
        with pytest.raises(JobFailedError):
            run_task(submit_job("fail", deferrable=deferrable))
    result = run_task(submit_job("echo better", deferrable=deferrable))
    assert result["submission_id"] == f"{FIRST}-a3"
    assert set(jobs_of(shared, "shared")) == {FIRST, f"{FIRST}-a2", f"{FIRST}-a3"}


def test_a_clear_after_a_success_runs_it_again(shared: EmulatorProcess, deferrable: bool) -> None:
    assert run_task(submit_job(deferrable=deferrable))["submission_id"] == FIRST
    assert run_task(submit_job(deferrable=deferrable))["submission_id"] == f"{FIRST}-a2"


def test_an_id_of_one_s_own(shared: EmulatorProcess, deferrable: bool) -> None:
    operator = submit_job(submission_id="mine-{{ day }}", deferrable=deferrable)
    assert run_task(operator, context_of(operator, day="d1"))["submission_id"] == "mine-d1"
    again = submit_job(submission_id="mine-d1", deferrable=deferrable)
    assert run_task(again)["submission_id"] == "mine-d1-a2"


@pytest.mark.parametrize("entrypoint", ["sleep 600", "echo over"])
def test_an_id_of_somebody_else_s(shared: EmulatorProcess, deferrable: bool, entrypoint: str) -> None:
    submit(shared, "shared", "theirs", entrypoint)
    with pytest.raises(SubmissionIdTakenError, match="The submission id 'theirs' belongs to a job"):
        run_task(submit_job(submission_id="theirs", deferrable=deferrable))
    assert submits(shared) == 1
    assert shared.calls("POST /api/jobs/theirs/stop") == []


def test_a_submit_whose_answer_was_lost(shared: EmulatorProcess, deferrable: bool) -> None:
    with shared.fault(scope="dashboard", method="POST /api/jobs/", action="drop_response"):
        result = run_task(submit_job(deferrable=deferrable))
    assert result["submission_id"] == FIRST
    assert list(jobs_of(shared, "shared")) == [FIRST]


def test_without_waiting(shared: EmulatorProcess, deferrable: bool) -> None:
    result = run_task(submit_job("sleep 600", deferrable=deferrable, wait_for_completion=False))
    assert result == {
        "submission_id": FIRST,
        "cluster_id": "shared",
        "adopted": False,
        "dashboard_url": page_of(shared, "shared"),
    }
    assert jobs_of(shared, "shared")[FIRST]["status"] in ("PENDING", "RUNNING")
    assert run_task(submit_job(deferrable=deferrable, wait_for_completion=False))["adopted"] is True


def test_a_job_that_runs_too_long_is_stopped(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(
        JobTimeoutError, match=f"Ray job {FIRST} did not end before its deadline; a stop request was sent"
    ):
        run_task(submit_job("sleep 600", deferrable=deferrable, job_timeout=0.2))
    assert jobs_of(shared, "shared")[FIRST]["status"] == "STOPPED"


def test_a_driver_that_is_never_started(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(JobPendingTimeoutError, match=r"0 logical CPUs"):
        run_task(submit_job(deferrable=deferrable, entrypoint_resources={"nowhere": 1}, pending_timeout=0.2))
    assert len(shared.calls(f"POST /api/jobs/{FIRST}/stop")) == 1


def test_pending_timeout_does_not_concern_a_running_job(shared: EmulatorProcess, deferrable: bool) -> None:
    result = run_task(submit_job("sleep 0.5", deferrable=deferrable, pending_timeout=0.1))
    assert result["status"] == "SUCCEEDED"


def test_deadlines_travel_in_the_trigger(shared: EmulatorProcess) -> None:
    deferral = deferral_of(submit_job(deferrable=True, job_timeout=100, pending_timeout=50))
    assert deferral.timeout is None
    assert not deferral.kwargs
    arguments = deferral.trigger.serialize()[1]
    assert arguments["deadline"] - arguments["pending_deadline"] == pytest.approx(50, abs=1)


def test_a_cluster_that_is_deleted_meanwhile(shared: EmulatorProcess) -> None:
    operator = submit_job("sleep 600", deferrable=True)
    deferral = deferral_of(operator)
    shared.wait(shared.api("DELETE", "persistentResources/shared")[1])
    event = asyncio.run(first_event(round_trip(deferral.trigger)))
    with pytest.raises(JobLostError, match=r"is lost: its cluster .*shared was deleted"):
        getattr(submit_job("sleep 600"), deferral.method_name)(context_of(operator), event=event)


def _no_cluster(emulator: EmulatorProcess) -> None:
    assert emulator


def _without_ray(emulator: EmulatorProcess) -> None:
    body: dict[str, Any] = {"resourcePools": BODY["resourcePools"]}
    assert emulator.create("shared", body)["state"] == "RUNNING"


def _failed(emulator: EmulatorProcess) -> None:
    start(emulator)
    emulator.admin("POST", "clusters/shared/state", {"state": "ERROR", "error": {"code": 13, "message": "It broke."}})


def _provisioning(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "provisioning", "outcome": "stuck"})
    assert emulator.api("POST", "persistentResources?persistentResourceId=shared", BODY)[0] == 200


@pytest.mark.parametrize(
    ("arrange", "kind", "text"),
    [
        (_no_cluster, ClusterNotFoundError, "shared"),
        (_without_ray, NotARayClusterError, "cluster_id='shared'"),
        (_failed, ClusterFailedError, "Cluster shared is in state ERROR: It broke."),
        (_provisioning, DashboardNotReadyError, "Cluster shared is PROVISIONING and has no dashboard yet"),
    ],
)
def test_a_cluster_that_takes_no_jobs(
    fake_emulator: EmulatorProcess, deferrable: bool, arrange: Any, kind: type[VertexRayError], text: str
) -> None:
    arrange(fake_emulator)
    with pytest.raises(VertexRayError) as caught:
        run_task(submit_job(deferrable=deferrable))
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert submits(fake_emulator) == 0
