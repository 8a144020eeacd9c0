"""Clusters that nobody uses are deleted; those that somebody uses, or may use, are not."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.sharing import guarded_delete
from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL, SHARED_LABEL
from airflow_provider_vertex_ray.core.sharing.lease import CLOCK_SKEW
from airflow_provider_vertex_ray.core.sharing.lease_objects import LeaseObjects
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseStoreError,
    NotAuthorisedError,
    OperationTimeoutError,
)
from airflow_provider_vertex_ray.operators.idle import VertexRayDeleteIdleClustersOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.owner_labels import OWNER_LABEL
from airflow_provider_vertex_ray.sensors.idle import VertexRayClusterIdleSensor
from tests.operators.builders import COMMON, submit_job
from tests.support.clusters import BODY, LOCATION, cluster_ids, dashboard_of, jobs_of, submit, until_exists
from tests.support.leases import NUMBER, close, hold, hold_until, lease_of
from tests.support.meanwhile import meanwhile
from tests.support.tasks import TaskInstance, context_of, may_run_tasks, run_task

OURS = {OWNER_LABEL: "0123456789abcdef", "airflow-dag": "etl", "airflow-run": "run-7"}


def begin(emulator: EmulatorProcess, cluster_id: str = "ours") -> None:
    """One of ours, whose creation nobody waits for."""
    path = f"persistentResources?persistentResourceId={cluster_id}"
    assert emulator.api("POST", path, {**BODY, "labels": OURS})[0] == 200


def made(emulator: EmulatorProcess, cluster_id: str = "ours", **labels: str) -> dict[str, Any]:
    return emulator.create(cluster_id, {**BODY, "labels": {**OURS, **labels}})


def reap(**more: Any) -> dict[str, Any]:
    arguments = {"task_id": "reap", "idle_for": 0.001, "deferrable": False, **COMMON, **more}
    operator = VertexRayDeleteIdleClustersOperator(**arguments)
    result: dict[str, Any] = run_task(operator, context_of(operator))
    return result


def why(result: dict[str, Any], cluster_id: str = "ours") -> tuple[str, str]:
    (found,) = (each for each in result["clusters"] if each["cluster_id"] == cluster_id)
    return found["action"], found["why"]


def test_an_idle_one_goes_and_the_report_says_why(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    begin = time.time()
    made(fake_emulator)
    prices = {"currency": "EUR", "regions": {LOCATION: {"machines": {"n1-standard-16": 3600, "n1-standard-8": 0}}}}
    result = reap(deferrable=deferrable, price_table=prices)
    assert (result["seen"], result["deleted"]) == (1, ["ours"])
    action, reason = why(result)
    assert action == "deleted"
    assert reason.endswith("DAG run etl/run-7 created it but did not delete it")
    (found,) = result["clusters"]
    assert found["cost_so_far"]["currency"] == "EUR"
    # One EUR a second.
    assert 0 < found["cost_so_far"]["cost"] < time.time() - begin + 1
    assert found["age_seconds"] > 0
    assert cluster_ids(fake_emulator) == []


def test_a_template_that_comes_to_nothing_is_no_lease_uri(fake_emulator: EmulatorProcess) -> None:
    """As in the example DAG, where the Airflow Variable is not set."""
    made(fake_emulator)
    assert reap(lease_uri="{{ '' }}")["deleted"] == ["ours"]


def test_a_dry_run_only_tells(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    assert why(reap(dry_run=True))[0] == "would delete"
    assert cluster_ids(fake_emulator) == ["ours"]
    assert fake_emulator.calls("DeletePersistentResource") == []


def test_one_that_was_used_a_short_time_ago_stays(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    submit(fake_emulator, "ours", "one", "true")
    until(lambda: jobs_of(fake_emulator, "ours")["one"]["status"] == "SUCCEEDED")
    action, reason = why(reap(idle_for=3600.0))
    assert action == "kept"
    assert reason.endswith("of 1 h")


def test_a_job_keeps_it(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    submit(fake_emulator, "ours", "long", "sleep 600")
    assert why(reap(max_age=0.001)) == ("kept", "it is older than 0 s, but in use: job long")
    assert cluster_ids(fake_emulator) == ["ours"]


def test_drain_waits_for_the_end_of_the_use(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    submit(fake_emulator, "ours", "short", "sleep 0.3")
    result = reap(max_age=0.001, drain_timeout=PATIENCE)
    assert why(result)[0] == "deleted"
    (job,) = (call for call in fake_emulator.calls("DeletePersistentResource"))
    assert job["status"] == 200


def test_drain_gives_up_for_this_time(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    submit(fake_emulator, "ours", "long", "sleep 600")
    assert why(reap(max_age=0.001, drain_timeout=0.2))[0] == "kept"


def test_one_that_is_too_old_stays_between_two_jobs_of_a_run(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    submit(fake_emulator, "ours", "one", "true")
    until(lambda: jobs_of(fake_emulator, "ours")["one"]["status"] == "SUCCEEDED")
    assert why(reap(idle_for=3600.0, max_age=0.001))[0] == "kept"
    result = reap(idle_for=0.5, max_age=0.001, drain_timeout=PATIENCE)
    assert why(result) == ("deleted", "it is older than 0 s")


def test_only_those_of_this_package_unless_told_otherwise(fake_emulator: EmulatorProcess) -> None:
    fake_emulator.create("foreign", BODY)
    made(fake_emulator, "tea", team="tea")
    made(fake_emulator, "coffee", team="coffee")
    assert reap(dry_run=True)["seen"] == 2
    assert reap(dry_run=True, label_filter={"team": "tea"})["seen"] == 1
    assert reap(dry_run=True, label_filter={"team": ""})["seen"] == 2
    assert reap(label_filter={})["deleted"] == ["coffee", "foreign", "tea"]


def test_one_in_error_goes_at_once(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="internal"):
        made(fake_emulator)
    assert "it is in ERROR: An internal error" in why(reap(idle_for=3600.0))[1]
    assert cluster_ids(fake_emulator) == []


def test_one_that_is_being_made_stays(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="slow", delay=60.0):
        begin(fake_emulator)
    assert why(reap()) == ("kept", "in use: it is PROVISIONING; its jobs cannot be read: it has no dashboard")


def test_an_older_generation_goes_when_its_successor_runs(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    for number in (1, 2):
        made(fake_emulator, f"etl-g{number}", **{SHARED_LABEL: "etl", GENERATION_LABEL: str(number)})
    # Without leases, somebody may have attached to it a moment ago.
    action, reason = why(reap(idle_for=3600.0), "etl-g1")
    assert action == "kept"
    assert reason.startswith("it was superseded by a newer generation, but idle for only ")
    assert reason.endswith(" of 10 min")
    result = reap(idle_for=3600.0, lease_uri=storage.uri)
    assert result["deleted"] == ["etl-g1"]
    assert why(result, "etl-g1") == ("deleted", "it was superseded by a newer generation")


def test_a_live_lease_keeps_it(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    made(fake_emulator)
    hold(storage, "dag/run", "ours")
    assert why(reap(lease_uri=storage.uri)) == ("kept", "in use: lease holder dag/run")
    # Dead by its own clock, but another machine's may be five minutes behind.
    hold_until(storage, "dag/run", time.time() - CLOCK_SKEW + 200, "ours")
    assert why(reap(lease_uri=storage.uri))[0] == "kept"
    hold_until(storage, "dag/run", time.time() - CLOCK_SKEW - 1, "ours")
    assert why(reap(lease_uri=storage.uri))[0] == "deleted"
    assert storage.names() == []


def test_somebody_else_deletes_it_already(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    made(fake_emulator)
    close(storage, "another reaper", "ours")
    action, reason = why(reap(lease_uri=storage.uri))
    assert (action, "another reaper" in reason) == ("kept", True)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"scope": "dashboard", "action": "status", "status": 503, "times": None}, "its jobs cannot be read"),
        ({"scope": "dashboard", "action": "reset", "times": None}, "its jobs cannot be read"),
        ({"scope": "dashboard", "action": "truncate", "after": 1, "times": None}, "its jobs cannot be read"),
        ({"scope": "dashboard", "action": "status", "status": 404, "times": None}, "its jobs cannot be read"),
        ({"scope": "dashboard", "action": "status", "status": 403, "times": None}, "its jobs cannot be read"),
    ],
)
def test_a_dashboard_that_can_not_be_read_keeps_it(
    fake_emulator: EmulatorProcess, fault: dict[str, Any], said: str
) -> None:
    made(fake_emulator)
    with fake_emulator.fault(**fault):
        action, reason = why(reap())
    assert (action, said in reason) == ("kept", True)
    assert cluster_ids(fake_emulator) == ["ours"]


def test_a_store_that_can_not_be_read_keeps_it(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    made(fake_emulator)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    action, reason = why(reap(lease_uri="gs://bucket"))
    assert (action, "its lease cannot be read" in reason) == ("kept", True)


def test_a_lease_that_makes_no_sense_keeps_it(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    made(fake_emulator)
    path = f"leases/{NUMBER}/{LOCATION}/ours/holders/x.json"
    storage.put(path, b"{}", metadata={"lease": json.dumps({"version": 99})})
    action, reason = why(reap(lease_uri=storage.uri))
    assert (action, "version 99" in reason) == ("kept", True)


def test_a_list_that_breaks_off_deletes_nothing(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator)
    fault = {"scope": "control_plane", "method": "ListPersistentResources", "action": "truncate", "after": 20}
    # It is read again until the deadline.
    with (
        fake_emulator.fault(**fault, times=None),
        pytest.raises(OperationTimeoutError, match="none was deleted"),
    ):
        reap(delete_timeout=0.2, drain_timeout=0.2)
    assert cluster_ids(fake_emulator) == ["ours"]


def test_a_refused_delete_is_reported_and_the_lease_opens_again(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    made(fake_emulator)
    refusal = {"method": "DeletePersistentResource", "status": 400, "code": "FAILED_PRECONDITION", "message": "no"}
    with fake_emulator.fault(scope="control_plane", action="status", **refusal):
        assert why(reap(lease_uri=storage.uri))[0] == "kept"
    assert lease_of(storage, "ours").closing is None
    hold(storage, "dag/run", "ours")


def test_a_reaper_that_may_not_delete_fails_after_the_others(
    fake_emulator: EmulatorProcess, deferrable: bool, task_log: list[str]
) -> None:
    for name in ("a", "b", "c"):
        made(fake_emulator, name)
    refusal = {"method": "DeletePersistentResource", "status": 403, "code": "PERMISSION_DENIED", "message": "no"}
    with (
        fake_emulator.fault(scope="control_plane", action="status", **refusal),
        pytest.raises(NotAuthorisedError),
    ):
        reap(deferrable=deferrable)
    assert len(cluster_ids(fake_emulator)) == 1, "the other two are deleted"
    assert [line for line in task_log if line.startswith("Could not delete cluster ")] != []


def test_a_deletion_that_works_in_a_later_pass_is_no_failure(fake_emulator: EmulatorProcess) -> None:
    made(fake_emulator, "a")
    made(fake_emulator, "b")
    submit(fake_emulator, "b", "short", "sleep 600")
    refusal = {"method": "DeletePersistentResource", "status": 403, "code": "PERMISSION_DENIED", "message": "no"}

    def end_the_job() -> None:
        path = f"{dashboard_of(fake_emulator, 'b')}/api/jobs/short/stop"
        assert fake_emulator.request("POST", path, {}, token=fake_emulator.token())[0] == 200

    with (
        fake_emulator.fault(scope="control_plane", action="status", **refusal),
        meanwhile(end_the_job, lambda: fake_emulator.calls("DeletePersistentResource")),
    ):
        # The first pass drains one of them.
        assert sorted(reap(max_age=0.001, drain_timeout=PATIENCE)["deleted"]) == ["a", "b"]


@pytest.mark.parametrize("require_leases", [False, True])
def test_a_lease_that_may_not_be_written_fails_the_reaper(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch, require_leases: bool
) -> None:
    made(fake_emulator)

    async def rejected(*_: Any) -> None:
        raise LeaseStoreError("The account may not write.")

    monkeypatch.setattr(LeaseObjects, "update", rejected)
    with pytest.raises(LeaseStoreError, match="may not write"):
        reap(lease_uri=storage.uri, require_leases=require_leases)
    assert fake_emulator.calls("DeletePersistentResource") == []
    assert cluster_ids(fake_emulator) == ["ours"]
    # To report, it only reads.
    assert why(reap(lease_uri=storage.uri, require_leases=require_leases, dry_run=True))[0] == "would delete"


@contextmanager
def reaping_held_up(
    storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, call: int
) -> Iterator[tuple[dict[str, Any], threading.Event]]:
    """A reaper runs beside the block, which begins when the reaper calls a method.

    Gives a dictionary that has the reaper's result afterwards, and the event that lets the reaper go on, at the end of
    the block at the latest.

    :param call: which of the reaper's calls it is
    """
    found: dict[str, Any] = {}
    original: Any = getattr(owner, method)
    calls = 0
    called, released = threading.Event(), threading.Event()

    async def held_up(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            called.set()
            assert await asyncio.to_thread(released.wait, PATIENCE)
        return await original(*args, **more)

    def reaper() -> None:
        may_run_tasks()
        found["result"] = reap(lease_uri=storage.uri)

    monkeypatch.setattr(owner, method, held_up)
    thread = threading.Thread(target=reaper)
    thread.start()
    try:
        assert called.wait(PATIENCE)
        yield found, released
    finally:
        released.set()
        thread.join()


def test_a_job_that_arrives_between_the_decision_and_the_deletion(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the service hears of it."""
    made(fake_emulator, "etl-g1", **{SHARED_LABEL: "etl", GENERATION_LABEL: "1"})
    monkeypatch.setattr(guarded_delete, "DELETE_SECONDS", PATIENCE)
    successor: Any = VertexRaySubmitJobOperator._successor
    with reaping_held_up(storage, monkeypatch, ClustersApi, "delete", 1) as (found, released):

        async def then_released(*args: Any) -> Any:
            # The task has met the closed lease, and waits for the next cluster, which comes once this one is gone.
            known = await successor(*args)
            released.set()
            return known

        monkeypatch.setattr(VertexRaySubmitJobOperator, "_successor", then_released)
        operator = submit_job("echo 'VERTEX_RAY_RESULT 1'", "etl-g1", deferrable=False, lease_uri=storage.uri)
        result = run_task(operator, context_of(operator, TaskInstance("submit", run_id="late")))
    reaped = found["result"]
    assert reaped["deleted"] == ["etl-g1"]
    assert (result["cluster_id"], result["status"], result["result"]) == ("etl-g2", "SUCCEEDED", 1)
    assert [call["status"] for call in fake_emulator.calls("POST /api/jobs/")] == [200], "one job, on one cluster"


def test_a_job_that_arrives_before_the_last_look(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no lease, but the reaper looks again once it has closed the lease."""
    made(fake_emulator, "etl-g1", **{SHARED_LABEL: "etl", GENERATION_LABEL: "1"})
    with reaping_held_up(storage, monkeypatch, JobsApi, "in_use", 2) as (found, _):
        assert lease_of(storage, "etl-g1").closing is not None
        submit(fake_emulator, "etl-g1", "late", "sleep 600")
    assert why(found["result"], "etl-g1") == ("kept", "in use: job late")
    assert cluster_ids(fake_emulator) == ["etl-g1"]


def test_a_run_that_comes_too_late_is_told(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    made(fake_emulator)
    close(storage, "reaper", "ours")
    operator = submit_job("true", "ours", deferrable=False, lease_uri=storage.uri)
    with pytest.raises(ClusterClosingError, match="reaper"):
        run_task(operator, context_of(operator))
    assert jobs_of(fake_emulator, "ours") == {}


def test_a_waiting_job_renews_the_lease(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, tmp_path: Path
) -> None:
    made(fake_emulator)
    renewed = tmp_path / "renewed"
    operator = submit_job(until_exists(renewed), "ours", deferrable=False, lease_uri=storage.uri, lease_ttl=0.3)

    def expiry() -> float:
        return max((each.expires for each in lease_of(storage, "ours").holders.values()), default=0.0)

    def end_the_job() -> None:
        try:
            first = until(expiry, "there is no lease")
            until(lambda: expiry() >= first + 1.0, "it is not renewed")
        finally:
            renewed.touch()

    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(end_the_job)
        run_task(operator, context_of(operator))
    ending.result()
    (held,) = lease_of(storage, "ours").holders.values()
    assert (held.owner, held.scope) == ("dag/run-1", "ours")
    with pytest.raises(LeaseHeldError):
        close(storage, "reaper", "ours")


@pytest.fixture(params=["in-worker", "deferred"])
def sensor(request: pytest.FixtureRequest) -> Any:
    def wait(**more: Any) -> Any:
        arguments = {"task_id": "idle", "cluster_id": "ours", "location": LOCATION, "poke_interval": 0.05, **more}
        operator = VertexRayClusterIdleSensor(**arguments, deferrable=request.param == "deferred")
        return run_task(operator, context_of(operator))

    return wait


def test_the_sensor_waits_for_the_end_of_the_use(fake_emulator: EmulatorProcess, sensor: Any) -> None:
    made(fake_emulator)
    submit(fake_emulator, "ours", "short", "sleep 0.3")
    result = sensor(idle_for=0.2)
    assert result["idle_seconds"] >= 0.2
    assert jobs_of(fake_emulator, "ours")["short"]["status"] == "SUCCEEDED"


def test_the_sensor_gives_up(fake_emulator: EmulatorProcess, sensor: Any) -> None:
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout

    made(fake_emulator)
    submit(fake_emulator, "ours", "long", "sleep 600")
    with pytest.raises(AirflowSensorTimeout):
        sensor(idle_for=0.2, timeout=0.2)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"idle_for": 0}, "idle_for"),
        ({"max_age": -1}, "max_age"),
        ({"drain_timeout": -1}, "drain_timeout"),
        ({"drain_timeout": True}, "drain_timeout"),
        ({"lease_uri": "bucket"}, "lease_uri"),
        ({"poll_interval": 0}, "poll_interval"),
    ],
)
def test_wrong_input_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        VertexRayDeleteIdleClustersOperator(**{"task_id": "reap", **COMMON, **arguments})
