"""The service, a cluster's Ray and Cloud Storage in memory, behind the transport that all our calls use.

Each request waits for its turn twice, before it is carried out and before its answer comes back; whose turn it is, a
random generator decides. So the code under test is the package's own, in any interleaving, without any real waiting.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.decoding import decode
from airflow_provider_vertex_ray.core.http.redact import Redactor
from airflow_provider_vertex_ray.core.http.transport import Answer
from airflow_provider_vertex_ray.core.sharing.generations import GENERATION_LABEL
from airflow_provider_vertex_ray.errors import ServiceUnavailableError

T = TypeVar("T")

START = 1_800_000_000.0
PROJECT, LOCATION = "1234", "us-central1"
PARENT = f"projects/{PROJECT}/locations/{LOCATION}"
LONGEST = 20_000

offset: ContextVar[float] = ContextVar("offset", default=0.0)
"""By how many seconds the clock of whoever runs at the moment is wrong."""


def stamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Node:
    """A cluster."""

    resource: dict[str, Any]
    created: float
    due: float
    state: str = "PROVISIONING"
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return int(self.resource["labels"][GENERATION_LABEL])

    def active(self) -> list[str]:
        return [job for job, each in self.jobs.items() if each["end_time"] is None]


class World:
    """Everything there is, and the order in which it happens.

    :param seed: Of the order.
    :param flaky: Share of the requests that get no answer, half of them after they were carried out.
    """

    def __init__(self, seed: int, *, flaky: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.flaky = flaky
        self.time = START
        self.nodes: dict[str, Node] = {}
        self.blocked: set[str] = set()
        self.objects: dict[str, tuple[dict[str, str], int, float]] = {}
        """Metadata, generation and time of the last write, by name."""
        self.requests: Counter[str] = Counter()
        self.writes_per_second = False
        """Whether Cloud Storage takes only one write a second of the same object."""
        self.late_answers = True
        """Whether others may have their turns between a request and its answer."""
        self.generation = 0
        self.page_size = 2
        self.wrong: list[str] = []
        self.log: list[str] = []
        self.on_create: Callable[[str], None] = lambda _: None
        self.on_delete: Callable[[str], None] = lambda _: None
        self._turns: list[asyncio.Future[None]] = []
        self._sleeps: list[tuple[float, asyncio.Future[None]]] = []

    def notify(self, text: str) -> None:
        self.log.append(f"{self.time - START:8.1f} {text}")

    # Time and turns.

    async def turn(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(future)
        await future

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeps.append((self.time + seconds, future))
        await future

    async def run(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Give everybody a turn until all have ended.

        :raises AssertionError: They do not end.
        """
        for _ in range(LONGEST):
            await self._settle(tasks)
            if all(task.done() for task in tasks):
                for task in tasks:
                    task.result()
                return
            self._pass(self.random.uniform(0, 1.0))
            self._turns = [each for each in self._turns if not each.done()]
            self._sleeps = sorted((each for each in self._sleeps if not each[1].done()), key=lambda each: each[0])
            if self._turns and (not self._sleeps or self._sleeps[0][0] > self.time or self.random.random() < 0.8):
                self._turns.pop(self.random.randrange(len(self._turns))).set_result(None)
            else:
                due, future = self._sleeps.pop(0)
                self._pass(max(0.0, due - self.time))
                future.set_result(None)
        raise AssertionError("they do not come to an end:\n" + "\n".join(self.log[-40:]))

    async def _settle(self, tasks: list[asyncio.Task[Any]]) -> None:
        while True:
            waiting = sum(not each.done() for each in self._turns) + sum(not each.done() for _, each in self._sleeps)
            if waiting >= sum(not task.done() for task in tasks):
                return
            await asyncio.sleep(0)

    def _pass(self, seconds: float) -> None:
        self.time += seconds
        for name, node in list(self.nodes.items()):
            for job in node.jobs.values():
                if job["end_time"] is None and job["due"] <= self.time:
                    job["end_time"] = job["due"]
            if node.due <= self.time and node.state == "PROVISIONING":
                node.state = "RUNNING"
            elif node.due <= self.time and node.state == "STOPPING":
                del self.nodes[name]
                self.blocked.add(name)

    # The requests.

    def answer(self, method: str, url: str, body: Any, data: bytes) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        if parts.netloc == "storage:1":
            return self._storage(method, path, query, data)
        if path.startswith("/v1beta1/"):
            return (*self._plane(method, path.removeprefix("/v1beta1/"), query, body), {})
        name, _, rest = path.removeprefix("/").partition("/")
        return (*self._dashboard(method, name, rest, body), {})

    def _plane(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        name = path.rsplit("/", 1)[1]
        if method == "POST":
            return self._create(query["persistentResourceId"], body)
        if name == "persistentResources":
            return 200, {"persistentResources": [self._shown(each) for each in self.nodes.values()]}
        if "/operations/" in path:
            return 200, {"done": False}
        node = self.nodes.get(name)
        if node is None:
            return 404, _error("NOT_FOUND")
        if method == "GET":
            return 200, self._shown(node)
        return self._delete(name, node)

    def _create(self, name: str, body: Any) -> tuple[int, Any]:
        if name in self.nodes or name in self.blocked:
            return 409, _error("ALREADY_EXISTS")
        self.on_create(name)
        resource = {**body, "name": f"{PARENT}/persistentResources/{name}", "createTime": stamp(self.time)}
        self.nodes[name] = Node(resource, self.time, self.time + self.random.uniform(1, 200))
        self.notify(f"{name} is created")
        return 200, {"name": f"{PARENT}/operations/{name}"}

    def _delete(self, name: str, node: Node) -> tuple[int, Any]:
        if node.state == "PROVISIONING":
            return 400, _error("FAILED_PRECONDITION")
        if node.state != "STOPPING":
            self.on_delete(name)
            self.notify(f"{name} is deleted")
            node.state, node.due = "STOPPING", self.time + self.random.uniform(1, 60)
        return 200, {"name": f"{PARENT}/operations/{name}"}

    def _shown(self, node: Node) -> dict[str, Any]:
        uris = {"RAY_DASHBOARD_URI": node.resource["name"].rsplit("/", 1)[1]}
        runtime = {"resourceRuntime": {"accessUris": uris}} if node.state != "PROVISIONING" else {}
        return {**node.resource, "state": node.state, **runtime}

    def _dashboard(self, method: str, name: str, path: str, body: Any) -> tuple[int, Any]:
        node = self.nodes.get(name)
        if node is None or node.state != "RUNNING":
            return 503, "no such cluster"
        if method == "POST":
            self.notify(f"job {body['submission_id']} runs on {name}")
            if body["submission_id"] in node.jobs:
                return 500, f"submission_id {body['submission_id']} already exists"
            ends = self.time + body["metadata"]["seconds"]
            node.jobs[body["submission_id"]] = {"due": ends, "end_time": None, "start_time": self.time}
            return 200, {}
        return 200, [
            {
                "type": "SUBMISSION",
                "submission_id": job,
                "status": "RUNNING" if each["end_time"] is None else "SUCCEEDED",
                "start_time": int(each["start_time"] * 1000),
                "end_time": None if each["end_time"] is None else int(each["end_time"] * 1000),
            }
            for job, each in node.jobs.items()
        ]

    def _storage(self, method: str, path: str, query: dict[str, str], data: bytes) -> tuple[int, Any, dict[str, str]]:
        self.requests[method if "/o/" in path or method == "POST" else "LIST"] += 1
        if method == "POST":
            part = data.split(data.split(b"\r\n")[0])[1].split(b"\r\n\r\n", 1)[1].rstrip(b"\r\n")
            resource = json.loads(part)
            name = resource["name"]
            _, generation, written = self.objects.get(name, ({}, 0, -1.0))
            if generation != int(query["ifGenerationMatch"]):
                self.requests["412"] += 1
                return 412, _error("conditionNotMet"), {}
            if self.writes_per_second and self.time - written < 1:
                self.requests["429"] += 1
                return 429, _error("rateLimitExceeded"), {}
            self.generation += 1
            self.objects[name] = (resource["metadata"], self.generation, self.time)
            return 200, {}, {}
        if path.endswith("/o"):
            # In pages of two, as the service has pages of a thousand.
            names = sorted(each for each in self.objects if each.startswith(query["prefix"]))
            names = [each for each in names if each > query.get("pageToken", "")]
            page, more = names[: self.page_size], names[self.page_size :]
            token = {"nextPageToken": page[-1]} if more else {}
            return 200, {"kind": "storage#objects", "items": [self._object(each) for each in page], **token}, {}
        name = path.split("/o/", 1)[1]
        if name not in self.objects:
            return 404, _error("No such object"), {}
        if method == "DELETE":
            if self.objects[name][1] != int(query["ifGenerationMatch"]):
                return 412, _error("conditionNotMet"), {}
            del self.objects[name]
            return 204, {}, {}
        return 200, self._object(name), {}

    def _object(self, name: str) -> dict[str, Any]:
        metadata, generation, _ = self.objects[name]
        return {"name": name, "generation": str(generation), "metadata": metadata}


def _error(status: str) -> dict[str, Any]:
    return {"error": {"status": status, "message": status}}


class SimulatedTransport:
    """What ``Transport`` is to the package, over a ``World``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.addresses = Addresses("service:1", storage_emulator="storage:1")
        self.redact = Redactor()

    async def request(self, method: str, url: str, **more: Any) -> Answer:
        tries = 3 if more.get("repeatable", True) else 1
        while True:
            tries -= 1
            try:
                return await self._once(method, url, more)
            except ServiceUnavailableError:
                if not tries:
                    raise

    async def read(self, kind: type[T], method: str, url: str, **more: Any) -> T:
        return decode((await self.request(method, url, **more)).content, kind)

    @asynccontextmanager
    async def stream(self, url: str, **more: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        answer = await self.request("GET", url, error_from=more["error_from"], repeatable=False)

        async def pieces() -> AsyncIterator[bytes]:
            yield answer.text.encode()

        yield pieces()

    async def _once(self, method: str, url: str, more: dict[str, Any]) -> Answer:
        world = self.world
        await world.turn()
        lost = world.random.random()
        if lost < world.flaky / 2:
            raise ServiceUnavailableError("the request was lost")
        data = more["data"]() if more.get("data") else b""
        status, found, headers = world.answer(method, url, more.get("body"), data)
        # Before others have their turns: they may change what is in it.
        text = found if isinstance(found, str) else json.dumps(found)
        if world.late_answers:
            await world.turn()
        if lost < world.flaky:
            raise ServiceUnavailableError("the answer was lost")
        if status >= 300:
            raise more["error_from"](status, text)
        return Answer(status, text, headers)

    async def back_off(self, failures: int) -> None:
        await self.world.sleep(float(failures))
