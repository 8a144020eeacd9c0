"""Work that is done once by jobs whose ids say what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, GoogleAPICallError, InternalServerError, NotFound
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_vertex_ray.remote.bigquery import jobs


class Job:
    def __init__(self, job_id: str, reason: str | None) -> None:
        self.job_id = job_id
        self.error_result = {"reason": reason} if reason else None

    def result(self) -> None:
        if self.error_result:
            kind: type[GoogleAPICallError] = (
                BadRequest if self.error_result["reason"] == "invalid" else InternalServerError
            )
            raise kind(self.error_result["reason"])


class Service:
    """BigQuery's jobs: an id can be used once, and a job that fails has changed nothing.

    :param fates: For each job in turn, the reason why it fails, or None.
    """

    def __init__(self, fates: list[str | None], lost_answers: int = 0) -> None:
        self.fates = fates
        self.jobs: dict[str, Job] = {}
        self.done = 0
        self.lost_answers = lost_answers

    def start(self, job_id: str) -> Job:
        if job_id in self.jobs:
            raise Conflict("Already Exists")
        reason = self.fates.pop(0) if self.fates else None
        self.jobs[job_id] = Job(job_id, reason)
        self.done += reason is None
        return self.jobs[job_id]

    def get_job(self, job_id: str, location: str) -> Job:
        assert location == "EU"
        if job_id not in self.jobs:
            raise NotFound(job_id)
        return self.jobs[job_id]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("airflow_provider_vertex_ray.remote.bigquery.jobs.time.sleep", pauses.append)
    return pauses


def once(service: Service, start: Callable[[str], Any] | None = None) -> Any:
    return jobs.once(service, "base", "EU", start or service.start)


def test_same_work_is_done_once() -> None:
    service = Service([])
    assert once(service).job_id == once(service).job_id == "base_0"
    assert service.done == 1


def test_transient_failure_is_retried(no_pauses: list[float]) -> None:
    service = Service(["rateLimitExceeded", "backendError", None])
    assert once(service).job_id == "base_2"
    assert service.done == 1
    assert len(no_pauses) == 2
    assert jobs.done_before(service, "base", "EU").job_id == "base_2"


def test_permanent_failure_is_raised_at_once() -> None:
    service = Service(["invalid"])
    with pytest.raises(BadRequest, match="invalid"):
        once(service)
    assert list(service.jobs) == ["base_0"]
    assert jobs.done_before(service, "base", "EU") is None


def test_failure_of_an_earlier_attempt_is_retried() -> None:
    service = Service(["invalid", None])
    with pytest.raises(BadRequest):
        once(service)
    assert once(service).job_id == "base_1"
    assert service.done == 1


def test_number_of_attempts_is_bounded() -> None:
    service = Service(["backendError"] * (jobs.MOST_JOBS + 1))
    with pytest.raises(InternalServerError):
        once(service)
    assert len(service.jobs) == jobs.MOST_JOBS


@given(
    fates=st.lists(st.sampled_from([None, "backendError", "invalid", "rateLimitExceeded"]), max_size=6),
    callers=st.integers(1, 5),
)
def test_work_is_never_done_twice(fates: list[str | None], callers: int) -> None:
    service = Service(list(fates))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.time, "sleep", lambda seconds: None)
        for _ in range(callers):
            try:
                once(service)
            except GoogleAPICallError:
                continue
    assert service.done <= 1
    done = jobs.done_before(service, "base", "EU")
    assert (done is not None) == (service.done == 1)
