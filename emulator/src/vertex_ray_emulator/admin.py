"""Admin API below ``/emulator/``, for tests and tools: clusters, the request log, faults, tokens and more."""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from vertex_ray_emulator.backends.backend import PARTS, SIGNALS
from vertex_ray_emulator.faults import Fault, Faults
from vertex_ray_emulator.google.cloud_api import strict_json
from vertex_ray_emulator.project.project_script import Project, ProjectScript
from vertex_ray_emulator.settings import LOOPBACK
from vertex_ray_emulator.wire.errors import CODES, ApiError, invalid, unexpected

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

Handler = Callable[[web.Request, re.Match[str]], Awaitable[dict[str, Any]]]


class Admin:
    """Handler of ``/emulator/…``. It needs no token: ``access.guard`` admits programs of the same user only.

    :param control_plane: clusters.
    :param backend: nodes of the clusters.
    :param serving: models and endpoints.
    :param companions: other services' emulators that run beside this one.
    :param faults: faults that are armed.
    :param request_log: requests that reached the emulator.
    :param tokens: access tokens.
    :param cut_connections: cuts every connection to a dashboard and returns their number.
    :param readiness: returns whether a cluster's dashboard answers.
    :param cloud: handlers for the project, logs and metrics.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        backend: ClusterBackend,
        serving: Serving,
        companions: Companions,
        faults: Faults,
        request_log: RequestLog,
        tokens: Tokens,
        cut_connections: Callable[[], int],
        readiness: Callable[[Cluster], str | None],
        cloud: AdminCloud,
    ) -> None:
        self._plane = control_plane
        self._backend = backend
        self._serving = serving
        self._companions = companions
        self._faults = faults
        self._request_log = request_log
        self._tokens = tokens
        self._cut_connections = cut_connections
        self._readiness = readiness
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", r"health", self._health),
            ("GET", r"clusters", self._clusters),
            ("GET", r"companions", self._list_companions),
            ("GET", r"dashboards/([^/]+)", self._dashboard),
            ("DELETE", r"clusters", self._purge),
            ("DELETE", r"clusters/([^/]+)", self._purge_one),
            ("POST", r"clusters/([^/]+)/state", self._state),
            ("POST", r"clusters/([^/]+)/kill", self._kill),
            ("GET", r"endpoints", self._endpoints),
            ("DELETE", r"endpoints", self._purge_serving),
            ("POST", r"endpoints/([^/]+)/kill", self._kill_predictor),
            ("GET", r"calls", self._read_request_log),
            ("DELETE", r"calls", self._clear_request_log),
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
        """Answer one request, as an aiohttp handler."""
        path = request.path.removeprefix("/emulator/").rstrip("/")
        try:
            for verb, pattern, handler in self._routes:
                match = pattern.fullmatch(path)
                if match and verb == request.method:
                    return web.json_response(await handler(request, match))
            raise ApiError("NOT_FOUND", f"Method not found: {request.method} {request.path}")
        except ApiError as error:
            return web.json_response(error.body(), status=error.http_status)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 - logged
            answer = unexpected(error)
            return web.json_response(answer.body(), status=answer.http_status)

    async def _health(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"status": "ok"}

    async def _list_companions(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"companions": self._companions.describe()}

    async def _dashboard(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        """Lead a browser to Ray's own dashboard of a cluster; it keeps the fragment, such as ``#/jobs/ID``."""
        for cluster in self._plane.clusters():
            uri = cluster.resource.resource_runtime.access_uris.get("RAY_DASHBOARD_URI", "")
            if cluster.addresses and uri.rsplit("/", 1)[-1] == match.group(1):
                raise web.HTTPFound(f"http://{LOOPBACK}:{cluster.addresses.dashboard_port}/")
        raise ApiError("NOT_FOUND", f"The cluster with the dashboard {match.group(1)!r} no longer exists.")

    async def _clusters(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"clusters": [await self._describe(cluster) for cluster in self._plane.clusters()]}

    async def _describe(self, cluster: Cluster) -> dict[str, Any]:
        started = cluster.addresses
        running = cluster.resource.HasField("start_time")
        return {
            "name": cluster.name,
            "id": cluster.id,
            "key": cluster.key,
            "state": cluster.state,
            "createTime": cluster.resource.create_time.ToJsonString(),
            "startTime": cluster.resource.start_time.ToJsonString() if running else None,
            "nodes": await self._backend.nodes(cluster.key) if started else [],
            "dashboard": self._readiness(cluster),
            "dashboard_url": f"http://{LOOPBACK}:{started.dashboard_port}" if started else None,
            "accessUris": dict(cluster.resource.resource_runtime.access_uris),
        }

    def _cluster(self, match: re.Match[str]) -> Cluster:
        cluster = self._plane.by_id(match.group(1))
        if cluster is None:
            raise ApiError("NOT_FOUND", f"Cluster {match.group(1)!r} does not exist.")
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
            number = given.get("code", 13) if isinstance(given, dict) else None
            code = names.get(number) if isinstance(number, int) else None
            if code is None:
                raise invalid(
                    f'Invalid value for error: {given!r}. Use an object such as {{"code": 13, "message": "…"}}.'
                )
            error = ApiError(code, str(given.get("message", "")))
        await self._plane.force_state(cluster, str(body.get("state", "")), error)
        return {"name": cluster.name, "state": cluster.state}

    async def _kill(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        cluster, body = self._cluster(match), await read_object(request)
        part, signal_name = body.get("part"), body.get("signal", "KILL")
        if part not in PARTS or signal_name not in SIGNALS:
            raise invalid(
                f"Invalid value for part or signal: {part!r}, {signal_name!r}. "
                f"Use a part out of {', '.join(PARTS)} and a signal out of {', '.join(SIGNALS)}."
            )
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
            raise invalid(f"Invalid value for signal: {signal_name!r}. Use one of {', '.join(SIGNALS)}.")
        number = signal.Signals[f"SIG{signal_name}"]
        try:
            return {"pids": self._serving.kill(match.group(1), body.get("deployed_model"), number)}
        except LookupError as error:
            raise ApiError("NOT_FOUND", str(error)) from error

    async def _read_request_log(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        query = request.query
        try:
            since = float(query.get("since", "0"))
        except ValueError as error:
            raise invalid(f"Invalid value for since: {query['since']!r}. Use a Unix time in seconds.") from error
        return {
            "calls": self._request_log.listing(
                method=query.get("method", "*"),
                since=since,
                surface=query.get("surface", "*"),
                resource=query.get("resource", "*"),
            )
        }

    async def _clear_request_log(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._request_log.clear()
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
            raise ApiError("NOT_FOUND", f"Fault {match.group(1)!r} does not exist; it may have been used up.")
        return {}

    async def _cut(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return {"cut": self._cut_connections()}

    async def _revoke(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._tokens.revoke_all()
        return {}

    async def _token_settings(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        seconds = (await read_object(request)).get("seconds")
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds <= 0:
            raise invalid(f"Invalid value for seconds: {seconds!r}. Use a positive number, the lifetime of new tokens.")
        self._tokens.seconds = float(seconds)
        return {"seconds": self._tokens.seconds}


async def read_json(request: web.Request) -> Any:
    """Return the JSON value in a request's body.

    :raises ApiError: INVALID_ARGUMENT if the body is not JSON.
    """
    try:
        return strict_json(await request.read())
    except ValueError as error:
        raise invalid(f"The request body is not valid JSON: {error}.") from error


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in a request's body.

    :raises ApiError: INVALID_ARGUMENT if the body is not a JSON object.
    """
    body = await read_json(request)
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object.")
    return body


class AdminCloud:
    """Part of the admin API for Google's other services: the project, logs and metrics.

    :param project: project that scripts are applied to.
    :param control_plane: clusters.
    :param telemetry: logs and metrics of the clusters.
    """

    def __init__(self, project: Project, control_plane: ControlPlane, telemetry: Telemetry) -> None:
        self._project = project
        self._plane = control_plane
        self._telemetry = telemetry

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return verb, path and handler of each method."""
        return [
            ("GET", r"project", self._read_project),
            ("PUT", r"project", self._set_project),
            ("DELETE", r"project", self._reset_project),
            ("GET", r"clusters/([^/]+)/metrics", self._read_metrics),
            ("PUT", r"clusters/([^/]+)/metrics", self._set_metrics),
            ("DELETE", r"clusters/([^/]+)/metrics", self._unset_metrics),
            ("DELETE", r"telemetry", self._clear_telemetry),
        ]

    async def _read_project(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        return self._project.script.to_json()

    async def _set_project(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        try:
            self._project.script = ProjectScript.from_json(await read_json(request))
        except ValueError as error:
            raise invalid(str(error)) from error
        return self._project.script.to_json()

    async def _reset_project(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._project.script = ProjectScript()
        return {}

    def _key(self, match: re.Match[str]) -> str:
        cluster = self._plane.by_id(match.group(1))
        if cluster is None:
            raise ApiError("NOT_FOUND", f"Cluster {match.group(1)!r} does not exist.")
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
                raise invalid(
                    f"Invalid value for metric name: {name!r}. Use a Prometheus name, such as ray_node_cpu_utilization."
                )
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

    async def _clear_telemetry(self, request: web.Request, match: re.Match[str]) -> dict[str, Any]:
        self._telemetry.logs.forget_gone()
        self._telemetry.metrics.forget_gone()
        return {}


def _not_up(match: re.Match[str]) -> ApiError:
    return ApiError("FAILED_PRECONDITION", f"Cluster {match.group(1)!r} has no running nodes, and so no metrics.")
