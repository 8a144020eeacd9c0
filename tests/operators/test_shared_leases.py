"""Who holds a shared cluster: retries, moved jobs, task groups, clusters that go away, stores that do not work."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from aiohttp import web
from airflow.providers.common.compat.sdk import DAG
from emulator_support.process import EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.sharing.guarded_delete import GuardedDelete
from airflow_provider_vertex_ray.core.sharing.lease import Closing, HolderId
from airflow_provider_vertex_ray.core.sharing.lease_store import LeaseStore
from airflow_provider_vertex_ray.errors import (
    ClusterClosingError,
    DashboardNotReadyError,
    InvalidArgumentError,
    LeaseHeldError,
    LeaseStoreError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.operators.idle import VertexRayDeleteIdleClustersOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.leases import VertexRayReleaseClusterOperator
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster
from tests.operators.builders import COMMON, delete, submit_job
from tests.support.clusters import BODY, LOCATION, SPEC, cluster_ids
from tests.support.leases import hold, lease_of, owners_of, with_lease
from tests.support.server import serving
from tests.support.tasks import TaskInstance, context_of, deferral_of, first_event, may_run_tasks, round_trip, run_task

BIGGER = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8", node_count=3)])


def ensure(storage: StorageEmulator | None, task_id: str = "ensure", run: str = "run-1", **more: Any) -> dict[str, Any]:
    lease = {"lease_uri": storage.uri} if storage else {}
    arguments = {"task_id": task_id, "shared_name": "etl", "spec": SPEC, "deferrable": False, **COMMON, **lease, **more}
    operator = VertexRayCreateClusterOperator(**arguments)
    result: dict[str, Any] = run_task(operator, context_of(operator, TaskInstance(task_id, run_id=run)))
    return result


def scopes(storage: StorageEmulator, cluster_id: str) -> list[str]:
    return sorted(each.scope for each in lease_of(storage, cluster_id).live(time.time()))


def creates(emulator: EmulatorProcess) -> int:
    return len(emulator.calls("CreatePersistentResource"))


# The store is checked before something that bills is created.


def test_a_missing_bucket_fails_before_a_cluster_is_created(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, deferrable: bool
) -> None:
    with pytest.raises(LeaseStoreError, match=r"lease_uri='gs://no-such-bucket/leases' does not exist") as raised:
        ensure(None, lease_uri="gs://no-such-bucket/leases", deferrable=deferrable)
    assert "no cluster" not in str(raised.value)
    assert (creates(fake_emulator), cluster_ids(fake_emulator)) == (0, [])


def test_a_missing_bucket_fails_at_once_where_a_cluster_runs(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    ensure(None)
    with pytest.raises(LeaseStoreError, match="does not exist"):
        ensure(None, lease_uri="gs://no-such-bucket/leases")
    assert cluster_ids(fake_emulator) == ["etl-g1"], "it is not this task's"


async def _refused(request: web.Request) -> web.Response:
    message = "ray@p.iam.gserviceaccount.com does not have storage.objects.create access to the bucket."
    return web.json_response({"error": {"code": 403, "message": message}}, status=403)


async def test_a_refused_store_names_the_role(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_thread() -> None:
        may_run_tasks()
        ensure(None, lease_uri="gs://bucket/leases")

    async with serving(_refused) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.host)
        with pytest.raises(LeaseStoreError, match=r"lease_uri='gs://bucket/leases'.*403") as raised:
            await asyncio.to_thread(in_thread)
    assert "roles/storage.objectUser" in str(raised.value)
    assert creates(fake_emulator) == 0


def test_the_emulator_without_storage_says_how_to_start_it(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    with pytest.raises(LeaseStoreError, match="vertex-ray-emulator start --with storage"):
        ensure(None, lease_uri="gs://bucket/leases")
    assert creates(fake_emulator) == 0


def reap(lease_uri: str, **more: Any) -> dict[str, Any]:
    operator = VertexRayDeleteIdleClustersOperator(
        task_id="reap", idle_for=0.001, lease_uri=lease_uri, deferrable=False, **COMMON, **more
    )
    result: dict[str, Any] = run_task(operator)
    return result


def test_a_reaper_without_leases_keeps_everything_and_fails_on_request(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, capfd: pytest.CaptureFixture[str]
) -> None:
    ensure(None)
    found = reap("gs://no-such-bucket/leases")
    assert (found["deleted"], found["clusters"][0]["action"]) == ([], "kept")
    with pytest.raises(LeaseStoreError, match="does not exist"):
        reap("gs://no-such-bucket/leases", require_leases=True)
    assert reap(storage.uri, require_leases=True)["deleted"] == ["etl-g1"]


# Ensuring never hammers the API, and never gives out what goes.


def test_ids_that_others_use_are_passed_over(fake_emulator: EmulatorProcess) -> None:
    for number in (1, 2, 4):
        fake_emulator.create(f"etl-g{number}", {key: value for key, value in BODY.items() if key != "labels"})
    fake_emulator.admin("DELETE", "calls")
    assert ensure(None)["cluster_id"] == "etl-g5"
    assert creates(fake_emulator) == 1
    # The new cluster's dashboard is asked until it answers.
    assert len([call for call in fake_emulator.calls() if call["surface"] != "dashboard"]) < 20
    assert sorted(cluster_ids(fake_emulator)) == ["etl-g1", "etl-g2", "etl-g4", "etl-g5"]


def test_a_cluster_that_is_deleted_before_the_hold_is_not_given_out(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reaper closes, deletes and forgets the lease between the list of clusters and the hold."""
    ensure(storage, run="run-0")
    with_lease(storage, lambda store, name: store.release_all(name, "dag/run-0"), "etl-g1")
    real, reaped = LeaseStore.acquire, []

    async def acquire(self: LeaseStore, name: ClusterName, *arguments: Any, **more: Any) -> None:
        if not reaped:
            transport = self._objects._transport
            cluster = await ClustersApi(transport).get(name)
            deletion = GuardedDelete(transport, LeaseStore(transport, storage.uri), "reaper")
            reaped.append(await deletion.delete_if_unused(cluster, lambda _, now: None if now.busy else "idle"))
        await real(self, name, *arguments, **more)

    monkeypatch.setattr(LeaseStore, "acquire", acquire)
    result = ensure(storage)
    assert [each.deleted for each in reaped] == [True]
    assert (result["cluster_id"], result["state"]) == ("etl-g2", "RUNNING")
    assert not any("etl-g1" in name for name in storage.names())


# What was acquired is released, and nothing else.


def test_a_retried_task_leaves_nothing_on_the_generation_of_its_first_try(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, deferrable: bool
) -> None:
    assert ensure(storage, deferrable=deferrable)["cluster_id"] == "etl-g1"
    ensure(storage, "ensure_too", deferrable=deferrable)
    assert scopes(storage, "etl-g1") == ["ensure", "ensure_too"]
    again = ensure(storage, spec=BIGGER, on_spec_mismatch="replace", deferrable=deferrable)
    assert again["cluster_id"] == "etl-g2"
    # The other task of the same run still holds it.
    assert scopes(storage, "etl-g1") == ["ensure_too"]
    assert scopes(storage, "etl-g2") == ["ensure"]
    # Once that is released too, the next task that comes deletes it.
    with_lease(storage, lambda store, name: store.release(name, HolderId("dag/run-1", "ensure_too")), "etl-g1")
    ensure(storage, run="run-2", spec=BIGGER, on_spec_mismatch="replace")
    until(lambda: cluster_ids(fake_emulator) == ["etl-g2"])


def test_mapped_tasks_hold_for_themselves(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    arguments = {"shared_name": "etl", "spec": SPEC, "deferrable": False, "lease_uri": storage.uri, **COMMON}
    for place in (0, 1):
        operator = VertexRayCreateClusterOperator(task_id="ensure", **arguments)
        run_task(operator, context_of(operator, TaskInstance("ensure", map_index=place)))
    assert scopes(storage, "etl-g1") == ["ensure[0]", "ensure[1]"]


def test_runs_with_the_same_owner_hold_for_themselves(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    for run in ("run-1", "run-2"):
        assert ensure(storage, run=run, lease_owner="team")["lease_owner"] == "team"
    assert scopes(storage, "etl-g1") == ["dag/run-1/ensure", "dag/run-2/ensure"]
    ensure(storage, run="run-1", lease_owner="team", spec=BIGGER, on_spec_mismatch="replace")
    assert scopes(storage, "etl-g1") == ["dag/run-2/ensure"]


class Pulled(TaskInstance):
    """A task instance that can pull what ``create_cluster`` returned."""

    def __init__(self, task_id: str, result: dict[str, Any]) -> None:
        super().__init__(task_id)
        self._result = result

    def xcom_pull(self, task_ids: str, **_: Any) -> dict[str, Any]:
        return self._result


def in_groups(storage: StorageEmulator) -> DAG:
    """Two groups of one run on one shared cluster."""
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
        for group in ("one", "two"):
            with VertexRayCluster(
                group,
                spec=SPEC,
                shared_name="etl",
                lease_uri=storage.uri,
                location=LOCATION,
                deferrable=False,
                create={"poll_interval": 0.05},
            ):
                VertexRaySubmitJobOperator(task_id="job", entrypoint="true", poll_interval=0.05, deferrable=False)
    return dag


def test_each_group_releases_what_its_own_tasks_hold_wherever_they_ran(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    dag = in_groups(storage)

    def run(task_id: str, result: dict[str, Any] | None = None) -> dict[str, Any]:
        operator, ti = dag.get_task(task_id), Pulled(task_id, result or {})
        found: dict[str, Any] = run_task(operator, context_of(operator, ti, task_instance=ti, dag=dag))
        return found

    first, second = run("one.create_cluster"), run("two.create_cluster")
    assert first["cluster_id"] == second["cluster_id"] == "etl-g1"
    run("one.job", first)
    # The job renews the hold of its group, instead of another one.
    assert scopes(storage, "etl-g1") == ["one", "two"]
    run("one.release_cluster", first)
    assert scopes(storage, "etl-g1") == ["two"]
    # The cluster goes away under the second group, whose job moves to the next generation.
    fake_emulator.api("DELETE", "persistentResources/etl-g1")
    until(lambda: cluster_ids(fake_emulator) == [])
    ensure(storage, run="run-9")
    assert run("two.job", second)["cluster_id"] == "etl-g2"
    assert scopes(storage, "etl-g2") == ["ensure", "two"]
    run("two.release_cluster", second)
    assert owners_of(storage, "etl-g2") == ["dag/run-9"]


def test_a_job_outside_a_group_that_moved_is_released_with_the_cluster_it_was_given(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    first = ensure(storage)
    hold(storage, "dag/run-2", "etl-g1")
    fake_emulator.api("DELETE", "persistentResources/etl-g1")
    until(lambda: cluster_ids(fake_emulator) == [])
    ensure(storage, "another")
    moved = submit_job("true", first["name"], deferrable=False, lease_uri=storage.uri)
    assert run_task(moved, context_of(moved))["cluster_id"] == "etl-g2"
    assert scopes(storage, "etl-g2") == ["another", "etl-g1"]
    release = VertexRayReleaseClusterOperator(
        task_id="release", lease_uri=storage.uri, cluster_id=first["name"], location=LOCATION
    )
    run_task(release, context_of(release))
    assert scopes(storage, "etl-g2") == ["another"]


def test_a_release_leaves_the_holds_of_other_runs_under_the_same_owners_name(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    for run in ("run-0", "run-1"):
        ensure(storage, run=run, lease_owner="team")
    release = VertexRayReleaseClusterOperator(
        task_id="release", lease_uri=storage.uri, cluster_id="etl-g1", location=LOCATION, lease_owner="team"
    )
    run_task(release, context_of(release, TaskInstance("release", run_id="run-1")))
    assert scopes(storage, "etl-g1") == ["dag/run-0/ensure"]


def test_a_wait_that_fails_takes_its_hold_back(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    ensure(None)
    dead = {"scope": "dashboard", "action": "status", "status": 503, "times": None}
    with fake_emulator.fault(**dead), pytest.raises(DashboardNotReadyError):
        ensure(storage, dashboard_timeout=0.2, provision_timeout=600.0)
    assert not [name for name in storage.names() if "holders" in name]


# Deleting takes the lease first, however long ago that was.


def test_a_deletion_that_was_interrupted_meets_no_new_holder(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    """The triggerer was away for longer than the lease stays closed, and a run has come meanwhile."""
    fake_emulator.create("shared", BODY)
    until(lambda: fake_emulator.api("GET", "persistentResources/shared")[1]["state"] == "RUNNING")
    waiting = deferral_of(delete("shared", deferrable=True, lease_uri=storage.uri))
    closing = lease_of(storage).closing
    assert closing is not None

    async def expire(store: LeaseStore, name: ClusterName) -> None:
        old = Closing(closing.by, closing.reason, 0.0, 0.0, closing.token).to_json()
        path = f"{name.project}/{name.location}/{name.cluster_id}/closing.json"
        await store._objects.update(path, lambda content: None if content == old else old)

    with_lease(storage, expire)
    hold(storage, "dag/run-2")
    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    assert event["error"]["type"] == LeaseHeldError.__name__
    assert cluster_ids(fake_emulator) == ["shared"]
    assert fake_emulator.calls("DeletePersistentResource") == []
    # Without a new holder, the closing is renewed.
    with_lease(storage, lambda store, name: store.release_all(name, "dag/run-2"))
    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    assert event["status"] == "success"
    assert cluster_ids(fake_emulator) == []


def test_a_run_that_was_refused_does_not_stop_the_deletion(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    fake_emulator.create("shared", BODY)
    until(lambda: fake_emulator.api("GET", "persistentResources/shared")[1]["state"] == "RUNNING")
    waiting = deferral_of(delete("shared", deferrable=True, lease_uri=storage.uri))
    with pytest.raises(ClusterClosingError):
        hold(storage, "dag/run-2")
    assert asyncio.run(first_event(round_trip(waiting.trigger)))["status"] == "success"
    assert cluster_ids(fake_emulator) == []


def test_a_deletion_without_an_answer_leaves_the_lease_closed(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request may still arrive, when a run would hold the cluster again."""
    from airflow_provider_vertex_ray.core.sharing import guarded_delete

    monkeypatch.setattr(guarded_delete, "DELETE_SECONDS", 0.2)
    ensure(storage)
    with_lease(storage, lambda store, name: store.release_all(name, "dag/run-1"), "etl-g1")
    slow = {"scope": "control_plane", "method": "DeletePersistentResource", "action": "slow", "delay": 600.0}
    with fake_emulator.fault(**slow):
        with pytest.raises(ServiceUnavailableError, match="was not answered"):
            reap(storage.uri)
        with pytest.raises(ClusterClosingError):
            hold(storage, "dag/run-2", "etl-g1")


def test_a_store_that_has_worked_is_waited_for(
    fake_emulator: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 403 after it has worked is no wrong argument."""
    real, calls = LeaseStore.acquire, 0

    async def acquire(self: LeaseStore, *arguments: Any, **more: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise LeaseStoreError("no", {"http_status": 403})
        await real(self, *arguments, **more)

    monkeypatch.setattr(LeaseStore, "acquire", acquire)
    found = ensure(storage)
    assert found["cluster_id"] == "etl-g1"
    assert calls > 3


@pytest.mark.parametrize("owner", ["x" * 1001, "a\nb", "a\0b"])
def test_an_owner_that_cannot_be_stored_is_refused_before_any_call(fake_emulator: EmulatorProcess, owner: str) -> None:
    fake_emulator.admin("DELETE", "calls")
    lease = {"lease_uri": "gs://bucket/leases", "lease_owner": owner}

    def release() -> Any:
        return VertexRayReleaseClusterOperator(task_id="release", cluster_id="shared", location=LOCATION, **lease)

    for run in (
        lambda: ensure(None, **lease),
        lambda: run_task(submit_job("true", "shared", deferrable=False, **lease)),
        lambda: run_task(release()),
    ):
        with pytest.raises(InvalidArgumentError, match="lease_owner"):
            run()
    assert fake_emulator.calls() == []
