"""The dashboard of a fake cluster: the routes of Ray 2.47.1 that clients of the Jobs API use."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from vertex_ray_emulator.access import guard
from vertex_ray_emulator.backends.fake_jobs import DuplicateJobError, FakeJob, FakeJobs, JobNotTerminalError
from vertex_ray_emulator.backends.job_request import JobRequest
from vertex_ray_emulator.project.scaling import Demand

if TYPE_CHECKING:
    from vertex_ray_emulator.backends.entrypoints import Entrypoints
    from vertex_ray_emulator.project.plan import NodePlan

RAY_VERSION = "2.47.1"
MAX_PACKAGE_BYTES = 1 << 30
GCS_TIMEOUT = 60.0
"""Seconds that the dashboard waits for a dead GCS before it answers an error (measured)."""

DRIVER_LOG = re.compile(r"job-driver-(.+)\.log")
LOG_BLOCK = 1 << 16
"""Bytes of a log file in one chunk."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeNode:
    """A node of a fake cluster."""

    def __init__(self, plan: NodePlan, ray_id: str) -> None:
        self.plan = plan
        self.ray_id = ray_id
        self.alive = True
        self.idle_since = time.monotonic()

    @property
    def resources(self) -> dict[str, float]:
        """Return the logical resources by Ray's names. The head has no CPUs, as on the service."""
        plan = self.plan
        found = {
            "CPU": 0.0 if plan.is_head else float(plan.cpus),
            "GPU": float(plan.gpus),
            "memory": float(plan.memory_bytes),
            "node:127.0.0.1": 1.0,
        }
        if plan.is_head:
            found["node:__internal_head__"] = 1.0
        if plan.accelerator and plan.gpus:
            found[f"accelerator_type:{plan.accelerator}"] = 1.0
        return {name: amount for name, amount in found.items() if amount}


class FakeDashboard:
    """The jobs and nodes of a fake cluster, served as Ray's dashboard does.

    :param session_name: the session name in the answer of ``GET /api/version``.
    :param entrypoints: runs the entrypoints that are not simulated; None to run none.
    """

    def __init__(self, session_name: str, entrypoints: Entrypoints | None = None) -> None:
        self.session_name = session_name
        self.nodes: dict[str, FakeNode] = {}
        self.jobs = FakeJobs("http://127.0.0.1:0", self._place, entrypoints)
        self.gcs_alive = True
        self.agent_alive = True
        self.running = asyncio.Event()  # cleared while the dashboard is frozen
        self.running.set()

    def application(self) -> web.Application:
        """Return a new aiohttp application that serves this cluster."""
        app = web.Application(client_max_size=MAX_PACKAGE_BYTES, middlewares=[guard(), self._fail_dead_parts])
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/", self._list),
                web.get("/api/jobs/{id}", self._with_job(self._get)),
                web.delete("/api/jobs/{id}", self._with_job(self._delete)),
                web.post("/api/jobs/{id}/stop", self._with_job(self._stop)),
                web.get("/api/jobs/{id}/logs", self._with_job(self._logs)),
                web.get("/api/jobs/{id}/logs/tail", self._with_job(self._tail)),
                web.get("/api/packages/{protocol}/{name}", self._get_package),
                web.put("/api/packages/{protocol}/{name}", self._put_package),
                web.get("/api/cluster_status", self._cluster_status),
                web.get("/nodes", self._nodes_summary),
                web.get("/api/v0/nodes", self._state_nodes),
                web.get("/api/v0/jobs", self._state_jobs),
                web.get("/api/v0/logs/file", self._state_log_file),
                web.get("/api/gcs_healthz", self._healthz),
                web.get("/", self._index),
            ]
        )
        return app

    def _place(self, demands: Any) -> str | None:
        """Return the id of a node with enough resources: without demands the head, where Ray runs drivers."""
        for node in self.nodes.values():
            have = node.resources
            if node.alive and all(have.get(name, 0.0) >= amount for name, amount in demands.items()):
                return node.ray_id
        return None

    def demand(self) -> Demand:
        """Return the demands of the jobs that wait for a node, and for how long each node has had no job."""
        now = time.monotonic()
        running = {job.node_id for job in self.jobs.all() if not job.terminal}
        alive = {node.plan.node_id: node for node in self.nodes.values() if node.alive}
        for node in alive.values():
            if node.ray_id in running:
                node.idle_since = now
        waiting = [job for job in self.jobs.all() if job.status == "PENDING" and job.node_id is None]
        return Demand(
            [(demands, 1) for job in waiting if (demands := job.request.demands())],
            {node_id: node.resources for node_id, node in alive.items()},
            {node_id: now - node.idle_since for node_id, node in alive.items()},
        )

    @web.middleware
    async def _fail_dead_parts(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Fail or delay a request as a dead GCS, a dead agent or a frozen dashboard does."""
        await self.running.wait()
        if not self.gcs_alive and request.path != "/api/version":
            await asyncio.sleep(GCS_TIMEOUT)
            return _trouble()
        needs_agent = request.path.startswith("/api/jobs/") and (
            request.method != "GET" or request.path.endswith(("/logs", "/tail"))
        )
        if needs_agent and not self.agent_alive:
            return web.Response(status=500, text=_traceback("ClientConnectorError: Cannot connect to host"))
        return await handler(request)

    def _with_job(self, handler: Callable[[web.Request, FakeJob], Awaitable[web.StreamResponse]]) -> Handler:
        async def find(request: web.Request) -> web.StreamResponse:
            submission_id = request.match_info["id"]
            job = self.jobs.get(submission_id)
            if job is None:
                return web.Response(status=404, text=f"Job {submission_id} does not exist")
            return await handler(request, job)

        return find

    async def _version(self, _: web.Request) -> web.Response:
        return _json(
            {
                "version": "4",
                "ray_version": RAY_VERSION,
                "ray_commit": "fake",
                "session_name": self.session_name,
            }
        )

    async def _submit(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            return _trouble()
        try:
            submission_id = self.jobs.submit(JobRequest.parse(body))
        except TypeError as error:
            return web.Response(status=400, text=_traceback(f"TypeError: {error}"))
        except DuplicateJobError as error:
            return web.Response(status=500, text=_from_agent(400, f"ValueError: {error}"))
        return _json({"job_id": submission_id, "submission_id": submission_id})

    async def _list(self, _: web.Request) -> web.Response:
        return _json(self.jobs.listing())

    async def _get(self, _: web.Request, job: FakeJob) -> web.Response:
        return _json(job.details())

    async def _delete(self, _: web.Request, job: FakeJob) -> web.Response:
        try:
            self.jobs.delete(job)
        except JobNotTerminalError as error:
            return web.Response(status=500, text=_from_agent(500, f"RuntimeError: {error}"))
        return _json({"deleted": True})

    async def _stop(self, _: web.Request, job: FakeJob) -> web.Response:
        return _json({"stopped": self.jobs.stop(job)})

    async def _logs(self, _: web.Request, job: FakeJob) -> web.Response:
        return _json({"logs": "".join(job.log)})

    async def _tail(self, request: web.Request, job: FakeJob) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        if not socket.can_prepare(request):
            return web.Response(status=500, text="500: WebSocket proxy error")
        await socket.prepare(request)
        reader = asyncio.create_task(_drain(socket))
        try:
            async for frame in self.jobs.tail(job):
                await self.running.wait()
                await socket.send_str(frame)
            await socket.close(code=1000)
        except ConnectionError:
            return socket  # the client disconnected
        finally:
            reader.cancel()
        return socket

    async def _get_package(self, request: web.Request) -> web.Response:
        uri = _package_uri(request)
        if uri is None:
            return _trouble()
        if uri not in self.jobs.packages:
            return web.Response(status=404, text=f"Package {uri} does not exist")
        return web.Response()

    async def _put_package(self, request: web.Request) -> web.Response:
        uri = _package_uri(request)
        if uri is None:
            return _trouble()
        path = self.jobs.package_path(uri)
        with (path or Path(os.devnull)).open("wb") as file:
            async for chunk in request.content.iter_any():
                file.write(chunk)
        self.jobs.packages.add(uri)
        return web.Response()

    async def _cluster_status(self, _: web.Request) -> web.Response:
        nodes = [node for node in self.nodes.values() if node.alive]
        usage: dict[str, list[float]] = {}
        for node in nodes:
            for name, amount in node.resources.items():
                usage.setdefault(name, [0.0, 0.0])[1] += amount
        # Ray counts what is reserved. Here only drivers reserve resources, because no tasks run.
        for job in (job for job in self.jobs.all() if job.status == "RUNNING"):
            for name, amount in job.request.demands().items():
                usage.setdefault(name, [0.0, 0.0])[0] += amount
        status = {
            "time": time.time(),
            "loadMetricsReport": {
                "usage": usage,
                "resourceDemand": [],
                "nodeTypes": [[node.resources, 1] for node in nodes],
            },
        }
        data = {"autoscalingStatus": None, "autoscalingError": None, "clusterStatus": status}
        return _json({"result": True, "msg": "Got cluster status.", "data": data})

    async def _nodes_summary(self, _: web.Request) -> web.Response:
        summary = [
            {
                "hostname": node.plan.node_id,
                "ip": "127.0.0.1",
                "raylet": {
                    "nodeId": node.ray_id,
                    "nodeManagerAddress": "127.0.0.1",
                    "resourcesTotal": node.resources,
                    "isHeadNode": node.plan.is_head,
                    "state": "ALIVE" if node.alive else "DEAD",
                },
            }
            for node in self.nodes.values()
        ]
        return _json({"result": True, "msg": "Node summary fetched.", "data": {"summary": summary}})

    async def _state_log_file(self, request: web.Request) -> web.StreamResponse:
        """Serve the last lines of a driver's log file, as bytes and in chunks."""
        named = DRIVER_LOG.fullmatch(request.query.get("filename", ""))
        job = self.jobs.get(named[1] if named else request.query.get("submission_id", ""))
        node = request.query.get("node_id")
        if job is None or (named and all(node != known.ray_id for known in self.nodes.values())):
            return web.Response(status=500, text="Could not find a log file.")
        content = "".join(job.log).encode()
        lines = int(request.query.get("lines", "1000"))
        if lines >= 0:
            content = b"".join(content.splitlines(keepends=True)[-lines:])
        response = web.StreamResponse()
        response.content_type = "text/plain"
        await response.prepare(request)
        for start in range(0, len(content), LOG_BLOCK):
            await response.write(content[start : start + LOG_BLOCK])
        await response.write_eof()
        return response

    async def _state_nodes(self, _: web.Request) -> web.Response:
        return _state(
            [
                {
                    "node_id": node.ray_id,
                    "node_ip": "127.0.0.1",
                    "node_name": "127.0.0.1",
                    "is_head_node": node.plan.is_head,
                    "state": "ALIVE" if node.alive else "DEAD",
                    "state_message": None,
                    "resources_total": node.resources,
                    "labels": {"ray.io/node_id": node.ray_id},
                }
                for node in self.nodes.values()
            ]
        )

    async def _state_jobs(self, _: web.Request) -> web.Response:
        kept = (
            "type",
            "job_id",
            "submission_id",
            "status",
            "entrypoint",
            "message",
            "error_type",
            "driver_info",
        )
        return _state([{key: job[key] for key in kept} for job in self.jobs.listing()])

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="success", content_type="application/text")

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>Ray Dashboard</title>", content_type="text/html")


async def _drain(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


def _package_uri(request: web.Request) -> str | None:
    protocol = request.match_info["protocol"]
    return f"{protocol}://{request.match_info['name']}" if protocol == "gcs" else None


def _json(value: Any) -> web.Response:
    return web.Response(text=json.dumps(value), content_type="application/json")


def _state(rows: list[dict[str, Any]]) -> web.Response:
    count = len(rows)
    inner = {"total": count, "num_after_truncation": count, "num_filtered": count, "result": rows}
    inner |= {"partial_failure_warning": "", "warnings": None}
    return _json({"result": True, "msg": "", "data": {"result": inner}})


def _trouble() -> web.Response:
    return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")


def _traceback(last_line: str) -> str:
    return f'Traceback (most recent call last):\n  File "job_head.py", line 1, in submit_job\n{last_line}\n'


def _from_agent(status: int, last_line: str) -> str:
    """Return an agent's error as the head reports it: a traceback within a traceback."""
    return _traceback(f"RuntimeError: Request failed with status code {status}: {_traceback(last_line)}.")
