"""Many jobs as one task: their results, failures and logs, how many run at a time, and what is submitted."""

from __future__ import annotations

import asyncio
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.core.job.batch import LONGEST_PLAN, Batch, unpack
from airflow_provider_vertex_ray.core.job.batch_results import Outcome, pack_outcomes
from airflow_provider_vertex_ray.core.job.secrets import SECRET_NAMES_KEY, Secret
from airflow_provider_vertex_ray.core.job.state import OWNER_KEY, owner_key
from airflow_provider_vertex_ray.errors import (
    ClusterNotFoundError,
    InvalidArgumentError,
    JobLostError,
    JobsFailedError,
    NotStorableError,
    SubmissionIdTakenError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.triggers import job_batch
from tests.operators.builders import echo, submit_jobs
from tests.support.clusters import dashboard_of, jobs_of, submit, until_exists
from tests.support.tasks import TaskInstance, context_of, deferral_of, run_task

noise = random.Random(20)
OWNER = owner_key("dag", "run-1", "submit", -1)
PREFIX = f"af-dag-submit-{OWNER}"


@pytest.fixture
def deferrable() -> bool:
    """Both ways to wait run the same code; the tests that try both say so."""
    return True


def submits(emulator: EmulatorProcess) -> int:
    return len(emulator.calls("POST /api/jobs/"))


def most_at_once(emulator: EmulatorProcess) -> int:
    """How many jobs were on the cluster and had not ended, by the cluster's own times."""
    jobs = jobs_of(emulator, "shared").values()
    # An end frees a place for a start in the same millisecond.
    moments = sorted([(job["start_time"], 1) for job in jobs] + [(job["end_time"], -1) for job in jobs])
    found = most = 0
    for _, change in moments:
        found += change
        most = max(most, found)
    return most


@pytest.mark.parametrize("deferrable", [False, True])
def test_results_come_back_in_order(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [{"entrypoint": "sleep 0.3 && echo 'VERTEX_RAY_RESULT {\"n\": 0}'", "key": "slow"}, echo(1), echo('"two"')]
    operator = submit_jobs(jobs, deferrable=deferrable)
    context = context_of(operator)
    found = run_task(operator, context)
    assert [each["result"] for each in found] == [{"n": 0}, 1, "two"]
    assert [each["key"] for each in found] == ["slow", "1", "2"]
    assert [each["submission_id"] for each in found] == [f"{PREFIX}-slow", f"{PREFIX}-1", f"{PREFIX}-2"]
    assert {(each["status"], each["exit_code"], each["error"]) for each in found} == {("SUCCEEDED", 0, None)}
    assert found[0]["duration_seconds"] >= 0.3
    there = jobs_of(shared, "shared")
    for each in found:
        job = there[each["submission_id"]]
        assert (each["start_time"], each["end_time"]) == (job["start_time"], job["end_time"])
    assert context["ti"].xcoms[LINK_KEY]["cluster_id"] == "shared"
    json.dumps(found)


@pytest.mark.parametrize("deferrable", [False, True])
def test_no_jobs_are_fine(shared: EmulatorProcess, deferrable: bool, task_log: list[str]) -> None:
    assert run_task(submit_jobs([], deferrable=deferrable)) == []
    assert "There are no Ray jobs to run: the list is empty" in task_log
    assert submits(shared) == 0


def test_what_is_submitted(shared: EmulatorProcess, nothing_masked: None, deferrable: bool) -> None:
    operator = submit_jobs(
        [
            {"env_vars": {"SHARD": "{{ word }}"}, "metadata": {"team": "own"}, "entrypoint_num_cpus": 2},
            {"entrypoint": ["echo", "{{ word }}"], "runtime_env": {"pip": ["other"]}, "key": "{{ word | length }}"},
            {},
        ],
        entrypoint="echo default",
        env_vars={"MODEL": "m"},
        metadata={"team": "tea", "more": "{{ word }}"},
        runtime_env={"pip": ["emoji"]},
        entrypoint_num_cpus=1,
        deferrable=deferrable,
        max_active=2,
    )
    run_task(operator, context_of(operator, TaskInstance("submit", map_index=3), word="a b"))
    prefix = f"af-dag-submit-3-{owner_key('dag', 'run-1', 'submit', 3)}"
    there = jobs_of(shared, "shared")
    assert sorted(there) == [f"{prefix}-0", f"{prefix}-2", f"{prefix}-3"]
    first, second, third = (there[f"{prefix}-{key}"] for key in "032")
    assert [job["entrypoint"] for job in (first, second, third)] == ["echo default", "echo 'a b'", "echo default"]
    assert first["runtime_env"] == {"pip": ["emoji"], "env_vars": {"MODEL": "m", "SHARD": "a b"}}
    assert second["runtime_env"] == {"pip": ["other"], "env_vars": {"MODEL": "m"}}
    assert third["runtime_env"] == {"pip": ["emoji"], "env_vars": {"MODEL": "m"}}
    assert [job["metadata"]["team"] for job in (first, second, third)] == ["own", "tea", "tea"]
    for key, job in (("0", first), ("3", second), ("2", third)):
        expected = {"more": "a b", "airflow_dag_id": "dag", "airflow_map_index": "3", "airflow_job_key": key}
        assert job["metadata"].items() >= expected.items()
        assert job["metadata"][OWNER_KEY] == owner_key("dag", "run-1", "submit", 3)


@pytest.mark.parametrize(("max_active", "most"), [(1, 1), (4, 4), (None, 20)])
def test_no_more_than_max_active_run_at_once(
    shared: EmulatorProcess, deferrable: bool, max_active: int | None, most: int, tmp_path: Path
) -> None:
    jobs = [echo(n, 0.2) for n in range(20 if most > 1 else 3)]
    # The first ones end once all of them run.
    together, file = max_active or 2, tmp_path / "together"
    for job in jobs[:together]:
        job["entrypoint"] = f"{until_exists(file)}; {job['entrypoint']}"

    def let_them_end() -> None:
        try:
            until(lambda: [job["status"] for job in jobs_of(shared, "shared").values()].count("RUNNING") >= together)
        finally:
            file.touch()

    with ThreadPoolExecutor(1) as pool:
        releasing = pool.submit(let_them_end)
        found = run_task(submit_jobs(jobs, deferrable=deferrable, max_active=max_active))
    releasing.result()
    assert [each["result"] for each in found] == list(range(len(jobs)))
    assert together <= most_at_once(shared) <= most


def test_all_statuses_come_by_one_request(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [{"entrypoint": "sleep 1"}] * 40
    run_task(submit_jobs(jobs, deferrable=deferrable, max_active=None, poll_interval=0.2, read_results=False))
    assert submits(shared) == 40
    asked = len(shared.calls("GET /api/jobs/"))
    assert 2 <= asked <= 15
    assert len(shared.calls("GET /api/jobs/af-*")) <= 10


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_failed_jobs_fail_the_task_and_are_named(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    jobs = [echo(0), {"entrypoint": "echo loading && echo 'no such shard' && exit 3", "key": "bad"}, echo(2)]
    operator = submit_jobs([*jobs, {"entrypoint": "exit 4"}], deferrable=deferrable)
    context = context_of(operator)
    with pytest.raises(JobsFailedError) as caught:
        run_task(operator, context)
    text = str(caught.value)
    assert "2 of 4 Ray jobs did not succeed: bad (exit code 3), 3 (exit code 4)." in text
    assert f"The first of them: Ray job {PREFIX}-bad failed with exit code 3" in text
    assert "loading\n    no such shard" in text
    assert caught.value.details["failed"] == ["bad", "3"]
    entries = context["ti"].xcoms["jobs"]
    assert [each["result"] for each in entries] == [0, None, 2, None]
    assert [each["error"] is None for each in entries] == [True, False, True, False]
    assert "[bad] no such shard" in task_log
    assert any(line.startswith(f"[bad] Ray job {PREFIX}-bad is FAILED after ") for line in task_log)


@pytest.mark.parametrize("slow", [0, 29])
def test_error_quotes_the_first_job_however_many_fail_at_once(
    shared: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    """With a poll interval in which all of them end, in any order."""
    monkeypatch.setattr("airflow_provider_vertex_ray.triggers.job_batch_output.READS_AT_ONCE", 1)
    jobs: list[dict[str, Any]] = [{"entrypoint": f"echo 'cause {n}' && exit 3"} for n in range(30)]
    jobs[slow] = {"entrypoint": f"sleep 1.5 && {jobs[slow]['entrypoint']}"}
    operator = submit_jobs(jobs, deferrable=deferrable, max_active=None, poll_interval=3)
    with pytest.raises(JobsFailedError, match="30 of 30 Ray jobs did not succeed") as caught:
        run_task(operator, context_of(operator))
    reason = str(caught.value).split("The first of them: ")[1]
    assert f"Ray job {PREFIX}-0 failed with exit code 3" in reason
    assert "\nLast lines of its output:\n" in reason
    assert "    cause 0" in reason
    assert "last available logs" not in reason


@pytest.mark.parametrize("deferrable", [False, True])
def test_failure_stops_the_others_if_that_is_wanted(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [{"entrypoint": "sleep 600"}, {"entrypoint": "sleep 0.1 && exit 3"}, {"entrypoint": "sleep 600"}, echo(3)]
    operator = submit_jobs(jobs, deferrable=deferrable, on_failure="stop", max_active=3)
    context = context_of(operator)
    with pytest.raises(JobsFailedError) as caught:
        run_task(operator, context)
    text = str(caught.value)
    assert "3 of 4 Ray jobs did not succeed: 0 (STOPPED), 1 (exit code 3), 2 (STOPPED). 1 was not run." in text
    assert f"The first of them: Ray job {PREFIX}-1 failed with exit code 3" in text
    there = jobs_of(shared, "shared")
    assert [there[f"{PREFIX}-{n}"]["status"] for n in range(3)] == ["STOPPED", "FAILED", "STOPPED"]
    assert f"{PREFIX}-3" not in there
    errors = [each["error"] for each in context["ti"].xcoms["jobs"]]
    assert errors[0] == errors[2] == "was stopped: another job failed"
    assert errors[3] == "was not run, because another job failed"


def test_each_job_has_its_own_deadline(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [{"entrypoint": "sleep 0.1"}, {"entrypoint": "sleep 600"}, {"entrypoint": "sleep 0.3"}]
    begin = time.monotonic()
    operator = submit_jobs(jobs, deferrable=deferrable, job_timeout=1.5, max_active=1, poll_interval=600)
    context = context_of(operator)
    with pytest.raises(JobsFailedError, match=r"1 of 3 Ray jobs did not succeed: 1 \(STOPPED\)"):
        run_task(operator, context)
    assert time.monotonic() - begin < 300
    assert context["ti"].xcoms["jobs"][1]["error"] == "was stopped: it did not end within job_timeout (1.5 s)"


def test_driver_that_does_not_start_is_stopped(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [echo(0), {**echo(1), "entrypoint_resources": {"there-is-none": 1}}]
    operator = submit_jobs(jobs, deferrable=deferrable, pending_timeout=1)
    context = context_of(operator)
    with pytest.raises(JobsFailedError, match=r"1 of 2 Ray jobs did not succeed: 1 \(PENDING\)"):
        run_task(operator, context)
    assert "did not start within pending_timeout (1 s)" in context["ti"].xcoms["jobs"][1]["error"]


def test_driver_that_fits_on_no_node_is_refused(shared: EmulatorProcess) -> None:
    jobs = [echo(0), {**echo(1), "entrypoint_num_gpus": 1}]
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(submit_jobs(jobs, deferrable=False))
    assert caught.value.field == "jobs[1].entrypoint_num_gpus"
    assert submits(shared) == 0


def test_job_that_somebody_deletes_is_lost(
    shared: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = TaskInstance("submit")
    push = submitted.xcom_push

    def delete_one(key: str, value: Any) -> None:
        push(key, value)
        if key == LINK_KEY:
            until(lambda: jobs_of(shared, "shared")[f"{PREFIX}-0"]["status"] == "SUCCEEDED")
            path = f"{dashboard_of(shared, 'shared')}/api/jobs/{PREFIX}-0"
            assert shared.request("DELETE", path, token=shared.token())[0] == 200

    submitted.xcom_push = delete_one  # type: ignore[method-assign]
    operator = submit_jobs([echo(0), echo(1)], deferrable=deferrable, lost_timeout=0.5)
    with pytest.raises(JobsFailedError, match=r"1 of 2 Ray jobs did not succeed: 0 \(LOST\)"):
        run_task(operator, context_of(operator, submitted))
    assert submits(shared) == 2


def test_cluster_that_goes_away_takes_all_jobs_with_it(shared: EmulatorProcess, deferrable: bool) -> None:
    ti = TaskInstance("submit")
    push = ti.xcom_push

    def break_cluster(key: str, value: Any) -> None:
        push(key, value)
        if key == LINK_KEY:
            shared.admin("DELETE", "clusters/shared")

    ti.xcom_push = break_cluster  # type: ignore[method-assign]
    operator = submit_jobs([{"entrypoint": "sleep 600"}] * 6, deferrable=deferrable)
    with pytest.raises(JobLostError, match="The Ray jobs of this task are lost: their cluster .* was deleted"):
        run_task(operator, context_of(operator, ti))


def test_missing_cluster_is_named(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with pytest.raises(ClusterNotFoundError):
        run_task(submit_jobs([echo(0)], deferrable=deferrable))


def test_id_of_another_task_is_refused_before_anything_is_submitted(shared: EmulatorProcess, deferrable: bool) -> None:
    submit(shared, "shared", f"{PREFIX}-1", "sleep 600")
    with pytest.raises(SubmissionIdTakenError, match=f"{PREFIX}-1"):
        run_task(submit_jobs([echo(0), echo(1)], deferrable=deferrable))
    assert submits(shared) == 1


def test_results_that_are_too_large_together(
    shared: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_vertex_ray.core.job.batch_results.LONGEST_RESULTS", 400)
    large = [{"entrypoint": f"echo 'VERTEX_RAY_RESULT \"{noise.getrandbits(1200):x}\"'"} for _ in range(3)]
    with pytest.raises(NotStorableError, match="The results of the 3 jobs have .* characters together"):
        run_task(submit_jobs(large, deferrable=deferrable))
    # The failures matter more than the results of the others.
    operator = submit_jobs([*large, {"entrypoint": "exit 3"}], deferrable=deferrable)
    context = context_of(operator, TaskInstance("submit", run_id="run-2"))
    with pytest.raises(JobsFailedError, match=r"1 of 4 Ray jobs did not succeed: 3 \(exit code 3\)"):
        run_task(operator, context)
    assert [each["status"] for each in context["ti"].xcoms["jobs"]] == ["SUCCEEDED"] * 3 + ["FAILED"]


def test_results_that_cannot_fit_are_not_kept(
    shared: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch, task_log: list[str]
) -> None:
    monkeypatch.setattr("airflow_provider_vertex_ray.core.job.batch_results.MOST_RESULT_BYTES", 1000)
    kept: list[Any] = []

    def packed(batch: Batch, outcomes: list[Outcome], *more: Any) -> str:
        kept.extend(each.result for each in outcomes)
        with pytest.raises(RuntimeError):
            # Other waits go on meanwhile.
            asyncio.get_running_loop()
        return pack_outcomes(batch, outcomes, *more)

    monkeypatch.setattr(job_batch, "pack_outcomes", packed)
    jobs = [{"entrypoint": f"echo 'VERTEX_RAY_RESULT \"{'x' * 300}\"'"}] * 6
    with pytest.raises(NotStorableError, match="The results of the 6 jobs"):
        run_task(submit_jobs(jobs, deferrable=deferrable))
    assert sorted(map(bool, kept)) == [False] * 3 + [True] * 3
    assert task_log.count("The results of the Ray jobs are too large together; Airflow cannot store them") == 1


def test_result_that_cannot_be_stored_fails_its_job_alone(shared: EmulatorProcess, deferrable: bool) -> None:
    operator = submit_jobs([echo(0), echo(2**64), echo(2)], deferrable=deferrable)
    context = context_of(operator)
    with pytest.raises(JobsFailedError, match=r"1 of 3 Ray jobs did not succeed: 1 \(its result could not be read\)"):
        run_task(operator, context)
    assert [each["result"] for each in context["ti"].xcoms["jobs"]] == [0, None, 2]


def test_answers_that_are_lost_or_late_lose_no_job(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [{"entrypoint": f"sleep 0.1 && echo 'VERTEX_RAY_RESULT {n}'"} for n in range(12)]
    with (
        shared.fault(scope="dashboard", method="POST /api/jobs/", action="drop_response", times=5),
        shared.fault(scope="dashboard", method="GET /api/jobs/", action="status", status=503, times=2),
    ):
        found = run_task(submit_jobs(jobs, deferrable=deferrable, max_active=3))
    assert [each["result"] for each in found] == list(range(12))
    assert len(jobs_of(shared, "shared")) == 12


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logs", ["all", "failed", "none"])
def test_last_lines_are_shown_as_wanted(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str], logs: str
) -> None:
    jobs = [{"entrypoint": "count 5 0 && echo fine"}, {"entrypoint": "echo oh && exit 1"}]
    with pytest.raises(JobsFailedError):
        run_task(submit_jobs(jobs, deferrable=deferrable, logs=logs, log_lines=2))
    shown = [line for line in task_log if line.startswith(("[0]", "[1]")) and "Ray job" not in line]
    good, bad = [line for line in shown if line[1] == "0"], [line for line in shown if line[1] == "1"]
    assert good == (["[0] line 4", "[0] fine"] if logs == "all" else [])
    assert bad[-1:] == (["[1] oh"] if logs != "none" else [])
    assert any(line.startswith("[1] Ray job") and "is FAILED" in line for line in task_log)
    assert any("2 of 2 Ray jobs have ended, 1 of them without success" in line for line in task_log)


def test_output_is_not_read_if_nobody_wants_it(shared: EmulatorProcess, deferrable: bool) -> None:
    found = run_task(submit_jobs([echo(n) for n in range(3)], deferrable=deferrable, read_results=False))
    assert [each["result"] for each in found] == [None] * 3
    assert shared.calls("GET /api/v0/logs/file*") == []
    assert shared.calls("GET */logs") == []


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_secrets_are_masked_and_not_among_the_arguments_of_the_trigger(
    shared: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    secret = "hunter2-is-long"
    jobs = [
        {"entrypoint": f"echo {secret} && echo 'VERTEX_RAY_RESULT {n}'", "env_vars": {"N": str(n)}} for n in range(6)
    ]
    given: dict[str, Any] = {"env_vars": {"DB_PASSWORD": secret, "KEY": Secret("marked-as-one")}, "max_active": 2}
    # The command itself would show it.
    quiet = [{**job, "entrypoint": "sleep 0.1"} for job in jobs]
    waiting = deferral_of(submit_jobs(quiet, deferrable=True, **given))
    stored = json.dumps(waiting.trigger.serialize())
    plain = json.dumps(unpack(waiting.trigger.arguments["plan"]))
    assert secret not in stored + plain
    assert "marked-as-one" not in stored + plain
    operator = submit_jobs(jobs, deferrable=deferrable, logs="all", **given)
    found = run_task(operator, context_of(operator, TaskInstance("submit", run_id="run-2")))
    assert [each["result"] for each in found] == list(range(6))
    assert "[5] ***" in task_log
    assert secret not in "".join(task_log)
    later = jobs_of(shared, "shared")[found[5]["submission_id"]]
    assert later["runtime_env"]["env_vars"] == {"DB_PASSWORD": secret, "KEY": "marked-as-one", "N": "5"}
    assert json.loads(later["metadata"][SECRET_NAMES_KEY]) == ["DB_PASSWORD", "KEY"]


def test_own_secret_of_a_later_job_is_refused(shared: EmulatorProcess, deferrable: bool) -> None:
    jobs = [{**echo(n), "env_vars": {"API_TOKEN": f"token-{n}-long"}} for n in range(3)]
    with pytest.raises(InvalidArgumentError, match=r"jobs\[0\].env_vars\['API_TOKEN'\]: '\*\*\*'"):
        run_task(submit_jobs(jobs, deferrable=deferrable, max_active=2))
    assert submits(shared) == 0
    found = run_task(submit_jobs(jobs, deferrable=deferrable, max_active=3))
    assert [each["result"] for each in found] == [0, 1, 2]


# --- size -------------------------------------------------------------------------------------------------------------


def test_arguments_of_a_trigger_for_a_thousand_jobs_are_small(shared: EmulatorProcess) -> None:
    jobs = [
        {"entrypoint": f"sleep 600 && echo --shard {n} --of gs://bucket/2026-11-29/part-{n:05}.parquet"}
        for n in range(1000)
    ]
    waiting = deferral_of(submit_jobs(jobs, deferrable=True, max_active=2))
    assert len(json.dumps(waiting.trigger.serialize())) < 10_000
    assert submits(shared) == 2


def test_plan_that_is_too_large_is_refused_before_anything_is_submitted(shared: EmulatorProcess) -> None:
    jobs = [{"entrypoint": f"echo {noise.getrandbits(8 * 200):x}"} for _ in range(400)]
    with pytest.raises(InvalidArgumentError, match=f"Airflow's database holds {LONGEST_PLAN:,}"):
        deferral_of(submit_jobs(jobs, deferrable=True, max_active=2))
    assert submits(shared) == 0
