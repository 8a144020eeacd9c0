"""Answers of any kind at all entry points of the clients: what may happen, and what must not."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from emulator_support.process import PATIENCE

from airflow_provider_vertex_ray.core.cluster.client import ClustersApi
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.cost.catalog import catalog_prices
from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import EmulatorTokenSource
from airflow_provider_vertex_ray.core.http.transport import RetryPolicy, Transport
from airflow_provider_vertex_ray.core.job.capacity import free_resources
from airflow_provider_vertex_ray.core.job.client import JobRequest, JobsApi
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.monitoring.logs import LogsApi
from airflow_provider_vertex_ray.core.monitoring.metrics import MetricsApi
from airflow_provider_vertex_ray.core.preflight.lookups import (
    MachineTypesApi,
    NetworksApi,
    PermissionsApi,
    ServicesApi,
    encryption_key,
    peering_state,
    permissions_in,
)
from airflow_provider_vertex_ray.core.preflight.quotas import QuotasApi
from airflow_provider_vertex_ray.core.serving.client import ServingApi
from airflow_provider_vertex_ray.core.sharing.activity import read_activity
from airflow_provider_vertex_ray.errors import VertexRayError
from tests.support.raw_service import PARENT, PLANTED_TOKEN, Request, http, raw_service

PLANTED_VALUE = "planted-env-value-47114711"
NAME = ClusterName("demo-project", "us-central1", "c")
KEYS = [
    "name", "state", "status", "message", "error", "code", "done", "response", "labels", "metadata", "runtime_env",
    "env_vars", "submission_id", "job_id", "type", "start_time", "end_time", "driver_exit_code", "stopped", "deleted",
    "persistentResources", "nextPageToken", "resourcePools", "machineSpec", "replicaCount", "autoscalingSpec",
    "minReplicaCount", "resourceRuntimeSpec", "raySpec", "resourceRuntime", "accessUris", "RAY_DASHBOARD_URI", "data",
    "result", "summary", "raylet", "resultType", "values", "value", "metric", "entries", "jsonPayload", "timestamp",
    "skus", "pricingInfo", "services", "permissions", "items", "peerings", "primary", "consumerQuotaLimits", "unit",
    "quotaBuckets", "timeSeries", "points", "deployedModels", "id", "trafficSplit", "predictions", "logs", "models",
    "clusterStatus", "loadMetricsReport", "usage", "ray_version", "details", "reason", "quota", "config",
]  # fmt: skip
TEXTS = [
    "", "a", "RUNNING", "SUCCEEDED", "ERROR", "DRIVER", "success", "2026-11-29T00:00:00Z", "12", "-1", "²", "\x00",
    "\ud800", "é🎉", f"{PARENT}/persistentResources/c", f"{PARENT}/operations/1", f"Bearer {PLANTED_TOKEN}", "x" * 5000,
    "%s", "{}", "__class__", PARENT + "/models/1", "scalar", "NaN", "token",
]  # fmt: skip
NUMBERS = [0, 1, -1, 7, 1.5, 1e308, -0.0, 2**31, 2**63, 2**64, 10**30, True, False, None, 1_764_000_000_000]
STATUSES = [200] * 12 + [201, 204, 206, 301, 302, 307, 400, 401, 403, 404, 405, 407, 408, 409, 412, 413, 418, 429, 500,
                         501, 502, 503, 504, 524, 599]  # fmt: skip
HEADERS = [
    "Retry-After: ²", "Retry-After: 99999999999", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",
    "Content-Type: application/json; charset=foo", "Content-Type: text/html; charset=undefined", "Content-Type: \xff",
    "Content-Encoding: gzip", "Content-Encoding: br", "Content-Encoding: gzip, gzip", "Content-Encoding: deflate",
    "Location: http://169.254.169.254/", "Location: http://[", "Set-Cookie: a=b; Domain=.com", "Content-Length: 3",
    "Transfer-Encoding: chunked", "X: " + "a" * 9000, f"X-Echo: Bearer {PLANTED_TOKEN}", "nonsense",
    "WWW-Authenticate: x",
    "x-goog-generation: ²", "Connection: keep-alive", "Keep-Alive: timeout=x",
]  # fmt: skip


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON, with the keys that the services use."""
    kind = rng.random()
    if depth > 4 or kind < 0.25:
        return rng.choice([*TEXTS, *NUMBERS])
    if kind < 0.5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(6))}


def mutated(rng: random.Random, found: Any) -> Any:
    """A valid answer with one part of it replaced, removed or repeated."""
    if isinstance(found, dict) and found and rng.random() < 0.85:
        key = rng.choice(list(found))
        if rng.random() < 0.15:
            return {name: each for name, each in found.items() if name != key}
        return {**found, key: mutated(rng, found[key])}
    if isinstance(found, list) and found and rng.random() < 0.85:
        place = rng.randrange(len(found))
        return [*found[:place], mutated(rng, found[place]), *found[place + rng.randrange(2) :]]
    return value(rng, 2)


def odd_bytes(rng: random.Random, usual: bytes) -> bytes:
    """The bytes of one answer, from nearly right to not HTTP at all."""
    kind = rng.random()
    head, _, body = usual.partition(b"\r\n\r\n")
    if kind < 0.45:
        try:
            content = json.dumps(mutated(rng, json.loads(body)))
        except ValueError:
            content = json.dumps(value(rng))
        return http(rng.choice(STATUSES) if rng.random() < 0.3 else 200, content)
    if kind < 0.65:
        return http(rng.choice(STATUSES), json.dumps(value(rng)), *rng.sample(HEADERS, rng.randrange(3)))
    if kind < 0.75:
        content = rng.choice(
            [
                *(b"", b" ", b"null", b"<html>" + PLANTED_TOKEN.encode(), b"[" * 60_000, b'{"a":' * 30_000),
                *(body[: rng.randrange(len(body) + 1)], rng.randbytes(rng.randrange(200))),
                *(b'{"end_time": 1' + b"0" * 5000 + b"}", gzip.compress(b"[" + b"{}," * 200_000)),
            ]
        )
        return http(rng.choice(STATUSES), content, *rng.sample(HEADERS, rng.randrange(2)))
    if kind < 0.85:
        return usual[: rng.randrange(len(usual) + 1)]
    if kind < 0.95:
        damaged = bytearray(usual)
        for _ in range(rng.randrange(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)
    broken = [b"", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"\x16\x03\x01", PLANTED_TOKEN.encode(), head]
    return rng.choice([*broken, f"HTTP/1.1 Bearer {PLANTED_TOKEN}\r\n\r\n".encode(), rng.randbytes(100)])


Call = Callable[[Transport, JobsApi], Awaitable[Any]]


async def _stream(jobs: JobsApi) -> list[str]:
    async with jobs.log_so_far("j") as pieces:
        return [piece async for piece in pieces]


async def _tail(jobs: JobsApi) -> list[str]:
    async with jobs.tail("j") as frames:
        return [frame async for frame in frames]


async def _activity(transport: Transport) -> Any:
    return await read_activity(transport, await ClustersApi(transport).get(NAME), None, 1e9)


async def _peering(transport: Transport) -> Any:
    return peering_state(await NetworksApi(transport).network("projects/p/global/networks/n"))


CALLS: dict[str, Call] = {
    "job": lambda t, jobs: jobs.get("j"),
    "job find": lambda t, jobs: jobs.find("j"),
    "job list": lambda t, jobs: jobs.list_all(drivers=True),
    "job newest": lambda t, jobs: jobs.newest(10),
    "jobs in use": lambda t, jobs: jobs.in_use(),
    "job submit": lambda t, jobs: jobs.submit(JobRequest("x", "j", {"env_vars": {"A": PLANTED_VALUE}})),
    "job stop": lambda t, jobs: jobs.stop("j"),
    "job delete": lambda t, jobs: jobs.delete("j"),
    "job logs": lambda t, jobs: jobs.logs("j"),
    "job log stream": lambda t, jobs: _stream(jobs),
    "job tail": lambda t, jobs: _tail(jobs),
    "dashboard ready": lambda t, jobs: jobs.not_ready(),
    "dashboard versions": lambda t, jobs: jobs.versions(),
    "dashboard nodes": lambda t, jobs: jobs.nodes(),
    "dashboard usage": lambda t, jobs: jobs.usage(),
    "dashboard state": lambda t, jobs: free_resources(jobs),
    "cluster": lambda t, jobs: ClustersApi(t).get(NAME),
    "cluster list": lambda t, jobs: ClustersApi(t).list_all("demo-project", "us-central1"),
    "cluster create": lambda t, jobs: ClustersApi(t).create(NAME, {}),
    "cluster resize": lambda t, jobs: ClustersApi(t).resize(NAME, []),
    "cluster delete": lambda t, jobs: ClustersApi(t).delete(NAME),
    "operation": lambda t, jobs: ClustersApi(t).operation("us-central1", f"{PARENT}/operations/1"),
    "activity": lambda t, jobs: _activity(t),
    "model": lambda t, jobs: ServingApi(t).get_model(f"{PARENT}/models/1"),
    "model list": lambda t, jobs: ServingApi(t).list_models(PARENT, "x"),
    "endpoint": lambda t, jobs: ServingApi(t).get_endpoint(f"{PARENT}/endpoints/1"),
    "deploy": lambda t, jobs: ServingApi(t).deploy_model(f"{PARENT}/endpoints/1", {"id": "1"}, None),
    "predict": lambda t, jobs: ServingApi(t).predict(f"{PARENT}/endpoints/1", [1], None),
    "artifact": lambda t, jobs: ServingApi(t).artifact_files("gs://bucket/folder"),
    "logs": lambda t, jobs: LogsApi(t, "p").entries(LogQuery("c"), 10, attempts=2),
    "metrics": lambda t, jobs: MetricsApi(t, "p").query("up"),
    "quota limit": lambda t, jobs: QuotasApi(t, "p", "us-central1").limit("m"),
    "quota use": lambda t, jobs: QuotasApi(t, "p", "us-central1").used("m"),
    "apis": lambda t, jobs: ServicesApi(t, "p").enabled(["a"]),
    "permissions": lambda t, jobs: PermissionsApi(t).on_project("p", ["a"]),
    "zones": lambda t, jobs: MachineTypesApi(t, "p", "us-central1").zones_with_machine("m"),
    "network": lambda t, jobs: _peering(t),
    "key": lambda t, jobs: encryption_key(t, "projects/p/locations/l/keyRings/r/cryptoKeys/k"),
    "bucket": lambda t, jobs: permissions_in(t, "bucket", ["a"]),
    "prices": lambda t, jobs: catalog_prices(t, "us-central1"),
}


@dataclass
class FuzzResult:
    """What came of the calls.

    :param answers: number of answers that were sent
    :param outcomes: number of calls by type of error, or "answer"
    :param untyped: errors that are not of this package, with their tracebacks
    :param shown: calls after which a secret was shown
    :param longest: seconds of the longest call
    """

    answers: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    longest: float = 0.0


@contextmanager
def everything_logged_to(text: io.StringIO) -> Iterator[None]:
    """Write all log lines of all levels there, too: a secret must not be in any of them."""
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


async def fuzz(seed: int, answers: int, calls: dict[str, Call] | None = None) -> FuzzResult:
    """Call all entry points again and again, until the service has sent this many answers."""
    rng = random.Random(seed)
    result = FuzzResult()
    text = io.StringIO()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: text.write(repr(context)))

    def odd(request: Request) -> bytes | None:
        if request.path.startswith("/computeMetadata/") and rng.random() < 0.98:
            return None
        result.answers += 1
        return odd_bytes(rng, service.usual(request)) if rng.random() < 0.9 else None

    with everything_logged_to(text):
        async with raw_service(odd) as service:
            service.add("c")
            service.jobs["c"] = [
                {
                    **{"type": "SUBMISSION", "submission_id": "j", "status": "RUNNING", "message": "m"},
                    **{"runtime_env": {"env_vars": {"A": PLANTED_VALUE}}, "start_time": 1, "end_time": None},
                    "metadata": {"a": "b"},
                }
            ]
            while result.answers < answers:
                await _round(rng, service.host, calls or CALLS, result, text, answers)
    return result


async def _round(
    rng: random.Random, host: str, calls: dict[str, Call], result: FuzzResult, text: io.StringIO, answers: int
) -> None:
    addresses = Addresses(host, storage_emulator=host)
    policy = RetryPolicy(2, 0.0001, 0.0002)
    async with Transport(EmulatorTokenSource(host), addresses, retry=policy, timeout=5) as transport:
        jobs = JobsApi(
            transport, addresses.dashboard(f"c{'-dot-us-central1.aiplatform-training.googleusercontent.com'}")
        )
        for name in rng.sample(sorted(calls), len(calls)):
            if result.answers >= answers:
                return
            loop = asyncio.get_running_loop()
            begin = loop.time()
            printed = io.StringIO()
            with redirect_stdout(printed), redirect_stderr(printed):
                try:
                    found = repr(await asyncio.wait_for(calls[name](transport, jobs), PATIENCE))
                    # A job's environment is what the caller asked for; it is not shown by repr.
                    result.outcomes["answer"] += 1
                except VertexRayError as error:
                    found = "".join(traceback.format_exception(error)) + repr(error) + json.dumps(error.to_dict())
                    result.outcomes[type(error).__name__] += 1
                except Exception as error:
                    found = "".join(traceback.format_exception(error))
                    result.untyped.append(f"{name}: {found}")
            result.longest = max(result.longest, loop.time() - begin)
            told = found + printed.getvalue() + text.getvalue()
            text.seek(0)
            text.truncate()
            result.shown += [f"{name}: {told[:3000]}" for secret in (PLANTED_TOKEN, PLANTED_VALUE) if secret in told]
