"""The Vertex AI API, its dashboards and the token server as one raw socket, each of whose answers can be any bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PLANTED_TOKEN = "ya29.PLANTED-access-token-0123456789"
PROJECT, LOCATION = "demo-project", "us-central1"
PARENT = f"projects/{PROJECT}/locations/{LOCATION}"
SUFFIX = "-dot-us-central1.aiplatform-training.googleusercontent.com"


def http(status: int, content: bytes | str | Any = b"", *headers: str) -> bytes:
    """The bytes of an answer; anything but text and bytes becomes JSON."""
    body = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    lines = [f"HTTP/1.1 {status} Odd", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


@dataclass
class Request:
    method: str
    path: str
    head: str
    body: bytes


@dataclass
class RawService:
    """One cluster of each name in ``clusters``, with the jobs in ``jobs``; ``odd`` may give other bytes instead.

    :param odd: returns the bytes to answer with; None for the usual answer
    """

    host: str = ""
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    odd: Callable[[Request], bytes | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)

    def add(self, cluster_id: str, state: str = "RUNNING", **more: Any) -> str:
        """Add a cluster, and return its full name."""
        name = f"{PARENT}/persistentResources/{cluster_id}"
        self.clusters[cluster_id] = {
            "name": name,
            "state": state,
            "createTime": "2026-11-01T00:00:00Z",
            "startTime": "2026-11-01T00:10:00Z",
            "labels": {"airflow-owner": "x"},
            "resourcePools": [
                {"id": "head-node", "machineSpec": {"machineType": "n1-standard-16"}, "replicaCount": "1"},
                {"id": "worker-pool1", "machineSpec": {"machineType": "n1-standard-8"}, "replicaCount": "2"},
            ],
            "resourceRuntimeSpec": {"raySpec": {"headNodeResourcePoolId": "head-node"}},
            "resourceRuntime": {"accessUris": {"RAY_DASHBOARD_URI": cluster_id + SUFFIX}},
            **more,
        }
        self.jobs.setdefault(cluster_id, [])
        return name

    def asked(self) -> list[str]:
        """The paths of all requests but those for tokens."""
        return [each.path for each in self.requests if not each.path.startswith("/computeMetadata/")]

    def sent(self, method: str, part: str = "") -> list[str]:
        return [each.path for each in self.requests if each.method == method and part in each.path]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path, _ = head.split(" ", 2)
            length = [
                line.split(":", 1)[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")
            ]
            body = await reader.readexactly(int(length[0])) if length else b""
            request = Request(method, path, head, body)
            self.requests.append(request)
            found = self.odd(request)
            writer.write(self.usual(request) if found is None else found)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def usual(self, request: Request) -> bytes:
        path = request.path.partition("?")[0]
        if path.startswith("/computeMetadata/"):
            return http(200, {"access_token": PLANTED_TOKEN, "expires_in": 3600})
        if path.startswith("/v1beta1/"):
            return self._control_plane(request.method, path)
        _, host, rest = path.split("/", 2)
        return self._dashboard(request.method, host.removesuffix(SUFFIX), "/" + rest)

    def _control_plane(self, method: str, path: str) -> bytes:
        _, _, found = path.partition("/persistentResources")
        cluster_id = found.strip("/")
        if not cluster_id:
            if method == "POST":
                return http(200, {"name": f"{PARENT}/operations/1"})
            return http(200, {"persistentResources": list(self.clusters.values())})
        if cluster_id not in self.clusters:
            return http(404, {"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}})
        if method == "DELETE":
            self.clusters.pop(cluster_id)
        return http(200, self.clusters[cluster_id] if method == "GET" else {"name": f"{PARENT}/operations/1"})

    def _dashboard(self, method: str, cluster_id: str, path: str) -> bytes:
        jobs = self.jobs.get(cluster_id, [])
        if path == "/api/version":
            return http(200, {"version": "4", "ray_version": "2.47.1"})
        if path == "/api/jobs/":
            return http(200, jobs)
        for job in jobs:
            if path == f"/api/jobs/{job['submission_id']}":
                return http(200, job)
            if path == f"/api/jobs/{job['submission_id']}/logs":
                return http(200, {"logs": ""})
        return http(404, f"{path} does not exist")


@asynccontextmanager
async def raw_service(odd: Callable[[Request], bytes | None] = lambda request: None) -> AsyncIterator[RawService]:
    """Start the service on a free port."""
    service = RawService(odd=odd)
    server = await asyncio.start_server(service.answer, "127.0.0.1", 0, limit=1 << 20)
    service.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        server.close()
