"""Ids, states, and what a task does about a job that is there already."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.core.http.decoding import check_shape
from airflow_provider_vertex_ray.core.job.answers import JobAnswer
from airflow_provider_vertex_ray.core.job.state import (
    OWNER_KEY,
    Action,
    Job,
    JobStatus,
    Try,
    attempt_id,
    decide,
    owner_key,
    submission_prefix,
)
from airflow_provider_vertex_ray.errors import JobFailedError, JobStoppedError, SubmissionIdTakenError


def job_of(data: dict[str, Any]) -> Job:
    return Job.of(check_shape(data, JobAnswer))


NAMES = st.text(min_size=1, max_size=250)
INSTANCES = st.tuples(NAMES, NAMES, NAMES, st.integers(-1, 10_000))
ATTEMPTS = st.integers(1, 999)


def an_id(instance: tuple[str, str, str, int], attempt: int) -> str:
    dag_id, run_id, task_id, map_index = instance
    prefix = submission_prefix(dag_id, task_id, map_index, owner_key(dag_id, run_id, task_id, map_index))
    return attempt_id(prefix, attempt)


@given(INSTANCES, ATTEMPTS)
@example(("Ü", "scheduled__2026-01-01T00:00:00+00:00", "🎉", -1), 1)
@example(("d" * 250, "r" * 250, "t" * 250, 10_000), 999)
def test_an_id_is_short_and_plain(instance: tuple[str, str, str, int], attempt: int) -> None:
    found = an_id(instance, attempt)
    assert re.fullmatch(r"af-[a-z0-9]+(-[a-z0-9]+)*", found)
    assert len(found) <= 85


@given(INSTANCES, ATTEMPTS)
def test_an_id_is_the_same_each_time(instance: tuple[str, str, str, int], attempt: int) -> None:
    assert an_id(instance, attempt) == an_id(instance, attempt)


@given(st.lists(st.tuples(INSTANCES, ATTEMPTS), min_size=2, max_size=20, unique=True))
@example([(("a", "r", "b_c", 1), 1), (("a_b", "r", "c", 1), 1), (("a-b", "r", "c", 1), 1), (("a", "r", "b-c", 11), 1)])
@example([(("d", "r", "t", -1), 2), (("d", "r", "t-a2", -1), 1), (("d", "r", "t", 2), 1)])
def test_other_tasks_have_other_ids(several: list[tuple[tuple[str, str, str, int], int]]) -> None:
    assert len({an_id(instance, attempt) for instance, attempt in several}) == len(several)


def test_an_id_can_be_read_by_a_person() -> None:
    found = an_id(("daily_etl", "manual__1", "train.model", 7), 3)
    assert re.fullmatch(r"af-daily-etl-train-model-7-[0-9a-f]{16}-a3", found)


def test_ids_of_one_kind_stay_as_they_are() -> None:
    # A release that derives them otherwise would submit a running job a second time after an upgrade.
    assert owner_key("dag", "run", "task", -1) == "a92950c53f6d7174"
    assert submission_prefix("dag", "task", -1, "0" * 16) == "af-dag-task-0000000000000000"


TRIES = st.builds(
    Try,
    st.just("me"),
    number=st.integers(1, 4),
    clear_epoch=st.sampled_from(["day/2", "day/3", "later/2"]),
    key=st.sampled_from(["", "x", "y"]),
)
TERMINAL = (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


@given(st.sampled_from(JobStatus), TRIES, TRIES)
def test_decision_about_jobs_of_this_task(status: JobStatus, submitted_by: Try, this: Try) -> None:
    action = decide(Job("id", status, metadata=submitted_by.metadata()), this)
    cleared = submitted_by.clear_epoch != this.clear_epoch
    same_try = submitted_by.number == this.number and submitted_by.key == this.key
    lost = not cleared and (submitted_by.number < this.number or same_try)
    if status not in TERMINAL:
        assert action is (Action.ADOPT if lost else Action.SUPERSEDE)
    elif status is JobStatus.SUCCEEDED and lost and (this.key or submitted_by.number < this.number):
        assert action is Action.RESULT
    else:
        assert action is Action.NEXT


@given(TRIES)
def test_no_job_is_submitted(this: Try) -> None:
    assert decide(None, this) is Action.SUBMIT


@given(st.sampled_from(JobStatus), TRIES, st.sampled_from([{}, {OWNER_KEY: "you"}, {"airflow": "me"}]))
def test_job_of_another_task_is_left_alone(status: JobStatus, this: Try, metadata: dict[str, str]) -> None:
    with pytest.raises(SubmissionIdTakenError, match=f"The submission id 'their-job' .*{status.value}") as caught:
        decide(Job("their-job", status, metadata=metadata), this)
    assert caught.value.details == {"submission_id": "their-job", "status": status.value}


def test_an_unknown_status_counts_as_active() -> None:
    assert JobStatus.of("HIBERNATING") is JobStatus.UNKNOWN
    assert not JobStatus.UNKNOWN.is_terminal


def test_reading_a_job() -> None:
    job = job_of(
        {
            "type": "SUBMISSION",
            "submission_id": "j",
            "status": "FAILED",
            "message": "it broke",
            "entrypoint": "python x.py",
            "start_time": 1_000,
            "end_time": 3_500,
            "metadata": {"a": "b"},
            "runtime_env": {"env_vars": {"TOKEN": "s3cr3t"}},
            "driver_exit_code": 7,
        }
    )
    assert job.duration_seconds == 2.5
    summary = job.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["exit_code"] == 7
    assert "s3cr3t" not in json.dumps(summary)


def test_reading_a_job_with_hardly_anything() -> None:
    job = job_of({"status": "PENDING", "metadata": None, "start_time": 0})
    assert (job.submission_id, job.status, job.metadata) == ("", JobStatus.PENDING, {})
    assert job.duration_seconds is None


def test_why_a_job_failed() -> None:
    error = Job("j", JobStatus.FAILED, message="the command failed", exit_code=3).failure(["one", "two"])
    assert type(error) is JobFailedError
    assert "Ray job j failed with exit code 3: the command failed" in str(error)
    assert "    one\n    two" in str(error)
    assert (error.details["exit_code"], error.details["logs_tail"]) == (3, ["one", "two"])


def test_a_driver_that_died_without_an_exit_code() -> None:
    error = Job("j", JobStatus.FAILED, message="The actor died.").failure()
    assert str(error) == "Ray job j failed: The actor died."


def test_a_job_that_was_stopped() -> None:
    error = Job("j", JobStatus.STOPPED, message="Job was intentionally stopped.").failure()
    assert type(error) is JobStoppedError
    assert "was stopped. Job was intentionally stopped." in str(error)


def test_message_of_a_job_is_masked() -> None:
    job = job_of(
        {
            "submission_id": "one",
            "status": "FAILED",
            "message": "exec: API_KEY=s3cret-value \ud800\x00",
            "runtime_env": {"env_vars": {"API_KEY": "s3cret-value"}},
        }
    )
    assert job.message.startswith("exec: API_KEY=*** ")
    assert str(job.failure()) == "Ray job one failed: exec: API_KEY=*** ?\ufffd"
