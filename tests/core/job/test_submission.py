"""One job for each attempt: what a try finds, submits and stops, over any history of crashes, retries and Clears."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_provider_vertex_ray.core.job.client import JobRequest
from airflow_provider_vertex_ray.core.job.state import Job, JobStatus, Record, Try, attempt_id
from airflow_provider_vertex_ray.core.job.submission import Submission, stop_and_wait
from airflow_provider_vertex_ray.errors import JobNotFoundError, JobNotStoppedError, SubmissionIdTakenError

RUNNING, SUCCEEDED, FAILED, STOPPED = (
    JobStatus.RUNNING,
    JobStatus.SUCCEEDED,
    JobStatus.FAILED,
    JobStatus.STOPPED,
)


class WorkerDiedError(Exception):
    """The process that executes the task is gone."""


class Cluster:
    """As much of a cluster's Jobs API as a submission uses, and what Ray's own rules make of it."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.die: str | None = None
        self.stoppable = True

    async def find(self, submission_id: str) -> Job | None:
        return self.jobs.get(submission_id)

    async def get(self, submission_id: str) -> Job:
        if submission_id not in self.jobs:
            raise JobNotFoundError(submission_id)
        return self.jobs[submission_id]

    async def submit(self, request: JobRequest) -> bool:
        if self.die == "before":
            raise WorkerDiedError
        if request.submission_id in self.jobs:
            return False
        self.jobs[request.submission_id] = Job(request.submission_id, RUNNING, metadata=dict(request.metadata))
        if self.die == "after":
            raise WorkerDiedError
        return True

    async def stop(self, submission_id: str) -> bool:
        job = await self.get(submission_id)
        if job.status is RUNNING and self.stoppable:
            self.end(submission_id, STOPPED)
        return job.status is RUNNING

    def end(self, submission_id: str, status: JobStatus) -> None:
        self.jobs[submission_id] = replace(self.jobs[submission_id], status=status)

    def active(self) -> list[str]:
        return [job.submission_id for job in self.jobs.values() if not job.status.is_terminal]


async def prepare(request: JobRequest) -> JobRequest:
    return request


def begin(cluster: Cluster, this: Try, first: int = 1, prefix: str = "af") -> tuple[str, bool]:
    """What ``execute`` does: the job that this try waits for, and whether it was there before."""
    submission = Submission(cluster, prefix, this, notify=lambda text: None)  # type: ignore[arg-type]

    async def run() -> tuple[str, bool]:
        found = await submission.find(first)
        if found.job is not None:
            return found.submission_id, True
        found, adopted = await submission.submit(found, JobRequest("true", ""), prepare)
        return found.submission_id, adopted

    return asyncio.run(run())


class History(RuleBasedStateMachine):
    """A task instance through anything that Airflow and its users do to it, with or without ids of single tries."""

    @initialize(ids=st.booleans())
    def create(self, ids: bool) -> None:
        self.cluster = Cluster()
        self.ids = ids
        self.number = self.clears = 0
        self.retries = 3
        self.max_tries = self.retries
        self.incarnation = 0
        self.waiting: str | None = None
        self.lost: str | None = None
        """The job of a try that was lost, if the next try is to go on with it."""
        self.unreported: set[str] = set()

    def this(self) -> Try:
        key = f"try-{self.incarnation}" if self.ids else ""
        return Try("owner", self.number, f"run/{self.max_tries}", key)

    def start(self, die: str | None = None) -> None:
        self.number += 1
        self.incarnation += 1
        before = set(self.cluster.jobs)
        self.cluster.die = die
        try:
            self.waiting, adopted = begin(self.cluster, self.this())
        except WorkerDiedError:
            made = set(self.cluster.jobs) - before
            self.lost = made.pop() if made else self.lost
            return
        finally:
            self.cluster.die = None
        new = set(self.cluster.jobs) - before
        if self.lost is not None and self.cluster.jobs[self.lost].status in (RUNNING, SUCCEEDED):
            assert (self.waiting, adopted, new) == (self.lost, True, set())
        else:
            assert not adopted
            assert new == {self.waiting}
        self.lost = None

    @precondition(lambda self: self.waiting is None)
    @rule(die=st.sampled_from([None, None, "before", "after"]))
    def try_it(self, die: str | None) -> None:
        self.start(die)

    @precondition(lambda self: self.waiting is not None)
    @rule(status=st.sampled_from([RUNNING, SUCCEEDED, FAILED, STOPPED]))
    def the_worker_dies_while_it_waits(self, status: JobStatus) -> None:
        assert self.waiting is not None
        if self.cluster.jobs[self.waiting].status is RUNNING:
            self.cluster.end(self.waiting, status)
        self.lost, self.waiting = self.waiting, None

    @precondition(lambda self: self.waiting is not None)
    @rule(status=st.sampled_from([FAILED, STOPPED]))
    def the_job_fails_and_the_task_is_retried(self, status: JobStatus) -> None:
        assert self.waiting is not None
        self.cluster.end(self.waiting, status)
        self.waiting = None

    @rule()
    def a_user_clears_it(self) -> None:
        """Also while it waits; the trigger's own kill may come late or never."""
        if self.number == 0:
            return
        if self.waiting is not None and self.cluster.jobs[self.waiting].status is RUNNING and self.clears % 2:
            self.cluster.end(self.waiting, SUCCEEDED)
        self.clears += 1
        self.max_tries = self.number + self.retries
        self.waiting = self.lost = None

    @invariant()
    def at_most_one_job_runs_once_a_try_waits(self) -> None:
        if getattr(self, "waiting", None) is not None:
            assert set(self.cluster.active()) <= {self.waiting}


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


def cluster_with(status: JobStatus, this: Try, attempt: int = 1) -> Cluster:
    cluster = Cluster()
    job_id = attempt_id("af", attempt)
    cluster.jobs[job_id] = Job(job_id, status, metadata=this.metadata())
    return cluster


FIRST = Try("owner", 1, "day/2", "first")


@pytest.mark.parametrize(("status", "job"), [(RUNNING, "af"), (SUCCEEDED, "af"), (FAILED, "af-a2")])
def test_two_workers_with_the_same_try(status: JobStatus, job: str) -> None:
    class Raced(Cluster):
        """The other worker submits between this one's look and its submit."""

        async def submit(self, request: JobRequest) -> bool:
            if not self.jobs:
                await super().submit(request)
                self.end(request.submission_id, status)
            return await super().submit(request)

    cluster = Raced()
    assert begin(cluster, FIRST) == (job, job == "af")
    assert set(cluster.jobs) == {"af", job}


def test_recreated_run_submits_its_job_again() -> None:
    # ``airflow dags test`` twice for one date: the same try number, the same start of the run.
    cluster = cluster_with(SUCCEEDED, FIRST)
    assert begin(cluster, replace(FIRST, key="second")) == ("af-a2", False)
    keyless = replace(FIRST, key="")
    assert begin(cluster_with(SUCCEEDED, keyless), keyless) == ("af-a2", False)


def test_recreated_run_stops_jobs_of_the_old_run() -> None:
    cluster = cluster_with(RUNNING, FIRST)
    assert begin(cluster, replace(FIRST, key="second")) == ("af-a2", False)
    assert cluster.jobs["af"].status is STOPPED


def test_job_of_later_try_is_not_adopted() -> None:
    cluster = cluster_with(RUNNING, replace(FIRST, number=5))
    assert begin(cluster, FIRST) == ("af-a2", False)


def test_attempts_that_were_deleted_from_the_cluster_are_known_by_the_record() -> None:
    cluster = cluster_with(RUNNING, FIRST, attempt=3)
    assert begin(cluster, replace(FIRST, number=2, key="second"), first=3) == ("af-a3", True)


def test_cleared_job_that_does_not_stop_fails_the_try() -> None:
    cluster = cluster_with(RUNNING, FIRST)
    cluster.stoppable = False
    with pytest.raises(JobNotStoppedError, match=r"af is still RUNNING 0 s after the stop request"):
        asyncio.run(stop_and_wait(cluster, "af", timeout=0.2))  # type: ignore[arg-type]
    assert list(cluster.jobs) == ["af"]


def test_job_of_another_task_is_left_alone() -> None:
    cluster = cluster_with(RUNNING, replace(FIRST, owner="you"))
    with pytest.raises(SubmissionIdTakenError):
        begin(cluster, FIRST)
    assert cluster.active() == ["af"]


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "٣"])
def test_metadata_that_somebody_has_changed(text: str) -> None:
    cluster = cluster_with(RUNNING, FIRST)
    metadata = {**cluster.jobs["af"].metadata, "airflow_try_number": text}
    cluster.jobs["af"] = replace(cluster.jobs["af"], metadata=metadata)
    assert begin(cluster, replace(FIRST, number=9))[0] in ("af", "af-a2")


@pytest.mark.parametrize(
    "value",
    [None, "", [], {}, {"cluster": 1, "attempt": 1}, {"cluster": "c"}, {"cluster": "c", "attempt": 0}, {"attempt": 1}],
)
def test_other_values_are_not_records(value: Any) -> None:
    assert Record.of(value) is None


def test_record_survives_json() -> None:
    record = Record("projects/p/locations/l/persistentResources/c", 7)
    assert Record.of(record.to_json()) == record
