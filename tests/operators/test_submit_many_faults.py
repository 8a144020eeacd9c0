"""Many jobs as one task on a cluster of which only a part works: submissions, the list, one job, the packages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.core.job import batch_client
from airflow_provider_vertex_ray.core.job.batch_results import Outcome, unpack_outcomes
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.listing import Listed
from airflow_provider_vertex_ray.errors import ServiceUnavailableError, UnreadableAnswerError, VertexRayError
from airflow_provider_vertex_ray.triggers import job_batch, job_batch_limits, jobs
from tests.operators.builders import echo, submit_jobs
from tests.operators.test_exactly_once import this_try
from tests.operators.test_submit_many_tries import PREFIX, lose_a_try, statuses
from tests.support.clusters import dashboard_of, jobs_of, until_exists
from tests.support.tasks import deferral_of, first_event, round_trip

RETRYING = "Could not submit the next Ray jobs; retrying for up to "
FOREVER: dict[str, Any] = {"scope": "dashboard", "action": "status", "times": None}


@pytest.fixture
def deferrable() -> bool:
    """The trigger is what matters here, and it is the same in the worker."""
    return True


def outcomes_of(trigger: Any) -> list[Outcome]:
    """How the jobs have ended, after the wait in the triggerer."""
    event = asyncio.run(asyncio.wait_for(first_event(round_trip(trigger)), PATIENCE))
    assert "outcomes" in event.get("result", {}), event
    return unpack_outcomes(event["result"]["outcomes"])[1]


def waiting_for(entries: list[dict[str, Any]], try_number: int = 1, **more: Any) -> Any:
    """The trigger of a task that has submitted its first jobs."""
    return deferral_of(submit_jobs(entries, deferrable=True, **more), this_try(try_number)).trigger


def short(outcomes: list[Outcome]) -> list[str]:
    return [each.status for each in outcomes]


# --- submissions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 524, 403])
def test_submissions_that_fail_for_good_end_the_wait(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, task_log: list[str], status: int
) -> None:
    trigger = waiting_for([echo(n) for n in range(20)], max_active=2, lost_timeout=500)

    def later() -> float:
        return time.time() + 1000 * any(line.startswith(RETRYING) for line in task_log)

    monkeypatch.setattr(job_batch_limits, "time", SimpleNamespace(time=later))
    with shared.fault(method="POST /api/jobs/", status=status, **FOREVER):
        found = outcomes_of(trigger)
    assert short(found) == ["SUCCEEDED"] * 2 + ["REJECTED"] * 18
    assert {each.attempt for each in found[2:]} == {0}
    assert all("s the cluster accepted no job. Last error: The cluster's dashboard" in each.error for each in found[2:])
    assert any(line.startswith(RETRYING) for line in task_log)
    assert not any(line.startswith("Could not read the statuses") for line in task_log)


@pytest.mark.parametrize("status", [503, 403])
def test_submissions_that_fail_for_a_moment_reject_no_job(shared: EmulatorProcess, status: int) -> None:
    trigger = waiting_for([echo(n) for n in range(20)], max_active=2)
    with shared.fault(**{**FOREVER, "method": "POST /api/jobs/", "status": status, "times": 9}):
        assert short(outcomes_of(trigger)) == ["SUCCEEDED"] * 20


@pytest.mark.parametrize("max_active", [1, 3])
def test_job_over_which_the_cluster_fails_is_rejected_alone(shared: EmulatorProcess, max_active: int) -> None:
    trigger = waiting_for([echo(n) for n in range(16)], max_active=max_active, lost_timeout=0.5)
    with shared.fault(method="POST /api/jobs/", status=500, contains=f'"{PREFIX}-4"', **FOREVER):
        found = outcomes_of(trigger)
    assert [place for place, each in enumerate(found) if each.status != "SUCCEEDED"] == [4]
    assert found[4].status == "REJECTED"


def test_packages_that_cannot_be_kept_end_the_wait(
    shared: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "say.sh").write_text("echo VERTEX_RAY_RESULT $1\n")
    monkeypatch.setattr(job_batch, "PIN_SECONDS", 0.05)
    entries = [{"entrypoint": f"sleep 0.2; sh say.sh {n}"} for n in range(6)]
    trigger = waiting_for(entries, max_active=1, lost_timeout=0.5, working_dir=str(tmp_path))
    with shared.fault(method="GET /api/packages/*", status=503, **FOREVER):
        found = short(outcomes_of(trigger))
    # How many are submitted before the packages are looked for depends on the machine.
    submitted = found.count("SUCCEEDED")
    assert 1 <= submitted < 6
    assert found == ["SUCCEEDED"] * submitted + ["REJECTED"] * (6 - submitted)


def test_odd_answers_about_packages_minutes_apart_reject_no_job(
    shared: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "say.sh").write_text("echo VERTEX_RAY_RESULT $1\n")
    monkeypatch.setattr(job_batch, "PIN_SECONDS", 0.05)
    entries = [{"entrypoint": f"sleep 0.2; sh say.sh {n}"} for n in range(6)]
    trigger = waiting_for(entries, max_active=1, lost_timeout=500, working_dir=str(tmp_path))
    has_package: Any = JobsApi.has_package
    asked: list[str] = []
    later = 0.0

    async def twice_odd(*args: Any) -> Any:
        nonlocal later
        asked.append("odd" if len(asked) in (0, 2) else "fine")
        if asked[-1] == "odd":
            raise ServiceUnavailableError("odd")
        later = 1000.0
        return await has_package(*args)

    clock = SimpleNamespace(time=lambda: time.time() + later, monotonic=time.monotonic)
    monkeypatch.setattr(job_batch, "time", clock)
    monkeypatch.setattr(job_batch_limits, "time", clock)
    monkeypatch.setattr(JobsApi, "has_package", twice_odd)
    assert short(outcomes_of(trigger)) == ["SUCCEEDED"] * 6
    assert asked[:3] == ["odd", "fine", "odd"]


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize(("count", "method"), [(8, "GET /api/jobs/"), (2, "GET /api/jobs/af-*")])
def test_refusal_for_a_moment_does_not_end_the_wait(
    shared: EmulatorProcess, status: int, count: int, method: str
) -> None:
    trigger = waiting_for([echo(n, 0.5) for n in range(count)])
    with shared.fault(**{**FOREVER, "method": method, "status": status, "times": 3}):
        assert short(outcomes_of(trigger)) == ["SUCCEEDED"] * count


def test_job_that_only_the_list_tells_of_is_not_lost(shared: EmulatorProcess) -> None:
    trigger = waiting_for([echo(0, 0.2), echo(1, 0.8), echo(2, 0.2)], lost_timeout=0.3)
    with shared.fault(method=f"GET /api/jobs/{PREFIX}-1", status=500, **FOREVER):
        assert short(outcomes_of(trigger))[::2] == ["SUCCEEDED"] * 2


def unreadable(monkeypatch: pytest.MonkeyPatch, submission_id: str) -> None:
    """From now on the cluster answers something odd about one job, in the list as well."""
    get, list_ids = JobsApi.get, JobsApi.list_ids
    error = UnreadableAnswerError("odd")

    async def odd_get(self: JobsApi, job_id: str, **more: Any) -> Any:
        if job_id == submission_id:
            raise error
        return await get(self, job_id, **more)

    async def odd_list(self: JobsApi, ids: Collection[str]) -> Listed:
        found = await list_ids(self, ids)
        return Listed(*({**part} for part in found))._replace(
            jobs={name: job for name, job in found.jobs.items() if name != submission_id},
            unreadable={submission_id: error},
        )

    monkeypatch.setattr(JobsApi, "get", odd_get)
    monkeypatch.setattr(JobsApi, "list_ids", odd_list)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_job_that_cannot_be_read_is_lost_alone(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    trigger = waiting_for([echo(n) for n in range(count)], lost_timeout=0.5, max_active=6)
    unreadable(monkeypatch, f"{PREFIX}-0")
    found = outcomes_of(trigger)
    assert short(found) == ["LOST"] + ["SUCCEEDED"] * (count - 1)
    assert [each.result for each in found[1:]] == list(range(1, count))
    assert "s its status could not be read. Last error: odd" in found[0].error


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 503])
def test_kill_stops_the_jobs_although_the_list_cannot_be_read(
    shared: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(jobs, "KILL_SECONDS", 0.5)
    trigger = waiting_for([{"entrypoint": "sleep 600"}] * 12, max_active=10, stop_on_kill=True)
    with (
        shared.fault(method="GET /api/jobs/", status=status, **FOREVER),
        pytest.raises(VertexRayError, match=f"answered {status}"),
    ):
        asyncio.run(trigger.killed())
    until(lambda: set(statuses(shared).values()) == {"STOPPED"})


class HangingList:
    """A Jobs API whose list is not answered; it has one active job, and one that has ended."""

    def __init__(self, hangs: int) -> None:
        self.hangs = hangs
        self.asked: list[str] = []

    async def list_ids(self, ids: Collection[str]) -> Listed:
        self.hangs -= 1
        if self.hangs >= 0:
            await asyncio.sleep(600)
        return Listed({}, {})

    async def stop(self, submission_id: str, **more: Any) -> bool:
        self.asked.append(submission_id)
        if submission_id == "broken":
            raise ServiceUnavailableError("no")
        return submission_id == "active"


async def test_list_that_hangs_keeps_no_stop_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_client, "LIST_SECONDS", 0.1)
    api: Any = HangingList(hangs=1)
    begin = time.monotonic()
    assert await batch_client.stop_all(api, ["active", "ended", "broken"], PATIENCE, submitting=False) == []
    assert api.asked == ["active", "ended", "broken"]
    assert time.monotonic() - begin < 300


@pytest.mark.parametrize("seconds", [0.1, 600])
async def test_stop_requests_at_once_do_not_wait_for_the_list(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(batch_client, "LIST_SECONDS", seconds)
    api: Any = HangingList(hangs=1)
    ids = ["active", "ended", "broken"]
    stopping = asyncio.create_task(batch_client.stop_all(api, ids, PATIENCE, at_once=True))
    await asyncio.sleep(0.05)
    assert api.asked == ids
    if seconds < 1:
        assert await stopping == []
        # The one whose request failed is asked again, and no other.
        assert api.asked == [*ids, "broken"]
    stopping.cancel()
    await asyncio.wait({stopping})


# --- another triggerer ------------------------------------------------------------------------------------------------


def stop(emulator: EmulatorProcess, key: str) -> None:
    path = f"{dashboard_of(emulator, 'shared')}/api/jobs/{PREFIX}-{key}/stop"
    assert emulator.request("POST", path, {}, token=emulator.token())[0] == 200
    until(lambda: statuses(emulator)[key] == "STOPPED")


def test_adopted_job_that_another_triggerer_stopped_for_its_limit_is_not_run_again(shared: EmulatorProcess) -> None:
    entries = [{"entrypoint": "sleep 600"}, echo(1)]
    lose_a_try(entries, this_try(1))
    trigger = waiting_for(entries, 2, job_timeout=0.5)
    begun = jobs_of(shared, "shared")[f"{PREFIX}-0"]["start_time"] / 1000
    until(lambda: time.time() - begun > 0.6)
    stop(shared, "0")
    found = outcomes_of(trigger)
    assert short(found) == ["STOPPED", "SUCCEEDED"]
    assert found[0].error == "was stopped: it did not end within job_timeout (0.5 s)"
    assert set(statuses(shared)) == {"0", "1"}


def test_adopted_job_that_was_stopped_because_another_failed_is_not_run_again(
    shared: EmulatorProcess, tmp_path: Path
) -> None:
    adopted = tmp_path / "adopted"
    entries = [{"entrypoint": "sleep 600"}, {"entrypoint": f"{until_exists(adopted)}; exit 3"}, echo(2)]
    lose_a_try(entries, this_try(1), max_active=2)
    trigger = waiting_for(entries, 2, on_failure="stop", max_active=2)
    adopted.touch()
    until(lambda: statuses(shared)["1"] == "FAILED")
    stop(shared, "0")
    found = outcomes_of(trigger)
    assert short(found) == ["STOPPED", "FAILED", "NOT_RUN"]
    assert found[0].error == "was stopped: another job failed"


def test_rejected_job_is_no_lost_one_for_the_next_triggerer(shared: EmulatorProcess) -> None:
    trigger = waiting_for([echo(n) for n in range(20)], max_active=2, lost_timeout=500)
    with shared.fault(method="POST /api/jobs/", status=400, contains=f'"submission_id": "{PREFIX}-3"', **FOREVER):
        first = outcomes_of(trigger)
        begin = time.monotonic()
        second = outcomes_of(trigger)
    assert time.monotonic() - begin < 300
    assert short(second) == short(first) == ["SUCCEEDED"] * 3 + ["REJECTED"] + ["SUCCEEDED"] * 16
    assert second[3].attempt == 0
    assert len(statuses(shared)) == 19
