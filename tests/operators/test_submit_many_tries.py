"""Each of many jobs exactly once for each attempt: after crashes, retries, Clears, kills, and changes of triggerer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.state import TRY_KEY, owner_key
from airflow_provider_vertex_ray.errors import InvalidRequestError, JobsFailedError, JobStoppedError
from airflow_provider_vertex_ray.operators.job_task_state import STORE_KEY
from airflow_provider_vertex_ray.triggers import airflow_task, job_batch
from tests.operators.builders import echo, submit_jobs
from tests.operators.test_exactly_once import Store, this_try
from tests.support.clusters import dashboard_of, full_name, jobs_of, start
from tests.support.tasks import context_of, deferral_of, first_event, round_trip, run_task

PREFIX = f"af-dag-submit-{owner_key('dag', 'run-1', 'submit', -1)}"


@pytest.fixture
def deferrable() -> bool:
    """Both ways to wait run the same code; the tests that try both say so."""
    return True


def results(found: Any) -> list[Any]:
    return [each["result"] for each in found]


def statuses(emulator: EmulatorProcess, cluster: str = "shared") -> dict[str, str]:
    """By key and attempt."""
    found = jobs_of(emulator, cluster)
    return {name.removeprefix(f"{PREFIX}-"): job["status"] for name, job in sorted(found.items())}


def lose_a_try(jobs: list[dict[str, Any]], context: dict[str, Any], **more: Any) -> Any:
    """A try submits its first jobs, and is never heard of again."""
    return deferral_of(submit_jobs(jobs, deferrable=True, **more), context)


# --- retries and Clears -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_retry_runs_only_what_did_not_succeed(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(JobsFailedError):
        run_task(submit_jobs([echo(0), {"entrypoint": "fail"}, echo(2)], deferrable=deferrable), this_try(1))
    found = run_task(submit_jobs([echo(10), echo(11), echo(12)], deferrable=deferrable), this_try(2))
    # The results of the first try are kept.
    assert results(found) == [0, 11, 2]
    assert statuses(shared) == {"0": "SUCCEEDED", "1": "FAILED", "1-a2": "SUCCEEDED", "2": "SUCCEEDED"}


@pytest.mark.parametrize("deferrable", [False, True])
def test_retry_goes_on_where_a_lost_try_was(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [echo(n, 0.2) for n in range(8)]
    lose_a_try(jobs, this_try(1), max_active=3)
    assert results(run_task(submit_jobs(jobs, deferrable=deferrable, max_active=3), this_try(2))) == list(range(8))
    tries = [job["metadata"][TRY_KEY] for _, job in sorted(jobs_of(shared, "shared").items())]
    assert tries == ["1"] * 3 + ["2"] * 5


@pytest.mark.parametrize("cleared", [{"max_tries": 3}, {"run_day": 2}])
def test_clear_stops_the_old_jobs_and_runs_all_again(
    shared: EmulatorProcess, deferrable: bool, cleared: dict[str, Any]
) -> None:
    lose_a_try([echo(0), {"entrypoint": "sleep 600"}, {"entrypoint": "sleep 600", "key": "gone"}], this_try(1))
    until(lambda: statuses(shared)["0"] == "SUCCEEDED")
    found = run_task(submit_jobs([echo(5), echo(6)], deferrable=deferrable), this_try(2, **cleared))
    assert results(found) == [5, 6]
    # Also the one that is no longer in the list.
    assert statuses(shared) == {
        "0": "SUCCEEDED",
        "0-a2": "SUCCEEDED",
        "1": "STOPPED",
        "1-a2": "SUCCEEDED",
        "gone": "STOPPED",
    }


@pytest.mark.parametrize("deferrable", [False, True])
def test_jobs_that_die_of_the_kill_of_their_own_try_are_run_again(shared: EmulatorProcess, deferrable: bool) -> None:
    lose_a_try([echo(0, 0.5), {"entrypoint": "sleep 600"}, echo(2)], this_try(1))
    context = this_try(2)
    push = context["ti"].xcom_push

    def stop_after_adoption(key: str, value: Any) -> None:
        push(key, value)
        path = f"{dashboard_of(shared, 'shared')}/api/jobs/{PREFIX}-1/stop"
        shared.request("POST", path, {}, token=shared.token())

    context["ti"].xcom_push = stop_after_adoption
    found = run_task(submit_jobs([echo(10), echo(11), echo(12)], deferrable=deferrable), context)
    assert results(found) == [0, 11, 2]
    assert statuses(shared) == {"0": "SUCCEEDED", "1": "STOPPED", "1-a2": "SUCCEEDED", "2": "SUCCEEDED"}


def test_retry_that_is_given_another_cluster_goes_on_with_the_old_one(
    shared: EmulatorProcess, deferrable: bool
) -> None:
    store = Store()
    start(shared, "other")
    lose_a_try([echo(0, 0.5), echo(1)], this_try(1, task_state_store=store), max_active=1)
    assert store[STORE_KEY]["cluster"] == full_name("shared")
    again = submit_jobs([echo(0), echo(1)], deferrable=deferrable, cluster_id=full_name("other"))
    assert results(run_task(again, this_try(2, task_state_store=store))) == [0, 1]
    assert statuses(shared) == {"0": "SUCCEEDED", "1": "SUCCEEDED"}
    assert jobs_of(shared, "other") == {}
    assert store == {}


def test_clear_that_is_given_another_cluster_stops_the_jobs_on_the_old_one(
    shared: EmulatorProcess, deferrable: bool
) -> None:
    store = Store()
    start(shared, "other")
    lose_a_try([{"entrypoint": "sleep 600"}] * 2, this_try(1, task_state_store=store))
    again = submit_jobs([echo(0), echo(1)], deferrable=deferrable, cluster_id=full_name("other"))
    assert results(run_task(again, this_try(2, max_tries=3, task_state_store=store))) == [0, 1]
    assert set(statuses(shared).values()) == {"STOPPED"}
    assert set(statuses(shared, "other").values()) == {"SUCCEEDED"}


def test_job_that_the_cluster_rejects_leaves_nothing_running(shared: EmulatorProcess, deferrable: bool) -> None:
    with (
        shared.fault(scope="dashboard", action="status", status=400, contains=f'"{PREFIX}-4"'),
        pytest.raises(InvalidRequestError, match=r"jobs\[4\] could not be submitted"),
    ):
        run_task(submit_jobs([{"entrypoint": "sleep 600"}] * 6, deferrable=deferrable))
    assert set(statuses(shared).values()) == {"STOPPED"}


# --- local code -------------------------------------------------------------------------------------------------------


def test_code_is_sent_once_for_all_jobs(shared: EmulatorProcess, deferrable: bool, tmp_path: Path) -> None:
    (tmp_path / "say.sh").write_text("echo VERTEX_RAY_RESULT $1\n")
    jobs = [{"entrypoint": f"sh say.sh {n}"} for n in range(5)]
    found = run_task(submit_jobs(jobs, deferrable=deferrable, working_dir=str(tmp_path), max_active=2))
    assert results(found) == list(range(5))
    assert len(shared.calls("PUT /api/packages/*")) == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_package_that_the_cluster_deleted_is_sent_again(
    shared: EmulatorProcess, deferrable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_log: list[str]
) -> None:
    (tmp_path / "say.sh").write_text("echo VERTEX_RAY_RESULT $1\n")
    monkeypatch.setattr(job_batch, "PIN_SECONDS", 0.1)
    jobs = [{"entrypoint": f"sleep 0.3; sh say.sh {n}"} for n in range(6)]
    operator = submit_jobs(jobs, deferrable=deferrable, working_dir=str(tmp_path), max_active=2)
    gone = {"method": "GET /api/packages/*", "status": 404, "message": "Package gcs://x does not exist", "times": 3}
    with shared.fault(scope="dashboard", action="status", **gone):
        found = run_task(operator, this_try(1))
    assert results(found) == list(range(6))
    assert any("the cluster no longer has package gcs://" in line for line in task_log)
    assert set(statuses(shared)) == {str(n) for n in range(6)}


# --- another triggerer ------------------------------------------------------------------------------------------------


async def _cut(trigger: Any, seconds: float) -> dict[str, Any] | None:
    """The event of a triggerer that is killed after some time; None if the wait had not ended by then."""
    work = asyncio.create_task(first_event(round_trip(trigger)))
    await asyncio.wait({work}, timeout=seconds)
    if work.done():
        return work.result()
    work.cancel()
    await asyncio.wait({work})
    return None


@pytest.mark.parametrize("seconds", [0.15, 0.4])
def test_triggerers_that_come_and_go_run_each_job_once(shared: EmulatorProcess, seconds: float) -> None:
    operator = submit_jobs([echo(n, 0.1) for n in range(30)], deferrable=True, max_active=5)
    context: Any = this_try(1)
    waiting = deferral_of(operator, context)

    async def turns() -> dict[str, Any]:
        turn = seconds
        for _ in range(200):
            # Two at a time, as after a stall.
            first, second = await asyncio.gather(_cut(waiting.trigger, turn), _cut(waiting.trigger, turn * 1.3))
            if event := first or second:
                return event
            # On a busy machine, a short turn may end before anything is done.
            turn *= 1.05
        raise AssertionError("the wait does not end")

    event = asyncio.run(turns())
    assert results(operator.execute_complete(context, event)) == list(range(30))
    assert list(statuses(shared).values()) == ["SUCCEEDED"] * 30
    assert len(shared.calls("POST /api/jobs/")) < 90


def test_job_whose_record_is_gone_is_not_run_again_by_the_next_triggerer(shared: EmulatorProcess) -> None:
    operator = submit_jobs([echo(n) for n in range(20)], deferrable=True, max_active=2, lost_timeout=0.3)
    context: Any = this_try(1)
    waiting = deferral_of(operator, context)
    asyncio.run(first_event(round_trip(waiting.trigger)))
    path = f"{dashboard_of(shared, 'shared')}/api/jobs/{PREFIX}-5"
    assert shared.request("DELETE", path, token=shared.token())[0] == 200
    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    with pytest.raises(JobsFailedError, match=r"1 of 20 Ray jobs did not succeed: 5 \(LOST\)"):
        operator.execute_complete(context, event)
    assert len(shared.calls("POST /api/jobs/")) == 20


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_on_kill", [True, False])
def test_kill_stops_all_jobs_of_the_task_and_no_others(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, stop_on_kill: bool
) -> None:
    async def task_state(ti: Any) -> str:
        return "failed"

    monkeypatch.setattr(airflow_task, "task_state", task_state)
    other = deferral_of(submit_jobs([{"entrypoint": "sleep 600"}], task_id="other", deferrable=True))
    assert other is not None
    jobs = [{"entrypoint": "sleep 600" if n % 2 else "sleep 0.2"} for n in range(60)]
    operator = submit_jobs(jobs, deferrable=True, max_active=20, stop_on_kill=stop_on_kill)
    trigger = round_trip(deferral_of(operator, this_try(1)).trigger)
    trigger.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1)  # type: ignore[assignment]

    async def killed() -> None:
        work = asyncio.create_task(first_event(trigger))
        await asyncio.to_thread(until, lambda: len(shared.calls("POST /api/jobs/")) > 25)
        work.cancel("the user's message")
        await asyncio.wait({work})

    begin = time.monotonic()
    asyncio.run(killed())
    assert time.monotonic() - begin < 300
    found = {name: job["status"] for name, job in jobs_of(shared, "shared").items()}
    (left,) = [status for name, status in found.items() if not name.startswith(PREFIX)]
    assert left == "RUNNING"
    mine = [status for name, status in found.items() if name.startswith(PREFIX)]
    assert (set(mine) <= {"STOPPED", "SUCCEEDED"}) is stop_on_kill
    submitted = len(mine)
    time.sleep(0.3)
    assert len([name for name in jobs_of(shared, "shared") if name.startswith(PREFIX)]) == submitted


@pytest.mark.parametrize("submitted", [3, 12])
def test_kill_in_the_worker_stops_all_jobs(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, submitted: int
) -> None:
    """As by a SIGTERM: while the first jobs are being submitted, and while the task waits."""
    jobs = [{"entrypoint": "sleep 600" if n % 2 else "sleep 0.2"} for n in range(60)]
    operator = submit_jobs(jobs, deferrable=False, max_active=10 if submitted == 12 else 60)
    submit: Any = JobsApi.submit
    answers: list[Any] = []
    killed = threading.Event()

    async def then_killed(*args: Any, **more: Any) -> Any:
        answers.append(await submit(*args, **more))
        if len(answers) == submitted:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await asyncio.to_thread(killed.wait, PATIENCE)
        return answers[0]

    def handler(number: int, frame: Any) -> None:
        operator.on_kill()
        killed.set()

    monkeypatch.setattr(JobsApi, "submit", then_killed)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises((JobsFailedError, JobStoppedError)):
            run_task(operator, this_try(1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert set(statuses(shared).values()) <= {"STOPPED", "SUCCEEDED"}
    assert len(statuses(shared)) < 40


def test_restart_of_the_triggerer_stops_nothing(shared: EmulatorProcess) -> None:
    operator = submit_jobs([{"entrypoint": "sleep 600"}] * 3, deferrable=True)
    waiting = deferral_of(operator, context_of(operator))
    assert asyncio.run(_cut(waiting.trigger, 0.3)) is None
    assert shared.calls("POST */stop") == []
    assert json.dumps(waiting.trigger.serialize())
