"""Waiting for jobs, and how the waits end."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.http import transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import (
    CredentialsError,
    JobFailedError,
    JobLostError,
    JobPendingTimeoutError,
    JobStoppedError,
    JobTimeoutError,
    OperationTimeoutError,
)
from airflow_provider_vertex_ray.triggers import job_pace
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.support.clusters import dashboard_of, full_name, jobs_of, start, submit
from tests.support.tasks import first_event

GET = "GET /api/jobs/one"
# What no node has: the driver waits for ever.
NOWHERE = {"entrypoint_num_cpus": 999}


@pytest.fixture
def emulator(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    start(fake_emulator)
    return fake_emulator


def trigger(**arguments: Any) -> VertexRayJobTrigger:
    known = {"cluster_name": full_name("shared"), "submission_id": "one", "poll_interval": 0.05}
    return VertexRayJobTrigger(**{**known, **arguments})


async def outcome(**arguments: Any) -> dict[str, Any]:
    return result_of(await asyncio.wait_for(first_event(trigger(**arguments)), PATIENCE))


async def test_succeeded_job_returns_its_summary(emulator: EmulatorProcess, caplog: pytest.LogCaptureFixture) -> None:
    submit(emulator, "shared", "one", "echo hello && sleep 0.1 && echo 'VERTEX_RAY_RESULT [1, 2]'")
    result = await outcome()
    assert (result["status"], result["exit_code"], result["result"]) == ("SUCCEEDED", 0, [1, 2])
    assert result["logs_tail"][1:] == ["hello", "VERTEX_RAY_RESULT [1, 2]"]


async def test_output_is_logged_once_or_not_at_all(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(VertexRayJobTrigger, "_emit", lambda self, line: said.append(line))
    submit(emulator, "shared", "one", "echo hello && echo again")
    await outcome()
    assert said[1:] == ["hello", "again"]
    said.clear()
    result = await outcome(stream_logs=False)
    assert said == []
    assert result["logs_tail"][1:] == ["hello", "again"]


async def test_failed_job_raises_with_its_last_lines(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "echo before && exit 3")
    with pytest.raises(JobFailedError, match=r"failed with exit code 3: (?s:.*)    before") as caught:
        await outcome()
    assert caught.value.details["exit_code"] == 3
    assert caught.value.details["logs_tail"][1:] == ["before"]
    assert (await outcome(raise_on_failure=False))["status"] == "FAILED"


async def test_stopped_job_raises(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    work = asyncio.create_task(outcome())
    await waited_for(emulator)
    stop(emulator)
    with pytest.raises(JobStoppedError, match="intentionally stopped"):
        await work


def stop(emulator: EmulatorProcess, name: str = "one") -> None:
    emulator.request("POST", f"{dashboard_of(emulator, 'shared')}/api/jobs/{name}/stop", token=emulator.token())


async def reached(emulator: EmulatorProcess, status: str) -> None:
    end = time.monotonic() + PATIENCE
    while (await asyncio.to_thread(jobs_of, emulator, "shared"))["one"]["status"] != status:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def waited_for(emulator: EmulatorProcess) -> None:
    """The job runs, and the trigger has seen it; only the trigger asks for the job by its id."""
    await reached(emulator, "RUNNING")
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(emulator.calls, GET):
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_wait_uses_one_connection_and_a_slow_poll(
    websocket_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = websocket_emulator
    start(emulator)
    monkeypatch.setattr(job_pace, "SHORTEST", 0.1)
    submit(emulator, "shared", "one", "sleep 600")
    path = f"{dashboard_of(emulator, 'shared')}/api/jobs/one/stop"
    emulator.admin("DELETE", "calls")
    begin = time.monotonic()
    work = asyncio.create_task(outcome(poll_interval=15, dashboard_uri=None))
    # A young job is asked for often, by its id; never the list.
    await asyncio.to_thread(until, lambda: len(emulator.calls(GET)) >= 3, "it is not asked for often")
    assert (await asyncio.to_thread(partial(emulator.request, "POST", path, token=emulator.token())))[0] == 200
    with pytest.raises(JobStoppedError):
        await work
    assert len(emulator.calls(GET)) <= 4 + (time.monotonic() - begin) / job_pace.SHORTEST
    assert len(emulator.calls("GetPersistentResource")) == 1
    assert len(emulator.calls("GET /api/jobs/one/logs/tail")) == 1
    assert emulator.calls("GET /api/jobs/") == []


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"status": 404}, {"action": "reset"}])
async def test_transient_errors_do_not_end_the_wait(
    emulator: EmulatorProcess, quick_retries: None, fault: dict[str, Any]
) -> None:
    submit(emulator, "shared", "one", "sleep 0.1 && echo done")
    with emulator.fault(scope="dashboard", method=GET, times=4, **fault):
        assert (await outcome())["logs_tail"][1:] == ["done"]


async def test_hanging_dashboard_does_not_end_the_wait(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "echo done")
    with emulator.fault(scope="dashboard", method=GET, action="hang", delay=0.3):
        assert (await outcome())["status"] == "SUCCEEDED"


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_job_is_stopped_at_its_deadline(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    # By the deadline, not by the poll.
    monkeypatch.setattr(job_pace, "SHORTEST", 600.0)
    submit(emulator, "shared", "one", "sleep 600")
    with pytest.raises(JobTimeoutError, match="did not end before its deadline; a stop request was sent"):
        await outcome(deadline=time.time() + 0.3, poll_interval=600)
    assert jobs_of(emulator, "shared")["one"]["status"] == "STOPPED"


async def test_foreign_job_continues_after_the_deadline(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    with pytest.raises(OperationTimeoutError, match="its status is RUNNING, and it continues"):
        await outcome(deadline=time.time() + 0.2, stop_at_deadline=False)
    assert jobs_of(emulator, "shared")["one"]["status"] == "RUNNING"


async def test_pending_driver_is_stopped_at_its_deadline(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "echo", **NOWHERE)
    with pytest.raises(JobPendingTimeoutError, match=r"a stop request was sent.*waiting for resources.*0 logical CPUs"):
        await outcome(pending_deadline=time.time() + 0.2, poll_interval=30)
    assert len(emulator.calls("POST /api/jobs/one/stop")) == 1


async def test_running_driver_ignores_the_pending_deadline(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    await reached(emulator, "RUNNING")
    emulator.admin("DELETE", "calls")
    work = asyncio.create_task(outcome(pending_deadline=time.time() - 1))
    await asyncio.to_thread(until, lambda: work.done() or len(emulator.calls(GET)) >= 3)
    stop(emulator)
    with pytest.raises(JobStoppedError):
        await work


async def test_deadline_holds_while_the_cluster_does_not_answer(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    emulator.admin("DELETE", "calls")
    with (
        emulator.fault(scope="dashboard", method=GET, times=None, status=503),
        pytest.raises(JobTimeoutError, match="a stop request was sent"),
    ):
        await outcome(deadline=time.time() + 1.0)
    assert len(emulator.calls(GET)) < 30
    assert jobs_of(emulator, "shared")["one"]["status"] == "STOPPED"


async def test_failed_stop_at_the_deadline_is_reported(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    with (
        emulator.fault(scope="dashboard", method="POST */stop", times=None, status=404),
        pytest.raises(JobTimeoutError, match="it could not be stopped: "),
    ):
        await outcome(deadline=time.time() + 0.3)


async def test_job_that_ended_before_its_deadline_is_no_timeout(emulator: EmulatorProcess) -> None:
    # The triggerer was down when both passed: the job's end counts.
    submit(emulator, "shared", "one", "echo done")
    await reached(emulator, "SUCCEEDED")
    assert (await outcome(deadline=time.time() - 100, pending_deadline=time.time() - 200))["status"] == "SUCCEEDED"


# --- lost -------------------------------------------------------------------------------------------------------------


async def test_job_is_lost_with_its_deleted_cluster(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    work = asyncio.create_task(outcome())
    await waited_for(emulator)
    emulator.admin("DELETE", "clusters/shared")
    with pytest.raises(JobLostError, match=r"(?s)its cluster .* was deleted.*outcome of the job is unknown"):
        await work


@pytest.mark.parametrize("state", ["ERROR", "STOPPING"])
async def test_job_is_lost_with_its_failed_cluster(emulator: EmulatorProcess, state: str) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    work = asyncio.create_task(outcome())
    await waited_for(emulator)
    emulator.admin("POST", "clusters/shared/state", {"state": state})
    with (
        emulator.fault(scope="dashboard", times=None, status=502),
        pytest.raises(JobLostError, match=f"its cluster is {state}"),
    ):
        await work


async def test_unknown_job_is_lost_after_the_timeout(emulator: EmulatorProcess) -> None:
    with pytest.raises(JobLostError, match=r"could not be read. Last error: .*Job one does not exist"):
        await outcome(lost_timeout=0.2)


async def test_job_is_lost_with_its_head(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    work = asyncio.create_task(outcome(lost_timeout=0.2))
    await waited_for(emulator)
    await asyncio.to_thread(emulator.admin, "POST", "clusters/shared/kill", {"part": "head"})
    with pytest.raises(JobLostError, match="could not be read"):
        await work


async def test_killed_driver_is_a_failed_job(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    await reached(emulator, "RUNNING")
    emulator.admin("POST", "clusters/shared/kill", {"part": "driver", "submission_id": "one"})
    with pytest.raises(JobFailedError, match="exit code -9"):
        await outcome()


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_refusal_for_a_moment_does_not_end_the_wait(emulator: EmulatorProcess, status: int) -> None:
    submit(emulator, "shared", "one", "sleep 0.5")
    # From the first request on: no earlier one of this connection tells that the call works.
    with emulator.fault(scope="dashboard", method=GET, action="status", status=status, times=4):
        assert (await outcome())["status"] == "SUCCEEDED"


async def test_lost_permission_ends_the_wait_after_lost_timeout(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "sleep 600")
    with (
        emulator.fault(scope="auth", method=GET, times=None, status=403),
        pytest.raises(JobLostError, match=r"could not be read\. Last error: .*403.*roles/aiplatform\.user"),
    ):
        await outcome(lost_timeout=0.3)


async def test_credentials_that_give_no_token_end_the_wait(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: Any, **more: Any) -> Any:
        raise CredentialsError("The key is damaged.")

    submit(emulator, "shared", "one", "sleep 600")
    monkeypatch.setattr(JobsApi, "get", broken)
    with pytest.raises(CredentialsError):
        await outcome()


async def test_expired_tokens_do_not_end_the_wait(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", " && ".join(f"echo {n} && sleep 0.2" for n in range(6)))
    emulator.admin("POST", "tokens/settings", {"seconds": 0.8})
    emulator.admin("POST", "tokens/revoke")
    result = await outcome(poll_interval=0.2)
    assert result["logs_tail"][1:] == [str(n) for n in range(6)]


async def test_triggerer_restart_does_not_stop_the_job(emulator: EmulatorProcess) -> None:
    submit(emulator, "shared", "one", "echo begun && sleep 600")
    first = asyncio.create_task(outcome())
    await waited_for(emulator)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert emulator.calls("POST */stop") == []
    emulator.admin("DELETE", "calls")
    second = asyncio.create_task(outcome())
    await waited_for(emulator)
    stop(emulator)
    with pytest.raises(JobStoppedError) as caught:
        await second
    assert caught.value.details["logs_tail"][1:] == ["begun"]


async def test_many_waits_share_one_session(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    # More jobs than the session has connections for requests: each has a tail, and none may starve.
    monkeypatch.setattr(transport, "MAX_CONNECTIONS", 10)
    said: list[str] = []
    monkeypatch.setattr(VertexRayJobTrigger, "_emit", lambda self, line: said.append(line))
    names = [f"job-{number}" for number in range(30)]
    for name in names:
        submit(emulator, "shared", name, "echo begun && sleep 600")
    emulator.admin("DELETE", "calls")
    work = asyncio.gather(*(first_event(trigger(submission_id=name, poll_interval=0.2)) for name in names))
    await asyncio.to_thread(until, lambda: said.count("begun") == len(names), "not every tail delivers")
    assert len(emulator.calls("GetToken")) == 1
    # All tails are open, and the status of each job is asked for.
    await asyncio.to_thread(emulator.admin, "DELETE", "calls")
    wanted = {f"GET /api/jobs/{name}" for name in names}
    await asyncio.to_thread(until, lambda: wanted <= {each["method"] for each in emulator.calls()}, "a wait starves")
    for name in names:
        await asyncio.to_thread(stop, emulator, name)
    events = await asyncio.wait_for(work, PATIENCE)
    assert {event["error"]["type"] for event in events} == {"JobStoppedError"}
    assert {tuple(event["error"]["details"]["logs_tail"][1:]) for event in events} == {("begun",)}


async def test_queued_wait_already_shares_the_session(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pace, "STARTS_AT_ONCE", 1)
    names = [f"job-{number}" for number in range(5)]
    for name in names:
        submit(emulator, "shared", name, "true")
    # Each wait is over before the next one has its turn.
    until(lambda: all(jobs_of(emulator, "shared")[name]["status"] == "SUCCEEDED" for name in names))
    emulator.admin("DELETE", "calls")
    await asyncio.gather(*(first_event(trigger(submission_id=name)) for name in names))
    assert len(emulator.calls("GetToken")) == 1
