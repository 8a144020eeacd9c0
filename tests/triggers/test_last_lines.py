"""A job whose cluster can not be asked any more still shows its last lines; how it ended is told as before."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.errors import JobFailedError, JobLostError, VertexRayError, error_from_dict
from airflow_provider_vertex_ray.hooks.calls import monitoring
from airflow_provider_vertex_ray.log_query import LogQuery
from airflow_provider_vertex_ray.triggers import log_fallback
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from airflow_provider_vertex_ray.triggers.log_fallback import LastLines, last_lines
from tests.support.clusters import full_name, jobs_of, start, submit
from tests.support.monitoring import OF_JOB, listed
from tests.support.tasks import first_event

LIST = "ListLogEntries"
CONNECTION = {"gcp_conn_id": "google_cloud_default", "impersonation_chain": None}


@pytest.fixture
def emulator(fake_emulator: EmulatorProcess) -> EmulatorProcess:
    """With a job ``one`` that has logged something and goes on."""
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    submit(
        fake_emulator,
        "shared",
        "one",
        "echo hello && echo token-of-12345 && echo the end && sleep 600",
        runtime_env={"env_vars": {"TOKEN": "token-of-12345"}},
    )
    listed(fake_emulator, 4)
    return fake_emulator


async def lost(**arguments: Any) -> JobLostError:
    """The error of a wait that ends with the cluster."""
    known = {"cluster_name": full_name("shared"), "submission_id": "one", "poll_interval": 0.05, "lost_timeout": 0.2}
    trigger = VertexRayJobTrigger(**{**known, **arguments})
    with pytest.raises(JobLostError) as caught:
        result_of(await asyncio.wait_for(first_event(trigger), PATIENCE))
    return caught.value


async def killed_while_waited_for(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, **arguments: Any
) -> JobLostError:
    """The head is killed once the trigger has read the job and its last line."""
    said: list[str] = []
    monkeypatch.setattr(VertexRayJobTrigger, "_emit", lambda self, line: said.append(line))
    work = asyncio.create_task(lost(**arguments))
    await asyncio.to_thread(until, lambda: "the end" in said, "the output is not read")
    await asyncio.to_thread(emulator.admin, "POST", "clusters/shared/kill", {"part": "head"})
    return await work


async def test_lost_job_shows_its_last_lines(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    error = await killed_while_waited_for(emulator, monkeypatch)
    assert error.details["logs_tail"][1:] == ["hello", "***", "the end"]
    assert error.details["submission_id"] == "one"
    message = str(error)
    assert "is lost: for " in message
    assert "Last lines of its output, from Cloud Logging:\n" in message
    assert message.endswith("    the end\n" + JobLostError.remedy)
    assert "12345" not in message
    assert str(error_from_dict(error.to_dict())) == message


async def test_lost_job_shows_lines_if_the_cluster_was_never_reached(emulator: EmulatorProcess) -> None:
    """Another triggerer has taken over, when the head was gone already."""
    emulator.admin("POST", "clusters/shared/kill", {"part": "head"})
    error = await lost()
    assert error.details["logs_tail"][-1] == "the end"


async def test_missing_permission_is_named(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "clusters/shared/kill", {"part": "head"})
    emulator.admin("PUT", "project", {"denied_permissions": ["logging.logEntries.list"]})
    try:
        error = await lost()
    finally:
        emulator.admin("DELETE", "project")
    assert "is lost: for " in error.message
    assert "could not be read from Cloud Logging: " in error.message
    assert "roles/logging.viewer" in error.message
    assert error.message.endswith(f"The filter is: {' AND '.join(OF_JOB.filter().splitlines())}")
    assert error.details["logs_tail"] == []


async def test_known_lines_are_shown_when_cloud_logging_is_silent(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_fallback, "LONGEST", 0.2)
    leaked: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, told: leaked.append(told["message"]))
    with emulator.fault(scope="control_plane", method=LIST, action="hang", times=None):
        error = await killed_while_waited_for(emulator, monkeypatch)
    assert "Last lines of its output, as they were read from the cluster:\n" in error.message
    assert "could not be read from Cloud Logging: no answer in time" in error.message
    assert error.details["logs_tail"][1:] == ["hello", "***", "the end"]
    # Meanwhile nobody has looked for the cluster any more, on a session that nobody closes.
    gc.collect()
    assert leaked == []


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_failing_cloud_logging_does_not_change_the_outcome(
    emulator: EmulatorProcess, quick_retries: None, status: int
) -> None:
    emulator.admin("POST", "clusters/shared/kill", {"part": "head"})
    with emulator.fault(scope="control_plane", method=LIST, status=status, times=None):
        error = await lost()
    assert "could not be read from Cloud Logging" in error.message


async def test_late_lines_are_awaited(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "LATE_SECONDS", 0.1)

    async def later() -> None:
        # The first look has found nothing.
        await asyncio.to_thread(until, lambda: emulator.calls(LIST), "nobody asks")
        await asyncio.to_thread(submit, emulator, "shared", "two", "echo late")

    work = asyncio.create_task(later())
    found = await last_lines(CONNECTION, full_name("shared"), "two")
    await work
    assert found.lines[-1] == "late"
    assert len(emulator.calls(LIST)) >= 2


async def test_missing_lines_are_explained(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_fallback, "SECONDS", 0)
    known = ["hello", "said since"]
    found = await last_lines(CONNECTION, full_name("shared"), "one", known=known)
    assert found == LastLines(known, "as they were read from the cluster")
    found = await last_lines(CONNECTION, full_name("shared"), "one", known=["hello"])
    assert (found.lines[-1], found.source) == ("the end", "from Cloud Logging")
    nothing = await last_lines(CONNECTION, full_name("shared"), "none")
    assert nothing.lines == []
    assert "no lines of its output, at least not yet. The filter is: resource.labels" in nothing.missing


async def test_lines_of_an_earlier_job_with_the_id_are_ignored(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_fallback, "SECONDS", 0)
    found = await last_lines(CONNECTION, full_name("shared"), "one", begun=time.time() + 100)
    assert found.lines == []


async def test_last_lines_never_raise() -> None:
    found = await last_lines(CONNECTION, "no cluster", "one\ntwo")
    assert (found.lines, found.source) == ([], "")
    assert "could not be read from Cloud Logging" in found.missing


async def test_failed_job_without_output_shows_lines_of_cloud_logging(fake_emulator: EmulatorProcess) -> None:
    fake_emulator.admin("DELETE", "telemetry")
    start(fake_emulator)
    submit(fake_emulator, "shared", "one", "echo before && exit 3")
    await asyncio.to_thread(until, lambda: jobs_of(fake_emulator, "shared")["one"]["status"] == "FAILED")
    listed(fake_emulator, 2, LogQuery("shared", submission_id="one"))
    trigger = VertexRayJobTrigger(cluster_name=full_name("shared"), submission_id="one", poll_interval=0.1)
    gone = {"status": 404, "message": "Job one does not exist"}
    with fake_emulator.fault(scope="dashboard", method="GET */logs*", times=None, **gone):
        event = await asyncio.wait_for(first_event(trigger), PATIENCE)
    error = error_from_dict(event["error"])
    assert isinstance(error, JobFailedError)
    assert "failed with exit code 3: " in error.message
    assert error.message.endswith("    before")
    assert error.details["logs_tail"][1:] == ["before"]
    assert error.details["exit_code"] == 3


def test_error_keeps_its_type_and_details() -> None:
    error = LastLines(["a", "b"], "from X", "more is missing").of(JobLostError("gone.", {"cluster": "c"}))
    assert type(error) is JobLostError
    assert error.message == "gone.\nLast lines of its output, from X:\n    a\n    b\nmore is missing"
    assert error.details == {"cluster": "c", "logs_tail": ["a", "b"]}
    assert str(VertexRayError("one line")) == "one line"
