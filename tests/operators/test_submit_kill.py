"""A task killed in the worker: while its job is submitted, and while the task waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY
from airflow_provider_vertex_ray.errors import JobStoppedError
from airflow_provider_vertex_ray.hooks.calls.job import JobCalls
from tests.operators.builders import submit_job
from tests.operators.test_exactly_once import Store, lose_a_try, this_try
from tests.support.clusters import jobs_of, start, submit, until_exists
from tests.support.tasks import TaskInstance, context_of, deferral_of, run_task


def kill_while_waiting(
    emulator: EmulatorProcess, entrypoint: str, after: Callable[[], object] = lambda: None, **more: Any
) -> tuple[str, list[BaseException]]:
    """Kill a waiting task as Airflow does: by a signal that comes in the midst of the wait.

    Calls ``after`` after the kill. Gives its job's id, and what its wait raised.
    """
    operator = submit_job(entrypoint, deferrable=False, **more)
    context = context_of(operator, TaskInstance("submit"))
    jobs: list[str] = []
    killed = threading.Event()

    def running() -> list[str]:
        # The facts for the links are kept right before the wait.
        known = jobs_of(emulator, "shared").values() if context["ti"].xcoms else ()
        return [
            job["submission_id"]
            for job in known
            if job["metadata"] and OWNER_KEY in job["metadata"] and job["status"] == "RUNNING"
        ]

    def kill() -> None:
        jobs.extend(until(running, what="the job does not run"))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert killed.wait(PATIENCE)
        after()

    def handler(number: int, frame: Any) -> None:
        operator.on_kill()
        killed.set()

    killer = threading.Thread(target=kill)
    before = signal.signal(signal.SIGUSR1, handler)
    raised: list[BaseException] = []
    try:
        killer.start()
        run_task(operator, context)
    except JobStoppedError as error:
        raised.append(error)
    finally:
        killer.join()
        signal.signal(signal.SIGUSR1, before)
    (job,) = jobs
    return job, raised


def test_on_kill_stops_its_own_job_only(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    submit(fake_emulator, "shared", "sibling", "sleep 600")
    job, raised = kill_while_waiting(fake_emulator, "sleep 600")
    assert [type(error) for error in raised] == [JobStoppedError]
    known = jobs_of(fake_emulator, "shared")
    assert (known[job]["status"], known["sibling"]["status"]) == ("STOPPED", "RUNNING")


def test_on_kill_leaves_the_job_when_that_is_asked_for(fake_emulator: EmulatorProcess, tmp_path: Path) -> None:
    start(fake_emulator)
    killed = tmp_path / "killed"
    job, raised = kill_while_waiting(fake_emulator, until_exists(killed), killed.touch, stop_on_kill=False)
    assert raised == []
    assert jobs_of(fake_emulator, "shared")[job]["status"] == "SUCCEEDED"
    assert fake_emulator.calls("POST /api/jobs/*/stop") == []


class Terminated(BaseException):
    """As Airflow 2 raises it after ``on_kill``, and a timeout before."""


@contextlib.contextmanager
def killed_as(line: str, operator: Any) -> Iterator[tuple[threading.Event, Callable[[], Coroutine[Any, Any, None]]]]:
    """Kill a task as an Airflow does; yields the event of the kill, and a coroutine function that kills.

    Airflow 3 goes on after ``on_kill``, Airflow 2 raises an exception in the midst of the wait; a timeout is such an
    exception on both, and ``on_kill`` follows.
    """
    killed, cancelled = threading.Event(), threading.Event()
    finishes: Callable[[], float] = operator._cancelled

    def when_cancelled() -> float:
        seconds = finishes()
        cancelled.set()
        return seconds

    operator._cancelled = when_cancelled

    def handler(number: int, frame: Any) -> None:
        if line != "timeout":
            operator.on_kill()
        killed.set()
        if line != "Airflow 3":
            raise Terminated

    async def kill() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        # What comes next is to come after the kill, and after its exception.
        for event in [killed] if line == "Airflow 3" else [killed, cancelled]:
            assert await asyncio.to_thread(event.wait, PATIENCE)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield killed, kill
    except Terminated:
        if line == "timeout":
            operator.on_kill()
        raise
    finally:
        signal.signal(signal.SIGUSR1, before)


LINES = ["Airflow 2", "Airflow 3", "timeout"]


@pytest.mark.parametrize("stop_on_kill", [True, False])
@pytest.mark.parametrize("moment", ["during the upload", "after the answer"])
@pytest.mark.parametrize("line", LINES)
def test_on_kill_while_the_job_is_submitted(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, moment: str, stop_on_kill: bool, line: str
) -> None:
    start(fake_emulator)
    goes_on = not stop_on_kill and moment != "during the upload" and line == "Airflow 3"
    operator = submit_job("sleep 1" if goes_on else "sleep 600", deferrable=False, stop_on_kill=stop_on_kill)
    owner, name = (JobCalls, "prepare_environment") if moment == "during the upload" else (JobsApi, "submit")
    method: Any = getattr(owner, name)
    error = JobStoppedError if line == "Airflow 3" else Terminated
    with (
        contextlib.nullcontext() if goes_on else pytest.raises(error),
        killed_as(line, operator) as (_, kill),
    ):

        async def replacement(*args: Any, **kwargs: Any) -> Any:
            found = await method(*args, **kwargs)
            await kill()
            return found

        monkeypatch.setattr(owner, name, replacement)
        run_task(operator)
    statuses = [job["status"] for job in jobs_of(fake_emulator, "shared").values()]
    if moment == "during the upload":
        assert statuses == []
    elif stop_on_kill:
        assert statuses == ["STOPPED"]
    else:
        assert statuses == ["SUCCEEDED" if goes_on else "RUNNING"]


@pytest.mark.parametrize("line", LINES)
def test_job_whose_submission_is_on_the_way_is_stopped(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Ray goes on with a submission that its client has given up."""
    start(fake_emulator)
    operator = submit_job("sleep 600", deferrable=False)
    with pytest.raises(JobStoppedError if line == "Airflow 3" else Terminated), killed_as(line, operator) as killing:
        killed, _ = killing

        async def replacement(api: JobsApi, request: JobRequest) -> bool:
            def work() -> None:
                assert killed.wait(PATIENCE)
                submit(fake_emulator, "shared", request.submission_id, "sleep 600")

            on_its_way = asyncio.get_running_loop().run_in_executor(None, work)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            await on_its_way
            return True

        monkeypatch.setattr(JobsApi, "submit", replacement)
        run_task(operator)
    assert [job["status"] for job in jobs_of(fake_emulator, "shared").values()] == ["STOPPED"]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_job_of_an_earlier_try_is_stopped_while_it_is_looked_up(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, line: str, elsewhere: bool
) -> None:
    start(fake_emulator)
    start(fake_emulator, "other")
    store = Store() if elsewhere else None
    lose_a_try("sleep 600", this_try(1, task_state_store=store))
    operator = submit_job("sleep 600", deferrable=False, cluster_id="other" if elsewhere else "shared")
    find: Any = JobsApi.find
    with (
        pytest.raises(JobStoppedError if line == "Airflow 3" else Terminated),
        killed_as(line, operator) as (_, kill),
    ):

        async def replacement(api: JobsApi, submission_id: str) -> Any:
            found = await find(api, submission_id)
            monkeypatch.setattr(JobsApi, "find", find)
            await kill()
            return found

        monkeypatch.setattr(JobsApi, "find", replacement)
        run_task(operator, this_try(2, task_state_store=store))
    assert [job["status"] for job in jobs_of(fake_emulator, "shared").values()] == ["STOPPED"]
    assert jobs_of(fake_emulator, "other") == {}


def test_kill_asks_airflow_nothing(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that it interrupts may be in the midst of a question, and keep the lock."""
    start(fake_emulator)
    operator = submit_job("sleep 600", deferrable=True)
    deferral_of(operator)

    def ask(*args: Any) -> Any:
        raise AssertionError("a question to Airflow")

    monkeypatch.setattr(JobCalls, "_token_source_and_project", ask)
    operator.on_kill()
    assert [job["status"] for job in jobs_of(fake_emulator, "shared").values()] == ["STOPPED"]


def test_on_kill_before_there_is_a_job(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    submit_job().on_kill()
    assert fake_emulator.calls("POST /api/jobs/*") == []
