"""Jobs that are asked about, listed and stopped."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    JobNotFoundError,
    JobTimeoutError,
    NotARayClusterError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.job import (
    VertexRayGetJobOperator,
    VertexRayListJobsOperator,
    VertexRayStopJobOperator,
)
from airflow_provider_vertex_ray.spec_error import SpecError
from tests.support.clusters import BODY, LOCATION, jobs_of, start, submit
from tests.support.emulator import EmulatorProcess, until
from tests.support.tasks import context_of, run_task

ALL = [VertexRayGetJobOperator, VertexRayStopJobOperator, VertexRayListJobsOperator]


def build(kind: type[Any], **more: Any) -> Any:
    job = {} if kind is VertexRayListJobsOperator else {"submission_id": "job"}
    return kind(**{"task_id": "ask", "cluster_id": "shared", "location": LOCATION, **job, **more})


@pytest.fixture
def shared(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With a running cluster ``shared``."""
    start(fake_emulator)
    return fake_emulator


def ended(emulator: EmulatorProcess, submission_id: str, entrypoint: str) -> None:
    """A job that somebody submitted and that has ended."""
    submit(emulator, "shared", submission_id, entrypoint)
    until(lambda: jobs_of(emulator, "shared")[submission_id]["end_time"])


def test_get(shared: EmulatorProcess) -> None:
    ended(shared, "job", "exit 7")
    operator = build(VertexRayGetJobOperator, submission_id="{{ name }}")
    context = context_of(operator, name="job")
    result = run_task(operator, context)
    assert (result["submission_id"], result["status"], result["exit_code"]) == ("job", "FAILED", 7)
    assert result["cluster_id"] == "shared"
    assert result["duration_seconds"] >= 0
    assert context["ti"].xcoms[LINK_KEY]["submission_id"] == "job"


def test_stop(shared: EmulatorProcess, deferrable: bool) -> None:
    for job in ("job", "sibling"):
        submit(shared, "shared", job, "sleep 60")
    until(lambda: jobs_of(shared, "shared")["job"]["status"] == "RUNNING")
    operator = build(VertexRayStopJobOperator, submission_id="{{ name }}", deferrable=deferrable)
    result = run_task(operator, context_of(operator, name="job"))
    assert (result["status"], result["was_running"]) == ("STOPPED", True)
    known = jobs_of(shared, "shared")
    assert (known["job"]["status"], known["sibling"]["status"]) == ("STOPPED", "RUNNING")


def test_a_stop_of_a_job_that_ended_before(shared: EmulatorProcess, deferrable: bool) -> None:
    ended(shared, "job", "exit 7")
    result = run_task(build(VertexRayStopJobOperator, deferrable=deferrable))
    assert (result["status"], result["was_running"]) == ("FAILED", False)


def test_a_stop_that_does_not_come_about(shared: EmulatorProcess, deferrable: bool) -> None:
    # Ray accepts the stop of a job that waits for resources, and the job goes on waiting.
    submit(shared, "shared", "job", "echo never", entrypoint_num_cpus=1000)
    with pytest.raises(JobTimeoutError, match="Ray job job did not end in time"):
        run_task(build(VertexRayStopJobOperator, deferrable=deferrable, stop_timeout=0.3))


def test_list(shared: EmulatorProcess) -> None:
    assert run_task(build(VertexRayListJobsOperator)) == []
    ended(shared, "good", "echo good")
    ended(shared, "bad", "fail")
    submit(shared, "shared", "long", "sleep 60")
    until(lambda: jobs_of(shared, "shared")["long"]["status"] == "RUNNING")

    def ids(**more: Any) -> set[str]:
        operator = build(VertexRayListJobsOperator, **more)
        return {job["submission_id"] for job in run_task(operator, context_of(operator, wanted="FAILED"))}

    assert ids() == {"good", "bad", "long"}
    assert ids(statuses=["{{ wanted }}"]) == {"bad"}
    assert ids(statuses=["RUNNING", "SUCCEEDED"]) == {"good", "long"}


@pytest.mark.parametrize("kind", ALL[:2])
def test_a_job_that_the_cluster_does_not_know(shared: EmulatorProcess, kind: type[Any]) -> None:
    with pytest.raises(JobNotFoundError, match="job"):
        run_task(build(kind))


@pytest.mark.parametrize("kind", ALL)
def test_a_cluster_that_is_not_there(fake_emulator: EmulatorProcess, kind: type[Any]) -> None:
    with pytest.raises(ClusterNotFoundError, match="shared"):
        run_task(build(kind))


@pytest.mark.parametrize("kind", ALL)
def test_a_cluster_without_ray(fake_emulator: EmulatorProcess, kind: type[Any]) -> None:
    fake_emulator.create("shared", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError, match="cluster_id='shared'"):
        run_task(build(kind))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"location": None}, "location"),
        ({"cluster_id": "Bad_Id"}, "cluster_id"),
        ({"cluster_id": "{{ nothing }}"}, "cluster_id"),
    ],
    ids=str,
)
def test_wrong_input(fake_emulator: EmulatorProcess, kind: type[Any], arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        operator = build(kind, **arguments)
        run_task(operator, context_of(operator, nothing=""))
    assert caught.value.field == field
    assert fake_emulator.calls() == []


@pytest.mark.parametrize("kind", ALL[:2])
@pytest.mark.parametrize("value", ["", None, "a/b", "{{ nothing }}"])
def test_a_wrong_submission_id(fake_emulator: EmulatorProcess, kind: type[Any], value: Any) -> None:
    with pytest.raises(SpecError, match="^submission_id: "):
        operator = build(kind, submission_id=value)
        run_task(operator, context_of(operator, nothing=""))
    assert fake_emulator.calls() == []


@pytest.mark.parametrize("kind", ALL)
def test_no_project(fake_emulator: EmulatorProcess, kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")
    with pytest.raises(SpecError, match="^project_id: "):
        run_task(build(kind))
    assert fake_emulator.calls() == []
