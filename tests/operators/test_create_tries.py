"""Creates that go on: with another id while the service blocks one, and in another region for lack of capacity."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.core.cluster.tries import REQUESTED_LABEL, id_of_try
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterFailedError,
    InvalidArgumentError,
    ProvisioningTimeoutError,
    QuotaExceededError,
    StockoutError,
)
from airflow_provider_vertex_ray.links.base import LINK_KEY
from airflow_provider_vertex_ray.operators import cluster_clean_up
from airflow_provider_vertex_ray.operators.idle import VertexRayDeleteIdleClustersOperator
from tests.operators.builders import create, delete, submit_job
from tests.support.clusters import LOCATION, SPEC, cluster_ids, start
from tests.support.meanwhile import meanwhile
from tests.support.tasks import TaskInstance, context_of, deferral_of, first_event, round_trip, run_task

EAST, WEST = "us-east1", "us-west1"


def try_of(operator: Any, number: int, **more: Any) -> Any:
    return context_of(operator, TaskInstance(operator.task_id, try_number=number, max_tries=3, **more))


def gone(emulator: EmulatorProcess, cluster_id: str) -> None:
    """A cluster of somebody else that was deleted a moment ago."""
    start(emulator, cluster_id)
    emulator.wait(emulator.api("DELETE", f"persistentResources/{cluster_id}")[1])


def state_in(emulator: EmulatorProcess, location: str, cluster_id: str) -> int:
    name = f"projects/{emulator.project}/locations/{location}/persistentResources/{cluster_id}"
    return emulator.api("GET", name)[0]


# --- ids --------------------------------------------------------------------------------------------------------------


def test_ids_of_tries_are_valid_and_differ() -> None:
    assert [id_of_try("etl", number) for number in (1, 2, 13)] == ["etl", "etl-2", "etl-13"]
    longest = "a" * 61 + "-b"
    ids = [id_of_try(longest, number) for number in range(1, 31)]
    assert len(set(ids)) == 30
    assert all(len(each) <= 63 for each in ids)
    assert ids[1] == "a" * 61 + "-2"
    assert id_of_try("a" * 60 + "--b", 2) == "a" * 60 + "-2"


@pytest.mark.parametrize("outcome", ["stockout", "quota", "internal"])
def test_retry_after_a_failed_create_makes_a_cluster(
    fake_emulator: EmulatorProcess, deferrable: bool, outcome: str
) -> None:
    with (
        fake_emulator.fault(scope="provisioning", outcome=outcome, times=1),
        pytest.raises((StockoutError, QuotaExceededError, ClusterFailedError)),
    ):
        run_task(create(deferrable=deferrable), try_of(create(), 1))
    operator = create(deferrable=deferrable)
    context = try_of(operator, 2)
    result = run_task(operator, context)
    assert (result["cluster_id"], result["state"]) == ("made-2", "RUNNING")
    assert result["labels"][REQUESTED_LABEL] == "made"
    assert context["ti"].xcoms[LINK_KEY]["cluster_id"] == "made-2"
    assert cluster_ids(fake_emulator) == ["made-2"]


def test_cleared_task_makes_a_cluster_again(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    operator = create(deferrable=deferrable)
    for number, cluster_id in ((1, "made"), (2, "made-2"), (3, "made-3")):
        result = run_task(operator, try_of(operator, number))
        assert result["cluster_id"] == cluster_id
        run_task(delete(result["name"], deferrable=False))
    assert cluster_ids(fake_emulator) == []


def test_id_that_is_blocked_in_the_first_try_is_passed_over(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    gone(fake_emulator, "made")
    gone(fake_emulator, "made-2")
    assert run_task(create(deferrable=deferrable))["cluster_id"] == "made-3"


def test_retry_goes_on_with_the_cluster_of_the_earlier_try(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    gone(fake_emulator, "made")
    # The first try is lost after the create.
    deferral_of(create(deferrable=True))
    until(lambda: cluster_ids(fake_emulator) == ["made-2"])
    requests = len(fake_emulator.calls("CreatePersistentResource"))
    operator = create(deferrable=deferrable)
    assert run_task(operator, try_of(operator, 2))["cluster_id"] == "made-2"
    # The id that was asked for may be free again by now: to ask for it would make a second cluster.
    assert len(fake_emulator.calls("CreatePersistentResource")) == requests
    assert cluster_ids(fake_emulator) == ["made-2"]


def test_cluster_of_another_run_is_never_used(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    gone(fake_emulator, "made")
    first = create(deferrable=False)
    assert run_task(first, try_of(first, 1, run_id="yesterday"))["cluster_id"] == "made-2"
    second = create(deferrable=deferrable)
    assert run_task(second, try_of(second, 2))["cluster_id"] == "made-3"
    start(fake_emulator, "other")
    with pytest.raises(ClusterExistsError, match="cluster_id='other'"):
        run_task(create("other", deferrable=deferrable))


def test_failed_cluster_that_was_kept_is_not_waited_for_again(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="internal", times=1), pytest.raises(ClusterFailedError):
        run_task(create(deferrable=deferrable, delete_on_failure=False), try_of(create(), 1))
    until(lambda: fake_emulator.api("GET", "persistentResources/made")[1]["state"] == "ERROR")
    kept = create(deferrable=deferrable, delete_on_failure=False)
    assert run_task(kept, try_of(kept, 2))["cluster_id"] == "made-2"
    assert cluster_ids(fake_emulator) == ["made", "made-2"]


def test_tasks_that_name_the_id_follow(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    gone(fake_emulator, "made")
    assert run_task(create(deferrable=False))["cluster_id"] == "made-2"
    assert run_task(submit_job("echo hello", "made", deferrable=deferrable))["cluster_id"] == "made-2"
    # Another run's delete of the same id must not touch it.
    other = delete("made", deferrable=deferrable)
    assert run_task(other, context_of(other, TaskInstance("delete", run_id="other")))["existed"] is False
    assert cluster_ids(fake_emulator) == ["made-2"]
    assert run_task(delete("made", deferrable=deferrable))["existed"] is True
    assert cluster_ids(fake_emulator) == []


# --- the clean-up ---------------------------------------------------------------------------------------------------


def test_clean_up_has_six_hours_in_the_triggerer(
    fake_emulator: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster_clean_up.CLEAN_UP_TIMEOUT >= 6 * 3600
    # An hour in the worker would be too expensive for a task that waits for PROVISIONING to end.
    monkeypatch.setattr(cluster_clean_up, "CLEAN_UP_IN_WORKER", 0.1)
    operator = create(deferrable=deferrable, provision_timeout=0.1)
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context_of(operator))
        if deferrable:
            assert deferred.value.method_name == "execute_complete"
            return
        assert deferred.value.method_name == "clean_up_complete"
        assert deferred.value.trigger.arguments["deadline"] > time.time() + 5 * 3600


def test_provisioning_that_outlasts_the_worker_s_part_leaves_nothing(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_clean_up, "CLEAN_UP_IN_WORKER", 0.1)
    operator = create(deferrable=False, provision_timeout=0.1)
    context = context_of(operator)
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        deferral = deferral_of(operator, context)
    assert cluster_ids(fake_emulator) == ["made"]
    fake_emulator.admin("POST", "clusters/made/state", {"state": "ERROR"})
    event = asyncio.run(first_event(round_trip(deferral.trigger)))
    with pytest.raises(ProvisioningTimeoutError, match="its state is PROVISIONING"):
        getattr(operator, deferral.method_name)(context, event=event, **(deferral.kwargs or {}))
    assert cluster_ids(fake_emulator) == []


def test_reaper_finds_what_the_clean_up_missed(
    fake_emulator: EmulatorProcess, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_clean_up, "CLEAN_UP_TIMEOUT", 0.1)
    fault = {"scope": "provisioning", "outcome": "stuck"}
    with fake_emulator.fault(**fault), pytest.raises(ProvisioningTimeoutError, match="It may still incur charges"):
        run_task(create(deferrable=deferrable, provision_timeout=0.1))
    fake_emulator.admin("POST", "clusters/made/state", {"state": "RUNNING"})
    reaper = VertexRayDeleteIdleClustersOperator(
        task_id="reap", location=LOCATION, idle_for=0.01, poll_interval=0.05, deferrable=deferrable
    )
    until(lambda: run_task(reaper)["deleted"] == ["made"], what="the reaper keeps it")
    assert cluster_ids(fake_emulator) == []


# --- regions --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lack_of_capacity(emulator: EmulatorProcess, outcome: str = "stockout") -> Iterator[None]:
    """In the first region. In the next one the creation takes until the remains are deleted."""

    def come_up() -> None:
        emulator.admin("POST", "clusters/made/state", {"state": "RUNNING"})

    with (
        emulator.fault(scope="provisioning", outcome=outcome, times=1),
        emulator.fault(scope="provisioning", outcome="stuck", times=1),
        meanwhile(
            come_up,
            lambda: state_in(emulator, WEST, "made") == 200,
            lambda: state_in(emulator, EAST, "made") == 404,
        ),
    ):
        yield


@pytest.mark.parametrize("outcome", ["stockout", "quota"])
def test_next_region_is_used_for_lack_of_capacity(
    fake_emulator: EmulatorProcess, deferrable: bool, outcome: str
) -> None:
    operator = create(deferrable=deferrable, location=None, locations=[EAST, WEST])
    context = context_of(operator)
    with lack_of_capacity(fake_emulator, outcome):
        result = run_task(operator, context)
    assert (result["location"], result["cluster_id"], result["state"]) == (WEST, "made", "RUNNING")
    assert context["ti"].xcoms[LINK_KEY]["location"] == WEST
    # Links and later tasks go by the result.
    assert run_task(submit_job("echo hello", result["name"], location=None, deferrable=False))["cluster_id"] == "made"


def test_answer_to_the_create_may_be_the_stockout(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    fault = {
        "scope": "control_plane",
        "method": "CreatePersistentResource",
        "status": 429,
        "code": "RESOURCE_EXHAUSTED",
    }
    texts = (
        "The following quotas are exceeded: CustomModelTrainingT4GPUsPerProjectPerRegion",
        "The zone does not have enough resources available",
    )
    for number, text in enumerate(texts):
        with fake_emulator.fault(**fault, message=text, times=1):
            operator = create(f"made{number}", deferrable=deferrable, location=None, locations=[EAST, WEST])
            assert run_task(operator)["location"] == WEST


def test_no_region_has_capacity(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    operator = create(deferrable=deferrable, location=None, locations=[EAST, WEST, LOCATION])
    with fake_emulator.fault(scope="provisioning", outcome="stockout", times=3), pytest.raises(StockoutError):
        run_task(operator)
    assert cluster_ids(fake_emulator) == []
    assert len(fake_emulator.calls("CreatePersistentResource")) == 3


def test_other_failures_do_not_try_the_next_region(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    operator = create(deferrable=deferrable, location=None, locations=[EAST, WEST])
    with fake_emulator.fault(scope="provisioning", outcome="internal", times=1), pytest.raises(ClusterFailedError):
        run_task(operator)
    assert len(fake_emulator.calls("CreatePersistentResource")) == 1


def test_retry_finds_its_cluster_in_any_region(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    with lack_of_capacity(fake_emulator):
        result = run_task(create(deferrable=False, location=None, locations=[EAST, WEST]))
    assert result["location"] == WEST
    operator = create(deferrable=deferrable, location=None, locations=[EAST, WEST])
    assert run_task(operator, try_of(operator, 2))["location"] == WEST
    assert cluster_ids(fake_emulator) == ["made"]


def test_shared_cluster_moves_to_the_next_region_and_stays_there(
    fake_emulator: EmulatorProcess, deferrable: bool
) -> None:
    shared = {"cluster_id": None, "shared_name": "etl", "location": None, "locations": [EAST, WEST]}
    with fake_emulator.fault(scope="provisioning", outcome="stockout", times=1):
        result = run_task(create(**shared, deferrable=deferrable))
    assert (result["location"], result["cluster_id"]) == (WEST, "etl-g1")
    # The next run uses it, though the first region has capacity again.
    again = create(**shared, deferrable=deferrable)
    found = run_task(again, context_of(again, TaskInstance("create", run_id="tomorrow")))
    assert (found["location"], found["cluster_id"]) == (WEST, "etl-g1")
    assert len(fake_emulator.calls("CreatePersistentResource")) == 2


def test_shared_cluster_in_no_region(fake_emulator: EmulatorProcess, deferrable: bool) -> None:
    operator = create(cluster_id=None, shared_name="etl", location=None, locations=[EAST, WEST], deferrable=deferrable)
    with fake_emulator.fault(scope="provisioning", outcome="quota", times=2), pytest.raises(QuotaExceededError):
        run_task(operator)
    assert cluster_ids(fake_emulator) == []
    assert len(fake_emulator.calls("CreatePersistentResource")) == 2


@pytest.mark.parametrize(
    ("locations", "field"),
    [
        ([], "locations"),
        (EAST, "locations"),
        ([EAST, "us-east1-b"], r"locations\[1\]"),
        ([EAST, EAST], r"locations\[1\]"),
    ],
)
def test_malformed_locations_are_rejected_at_parse(locations: Any, field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        create(locations=locations)


def test_spec_must_fit_each_region(fake_emulator: EmulatorProcess) -> None:
    key = f"projects/p/locations/{EAST}/keyRings/r/cryptoKeys/k"
    spec = ClusterSpec(worker_node_types=SPEC.worker_node_types, encryption_spec_key_name=key)
    with pytest.raises(InvalidArgumentError, match="encryption_spec_key_name"):
        run_task(create(spec=spec, locations=[EAST, WEST], deferrable=False))
    with pytest.raises(InvalidArgumentError, match="cluster_id"):
        run_task(create(f"projects/p/locations/{EAST}/persistentResources/x", locations=[EAST, WEST], deferrable=False))
    assert fake_emulator.calls() == []
