"""A cluster that is shared by its name: found, waited for, made anew, replaced; whoever races."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, until
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec, Resources
from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL, SHARED_LABEL, SPEC_LABEL
from airflow_provider_vertex_ray.errors import (
    ClusterSpecMismatchError,
    InvalidArgumentError,
    ProvisioningTimeoutError,
    QuotaExceededError,
    StockoutError,
)
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.triggers import progress
from tests.operators.builders import COMMON, submit_job
from tests.support.clock import FAR, passing_once
from tests.support.clusters import BODY, LOCATION, SPEC, cluster_ids, submit
from tests.support.meanwhile import meanwhile
from tests.support.tasks import TaskInstance, context_of, may_run_tasks, run_task

BIGGER = ClusterSpec(worker_node_types=[Resources(machine_type="n1-standard-8", node_count=3)])


def ensure(run: str = "run-1", **more: Any) -> dict[str, Any]:
    arguments = {"task_id": "ensure", "shared_name": "etl", "spec": SPEC, "deferrable": False, **COMMON, **more}
    operator = VertexRayCreateClusterOperator(**arguments)
    result: dict[str, Any] = run_task(operator, context_of(operator, TaskInstance("ensure", run_id=run)))
    return result


def generation(emulator: EmulatorProcess, number: int, **more: Any) -> dict[str, Any]:
    """One that somebody else has made."""
    labels = {SHARED_LABEL: "etl", GENERATION_LABEL: str(number), SPEC_LABEL: SPEC.spec_hash()}
    return emulator.create(f"etl-g{number}", {**BODY, "labels": labels, **more})


def test_the_first_one_is_made_and_the_others_attach(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    first = ensure(deferrable=deferrable)
    assert (first["cluster_id"], first["shared_name"], first["generation"]) == ("etl-g1", "etl", 1)
    assert (first["state"], first["lease_owner"]) == ("RUNNING", None)
    assert first["labels"][SHARED_LABEL] == "etl"
    assert first["labels"][SPEC_LABEL] == SPEC.spec_hash()
    second = ensure("run-2", deferrable=deferrable)
    assert second["name"] == first["name"]
    assert cluster_ids(fake_emulator) == ["etl-g1"]


def test_a_template_that_comes_to_nothing_is_no_lease_uri(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    found = ensure(lease_uri="{{ '' }}", deferrable=deferrable)
    assert (found["cluster_id"], found["lease_owner"]) == ("etl-g1", None)


def test_those_who_race_end_on_one_cluster(fake_emulator: EmulatorProcess) -> None:
    with ThreadPoolExecutor(12, initializer=may_run_tasks) as pool:
        found = list(pool.map(lambda number: ensure(f"run-{number}"), range(12)))
    assert {each["cluster_id"] for each in found} == {"etl-g1"}
    assert [call["status"] for call in fake_emulator.calls("CreatePersistentResource")].count(200) == 1


def test_one_that_is_being_made_is_waited_for(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="slow", delay=0.4), ThreadPoolExecutor(1) as pool:
        pool.submit(generation, fake_emulator, 4)
        until(lambda: cluster_ids(fake_emulator) == ["etl-g4"])
        assert ensure()["cluster_id"] == "etl-g4"


def test_the_wait_says_how_long_it_takes_and_what_it_costs(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, task_log: list[str], deferrable: bool
) -> None:
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    prices = {"currency": "EUR", "regions": {LOCATION: {"machines": {"n1-standard-16": 1.0, "n1-standard-8": 0.5}}}}

    def come_up() -> None:
        fake_emulator.admin("POST", "clusters/etl-g1/state", {"state": "RUNNING"})

    with (
        fake_emulator.fault(scope="provisioning", outcome="stuck"),
        meanwhile(come_up, lambda: any("has been PROVISIONING" in line for line in task_log)),
    ):
        ensure(price_table=prices, deferrable=deferrable)
    said = [line for line in task_log if line.startswith("Cluster etl-g1 ")]
    seconds = r"(\d+ min )?\d+ s"
    usual = rf"Cluster etl-g1 has been PROVISIONING for {seconds}; 10 to 20 minutes are usual\. Once RUNNING, its 3 "
    assert said[0] == "Cluster etl-g1 is PROVISIONING"
    assert re.fullmatch(rf"{usual}nodes cost 2\.00 EUR an hour", said[1])
    assert "Cluster etl-g1 is RUNNING" in said
    assert re.fullmatch(rf"Cluster etl-g1 is ready after {seconds}: its dashboard answers at http://\S+", said[-1])


def test_one_that_is_updating_is_used(fake_emulator: EmulatorProcess) -> None:
    generation(fake_emulator, 1)
    with fake_emulator.fault(scope="provisioning", outcome="slow", delay=600.0):
        body = fake_emulator.api("GET", "persistentResources/etl-g1")[1]
        body["resourcePools"][1]["replicaCount"] = "3"
        mask = "persistentResources/etl-g1?updateMask=resource_pools.replica_count"
        assert fake_emulator.api("PATCH", mask, body)[0] == 200
        assert fake_emulator.api("GET", "persistentResources/etl-g1")[1]["state"] == "UPDATING"
        # Autoscaling means UPDATING, for minutes: new work does not wait for its end.
        found = ensure()
        assert (found["cluster_id"], found["state"]) == ("etl-g1", "UPDATING")


def test_one_in_error_is_replaced_and_deleted(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="internal"):
        assert generation(fake_emulator, 1)["state"] == "ERROR"
    assert ensure()["cluster_id"] == "etl-g2"
    assert cluster_ids(fake_emulator) == ["etl-g2"]


def test_a_name_that_is_blocked_after_a_delete_is_passed_over(fake_emulator: EmulatorProcess) -> None:
    for number in (1, 2):
        generation(fake_emulator, number)
        fake_emulator.api("DELETE", f"persistentResources/etl-g{number}")
        until(lambda: cluster_ids(fake_emulator) == [])
    assert ensure()["cluster_id"] == "etl-g3"


def test_one_that_is_being_deleted_is_passed_over(fake_emulator: EmulatorProcess) -> None:
    generation(fake_emulator, 1)
    with fake_emulator.fault(scope="provisioning", outcome="stuck", method="Delete*"):
        fake_emulator.api("DELETE", "persistentResources/etl-g1")
        assert fake_emulator.api("GET", "persistentResources/etl-g1")[1]["state"] == "STOPPING"
        assert ensure()["cluster_id"] == "etl-g2"


def test_one_that_leaked_in_provisioning_and_is_not_listed(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck", delay=0.4), ThreadPoolExecutor(1) as pool:
        pool.submit(generation, fake_emulator, 1)
        until(lambda: fake_emulator.api("GET", "persistentResources/etl-g1")[0] == 200)
        # The list is empty, the create is refused: it is waited for, until it turns to ERROR.
        assert ensure()["cluster_id"] == "etl-g2"


def test_what_fails_here_is_an_error_here_and_leaves_nothing(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="quota"), pytest.raises(QuotaExceededError):
        ensure(deferrable=deferrable)
    assert cluster_ids(fake_emulator) == []
    assert ensure(deferrable=deferrable)["cluster_id"] == "etl-g2"


def test_a_deadline(fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, task_log: list[str]) -> None:
    def fails_at_last() -> None:
        until(lambda: any("cannot be deleted yet: it is PROVISIONING" in line for line in task_log))
        fake_emulator.admin("POST", "clusters/etl-g1/state", {"state": "ERROR"})

    with fake_emulator.fault(scope="provisioning", outcome="stuck"), ThreadPoolExecutor(1) as pool:
        failed = pool.submit(fails_at_last)
        with (
            passing_once(monkeypatch, lambda: "Cluster etl-g1 is PROVISIONING" in task_log),
            pytest.raises(ProvisioningTimeoutError, match="cluster etl-g1 is PROVISIONING"),
        ):
            ensure(provision_timeout=FAR)
        failed.result()
    # It was made here, so it is deleted here, as soon as the service lets it.
    assert cluster_ids(fake_emulator) == []


def test_another_spec_attaches_fails_or_replaces(
    fake_emulator: EmulatorProcess, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure()
    assert ensure(spec=BIGGER)["cluster_id"] == "etl-g1"
    # Airflow 2.11 uses the standard library's logging, 3 its own.
    assert "Cluster etl-g1 does not match the requested spec." in caplog.text + capsys.readouterr().out
    with pytest.raises(ClusterSpecMismatchError, match="etl-g1"):
        ensure(spec=BIGGER, on_spec_mismatch="fail")
    replaced = ensure(spec=BIGGER, on_spec_mismatch="replace")
    assert (replaced["cluster_id"], replaced["node_count"]) == ("etl-g2", 4)
    assert ensure(spec=BIGGER, on_spec_mismatch="replace")["cluster_id"] == "etl-g2"


def test_one_without_our_label_is_judged_by_what_it_is(fake_emulator: EmulatorProcess) -> None:
    labels = {SHARED_LABEL: "etl", GENERATION_LABEL: "7"}
    fake_emulator.create("somehow", {**BODY, "labels": labels})
    assert ensure(on_spec_mismatch="fail")["cluster_id"] == "somehow"
    with pytest.raises(ClusterSpecMismatchError):
        ensure(spec=BIGGER, on_spec_mismatch="fail")


def test_an_old_one_gets_no_new_work_and_goes_when_its_jobs_have_ended(
    fake_emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    ensure()
    submit(fake_emulator, "etl-g1", "long", "sleep 600")
    time_of_birth = time.time()
    until(lambda: time.time() - time_of_birth > 1.1)
    lease = {"lease_uri": storage.uri}
    assert ensure("run-2", max_age=1.0, **lease)["cluster_id"] == "etl-g2"
    assert sorted(cluster_ids(fake_emulator)) == ["etl-g1", "etl-g2"]
    fake_emulator.request("POST", _job(fake_emulator, "etl-g1", "long/stop"), token=fake_emulator.token())
    assert ensure("run-3", max_age=3600.0, **lease)["cluster_id"] == "etl-g2"
    until(lambda: cluster_ids(fake_emulator) == ["etl-g2"])


def _job(emulator: EmulatorProcess, cluster: str, path: str) -> str:
    from tests.support.clusters import dashboard_of

    return f"{dashboard_of(emulator, cluster)}/api/jobs/{path}"


def test_a_rollover_that_fails_goes_on_with_the_old_one(fake_emulator: EmulatorProcess) -> None:
    ensure()
    born = time.time()
    until(lambda: time.time() - born > 1.1)
    with fake_emulator.fault(scope="provisioning", outcome="stockout"), pytest.raises(StockoutError):
        ensure("run-2", max_age=1.0, delete_on_failure=False)
    assert ensure("run-3", max_age=1.0)["cluster_id"] == "etl-g1"
    # The broken one is gone by now, so that the next one tries again.
    assert ensure("run-4", max_age=1.0)["cluster_id"] == "etl-g3"


def test_the_run_holds_the_lease(fake_emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    from airflow_provider_vertex_ray.hooks.lease import VertexRayLeaseHook

    result = ensure("scheduled__1", lease_uri=storage.uri, lease_ttl=100.0)
    assert result["lease_owner"] == "dag/scheduled__1"
    hook = VertexRayLeaseHook(location="us-central1")
    (holder,) = hook.holders(storage.uri, "etl-g1")
    assert holder.owner == "dag/scheduled__1"
    assert holder.expires - holder.since > 100
    assert holder.expires - time.time() <= 120
    hook.release_lease(storage.uri, result["name"], "dag/scheduled__1")
    assert hook.holders(storage.uri, "etl-g1") == []


def test_a_job_whose_shared_cluster_is_going_runs_on_the_next_generation(
    fake_emulator: EmulatorProcess, deferrable: bool
) -> None:
    first = ensure()
    with fake_emulator.fault(scope="provisioning", outcome="stuck", method="Delete*"):
        fake_emulator.api("DELETE", "persistentResources/etl-g1")
    operator = submit_job("echo 'VERTEX_RAY_RESULT 7'", first["name"], deferrable=deferrable)
    result = run_task(operator, context_of(operator))
    assert (result["result"], result["cluster_id"]) == (7, "etl-g2")


def test_a_job_whose_shared_cluster_is_gone_runs_where_the_others_do(fake_emulator: EmulatorProcess) -> None:
    first = ensure()
    fake_emulator.api("DELETE", "persistentResources/etl-g1")
    until(lambda: cluster_ids(fake_emulator) == [])
    ensure()
    operator = submit_job("echo 'VERTEX_RAY_RESULT 7'", first["name"], deferrable=False)
    assert run_task(operator, context_of(operator))["cluster_id"] == "etl-g2"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"shared_name": "Etl"}, "shared_name"),
        ({"shared_name": "e" * 55}, "shared_name"),
        ({"cluster_id": "etl-1"}, "cluster_id"),
        ({"on_spec_mismatch": "ignore"}, "on_spec_mismatch"),
        ({"max_age": 0}, "max_age"),
        ({"max_age": True}, "max_age"),
        ({"lease_uri": "s3://bucket"}, "lease_uri"),
        ({"lease_ttl": -1}, "lease_ttl"),
        ({"shared_name": None, "cluster_id": "own", "max_age": 5.0}, "max_age"),
        ({"shared_name": None, "cluster_id": "own", "lease_uri": "gs://bucket"}, "lease_uri"),
    ],
)
def test_wrong_input_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        VertexRayCreateClusterOperator(
            **{"task_id": "ensure", "shared_name": "etl", "spec": SPEC, **COMMON, **arguments}
        )
