"""The control plane's calls, against the emulator and its faults."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aiohttp import web
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray.core.cluster.client import REPLICA_MASK, REQUEST_LABEL, ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cluster.state import Cluster, ClusterState
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.errors import (
    ClusterExistsError,
    ClusterNotFoundError,
    InvalidRequestError,
    NameNotReusableError,
    NotAuthorisedError,
    PreconditionError,
    QuotaExceededError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    StockoutError,
    UnreadableAnswerError,
    VertexRayError,
)
from tests.support.clusters import BODY, LOCATION, cluster_ids, start
from tests.support.server import QUICK, serving, transport_to

NAME = ClusterName("demo-project", LOCATION, "fresh")
CREATE, GET, UPDATE, DELETE = (f"{verb}PersistentResource" for verb in ("Create", "Get", "Update", "Delete"))


@pytest.fixture
def api(transport: Transport) -> ClustersApi:
    return ClustersApi(transport)


def named(cluster_id: str) -> ClusterName:
    return ClusterName("demo-project", LOCATION, cluster_id)


async def settled(api: ClustersApi, name: ClusterName = NAME, *, seconds: float = 240) -> Cluster:
    """The cluster once nothing goes on with it."""
    end = time.monotonic() + seconds
    while True:
        cluster = await api.get(name)
        if cluster.state in (ClusterState.RUNNING, ClusterState.ERROR):
            return cluster
        assert time.monotonic() < end, cluster
        await asyncio.sleep(0.05)


async def done(api: ClustersApi, operation: str | None) -> dict[str, Any]:
    assert operation is not None
    end = time.monotonic() + 240
    while not (found := await api.operation(LOCATION, operation)).get("done"):
        assert time.monotonic() < end, found
        await asyncio.sleep(0.05)
    return found


async def test_a_cluster_from_create_to_delete(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    operation = await api.create(NAME, {**BODY, "labels": {"team": "a"}})
    assert "/operations/" in str(operation)
    cluster = await settled(api)
    assert cluster.state is ClusterState.RUNNING
    assert cluster.labels["team"] == "a"
    assert cluster.node_count == 3
    assert (await done(api, operation))["response"]["state"] == "RUNNING"
    await done(api, await api.delete(NAME))
    with pytest.raises(ClusterNotFoundError, match="does not exist"):
        await api.get(NAME)
    assert await api.delete(NAME) is None
    assert {call["status"] for call in fake_emulator.calls(CREATE)} == {200}


async def test_a_create_whose_answer_is_lost_makes_one_cluster(
    api: ClustersApi, fake_emulator: EmulatorProcess
) -> None:
    with fake_emulator.fault(scope="control_plane", method=CREATE, action="drop_response"):
        assert await api.create(NAME, BODY) is None
    assert cluster_ids(fake_emulator) == ["fresh"]
    assert len(fake_emulator.calls(CREATE)) == 1
    assert (await settled(api)).state is ClusterState.RUNNING


async def test_create_whose_answer_and_lookup_are_lost_makes_one_cluster(
    api: ClustersApi, fake_emulator: EmulatorProcess
) -> None:
    # The look fails too: then the second try finds the id in use, by the first.
    with (
        fake_emulator.fault(scope="control_plane", method=CREATE, action="drop_response"),
        fake_emulator.fault(scope="control_plane", method=GET, action="status", code="NOT_FOUND"),
    ):
        assert await api.create(NAME, BODY) is None
    assert [call["status"] for call in fake_emulator.calls(CREATE)] == [0, 409]
    assert cluster_ids(fake_emulator) == ["fresh"]


@pytest.mark.parametrize("fault", [{"action": "reset"}, {"status": 503}, {"status": 429}])
async def test_create_that_was_not_received_is_repeated(
    api: ClustersApi, fake_emulator: EmulatorProcess, fault: dict[str, Any]
) -> None:
    with fake_emulator.fault(scope="control_plane", method=CREATE, times=2, **fault):
        assert await api.create(NAME, BODY) is not None
    assert len(fake_emulator.calls(CREATE)) == 3


@pytest.mark.parametrize("fault", [{"action": "reset"}, {"status": 503}, {"status": 429}])
async def test_existing_cluster_of_same_id_is_not_mistaken_for_ours(
    api: ClustersApi, fake_emulator: EmulatorProcess, fault: dict[str, Any]
) -> None:
    start(fake_emulator, "fresh")
    with (
        fake_emulator.fault(scope="control_plane", method=CREATE, **fault),
        pytest.raises(ClusterExistsError, match="existing PersistentResource with the same ID"),
    ):
        await api.create(NAME, BODY)


async def test_a_service_that_stays_down(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    with (
        fake_emulator.fault(scope="control_plane", method=CREATE, times=None, status=503),
        pytest.raises(ServiceUnavailableError, match="injected"),
    ):
        await api.create(NAME, BODY)
    assert len(fake_emulator.calls(CREATE)) == 5
    assert cluster_ids(fake_emulator) == []


async def test_each_create_has_a_label_of_its_own_and_keeps_the_callers(
    api: ClustersApi, fake_emulator: EmulatorProcess
) -> None:
    body = {**BODY, "labels": {"team": "a"}}
    await api.create(NAME, body)
    await api.create(named("other"), body)
    labels = [(await api.get(name)).labels for name in (NAME, named("other"))]
    assert [sorted(each) for each in labels] == [["team", REQUEST_LABEL]] * 2
    assert labels[0][REQUEST_LABEL] != labels[1][REQUEST_LABEL]
    assert body["labels"] == {"team": "a"}


async def test_a_name_in_use(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "fresh")
    with pytest.raises(ClusterExistsError, match=r"existing PersistentResource.*Choose another cluster_id"):
        await api.create(NAME, BODY)
    assert len(fake_emulator.calls(CREATE)) == 2


async def test_id_of_deleted_cluster_is_not_reusable(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    start(fake_emulator, "gone")
    await done(api, await api.delete(named("gone")))
    with pytest.raises(NameNotReusableError, match=r"deleted recently.*Try again later, or use another id"):
        await api.create(named("gone"), BODY)


async def test_a_spec_that_the_service_refuses(api: ClustersApi) -> None:
    with pytest.raises(InvalidRequestError, match="nothing was changed"):
        await api.create(NAME, {**BODY, "resourcePools": []})


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"code": "PERMISSION_DENIED"}, NotAuthorisedError),
        ({"status": 429, "message": "Quota exceeded for quota metric 'x'"}, QuotaExceededError),
        ({"status": 500}, ServiceError),
        ({"status": 504}, ServiceUnavailableError),
        ({"code": "FAILED_PRECONDITION"}, PreconditionError),
    ],
)
async def test_refusals_have_types(
    api: ClustersApi, fake_emulator: EmulatorProcess, fault: dict[str, Any], kind: type[VertexRayError]
) -> None:
    with fake_emulator.fault(scope="control_plane", method=GET, times=None, **fault), pytest.raises(kind):
        await api.get(NAME)


async def test_too_many_requests(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    with (
        fake_emulator.fault(scope="control_plane", method=GET, times=None, status=429),
        pytest.raises(RateLimitedError, match="Increase poll_interval"),
    ):
        await api.get(NAME)
    assert len(fake_emulator.calls(GET)) == QUICK.attempts


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        ("quota", QuotaExceededError, "CustomModelTrainingCPUsPerProjectPerRegion"),
        ("stockout", StockoutError, "another machine type"),
        ("internal", VertexRayError, "An internal error occurred"),
    ],
)
async def test_why_a_cluster_did_not_come_up(
    api: ClustersApi, fake_emulator: EmulatorProcess, outcome: str, kind: type[VertexRayError], text: str
) -> None:
    with fake_emulator.fault(scope="provisioning", outcome=outcome):
        operation = await api.create(NAME, BODY)
        cluster = await settled(api)
    assert cluster.state is ClusterState.ERROR
    assert isinstance(cluster.failure(), kind)
    assert text in str(cluster.failure())
    assert (await done(api, operation))["error"]["message"] == cluster.error_message


async def test_all_pages_of_a_list(
    api: ClustersApi, fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"c{n}" for n in range(5)]
    for cluster_id in ids:
        start(fake_emulator, cluster_id)
    fake_emulator.admin("DELETE", "calls")
    found = await api.list_all("demo-project", LOCATION, page_size=2)
    assert [cluster.cluster_id for cluster in found] == ids
    assert len(fake_emulator.calls("ListPersistentResources")) == 3
    assert await api.list_all("demo-project", "europe-west4") == []


async def test_what_a_resize_sends() -> None:
    async with serving(web.json_response({"name": "op"})) as server, transport_to(server) as transport:
        pools = [{"id": "p", "replicaCount": "4"}]
        assert await ClustersApi(transport).resize(NAME, pools) == "op"
        ((method, path, _, sent),) = server.requests
    assert method == "PATCH"
    assert path.endswith(f"/persistentResources/fresh?updateMask={REPLICA_MASK}")
    assert json.loads(sent) == {"name": NAME.full, "resourcePools": pools}


def pools_with(cluster: Cluster, workers: int) -> list[dict[str, Any]]:
    head, worker = cluster.resource["resourcePools"]
    return [head, {**worker, "replicaCount": str(workers)}]


async def test_a_resize(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    name = named(start(fake_emulator))
    operation = await api.resize(name, pools_with(await api.get(name), 4))
    await done(api, operation)
    assert (await api.get(name)).node_count == 5


async def test_a_resize_whose_answer_is_lost(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    name = named(start(fake_emulator))
    pools = pools_with(await api.get(name), 4)
    # The resize goes on while the second try comes: the service refuses that one.
    with (
        fake_emulator.fault(scope="provisioning", method=UPDATE, outcome="stuck", delay=600),
        fake_emulator.fault(scope="control_plane", method=UPDATE, action="drop_response"),
    ):
        assert await api.resize(name, pools) is None
    assert [call["status"] for call in fake_emulator.calls(UPDATE)] == [0, 400]


async def test_a_resize_of_a_cluster_that_is_being_resized_by_others(
    api: ClustersApi, fake_emulator: EmulatorProcess
) -> None:
    name = named(start(fake_emulator))
    cluster = await api.get(name)
    with fake_emulator.fault(scope="provisioning", method=UPDATE, outcome="stuck", delay=600):
        await api.resize(name, pools_with(cluster, 4))
        with pytest.raises(PreconditionError, match="UPDATING"):
            await api.resize(name, pools_with(cluster, 3))


async def test_no_delete_while_provisioning(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    with fake_emulator.fault(scope="provisioning", outcome="stuck", delay=600):
        await api.create(NAME, BODY)
        with pytest.raises(PreconditionError, match="is being created thus can not be deleted now"):
            await api.delete(NAME)


async def test_interrupted_answer_is_requested_again(api: ClustersApi, fake_emulator: EmulatorProcess) -> None:
    name = named(start(fake_emulator))
    with fake_emulator.fault(scope="control_plane", method=GET, action="truncate", after=20):
        assert (await api.get(name)).state is ClusterState.RUNNING


async def test_an_error_that_is_no_json() -> None:
    async with serving(web.Response(status=404, text="<html>404</html>")) as server, transport_to(server) as transport:
        # A page that a proxy lacks says nothing about the cluster.
        with pytest.raises(UnreadableAnswerError, match="The Vertex AI API answered 404: <html>"):
            await ClustersApi(transport).get(NAME)
