"""Google's other services on the same port: how a request to one of them is found, read and answered.

Their tables are in ``logging_api``, ``monitoring_api``, ``service_usage``, ``iam_api`` and ``compute_api``. JSON over
HTTP only: their clients have a REST mode, and what talks to clusters from Airflow uses that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from vertex_ray_emulator.wire.errors import ApiError, invalid

if TYPE_CHECKING:
    from aiohttp import web

    from vertex_ray_emulator.project.project_script import Project

PROJECT = r"projects/(?P<project>[^/:]+)"
_REASONS = {400: "invalid", 401: "authError", 403: "forbidden", 404: "notFound", 429: "rateLimitExceeded"}


@dataclass(frozen=True)
class CloudRequest:
    """A request to one of the services.

    :param path: The named groups of the route.
    :param query: The parameters of the URL, each with all its values.
    :param body: The body's object; for a form its fields.
    """

    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    def parameter(self, name: str, default: str = "") -> str:
        """A parameter of the URL, its last value."""
        return (self.query.get(name) or [default])[-1]

    def number(self, name: str, default: int) -> int:
        """A parameter that is a whole number, 0 or more.

        :raises ApiError: INVALID_ARGUMENT for what is none.
        """
        text = self.parameter(name, str(default)) or str(default)
        if not re.fullmatch(r"\d{1,9}", text):
            raise invalid(f"Invalid value at '{name}' (TYPE_INT32), {text!r}")
        return int(text)


@dataclass(frozen=True)
class CloudRpc:
    """One method.

    :param name: By which faults and the call log know it; ``api_table`` says what it needs.
    :param verb: The HTTP method.
    :param path: A pattern of the whole path, without the slash at its beginning.
    :param work: Carries it out.
    """

    name: str
    verb: str
    path: str
    work: Callable[[CloudRequest], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Found:
    """The method that a request is for.

    :param resource: What it is about, for faults and the call log.
    """

    rpc: CloudRpc
    match: re.Match[str]
    resource: str


class CloudApis:
    """Finds and carries out the methods of the other services.

    :param rpcs: All of them.
    :param project: The only project that there is.
    """

    def __init__(self, rpcs: Sequence[CloudRpc], project: Project) -> None:
        self._routes = [(rpc, re.compile(rpc.path)) for rpc in rpcs]
        self._project = project

    def find(self, method: str, path: str) -> Found | None:
        """The method of a request; None when there is none.

        :param path: Decoded, without the slash at its beginning.
        """
        for rpc, pattern in self._routes:
            match = pattern.fullmatch(path) if rpc.verb == method else None
            if match is None:
                continue
            # Without the version: names of resources have none.
            resource = re.sub(r"^(compute/)?v\d\w*/", "", path)
            if match.groupdict().get("project") in (self._project.id, "-"):
                resource = re.sub(r"^projects/[^/:]+", f"projects/{self._project.number}", resource)
            return Found(rpc, match, resource)
        return None

    async def carry_out(self, found: Found, request: web.Request, data: bytes) -> dict[str, Any]:
        """Do it; gives the answer's body.

        :param data: The request's body as it came.
        """
        self._check_project(found)
        query: dict[str, list[str]] = {}
        for name, value in request.query.items():
            query.setdefault(name, []).append(value)
        body = _read_body(request.content_type, data)
        groups = {name: value for name, value in found.match.groupdict().items() if value is not None}
        return await found.rpc.work(CloudRequest(groups, query, body))

    def _check_project(self, found: Found) -> None:
        given = found.match.groupdict().get("project")
        # "-" stands for any project where a name is unique without one.
        if given is None or given in (self._project.id, self._project.number, "-"):
            return
        raise ApiError("PERMISSION_DENIED", f"The caller does not have permission on project '{given}'.")


def error_body(error: ApiError, path: str) -> dict[str, Any]:
    """An error as the service answers it; Compute Engine has a list of errors beside."""
    body = error.body()
    if path.lstrip("/").startswith("compute/") and isinstance(body.get("error"), dict):
        disabled = any(each.get("reason") == "SERVICE_DISABLED" for each in error.details)
        reason = "accessNotConfigured" if disabled else _REASONS.get(error.http_status, "backendError")
        body["error"]["errors"] = [{"message": error.message, "domain": "global", "reason": reason}]
    return body


def _read_body(content_type: str, data: bytes) -> dict[str, Any]:
    if content_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(data.decode(errors="replace"), keep_blank_values=True))
    return json_body(data)


def json_body(data: bytes) -> dict[str, Any]:
    """A request's JSON object; that of an empty body is empty.

    :raises ApiError: INVALID_ARGUMENT for anything else, in the service's words.
    """
    try:
        body = json.loads(data or b"{}")
    except ValueError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    if not isinstance(body, dict):
        raise invalid("Invalid JSON payload received. Root element must be a message.")
    return body


def offset_page(found: Sequence[Any], size: int, token: str) -> tuple[list[Any], str]:
    """A page of a list that does not change meanwhile, and the next page's token or an empty string.

    :raises ApiError: INVALID_ARGUMENT for a token that there is not.
    """
    if not re.fullmatch(r"(o\d{1,9})?", token):
        raise invalid(f"Invalid page token: {token!r}.")
    begin = int(token[1:] or 0) if token else 0
    end = begin + size
    return list(found[begin:end]), f"o{end}" if end < len(found) else ""
