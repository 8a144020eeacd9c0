"""What tests and tools ask of the emulator itself, below ``/emulator/``: clusters, calls, faults, tokens."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from vertex_ray_emulator.faults import Fault, Faults
from vertex_ray_emulator.project.project_script import Project, ProjectScript
from vertex_ray_emulator.settings import LOOPBACK
from vertex_ray_emulator.wire.errors import CODES, ApiError, invalid

if TYPE_CHECKING:
    from aiohttp import web

    from vertex_ray_emulator.backends.backend import ClusterBackend
    from vertex_ray_emulator.clusters.control_plane import ControlPlane
    from vertex_ray_emulator.clusters.lifecycle import Cluster
    from vertex_ray_emulator.companions.companions import Companions
    from vertex_ray_emulator.google.telemetry import Telemetry
    from vertex_ray_emulator.request_log import RequestLog
    from vertex_ray_emulator.serving.serving import Serving
    from vertex_ray_emulator.surfaces.tokens import Tokens

PARTS = ("head", "gcs", "dashboard", "agent", "raylet", "driver")
SIGNALS = ("KILL", "STOP", "CONT", "TERM")

Handler = Callable[[web.Request, re.Match[str]], Awaitable[dict[str, Any]]]


class Admin:
    """Serves ``/emulator/…``; there is no token to it, because nothing but this machine reaches it.

    :param control_plane: The clusters.
    :param backend: Their nodes.
    :param serving: Models and endpoints.
    :param companions: What runs beside.
    :param cut_connections: Cuts every connection to a dashboard, and gives how many there were.
    :param cloud: The project, and what is known of logs and metrics.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        backend: ClusterBackend,
        serving: Serving,
        companions: Companions,
        faults: Faults,
        calls: RequestLog,
        tokens: Tokens,
        cut_connections: Callable[[], int],
        cloud: AdminCloud,
    ) -> None:
        self._plane = control_plane
        self._backend = backend
        self._serving = serving
        self._companions = companions
        self._faults = faults
        self._calls = calls
        self._tokens = tokens
        self._cut_connections = cut_connections
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", r"health", self._health),
            ("GET", r"clusters", self._clusters),
            ("GET", r"companions", self._list_companions),
            ("DELETE", r"clusters", self._purge),
            ("DELETE", r"clusters/([^/]+)", self._purge_one),
            ("POST", r"clusters/([^/]+)/state", self._state),
            ("POST", r"clusters/([^/]+)/kill", self._kill),
            ("GET", r"endpoints", self._endpoints),
            ("DELETE", r"endpoints", self._purge_serving),
            ("POST", r"endpoints/([^/]+)/kill", self._kill_predictor),
            ("GET", r"calls", self._read_calls),
            ("DELETE", r"calls", self._clear_calls),
            ("POST", r"faults", self._add_faults),
            ("GET", r"faults", self._read_faults),
            ("DELETE", r"faults", self._clear_faults),
            ("DELETE", r"faults/([^/]+)", self._remove_fault),
            ("POST", r"connections/cut", self._cut),
            ("POST", r"tokens/revoke", self._revoke),
            ("POST", r"tokens/settings", self._token_settings),
            *cloud.routes(),
        )
        self._routes = [(verb, re.compile(path), handler) for verb, path, handler in table]

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request (an aiohttp handler)."""
        # A page in a browser of this machine could otherwise send here what it likes, by DNS rebinding too.
        if request.host.rsplit(":", 1)[0] not in (LOOPBACK, "localhost") or "Origin" in request.headers:
            return web.json_response(ApiError("PERMISSION_DENIED", "Only for this machine.").body(), status=403)
        path = request.path.removeprefix("/emulator/").rstrip("/")
        try:
            for verb, pattern, handler in self._routes:
                match = pattern.fullmatch(path)
                if match and verb == request.method:
                    return web.json_response(await handler(request, match))
            raise ApiError("NOT_FOUND", f"There is no {request.method} {request.path}.")
        except ApiError as error:
            return web.json_response(error.body(), status=error.http_status)

    async def _health(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"status": "ok"}

    async def _list_companions(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"companions": self._companions.describe()}

    async def _clusters(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"clusters": [await self._describe(cluster) for cluster in self._plane.clusters()]}

    async def _describe(self, cluster: Cluster) -> dict[str, Any]:
        started = cluster.addresses
        return {
            "name": cluster.name,
            "id": cluster.id,
            "key": cluster.key,
            "state": cluster.state,
            "createTime": cluster.resource.create_time.ToJsonString(),
            "nodes": await self._backend.nodes(cluster.key) if started else [],
            "dashboard_url": f"http://{LOOPBACK}:{started.dashboard_port}" if started else None,
            "accessUris": dict(cluster.resource.resource_runtime.access_uris),
        }

    def _cluster(self, match: re.Match[str]) -> Cluster:
        cluster = self._plane.by_id(match.group(1))
        if cluster is None:
            raise ApiError("NOT_FOUND", f"There is no cluster {match.group(1)!r}.")
        return cluster

    async def _purge(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        await self._plane.purge(self._plane.clusters())
        self._plane.forget_names()
        return {}

    async def _purge_one(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        await self._plane.purge([self._cluster(match)])
        return {}

    async def _state(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        cluster, body = self._cluster(match), await read_object(request)
        error = None
        if given := body.get("error"):
            names = {number: name for name, (number, _) in CODES.items()}
            code = names.get(given.get("code", 13)) if isinstance(given, dict) else None
            if code is None:
                raise invalid('error must be like {"code": 13, "message": "…"}')
            error = ApiError(code, str(given.get("message", "")))
        await self._plane.force_state(cluster, str(body.get("state", "")), error)
        return {"name": cluster.name, "state": cluster.state}

    async def _kill(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        cluster, body = self._cluster(match), await read_object(request)
        part, signal_name = body.get("part"), body.get("signal", "KILL")
        if part not in PARTS or signal_name not in SIGNALS:
            raise invalid(f"part must be one of {list(PARTS)}, signal one of {list(SIGNALS)}")
        try:
            pids = await self._backend.kill(
                cluster.key, part, signal_name, node=body.get("node"), submission_id=body.get("submission_id")
            )
        except (LookupError, ValueError) as error:
            raise invalid(str(error)) from error
        return {"pids": pids}

    async def _endpoints(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"endpoints": self._serving.describe()}

    async def _purge_serving(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        await self._serving.purge()
        return {}

    async def _kill_predictor(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        body = await read_object(request)
        signal_name = body.get("signal", "KILL")
        if signal_name not in SIGNALS:
            raise invalid(f"signal must be one of {list(SIGNALS)}")
        number = signal.Signals[f"SIG{signal_name}"]
        try:
            return {"pids": self._serving.kill(match.group(1), body.get("deployed_model"), number)}
        except LookupError as error:
            raise ApiError("NOT_FOUND", str(error)) from error

    async def _read_calls(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        query = request.query
        try:
            since = float(query.get("since", "0"))
        except ValueError as error:
            raise invalid("since must be a unix time in seconds") from error
        return {
            "calls": self._calls.listing(
                method=query.get("method", "*"),
                since=since,
                surface=query.get("surface", "*"),
                resource=query.get("resource", "*"),
            )
        }

    async def _clear_calls(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._calls.clear()
        return {}

    async def _add_faults(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        body = await read_json(request)
        try:
            faults = [Fault.from_json(each) for each in (body if isinstance(body, list) else [body])]
        except (ValueError, TypeError) as error:
            raise invalid(str(error)) from error
        return {"ids": [self._faults.add(fault) for fault in faults]}

    async def _read_faults(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"faults": self._faults.listing()}

    async def _clear_faults(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._faults.clear()
        return {}

    async def _remove_fault(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        if not self._faults.remove(match.group(1)):
            raise ApiError("NOT_FOUND", f"There is no fault {match.group(1)!r}; it may have been used up.")
        return {}

    async def _cut(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"cut": self._cut_connections()}

    async def _revoke(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._tokens.revoke_all()
        return {}

    async def _token_settings(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        seconds = (await read_object(request)).get("seconds")
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds <= 0:
            raise invalid("seconds must be a positive number: the life of the tokens minted from now on")
        self._tokens.seconds = float(seconds)
        return {"seconds": self._tokens.seconds}


async def read_json(request: web.Request) -> Any:
    """A request's JSON.

    :raises ApiError: INVALID_ARGUMENT for what is none.
    """
    try:
        return json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise invalid(f"the body is no JSON: {error}") from error


async def read_object(request: web.Request) -> dict[str, Any]:
    """A request's JSON object.

    :raises ApiError: INVALID_ARGUMENT for anything else.
    """
    body = await read_json(request)
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    return body


class AdminCloud:
    """The part of the admin API that is about Google's other services.

    :param project: Gets the script.
    :param control_plane: Knows the clusters.
    :param telemetry: Has their logs and metrics.
    """

    def __init__(self, project: Project, control_plane: ControlPlane, telemetry: Telemetry) -> None:
        self._project = project
        self._plane = control_plane
        self._telemetry = telemetry

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Verb, path and handler of each request."""
        return [
            ("GET", r"project", self._read_project),
            ("PUT", r"project", self._script_project),
            ("DELETE", r"project", self._forget_project),
            ("GET", r"clusters/([^/]+)/metrics", self._read_metrics),
            ("PUT", r"clusters/([^/]+)/metrics", self._set_metrics),
            ("DELETE", r"clusters/([^/]+)/metrics", self._unset_metrics),
            ("DELETE", r"telemetry", self._forget_telemetry),
        ]

    async def _read_project(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return self._project.script.to_json()

    async def _script_project(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        try:
            self._project.script = ProjectScript.from_json(await read_json(request))
        except ValueError as error:
            raise invalid(str(error)) from error
        return self._project.script.to_json()

    async def _forget_project(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._project.script = ProjectScript()
        return {}

    def _key(self, match: re.Match[str]) -> str:
        cluster = self._plane.by_id(match.group(1))
        if cluster is None:
            raise ApiError("NOT_FOUND", f"There is no cluster {match.group(1)!r}.")
        return cluster.key

    async def _read_metrics(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        try:
            return {"metrics": self._telemetry.overrides(self._key(match))}
        except LookupError as error:
            raise _not_up(match) from error

    async def _set_metrics(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        given = await read_object(request)
        for name in given:
            if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name):
                raise invalid(f"{name!r} is no name of a metric: it must be like ray_node_cpu_utilization")
        try:
            self._telemetry.override(self._key(match), given)
        except LookupError as error:
            raise _not_up(match) from error
        except ValueError as error:
            raise invalid(str(error)) from error
        return await self._read_metrics(request, match)

    async def _unset_metrics(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        try:
            self._telemetry.override(self._key(match), {})
        except LookupError as error:
            raise _not_up(match) from error
        return {}

    async def _forget_telemetry(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._telemetry.logs.forget_gone()
        self._telemetry.metrics.forget_gone()
        return {}


def _not_up(match: re.Match[str]) -> ApiError:
    return ApiError("FAILED_PRECONDITION", f"The cluster {match.group(1)!r} has no nodes: it has no metrics.")
