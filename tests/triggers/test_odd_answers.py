"""One odd answer ends no wait, and none is ever taken for "no jobs"."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.job.client import JobRequest
from airflow_provider_vertex_ray.core.sharing.idle_policy import LONGEST_GAP
from airflow_provider_vertex_ray.errors import ClusterInUseError
from airflow_provider_vertex_ray.hooks.cluster import VertexRayClusterAsyncHook
from airflow_provider_vertex_ray.hooks.job import VertexRayJobAsyncHook
from airflow_provider_vertex_ray.triggers.cluster import (
    VertexRayClusterReadyTrigger,
    VertexRayClusterStateTrigger,
)
from airflow_provider_vertex_ray.triggers.idle import VertexRayClusterIdleTrigger, VertexRayReaperTrigger
from airflow_provider_vertex_ray.triggers.job import VertexRayJobTrigger
from tests.support.raw_service import LOCATION, PROJECT, SUFFIX, RawService, Request, http

ODD = {
    "no answer": b"",
    "503": http(503),
    "429": http(429),
    "empty": http(200),
    "204": http(204),
    "page": http(200, "<html>Be right back</html>"),
    "cut": http(200, '{"status": "RUN'),
    "null": http(200, "null"),
    "empty list": http(200, "[]"),
    "empty object": http(200, "{}"),
    "text": http(200, '"ok"'),
    "deep": http(200, "[" * 100_000),
    "deep in a field": http(200, '{"x": ' + '{"a":' * 50_000),
    "redirect": http(302, b"", "Location: https://accounts.google.com/o/oauth2/auth"),
    "400": http(400, "x"),
    "401": http(401, "x"),
    "403": http(403, "{}"),
    "404 page": http(404, "<html>no such page</html>"),
    "500 in Google's form": http(500, {"error": {"code": 500, "message": "Internal error", "status": "INTERNAL"}}),
    "text as time": http(200, {"submission_id": "j", "status": "RUNNING", "start_time": "soon", "name": 7}),
    "huge number": http(200, '{"status": "RUNNING", "end_time": 1' + "0" * 5000 + "}"),
    "bad gzip": http(200, b"abcd", "Content-Encoding: gzip"),
    "bad status line": b"HTTP/1.1 oops\r\n\r\n",
}
NO_JOBS = {key: value for key, value in ODD.items() if key not in ("empty list",)} | {
    "list of numbers": http(200, "[1, 2]"),
    "list of nothing": http(200, "[{}]"),
    "status a list": http(200, '[{"status": []}]'),
    "end_time a text": http(200, '[{"status": "SUCCEEDED", "end_time": "2026"}]'),
    "end_time of 400 digits": http(200, '[{"status": "SUCCEEDED", "end_time": 1' + "0" * 400 + "}]"),
    "end_time not a number": http(200, '[{"status": "SUCCEEDED", "end_time": NaN}]'),
    "end_time true": http(200, '[{"status": "SUCCEEDED", "end_time": true}]'),
    "end_time in the year 3000": http(200, '[{"status": "SUCCEEDED", "end_time": 32503680000000}]'),
    "end_time in the year 2090": http(200, '[{"status": "SUCCEEDED", "end_time": 3786912000000}]'),
    "submission_id a dict": http(200, '[{"submission_id": {"a": 1}, "status": "SUCCEEDED"}]'),
    "odd charset": http(200, "<html>", "Content-Type: text/html; charset=undefined"),
}
UNREADABLE = {key: value for key, value in NO_JOBS.items() if key != "end_time in the year 2090"}


def job(submission_id: str = "j", status: str = "RUNNING", **more: Any) -> dict[str, Any]:
    return {"type": "SUBMISSION", "submission_id": submission_id, "status": status, "metadata": {}, **more}


def times(answer: bytes, path: str, first: int, count: int) -> Callable[[Request], bytes | None]:
    """Answer ``count`` GET requests whose path ends with ``path`` oddly, from the ``first`` one on."""
    seen = 0

    def odd(request: Request) -> bytes | None:
        nonlocal seen
        if request.method != "GET" or not request.path.partition("?")[0].endswith(path):
            return None
        seen += 1
        return answer if first <= seen < first + count else None

    return odd


async def outcome(trigger: Any) -> dict[str, Any]:
    return dict(await asyncio.wait_for(trigger.outcome(), PATIENCE))


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_odd_answers_end_no_wait_for_a_job(service: RawService, answer: bytes) -> None:
    name = service.add("c")
    service.jobs["c"] = [job()]
    odd = times(answer, "/api/jobs/j", 2, 2)

    def then_ends(request: Request) -> bytes | None:
        found = odd(request)
        if len(service.sent("GET", "/api/jobs/j")) > 4:
            service.jobs["c"] = [job(status="SUCCEEDED")]
        return found

    service.odd = then_ends
    event = await outcome(
        VertexRayJobTrigger(
            cluster_name=name, submission_id="j", dashboard_uri="c" + SUFFIX, poll_interval=0.05, stream_logs=False
        )
    )
    assert (event["status"], event.get("error")) == ("success", None)


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_odd_answers_end_no_wait_for_a_cluster(service: RawService, answer: bytes) -> None:
    name = service.add("c", state="PROVISIONING")
    # Each look may repeat the request several times.
    odd = times(answer, "/persistentResources/c", 2, 8)

    def then_runs(request: Request) -> bytes | None:
        found = odd(request)
        if len(service.sent("GET", "/persistentResources/c")) > 14:
            service.add("c")
        return found

    service.odd = then_runs
    ready = VertexRayClusterReadyTrigger(cluster_name=name, poll_interval=0.02, deadline=time.time() + PATIENCE)
    state = VertexRayClusterStateTrigger(cluster_name=name, states=["RUNNING"], poll_interval=0.02)
    events = await asyncio.gather(outcome(ready), outcome(state))
    assert [(event["status"], event.get("error")) for event in events] == [("success", None)] * 2
    assert service.sent("DELETE") == []


async def test_token_server_that_fails_for_a_while_ends_no_wait(service: RawService) -> None:
    name = service.add("c")
    service.jobs["c"] = [job(status="SUCCEEDED")]

    def odd(request: Request) -> bytes | None:
        tokens = len(service.sent("GET", "/computeMetadata/"))
        if request.path.startswith("/computeMetadata/"):
            return http(500) if 2 <= tokens <= 6 else None
        # The first token is refused, so that another one is needed.
        return http(401) if request.path.endswith("/j") and tokens == 1 else None

    service.odd = odd
    trigger = VertexRayJobTrigger(cluster_name=name, submission_id="j", poll_interval=0.05, stream_logs=False)
    assert (await outcome(trigger))["status"] == "success"
    assert len(service.sent("GET", "/computeMetadata/")) == 7


async def test_dashboard_with_a_new_address_is_followed(service: RawService) -> None:
    name = service.add("c")
    service.jobs["c"] = [job()]

    def odd(request: Request) -> bytes | None:
        if len(service.sent("GET", f"/c{SUFFIX}/api/jobs/j")) > 1:
            service.jobs["c"] = [job(status="SUCCEEDED")]
        return None

    service.odd = odd
    trigger = VertexRayJobTrigger(
        cluster_name=name,
        submission_id="j",
        dashboard_uri="gone" + SUFFIX,
        poll_interval=0.05,
        lost_timeout=PATIENCE,
        stream_logs=False,
    )
    assert (await outcome(trigger))["status"] == "success"
    # Only until it was noticed.
    assert len(service.sent("GET", f"/gone{SUFFIX}/api/jobs/j")) <= 2


# --- jobs that are submitted, clusters that are created ---------------------------------------------------------------


@pytest.mark.parametrize("answer", [http(200), http(200, "{}"), http(200, "<html>"), http(200, '{"name": ""}'), b""])
async def test_create_answered_oddly_is_looked_up(service: RawService, answer: bytes) -> None:
    def odd(request: Request) -> bytes | None:
        if request.method != "POST":
            return None
        service.add("new", state="PROVISIONING", labels=json.loads(request.body)["labels"])
        return answer

    service.odd = odd
    async with VertexRayClusterAsyncHook().session() as (transport, _):
        assert await ClustersApi(transport).create(ClusterName(PROJECT, LOCATION, "new"), {}) is None
    assert len(service.sent("POST")) == 1


@pytest.mark.parametrize("answer", [http(200), http(200, "{}"), http(200, "<html>"), http(200, "[]")])
async def test_submission_answered_oddly_is_looked_up(service: RawService, answer: bytes) -> None:
    service.add("c")

    def odd(request: Request) -> bytes | None:
        if request.method != "POST":
            return None
        service.jobs["c"].append(job("new", metadata=json.loads(request.body)["metadata"]))
        return answer

    service.odd = odd
    assert await VertexRayJobAsyncHook(location=LOCATION).submit_job("c", JobRequest("x", "new")) is True
    assert len(service.sent("POST")) == 1


# --- nothing that cannot be read is "no jobs" -------------------------------------------------------------------------


def reaper(**more: Any) -> VertexRayReaperTrigger:
    arguments: dict[str, Any] = {"location": LOCATION, "idle_for": 0.001, "poll_interval": 0.01}
    return VertexRayReaperTrigger(**{**arguments, "deadline": time.time() + PATIENCE, **more})


def report(event: dict[str, Any]) -> dict[str, tuple[str, str]]:
    assert event["status"] == "success", event
    return {each["cluster_id"]: (each["action"], each["why"]) for each in event["result"]["clusters"]}


@pytest.mark.parametrize("answer", NO_JOBS.values(), ids=NO_JOBS)
async def test_unreadable_jobs_keep_their_cluster_and_no_other(service: RawService, answer: bytes) -> None:
    service.add("bad")
    service.add("idle")
    service.odd = times(answer, f"bad{SUFFIX}/api/jobs/", 1, 1_000)
    found = report(await outcome(reaper(max_age=0.001)))
    assert found["idle"][0] == "deleted"
    assert found["bad"][0] == "kept"
    assert "cannot be read" in found["bad"][1]
    assert list(service.clusters) == ["bad"]


@pytest.mark.parametrize("answer", NO_JOBS.values(), ids=NO_JOBS)
async def test_unreadable_jobs_keep_a_cluster_from_being_idle(service: RawService, answer: bytes) -> None:
    name = service.add("c")
    service.odd = times(answer, "/api/jobs/", 1, 1_000)
    trigger = VertexRayClusterIdleTrigger(cluster_name=name, idle_for=0.001, deadline=time.time() + 0.05)
    assert (await outcome(trigger))["error"]["type"] == "OperationTimeoutError"


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
async def test_unreadable_jobs_keep_a_cluster_from_shrinking(service: RawService, answer: bytes) -> None:
    service.add("c")
    service.odd = times(answer, "/api/jobs/", 1, 1_000)
    hook = VertexRayClusterAsyncHook(location=LOCATION)
    with pytest.raises(ClusterInUseError, match="cannot be read"):
        await hook.resize_cluster("c", {"worker-pool1": 1})
    assert service.sent("PATCH") == []


async def test_cluster_with_very_many_jobs_is_still_reaped(service: RawService) -> None:
    message = "Job entrypoint command failed with exit code 1, last available logs: " + "x" * 20_000
    old = job("old", "FAILED", message=message, end_time=1_700_000_000_000)
    many = http(200, [old] * 4000)
    service.add("full")
    service.odd = times(many, "/api/jobs/", 1, 1_000)
    assert len(many) > 64 << 20
    assert report(await outcome(reaper()))["full"][0] == "deleted"


async def test_dead_head_is_reaped_after_the_time_that_the_user_sets(service: RawService) -> None:
    name = service.add("dead")
    service.odd = times(b"", "/api/jobs/", 1, 100_000)
    now = time.time()
    # Without a limit: never, however long it has been dead.
    event = await outcome(reaper(unreadable={name: [now - 1e7, now - 60]}))
    assert report(event)["dead"][0] == "kept"
    # The first run notes the time.
    event = await outcome(reaper(unreadable_for=3600.0))
    assert report(event)["dead"][0] == "kept"
    since, seen = event["result"]["unreadable"][name]
    assert now <= since == seen
    # Not yet, and not because of two problems far from each other.
    for before in ([now - 3000, now - 60], [now - 1e7, now - LONGEST_GAP - 60], [now, now - 60], ["x", 1], 7):
        assert report(await outcome(reaper(unreadable_for=3600.0, unreadable={name: before})))["dead"][0] == "kept"
    now = time.time()
    event = await outcome(reaper(unreadable_for=3600.0, unreadable={name: [now - 3661, now - 60]}))
    action, why = report(event)["dead"]
    assert action == "deleted"
    assert why.startswith("its use could not be read for 1 h 1 min")


async def test_dead_head_with_a_known_user_is_not_reaped(service: RawService) -> None:
    name = service.add("changing", state="UPDATING")
    service.odd = times(b"", "/api/jobs/", 1, 100_000)
    now = time.time()
    found = await outcome(reaper(unreadable_for=1.0, unreadable={name: [now - 3700, now - 60]}))
    assert report(found)["changing"][0] == "kept"
    assert found["result"]["unreadable"] == {}


async def test_list_of_clusters_that_is_odd_at_first(service: RawService) -> None:
    service.add("idle")
    service.odd = times(http(200, "<html>"), "/persistentResources", 1, 8)
    assert report(await outcome(reaper()))["idle"][0] == "deleted"
