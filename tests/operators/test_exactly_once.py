"""One job for each attempt of a task: after crashes, retries and Clears, and with what Airflow 3.3 keeps."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.core.job.state import owner_key
from airflow_provider_vertex_ray.errors import JobFailedError, JobStoppedError
from airflow_provider_vertex_ray.operators.job_task_state import STORE_KEY
from tests.operators.builders import submit_job
from tests.support.clusters import dashboard_of, full_name, jobs_of, start
from tests.support.tasks import TaskInstance, context_of, deferral_of, run_task

FIRST = f"af-dag-submit-{owner_key('dag', 'run-1', 'submit', -1)}"
SECOND = f"{FIRST}-a2"


class Store(dict[str, Any]):
    """Airflow 3.3's task state store, as the operators use it."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class BrokenStore:
    """One that can not be reached."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no store today")


def this_try(number: int, *, max_tries: int = 2, run_day: int = 1, **more: Any) -> dict[str, Any]:
    ti = TaskInstance("submit", try_number=number, max_tries=max_tries, ti_id=f"ti-{number}-{max_tries}-{run_day}")
    run = SimpleNamespace(start_date=datetime(2026, 1, run_day, tzinfo=timezone.utc))
    return context_of(None, ti, dag_run=run, **more)  # type: ignore[arg-type]


def lose_a_try(entrypoint: str, context: dict[str, Any]) -> None:
    """A try submits its job, and is never heard of again."""
    deferral_of(submit_job(entrypoint, deferrable=True), context)


def ended(emulator: EmulatorProcess, job: str) -> None:
    until(lambda: jobs_of(emulator, "shared")[job]["status"] in ("SUCCEEDED", "FAILED", "STOPPED"))


def test_a_retry_takes_the_result_of_a_lost_try(shared: EmulatorProcess, deferrable: bool, task_log: list[str]) -> None:
    lose_a_try("echo 'VERTEX_RAY_RESULT 42'", this_try(1))
    ended(shared, FIRST)
    result = run_task(submit_job("fail", deferrable=deferrable), this_try(2))
    assert (result["submission_id"], result["result"], result["cluster_id"]) == (FIRST, 42, "shared")
    assert set(jobs_of(shared, "shared")) == {FIRST}
    assert any("taking its result" in line for line in task_log)


def test_a_retry_waits_for_the_job_of_a_lost_try(shared: EmulatorProcess, deferrable: bool) -> None:
    lose_a_try("sleep 0.7 && echo 'VERTEX_RAY_RESULT 42'", this_try(1))
    assert run_task(submit_job("fail", deferrable=deferrable), this_try(2))["result"] == 42
    assert set(jobs_of(shared, "shared")) == {FIRST}


@pytest.mark.parametrize("cleared", [{"max_tries": 3}, {"run_day": 2}])
def test_a_clear_stops_the_old_job_and_runs_it_again(
    shared: EmulatorProcess, deferrable: bool, cleared: dict[str, Any]
) -> None:
    lose_a_try("sleep 600", this_try(1))
    result = run_task(submit_job("echo new", deferrable=deferrable), this_try(2, **cleared))
    assert result["submission_id"] == SECOND
    assert {name: job["status"] for name, job in jobs_of(shared, "shared").items()} == {
        FIRST: "STOPPED",
        SECOND: "SUCCEEDED",
    }


def test_a_clear_of_a_success_runs_it_again(shared: EmulatorProcess, deferrable: bool) -> None:
    run_task(submit_job(deferrable=deferrable), this_try(1))
    assert run_task(submit_job(deferrable=deferrable), this_try(2, max_tries=3))["submission_id"] == SECOND


def test_a_job_that_dies_of_the_kill_of_its_own_try_is_run_again(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    lose_a_try("sleep 600", this_try(1))
    path = f"{dashboard_of(shared, 'shared')}/api/jobs/{FIRST}/stop"
    context = this_try(2)
    push = context["ti"].xcom_push

    def stop_after_adoption(key: str, value: Any) -> None:
        push(key, value)
        shared.request("POST", path, {}, token=shared.token())

    context["ti"].xcom_push = stop_after_adoption
    assert run_task(submit_job("echo again", deferrable=deferrable), context)["submission_id"] == SECOND
    assert any("running the next attempt" in line for line in task_log)


def test_failed_job_is_not_run_again_within_the_try(shared: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(JobFailedError):
        run_task(submit_job("fail", deferrable=deferrable), this_try(1))
    assert {name: job["status"] for name, job in jobs_of(shared, "shared").items()} == {FIRST: "FAILED"}


def test_a_stopped_job_is_not_run_again(shared: EmulatorProcess, deferrable: bool) -> None:
    path = f"{dashboard_of(shared, 'shared')}/api/jobs/{FIRST}/stop"
    context = this_try(1)
    push = context["ti"].xcom_push

    def stop(key: str, value: Any) -> None:
        push(key, value)
        shared.request("POST", path, {}, token=shared.token())

    context["ti"].xcom_push = stop
    with pytest.raises(JobStoppedError):
        run_task(submit_job("sleep 600", deferrable=deferrable), context)
    assert set(jobs_of(shared, "shared")) == {FIRST}


def test_the_record_is_written_before_the_submit_and_dropped_after_the_success(
    shared: EmulatorProcess, deferrable: bool
) -> None:
    store = Store()
    lose_a_try("sleep 0.5", this_try(1, task_state_store=store))
    assert store == {STORE_KEY: {"cluster": full_name("shared"), "attempt": 1}}
    run_task(submit_job("fail", deferrable=deferrable), this_try(2, task_state_store=store))
    assert store == {}


def test_a_retry_that_is_given_another_cluster_goes_on_with_the_old_one(
    shared: EmulatorProcess, deferrable: bool
) -> None:
    store = Store()
    start(shared, "other")
    lose_a_try("sleep 0.5 && echo done", this_try(1, task_state_store=store))
    again = submit_job("fail", deferrable=deferrable, cluster_id=full_name("other"))
    assert run_task(again, this_try(2, task_state_store=store))["cluster_id"] == "shared"
    assert jobs_of(shared, "other") == {}


def test_a_retry_waits_for_the_old_cluster_if_it_does_not_answer(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str], quick_retries: None
) -> None:
    store = Store()
    start(shared, "other")
    lose_a_try("sleep 0.5 && echo done", this_try(1, task_state_store=store))
    # More than the requests of one look are repeated.
    for status in (503, 403):
        shared.admin("POST", "faults", {"scope": "dashboard", "action": "status", "status": status, "times": 8})
    again = submit_job("fail", deferrable=deferrable, cluster_id=full_name("other"), poll_interval=0.2)
    assert run_task(again, this_try(2, task_state_store=store))["cluster_id"] == "shared"
    assert jobs_of(shared, "other") == {}
    assert any("which an earlier try used; retrying" in line for line in task_log)


def test_an_old_cluster_that_never_answers_is_given_up(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str], quick_retries: None
) -> None:
    store = Store()
    start(shared, "other")
    lose_a_try("sleep 600", this_try(1, task_state_store=store))
    shared.admin(
        "POST", "faults", {"scope": "dashboard", "resource": "shared", "action": "status", "status": 503, "times": None}
    )
    again = submit_job("echo new", deferrable=deferrable, cluster_id=full_name("other"), lost_timeout=0.5)
    assert run_task(again, this_try(2, task_state_store=store))["cluster_id"] == "other"
    assert any("is not adopted" in line for line in task_log)


def test_a_clear_that_is_given_another_cluster_stops_the_job_on_the_old_one(
    shared: EmulatorProcess, deferrable: bool
) -> None:
    store = Store()
    start(shared, "other")
    lose_a_try("sleep 600", this_try(1, task_state_store=store))
    again = submit_job("echo new", deferrable=deferrable, cluster_id=full_name("other"))
    result = run_task(again, this_try(2, max_tries=3, task_state_store=store))
    assert (result["cluster_id"], result["submission_id"]) == ("other", FIRST)
    assert jobs_of(shared, "shared")[FIRST]["status"] == "STOPPED"


def test_an_old_cluster_that_is_gone_is_no_obstacle(shared: EmulatorProcess, deferrable: bool) -> None:
    store = Store({STORE_KEY: {"cluster": full_name("gone"), "attempt": 4}})
    result = run_task(submit_job(deferrable=deferrable), this_try(2, task_state_store=store))
    assert (result["cluster_id"], result["submission_id"]) == ("shared", FIRST)


def test_without_its_store_a_task_goes_by_the_id(shared: EmulatorProcess, deferrable: bool) -> None:
    lose_a_try("sleep 0.5", this_try(1, task_state_store=BrokenStore()))
    again = run_task(submit_job("fail", deferrable=deferrable), this_try(2, task_state_store=BrokenStore()))
    assert again["submission_id"] == FIRST
