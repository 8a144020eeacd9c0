"""Jobs that are asked about, listed, stopped and deleted."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    InvalidArgumentError,
    JobNotFoundError,
    JobRunningError,
    JobTimeoutError,
    NotARayClusterError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators.job_admin import (
    DeletedJob,
    JobSummary,
    ReadJob,
    StoppedJob,
    VertexRayDeleteJobOperator,
    VertexRayGetJobOperator,
    VertexRayListJobsOperator,
    VertexRayStopJobOperator,
)
from tests.support.clusters import BODY, LOCATION, jobs_of, submit
from tests.support.tasks import context_of, run_task

ON_ONE = [VertexRayGetJobOperator, VertexRayStopJobOperator, VertexRayDeleteJobOperator]
ALL = [*ON_ONE, VertexRayListJobsOperator]


def build(kind: type[Any], **more: Any) -> Any:
    job = {} if kind is VertexRayListJobsOperator else {"submission_id": "job"}
    return kind(**{"task_id": "ask", "cluster_id": "shared", "location": LOCATION, **job, **more})


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
        submit(shared, "shared", job, "sleep 600")
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
    with pytest.raises(JobTimeoutError, match="Ray job job did not end before its deadline"):
        run_task(build(VertexRayStopJobOperator, deferrable=deferrable, stop_timeout=0.1))


def test_list(shared: EmulatorProcess) -> None:
    assert run_task(build(VertexRayListJobsOperator)) == []
    ended(shared, "good", "echo good")
    ended(shared, "bad", "fail")
    submit(shared, "shared", "long", "sleep 600")
    until(lambda: jobs_of(shared, "shared")["long"]["status"] == "RUNNING")

    def ids(**more: Any) -> set[str]:
        operator = build(VertexRayListJobsOperator, **more)
        return {job["submission_id"] for job in run_task(operator, context_of(operator, wanted="FAILED"))}

    assert ids() == {"good", "bad", "long"}
    assert ids(statuses=["{{ wanted }}"]) == {"bad"}
    assert ids(statuses=["RUNNING", "SUCCEEDED"]) == {"good", "long"}


def test_delete(shared: EmulatorProcess) -> None:
    for job in ("job", "sibling"):
        ended(shared, job, "exit 7")
    operator = build(VertexRayDeleteJobOperator, submission_id="{{ name }}")
    result = run_task(operator, context_of(operator, name="job"))
    assert result == {"submission_id": "job", "cluster_id": "shared", "existed": True}
    assert set(jobs_of(shared, "shared")) == {"sibling"}
    # Deleted is deleted, whoever did it.
    assert run_task(build(VertexRayDeleteJobOperator))["existed"] is False


def test_a_running_job_is_not_deleted(shared: EmulatorProcess) -> None:
    submit(shared, "shared", "job", "sleep 600")
    until(lambda: jobs_of(shared, "shared")["job"]["status"] == "RUNNING")
    with pytest.raises(JobRunningError, match=r"Ray job job is RUNNING.*VertexRayStopJobOperator"):
        run_task(build(VertexRayDeleteJobOperator))
    assert jobs_of(shared, "shared")["job"]["status"] == "RUNNING"
    assert shared.calls("DELETE *") == []


def test_results_have_the_types_that_they_are_declared_to_have(shared: EmulatorProcess) -> None:
    ended(shared, "job", "exit 7")
    (listed,) = run_task(build(VertexRayListJobsOperator))
    assert set(listed) == set(get_type_hints(JobSummary))
    assert set(run_task(build(VertexRayGetJobOperator))) == set(get_type_hints(ReadJob))
    assert set(run_task(build(VertexRayStopJobOperator, deferrable=False))) == set(get_type_hints(StoppedJob))
    assert set(run_task(build(VertexRayDeleteJobOperator))) == set(get_type_hints(DeletedJob))


@pytest.mark.parametrize("value", ["RUNNING", ["RUNING"], ["running"], ["{{ wrong }}"], "{{ wrong }}"])
def test_states_that_there_are_not(fake_emulator: EmulatorProcess, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Invalid value for statuses"):
        operator = build(VertexRayListJobsOperator, statuses=value)
        run_task(operator, context_of(operator, wrong="DONE"))
    assert fake_emulator.calls() == []


@pytest.mark.parametrize("kind", ON_ONE[:2])
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


@pytest.mark.parametrize("kind", ON_ONE)
@pytest.mark.parametrize("value", ["", None, "a/b", "{{ nothing }}"])
def test_a_wrong_submission_id(fake_emulator: EmulatorProcess, kind: type[Any], value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="^Invalid value for submission_id: "):
        operator = build(kind, submission_id=value)
        run_task(operator, context_of(operator, nothing=""))
    assert fake_emulator.calls() == []
