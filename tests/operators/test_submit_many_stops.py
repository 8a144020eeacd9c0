"""Jobs of an earlier try that a try has found: stopped if it is killed or nobody comes after it, kept for a retry."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.job.batch import BatchPlan, pack
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import InvalidArgumentError, InvalidRequestError, JobStoppedError
from airflow_provider_vertex_ray.hooks.calls.job import JobCalls
from airflow_provider_vertex_ray.operators import jobs_start
from tests.operators.builders import submit_jobs
from tests.operators.test_exactly_once import this_try
from tests.operators.test_submit_many_tries import PREFIX, lose_a_try, statuses
from tests.support.tasks import deferral_of, run_task

LONG = {"entrypoint": "sleep 600"}
KILLED = threading.Event()


@contextmanager
def sigterm_calls(operator: Any) -> Iterator[None]:
    """Deliver SIGUSR1 as Airflow 3 delivers SIGTERM: ``on_kill`` is called, and the task goes on."""
    KILLED.clear()

    def handler(number: int, frame: Any) -> None:
        operator.on_kill()
        KILLED.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def kill_during(method: Any) -> Any:
    """Return a coroutine function that is killed at its end."""

    async def killed(*args: Any, **kwargs: Any) -> Any:
        found = await method(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGUSR1)
        # The coroutine runs beside the handler; what it does next is to come after the kill.
        assert await asyncio.to_thread(KILLED.wait, PATIENCE)
        return found

    return killed


@pytest.mark.parametrize("moment", ["before the search", "during the upload"])
@pytest.mark.parametrize("max_active", [2, 4])
def test_kill_stops_adopted_jobs_and_submits_none(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, moment: str, max_active: int
) -> None:
    lose_a_try([LONG] * 4, this_try(1), max_active=2)
    operator = submit_jobs([LONG] * 4, deferrable=False, max_active=max_active)
    if moment == "before the search":
        monkeypatch.setattr(operator, "_held", kill_during(operator._held))
    else:
        monkeypatch.setattr(JobCalls, "prepare_environment", kill_during(JobCalls.prepare_environment))
    with sigterm_calls(operator), pytest.raises(JobStoppedError, match="The task was killed"):
        run_task(operator, this_try(2))
    assert statuses(shared) == {"0": "STOPPED", "1": "STOPPED"}


def test_kill_during_the_upload_leaves_adopted_jobs_if_that_is_wanted(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_a_try([LONG] * 3, this_try(1), max_active=2)
    operator = submit_jobs([LONG] * 3, deferrable=False, stop_on_kill=False)
    monkeypatch.setattr(JobCalls, "prepare_environment", kill_during(JobCalls.prepare_environment))
    with sigterm_calls(operator), pytest.raises(JobStoppedError, match="The task was killed"):
        run_task(operator, this_try(2))
    assert statuses(shared) == {"0": "RUNNING", "1": "RUNNING"}


@pytest.mark.parametrize("failing", ["upload", "submission"])
@pytest.mark.parametrize(("number", "status"), [(2, "RUNNING"), (3, "STOPPED")])
def test_try_that_fails_stops_adopted_jobs_unless_there_is_another(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, failing: str, number: int, status: str
) -> None:
    lose_a_try([LONG] * 4, this_try(1), max_active=2)
    operator = submit_jobs([LONG] * 4, deferrable=False)

    async def rejected(*args: Any, **kwargs: Any) -> Any:
        raise InvalidRequestError("The package was rejected.")

    if failing == "upload":
        monkeypatch.setattr(JobCalls, "prepare_environment", rejected)
    with (
        shared.fault(scope="dashboard", action="status", status=400, contains=f'"{PREFIX}-3"'),
        pytest.raises(InvalidRequestError),
    ):
        run_task(operator, this_try(number))
    found = statuses(shared)
    # What the failed try itself has submitted is stopped in any case.
    assert found.pop("2", "STOPPED") == "STOPPED"
    assert found == {"0": status, "1": status}


@pytest.mark.parametrize("max_active", [1, 3])
def test_worker_that_resumes_stops_all_jobs_when_it_is_killed_during_the_upload(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, max_active: int
) -> None:
    jobs = [LONG] * 4
    waiting = deferral_of(submit_jobs(jobs, deferrable=True, max_active=1), this_try(1))
    again = {"again": "gone", "found": pack({"attempts": [1] * 4, "submitted": [0], "adopted": []})}
    event = {"status": "success", "result": again, "passthrough": waiting.trigger.arguments["passthrough"]}
    operator = submit_jobs(jobs, deferrable=True, max_active=max_active)
    monkeypatch.setattr(JobCalls, "prepare_environment", kill_during(JobCalls.prepare_environment))
    with sigterm_calls(operator), pytest.raises(JobStoppedError, match="The task was killed"):
        operator.execute_complete(this_try(1), event)
    assert statuses(shared) == {"0": "STOPPED"}


class Ended(BaseException):
    """The exception with which Airflow 2 ends a killed task, or one that exceeds its execution_timeout."""


@contextmanager
def ended_when(condition: Any) -> Iterator[None]:
    """Raise ``Ended`` in the main thread as soon as a callable is true."""

    def handler(number: int, frame: Any) -> None:
        raise Ended

    def end() -> None:
        until(condition)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


class Searching(threading.Event):
    """Set while a try looks for the jobs of an earlier one; the first look does not come to an end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        list_task: Any = JobsApi.list_task

        async def slow(*args: Any) -> Any:
            if not self.is_set():
                self.set()
                await asyncio.sleep(600)
            return await list_task(*args)

        monkeypatch.setattr(JobsApi, "list_task", slow)


@pytest.mark.parametrize("number", [2, 3])
def test_kill_during_the_search_stops_the_jobs_of_the_earlier_try(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lose_a_try([LONG] * 4, this_try(1), max_active=2)
    operator = submit_jobs([LONG] * 4, deferrable=False, max_active=2)
    searching = Searching(monkeypatch)

    # Airflow 2 calls on_kill, and raises its exception after that.
    def handler(*_: Any) -> None:
        operator.on_kill()
        raise Ended

    with ended_when(searching.is_set), pytest.raises(Ended):
        signal.signal(signal.SIGUSR1, handler)
        run_task(operator, this_try(number))
    assert statuses(shared) == {"0": "STOPPED", "1": "STOPPED"}


@pytest.mark.parametrize(("number", "status"), [(2, "RUNNING"), (3, "STOPPED")])
def test_search_that_is_cancelled_leaves_jobs_to_the_next_try_only(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, number: int, status: str
) -> None:
    lose_a_try([LONG] * 4, this_try(1), max_active=2)
    operator = submit_jobs([LONG] * 4, deferrable=False, max_active=2)
    searching = Searching(monkeypatch)
    with ended_when(searching.is_set), pytest.raises(Ended):
        run_task(operator, this_try(number))
    assert statuses(shared) == {"0": status, "1": status}


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the submission of the first jobs is cancelled."""
    event = threading.Event()
    finishing: Any = jobs_start.finishing

    def noted(work: Any, seconds: Any) -> Any:
        def when_cancelled() -> Any:
            event.set()
            return seconds()

        return finishing(work, when_cancelled)

    monkeypatch.setattr(jobs_start, "finishing", noted)
    return event


def test_cancelled_submission_stops_what_it_has_submitted(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, cancelled: threading.Event
) -> None:
    submit: Any = JobsApi.submit
    answers: list[Any] = []

    async def third_waits(*args: Any, **more: Any) -> Any:
        answers.append(await submit(*args, **more))
        if len(answers) == 3:
            assert await asyncio.to_thread(cancelled.wait, PATIENCE)
        return answers[0]

    monkeypatch.setattr(JobsApi, "submit", third_waits)
    operator = submit_jobs([LONG] * 60, deferrable=False)
    with ended_when(lambda: len(answers) >= 3), pytest.raises(Ended):
        operator.execute(this_try(1))
    assert 3 <= len(statuses(shared)) < 60
    assert set(statuses(shared).values()) == {"STOPPED"}


def test_cancelled_submission_that_ray_accepts_later_is_stopped(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, cancelled: threading.Event
) -> None:
    submit: Any = JobsApi.submit
    on_its_way = threading.Event()

    async def later(*args: Any, **more: Any) -> Any:
        on_its_way.set()
        assert await asyncio.to_thread(cancelled.wait, PATIENCE)
        return await submit(*args, **more)

    monkeypatch.setattr(JobsApi, "submit", later)
    operator = submit_jobs([LONG] * 2, deferrable=False)
    with ended_when(on_its_way.is_set), pytest.raises(Ended):
        operator.execute(this_try(1))
    assert statuses(shared) == {"0": "STOPPED", "1": "STOPPED"}


def test_cancelled_submission_does_not_wait_for_a_dashboard_that_hangs(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_start, "CANCELLED_SECONDS", 0.5)
    monkeypatch.setattr(jobs_start, "ANSWER_SECONDS", 0.5)

    async def hang(*args: Any, **more: Any) -> Any:
        hanging.set()
        await asyncio.sleep(600)

    async def fail(*args: Any, **more: Any) -> Any:
        await asyncio.sleep(600)

    hanging = threading.Event()
    operator = submit_jobs([LONG] * 4, deferrable=False)
    monkeypatch.setattr(JobsApi, "submit", hang)
    monkeypatch.setattr(JobsApi, "stop", fail)
    monkeypatch.setattr(JobsApi, "list_ids", fail)
    with ended_when(hanging.is_set), pytest.raises(Ended):
        begin = time.monotonic()
        operator.execute(this_try(1))
    assert time.monotonic() - begin < 300


def test_plan_that_is_too_large_with_its_adopted_jobs_is_refused_before_anything_is_submitted(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_a_try([LONG] * 4, this_try(1), max_active=2)
    packed = BatchPlan.packed

    def too_large(plan: BatchPlan) -> str:
        if plan.adopted:
            raise InvalidArgumentError("jobs", "4 jobs", "Use several tasks.")
        return packed(plan)

    monkeypatch.setattr(BatchPlan, "packed", too_large)
    with pytest.raises(InvalidArgumentError, match="Use several tasks"):
        run_task(submit_jobs([LONG] * 4, deferrable=False, max_active=3), this_try(2))
    assert set(statuses(shared)) == {"0", "1"}
