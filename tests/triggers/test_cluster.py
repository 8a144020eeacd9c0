"""Waiting for clusters, and how the waits end."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, until

from airflow_provider_vertex_ray.errors import (
    ClusterFailedError,
    ClusterNotFoundError,
    DashboardNotReadyError,
    NotARayClusterError,
    NotAuthorisedError,
    OperationTimeoutError,
    ProvisioningTimeoutError,
    QuotaExceededError,
    ResizeFailedError,
    StockoutError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers import cluster as module
from airflow_provider_vertex_ray.triggers import progress
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.cluster import (
    ClusterTrigger,
    VertexRayClusterDeleteTrigger,
    VertexRayClusterReadyTrigger,
    VertexRayClusterResizeTrigger,
    VertexRayClusterStateTrigger,
)
from tests.support.clusters import BODY, cluster_ids, full_name, start
from tests.support.tasks import first_event

READY, DELETE, RESIZE, STATE = (
    VertexRayClusterReadyTrigger,
    VertexRayClusterDeleteTrigger,
    VertexRayClusterResizeTrigger,
    VertexRayClusterStateTrigger,
)


def begin(emulator: EmulatorProcess, cluster_id: str = "shared") -> str:
    """Start a create and do not wait; gives the operation's name."""
    status, operation = emulator.api("POST", f"persistentResources?persistentResourceId={cluster_id}", BODY)
    assert status == 200, operation
    return str(operation["name"])


def trigger(kind: type[ClusterTrigger], *, seconds: float | None = PATIENCE, **arguments: Any) -> ClusterTrigger:
    deadline = None if seconds is None else time.time() + seconds
    return kind(**{"cluster_name": full_name("shared"), "poll_interval": 0.02, "deadline": deadline, **arguments})


async def outcome(kind: type[ClusterTrigger], **arguments: Any) -> dict[str, Any]:
    return result_of(await asyncio.wait_for(first_event(trigger(kind, **arguments)), PATIENCE))


# --- ready ------------------------------------------------------------------------------------------------------------


async def test_ready_requires_an_answering_dashboard(fake_emulator: EmulatorProcess) -> None:
    operation = begin(fake_emulator)
    with fake_emulator.fault(scope="dashboard", method="GET /api/version", status=524, times=3):
        result = await outcome(READY, operation=operation)
    assert (result["state"], result["node_count"]) == ("RUNNING", 3)
    assert [call["status"] for call in fake_emulator.calls("GET /api/version")][-4:] == [524, 524, 524, 200]


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ({"outcome": "quota"}, QuotaExceededError, "CustomModelTrainingCPUsPerProjectPerRegion"),
        ({"outcome": "stockout"}, StockoutError, "does not have enough resources"),
        ({"outcome": "internal"}, ClusterFailedError, "internal error"),
        # Codes that in an answer would mean "try again" are final here.
        ({"outcome": "quota", "message": "all out"}, ClusterFailedError, "all out"),
        ({"outcome": "internal", "code": "UNAVAILABLE", "message": "gone"}, ClusterFailedError, "gone"),
    ],
)
async def test_failed_creation_has_a_typed_error(
    fake_emulator: EmulatorProcess, fault: dict[str, Any], kind: type[VertexRayError], text: str
) -> None:
    with fake_emulator.fault(scope="provisioning", **fault):
        operation = begin(fake_emulator)
        with pytest.raises(kind, match=text) as caught:
            await outcome(READY, operation=operation)
    assert type(caught.value) is kind


PRICES = {"currency": "USD", "regions": {"us-central1": {"machines": {"n1-standard-16": 1.0, "n1-standard-8": 0.525}}}}


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        (None, "are billed; a price_table lets this line tell the amount"),
        (PRICES, r"cost 2\.05 USD an hour"),
        ({"currency": "USD", "regions": {}}, r"are billed; the price_table has no price for n1-standard-16 in .*"),
    ],
)
async def test_slow_creation_says_how_long_it_takes(
    fake_emulator: EmulatorProcess,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    prices: dict[str, Any] | None,
    cost: str,
) -> None:
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0.0)
    logger = logging.getLogger("tests.slow_creation")
    monkeypatch.setattr(READY, "log", logger, raising=False)
    start(fake_emulator)
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "PROVISIONING"})

    def come_up() -> None:
        until(lambda: len(fake_emulator.calls("GetPersistentResource")) >= 3)
        fake_emulator.admin("POST", "clusters/shared/state", {"state": "RUNNING"})

    fake_emulator.admin("DELETE", "calls")
    with caplog.at_level(logging.INFO, logger.name):
        await asyncio.gather(outcome(READY, prices=prices), asyncio.to_thread(come_up))
    said = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert said[0] == "Cluster shared is PROVISIONING"
    seconds = r"(\d+ min )?\d+ s"
    usual = rf"Cluster shared has been PROVISIONING for {seconds}; 10 to 20 minutes are usual\. Once RUNNING, its 3 "
    assert re.fullmatch(rf"{usual}nodes {cost}", said[1])
    assert re.fullmatch(rf"Cluster shared is ready after {seconds}: its dashboard answers at http://\S+", said[-1])


async def test_stuck_creation_ends_at_the_deadline(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        operation = begin(fake_emulator)
        with pytest.raises(ProvisioningTimeoutError, match=r"its state is PROVISIONING.*ncrease provision_timeout"):
            await outcome(READY, operation=operation, seconds=0.2)


@pytest.mark.parametrize("status", [302, 401, 403, 404, 502, 524])
async def test_dashboard_that_denies_access_at_first_is_waited_for(
    fake_emulator: EmulatorProcess, quick_retries: None, status: int
) -> None:
    start(fake_emulator)
    # Two answers of 401 are one look: the request is repeated with a new token.
    with fake_emulator.fault(scope="dashboard", method="GET /api/version", status=status, times=4):
        assert (await outcome(READY))["state"] == "RUNNING"


async def test_dashboard_that_denies_access_for_good_says_so(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with (
        fake_emulator.fault(scope="dashboard", method="GET /api/version", status=403, times=None),
        pytest.raises(DashboardNotReadyError, match=r"answered 403(.|\n)*roles/aiplatform\.user"),
    ):
        await outcome(READY, dashboard_timeout=0.1)


async def test_cluster_that_autoscales_is_ready(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "UPDATING"})
    assert (await outcome(READY))["state"] == "UPDATING"


async def test_silent_dashboard_ends_at_its_timeout(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="dashboard", status=503, times=None):
        with pytest.raises(DashboardNotReadyError, match=r"did not answer for 0 s|n1-standard-16"):
            await outcome(READY, dashboard_timeout=0.1)
        # The whole wait's deadline ends it as well, and says what was missing.
        with pytest.raises(DashboardNotReadyError, match=r"its state is RUNNING"):
            await outcome(READY, seconds=0.1)


async def test_new_cluster_may_be_invisible_for_a_while(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(fake_emulator)
    fault = {"scope": "control_plane", "method": "GetPersistentResource", "code": "NOT_FOUND"}
    with fake_emulator.fault(**fault, times=3):
        assert (await outcome(READY, created_at=time.time()))["state"] == "RUNNING"
    monkeypatch.setattr(module, "NOT_FOUND_GRACE", 0.1)
    with fake_emulator.fault(**fault, times=None), pytest.raises(ClusterNotFoundError):
        await outcome(READY, created_at=time.time())
    with fake_emulator.fault(**fault, times=1), pytest.raises(ClusterNotFoundError):
        await outcome(READY)


async def test_deleted_cluster_ends_the_wait(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "STOPPING"})
    with pytest.raises(ClusterFailedError, match="is being deleted"):
        await outcome(READY)


async def test_resource_without_ray_does_not_become_ready(fake_emulator: EmulatorProcess) -> None:
    fake_emulator.create("shared", {"resourcePools": BODY["resourcePools"]})
    with pytest.raises(NotARayClusterError):
        await outcome(READY)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"action": "reset"}])
async def test_transient_errors_do_not_end_the_wait(
    fake_emulator: EmulatorProcess, quick_retries: None, fault: dict[str, Any]
) -> None:
    # More of them in a row than one call takes.
    start(fake_emulator)
    with fake_emulator.fault(scope="control_plane", method="GetPersistentResource", times=15, **fault):
        assert (await outcome(READY))["state"] == "RUNNING"


async def test_lost_permission_ends_the_wait(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="auth", times=None, status=403), pytest.raises(NotAuthorisedError):
        await outcome(READY)


# --- delete -----------------------------------------------------------------------------------------------------------


async def test_delete_waits_until_the_cluster_is_gone(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    expected = {"cluster_id": "shared", "name": full_name("shared")}
    assert await outcome(DELETE) == {**expected, "existed": True}
    assert cluster_ids(fake_emulator) == []
    assert await outcome(DELETE) == {**expected, "existed": False}


async def test_delete_waits_until_provisioning_is_over(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        begin(fake_emulator)
        work = asyncio.create_task(outcome(DELETE))
        while len(fake_emulator.calls("DeletePersistentResource")) < 2:
            assert not work.done(), work.result()
            await asyncio.sleep(0.02)
        await asyncio.to_thread(fake_emulator.admin, "POST", "clusters/shared/state", {"state": "RUNNING"})
        assert (await work)["existed"] is True
    statuses = [call["status"] for call in fake_emulator.calls("DeletePersistentResource")]
    assert statuses == [400] * (len(statuses) - 1) + [200]


async def test_delete_joins_one_in_progress(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    results = await asyncio.gather(*(outcome(DELETE) for _ in range(3)))
    assert [result["cluster_id"] for result in results] == ["shared"] * 3
    statuses = [call["status"] for call in fake_emulator.calls("DeletePersistentResource")]
    assert statuses.count(200) == 1


@pytest.mark.parametrize("action", ["drop_response", "reset"])
async def test_delete_survives_a_lost_response(fake_emulator: EmulatorProcess, action: str) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="control_plane", method="DeletePersistentResource", action=action):
        assert (await outcome(DELETE))["existed"] is True


async def test_failed_cluster_is_deleted(fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stockout"):
        fake_emulator.create("shared", BODY)
    assert (await outcome(DELETE))["existed"] is True
    assert cluster_ids(fake_emulator) == []


async def test_delete_ends_at_the_deadline(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    stuck = fake_emulator.fault(scope="provisioning", method="DeletePersistentResource", outcome="stuck")
    with stuck, pytest.raises(OperationTimeoutError, match=r"its deletion continues.*may still incur charges"):
        await outcome(DELETE, seconds=0.2)
    fake_emulator.reset()
    with fake_emulator.fault(scope="provisioning", outcome="stuck"):
        begin(fake_emulator)
        with pytest.raises(OperationTimeoutError, match=r"Vertex AI rejected its deletion: .* is being created thus"):
            await outcome(DELETE, seconds=0.2)


# --- resize -----------------------------------------------------------------------------------------------------------


def patch(emulator: EmulatorProcess, workers: int) -> str:
    pools = emulator.api("GET", "persistentResources/shared")[1]["resourcePools"]
    body = {"resourcePools": [pools[0], {**pools[1], "replicaCount": str(workers)}]}
    status, operation = emulator.api(
        "PATCH", "persistentResources/shared?updateMask=resource_pools.replica_count", body
    )
    assert status == 200, operation
    return str(operation["name"])


async def test_resize_ends_when_ray_has_the_nodes(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    result = await outcome(RESIZE, replicas={"worker-pool1": 4}, operation=patch(fake_emulator, 4))
    assert (result["node_count"], result["live_nodes"]) == (5, 5)
    assert result["pools"]["worker-pool1"]["replicas"] == 4


async def test_resize_with_a_missing_node_ends_at_the_deadline(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="provisioning", method="UpdatePersistentResource", outcome="partial"):
        operation = patch(fake_emulator, 4)
        fake_emulator.wait({"name": operation})
        with pytest.raises(ResizeFailedError, match="Ray reports 4 nodes as alive, and 5 are expected") as caught:
            await outcome(RESIZE, replicas={"worker-pool1": 4}, operation=operation, seconds=0.2)
    assert caught.value.details["wanted"] == {"worker-pool1": 4}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"outcome": "quota"}, QuotaExceededError),
        ({"outcome": "stockout"}, StockoutError),
        ({"outcome": "quota", "message": "all out"}, VertexRayError),
    ],
)
async def test_failed_resize_has_a_typed_error(
    fake_emulator: EmulatorProcess, fault: dict[str, Any], kind: type[VertexRayError]
) -> None:
    start(fake_emulator)
    with fake_emulator.fault(scope="provisioning", method="UpdatePersistentResource", **fault):
        operation = patch(fake_emulator, 4)
        with pytest.raises(kind) as caught:
            await outcome(RESIZE, replicas={"worker-pool1": 4}, operation=operation)
    # At once, by the operation's error, not by the deadline.
    assert not isinstance(caught.value, ResizeFailedError)


async def test_resize_ends_when_the_cluster_fails(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "ERROR"})
    with pytest.raises(ClusterFailedError):
        await outcome(RESIZE, replicas={"worker-pool1": 4})


async def test_reverted_resize_ends_at_the_deadline(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with pytest.raises(ResizeFailedError, match=r"Vertex AI reports .*'worker-pool1': 2"):
        await outcome(RESIZE, replicas={"worker-pool1": 4}, seconds=0.2)


# --- a state ----------------------------------------------------------------------------------------------------------


async def test_state_trigger_returns_the_cluster(fake_emulator: EmulatorProcess) -> None:
    begin(fake_emulator)
    assert (await outcome(STATE, states=["RUNNING"]))["state"] == "RUNNING"
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "ERROR"})
    assert (await outcome(STATE, states=["RUNNING", "ERROR"]))["state"] == "ERROR"
    with pytest.raises(ClusterFailedError):
        await outcome(STATE, states=["RUNNING"])


async def test_state_trigger_ends_at_the_deadline(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    with pytest.raises(OperationTimeoutError, match="Timed out waiting for cluster shared"):
        await outcome(STATE, states=["STOPPING"], seconds=0.1)


async def test_polls_follow_the_interval(fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator)
    fake_emulator.admin("DELETE", "calls")
    begun = time.monotonic()
    work = asyncio.create_task(outcome(STATE, states=["STOPPING"], poll_interval=0.2))
    await asyncio.to_thread(until, lambda: len(fake_emulator.calls("GetPersistentResource")) >= 3, "it does not ask")
    fake_emulator.admin("POST", "clusters/shared/state", {"state": "STOPPING"})
    await work
    assert len(fake_emulator.calls("GetPersistentResource")) <= 2 + (time.monotonic() - begun) / 0.2
