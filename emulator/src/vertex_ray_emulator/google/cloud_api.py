"""Routing of requests to Google's other services, which share the emulator's port.

Their methods are in ``logging_api``, ``monitoring_api``, ``service_usage``, ``iam_api`` and ``compute_api``. Only JSON
over HTTP is supported: all their clients have a REST mode, which clients in Airflow use.
"""

from __future__ import annotations

import json
import math
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

    :param path: the named groups of the route.
    :param query: the query parameters, each with all its values.
    :param body: the JSON object in the body, or the fields of a form.
    """

    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    def parameter(self, name: str, default: str = "") -> str:
        """Return the last value of a query parameter."""
        return (self.query.get(name) or [default])[-1]

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that must be a non-negative integer.

        :raises ApiError: INVALID_ARGUMENT if it is not.
        """
        text = self.parameter(name, str(default)) or str(default)
        if not re.fullmatch(r"\d{1,9}", text):
            raise invalid(f"Invalid value at '{name}' (TYPE_INT32), {text!r}")
        return int(text)


@dataclass(frozen=True)
class CloudRpc:
    """A method of a service.

    :param name: its name for faults and in the request log; ``api_table`` has the permission that it requires.
    :param verb: the HTTP method.
    :param path: regular expression for the whole path, without the leading slash.
    :param work: handles a request and returns the response body.
    """

    name: str
    verb: str
    path: str
    work: Callable[[CloudRequest], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Found:
    """The method that a request calls.

    :param rpc: the method.
    :param match: the match of its path.
    :param resource: name of the resource, for faults and in the request log.
    """

    rpc: CloudRpc
    match: re.Match[str]
    resource: str


class CloudApis:
    """Routes requests to the methods of Google's other services.

    :param rpcs: all methods.
    :param project: the emulator's only project.
    """

    def __init__(self, rpcs: Sequence[CloudRpc], project: Project) -> None:
        self._routes = [(rpc, re.compile(rpc.path)) for rpc in rpcs]
        self._project = project

    def find(self, method: str, path: str) -> Found | None:
        """Return the method that a request calls, or None if it does not exist.

        :param method: the HTTP method.
        :param path: the decoded path, without the leading slash.
        """
        for rpc, pattern in self._routes:
            match = pattern.fullmatch(path) if rpc.verb == method else None
            if match is None:
                continue
            # Resource names have no version.
            resource = re.sub(r"^(compute/)?v\d\w*/", "", path)
            if match.groupdict().get("project") in (self._project.id, "-"):
                resource = re.sub(r"^projects/[^/:]+", f"projects/{self._project.number}", resource)
            return Found(rpc, match, resource)
        return None

    async def carry_out(self, found: Found, request: web.Request, data: bytes) -> dict[str, Any]:
        """Handle a request and return the response body.

        :param data: the request's body as received.
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
        # "-" means any project, where a name is unique without it.
        if given is None or given in (self._project.id, self._project.number, "-"):
            return
        raise ApiError("PERMISSION_DENIED", f"The caller does not have permission on project '{given}'.")


def error_body(error: ApiError, path: str) -> dict[str, Any]:
    """Return the body of an error as the service answers it; Compute Engine adds a list of errors."""
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


def _no_number(name: str) -> float:
    raise ValueError(f"Unexpected token: {name}")  # NaN and Infinity, which Python's own encoder writes


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"Number out of range: {text}")
    return number


def strict_json(data: bytes) -> Any:
    """Parse the JSON value in a request's body; an empty body is an empty object.

    :raises ValueError: if it is not JSON, has a number that JSON does not have, or is nested too deeply.
    """
    try:
        return json.loads(data or b"{}", parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None


def json_body(data: bytes) -> dict[str, Any]:
    """Parse the JSON object in a request's body; an empty body is an empty object.

    :raises ApiError: INVALID_ARGUMENT for anything else, with the service's message.
    """
    try:
        body = strict_json(data)
    except ValueError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    if not isinstance(body, dict):
        raise invalid("Invalid JSON payload received. Root element must be a message.")
    return body


def offset_page(found: Sequence[Any], size: int, token: str) -> tuple[list[Any], str]:
    """Return a page of a list that does not change between requests, and the next page's token or an empty string.

    :raises ApiError: INVALID_ARGUMENT for an invalid token.
    """
    if not re.fullmatch(r"(o\d{1,9})?", token):
        raise invalid(f"Invalid page token: {token!r}.")
    begin = int(token[1:] or 0) if token else 0
    end = begin + size
    return list(found[begin:end]), f"o{end}" if end < len(found) else ""
