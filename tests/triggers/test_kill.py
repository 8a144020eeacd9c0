"""A user's kill stops the job; a restart, a stalled triggerer and a late call do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.job import submission
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.triggers import airflow_task, base
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.support.clusters import full_name, jobs_of, start, submit, until_exists

TI = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1)


@pytest.fixture
def emulator(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    start(fake_emulator)
    submit(fake_emulator, "shared", "one", "sleep 600")
    submit(fake_emulator, "shared", "sibling", "sleep 600")
    return fake_emulator


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Airflow says of the task, and what is kept there."""
    said: dict[str, Any] = {"state": "deferred", "positions": [], "position": 0}

    async def task_state(ti: Any) -> str | None:
        if isinstance(said["state"], Exception):
            raise said["state"]
        return said["state"]  # type: ignore[no-any-return]

    async def keep(ti: Any, submission_id: str, position: int) -> None:
        said["positions"].append((submission_id, position))

    async def kept(ti: Any, submission_id: str) -> int:
        return said["position"]  # type: ignore[no-any-return]

    monkeypatch.setattr(airflow_task, "task_state", task_state)
    monkeypatch.setattr(airflow_task, "keep_log_position", keep)
    monkeypatch.setattr(airflow_task, "kept_log_position", kept)
    return said


def trigger(**arguments: Any) -> VertexRayJobTrigger:
    made = VertexRayJobTrigger(
        **{
            "cluster_name": full_name("shared"),
            "submission_id": "one",
            "poll_interval": 0.1,
            "stop_on_kill": True,
            **arguments,
        }
    )
    made.task_instance = TI
    return made


async def cancelled(wait: VertexRayJobTrigger, emulator: EmulatorProcess) -> None:
    """As the triggerer ends a trigger."""
    task = asyncio.create_task(message_of(wait.run()))
    await asyncio.to_thread(until, lambda: emulator.calls("GET /api/jobs/one"))
    task.cancel("the user's message")
    assert await task == "the user's message"


async def message_of(events: AsyncIterator[Any]) -> str:
    """What the cancellation of a wait says where Airflow looks: inside the task; on Python 3.10 it is lost outside."""
    try:
        async for _ in events:
            raise AssertionError("no event was to come")
    except asyncio.CancelledError as error:
        return " ".join(error.args)
    raise AssertionError("the wait has ended")


def statuses(emulator: EmulatorProcess) -> tuple[str, str]:
    jobs = jobs_of(emulator, "shared")
    return jobs["one"]["status"], jobs["sibling"]["status"]


@pytest.mark.parametrize("state", [None, "failed", "success", "scheduled", "running"])
async def test_kill_stops_only_this_job(emulator: EmulatorProcess, airflow: dict[str, Any], state: str | None) -> None:
    airflow["state"] = state
    wait = trigger()
    await cancelled(wait, emulator)
    await wait.on_kill()
    assert statuses(emulator)[0] == "STOPPED"
    assert statuses(emulator)[1] != "STOPPED"


async def test_lost_stop_request_is_repeated(
    emulator: EmulatorProcess, airflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's answer only says that it passes the stop on."""
    airflow["state"] = "failed"
    original = JobsApi.stop
    told: list[str] = []

    async def stop(self: JobsApi, submission_id: str) -> bool:
        told.append(submission_id)
        return True if len(told) == 1 else await original(self, submission_id)

    monkeypatch.setattr(JobsApi, "stop", stop)
    monkeypatch.setattr(submission, "STOP_AGAIN", 0.3)
    wait = trigger()
    await cancelled(wait, emulator)
    await wait.on_kill()
    assert told[:2] == ["one", "one"]
    assert statuses(emulator)[0] == "STOPPED"


@pytest.mark.parametrize("state", ["deferred", RuntimeError("no answer")])
async def test_deferred_task_keeps_its_job(emulator: EmulatorProcess, airflow: dict[str, Any], state: Any) -> None:
    airflow["state"] = state
    wait = trigger()
    await cancelled(wait, emulator)
    await wait.on_kill()
    assert emulator.calls("POST */stop") == []


async def test_kill_keeps_the_job_without_stop_on_kill(emulator: EmulatorProcess, airflow: dict[str, Any]) -> None:
    airflow["state"] = "failed"
    wait = trigger(stop_on_kill=False)
    await cancelled(wait, emulator)
    await wait.on_kill()
    assert emulator.calls("POST */stop") == []


async def test_nothing_is_stopped_after_the_event(emulator: EmulatorProcess, airflow: dict[str, Any]) -> None:
    airflow["state"] = "success"
    wait = trigger(deadline=1.0, stop_at_deadline=False)
    async for event in wait.run():
        assert event.payload["status"] == "error"
    await wait.on_kill()
    assert emulator.calls("POST */stop") == []


async def test_cancellation_checks_for_a_kill_before_airflow_3_3(
    emulator: EmulatorProcess, airflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "HAS_ON_KILL", False)
    await cancelled(trigger(), emulator)
    assert emulator.calls("POST */stop") == []
    airflow["state"] = "failed"
    await cancelled(trigger(), emulator)
    assert statuses(emulator)[0] == "STOPPED"


async def test_next_triggerer_continues_the_output(
    emulator: EmulatorProcess, airflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(VertexRayJobTrigger, "_emit", lambda self, line: said.append(line))
    submit(emulator, "shared", "talk", f"echo a; echo b; {until_exists(tmp_path / 'go')}; echo c")
    first = trigger(submission_id="talk")
    task = asyncio.create_task(first.outcome())
    await asyncio.to_thread(until, lambda: "b" in said)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ((job, position),) = airflow["positions"]
    assert (job, position > 0) == ("talk", True)
    shown = list(said)
    said.clear()
    airflow["position"] = position
    (tmp_path / "go").touch()
    event = await trigger(submission_id="talk").outcome()
    assert "continues here after a restart" in said[0]
    assert said[1:] == ["c"]
    assert event["result"]["logs_tail"][-3:] == ["a", "b", "c"]
    assert shown[-2:] == ["a", "b"]


async def test_kill_during_a_request_keeps_airflows_message(
    emulator: EmulatorProcess, airflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow calls on_kill by the message of the CancelledError, which asgiref's sync_to_async drops."""
    from asgiref.sync import sync_to_async

    asked, answer = threading.Event(), threading.Event()

    async def kept(ti: Any, submission_id: str) -> int:
        asked.set()
        await sync_to_async(answer.wait, thread_sensitive=False)(PATIENCE)
        return 0

    monkeypatch.setattr(airflow_task, "kept_log_position", kept)
    task = asyncio.create_task(message_of(trigger().run()))
    assert await asyncio.to_thread(asked.wait, PATIENCE)
    task.cancel("the user's message")
    try:
        assert await task == "the user's message"
    finally:
        answer.set()


async def test_airflow_cancels_again_and_again(
    emulator: EmulatorProcess, airflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Airflow 3 does every second: while the wait ends, while on_kill is about to be called, and during on_kill."""
    airflow["state"] = "failed"
    original = airflow_task.task_state
    asked = asyncio.Event()

    async def slow(ti: Any) -> str | None:
        asked.set()
        await asyncio.sleep(0.3)
        return await original(ti)

    monkeypatch.setattr(airflow_task, "task_state", slow)
    wait = trigger()

    async def run_trigger() -> None:
        try:
            async for _ in wait.run():
                raise AssertionError("no event was to come")
        except asyncio.CancelledError:
            await wait.on_kill()
            raise

    task = asyncio.create_task(run_trigger())
    await asyncio.to_thread(until, lambda: emulator.calls("GET /api/jobs/one"))
    while not task.done():
        task.cancel("the user's message")
        await asyncio.sleep(0.02)
    assert asked.is_set()
    assert statuses(emulator) == ("STOPPED", "RUNNING")


async def test_airflow_asks_for_the_clean_up_itself(emulator: EmulatorProcess, airflow: dict[str, Any]) -> None:
    """And is not told to stop by what cancels the call."""
    airflow["state"] = "failed"
    wait = trigger()
    call = asyncio.create_task(wait.on_kill())
    while not call.done():
        await asyncio.sleep(0.02)
        call.cancel("the user's message")
    assert statuses(emulator) == ("STOPPED", "RUNNING")


async def test_failed_clean_up_is_logged(
    emulator: EmulatorProcess,
    airflow: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    airflow["state"] = "failed"

    async def stop(self: JobsApi, submission_id: str) -> bool:
        return True

    monkeypatch.setattr(JobsApi, "stop", stop)
    monkeypatch.setattr("airflow_provider_vertex_ray.triggers.job.KILL_SECONDS", 0.3)
    await trigger().on_kill()
    # Airflow 3 logs by structlog.
    logged = caplog.text + capsys.readouterr().out
    assert "Could not clean up after the kill: Ray job one is still RUNNING" in logged
