"""What tests say of the project and of metrics: ``/emulator/project``, ``/emulator/clusters/ID/metrics``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .admin import Handler, read_json, read_object
from .errors import ApiError, invalid
from .project_script import Project, ProjectScript

if TYPE_CHECKING:
    from aiohttp import web

    from .control_plane import ControlPlane
    from .telemetry import Telemetry


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
