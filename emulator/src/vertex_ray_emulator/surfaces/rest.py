"""The API as REST/JSON, v1 and v1beta1, as on ``https://<location>-aiplatform.googleapis.com``."""

from __future__ import annotations

import json
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2, json_format

from vertex_ray_emulator.google.cloud_api import CloudApis, Found, error_body, json_body
from vertex_ray_emulator.google.projects import get_project
from vertex_ray_emulator.serving.endpoints import DEDICATED_SUFFIX, requested_host
from vertex_ray_emulator.serving.prediction import MAX_DEDICATED_REQUEST
from vertex_ray_emulator.serving.serving_api import (
    ENDPOINT,
    LOCATION,
    MAX_BODY,
    MODEL,
    UNREADABLE,
    Rpc,
    check_parameters,
    too_large,
    unreadable,
)
from vertex_ray_emulator.wire.errors import ApiError, ConnectionCutError, invalid, unexpected
from vertex_ray_emulator.wire.operations import WAIT_SECONDS
from vertex_ray_emulator.wire.protos import APIS, V1BETA1, Api, PersistentResource, convert

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vertex_ray_emulator.clusters.control_plane import ControlPlane
    from vertex_ray_emulator.settings import Settings
    from vertex_ray_emulator.surfaces.request_pipeline import Answer, RequestPipeline

VERSIONS = ("v1", "v1beta1", "v2", "v3", "compute", "ui")
"""First parts of the paths of all methods, those of Google's other services included."""
_RESOURCE = LOCATION + r"/persistentResources/[^/:]+"
_OWNER = rf"(?:{_RESOURCE}|{MODEL}|{ENDPOINT}|{LOCATION})"
_OPERATION = rf"{_OWNER}/operations/[^/:]+"


@dataclass(frozen=True)
class _Request:
    """A request with a known route.

    :param api: the API version in its path.
    :param poll: the API version of operations in the answer; None for that of the request that started the operation.
    :param name: the resource, the operation or the parent in its path, with the project's number.
    :param query: the query parameters.
    :param body: the decoded body.
    :param data: the body as received.
    """

    api: Api
    poll: Api | None
    name: str
    query: dict[str, str]
    body: dict[str, Any]
    data: bytes = b""

    def parameter(self, camel: str) -> str:
        """Return a query parameter; the API accepts its name in camel case and in snake case."""
        snake = re.sub("([A-Z])", lambda m: "_" + m.group(1).lower(), camel)
        return self.query.get(camel, self.query.get(snake, ""))


_Route = tuple[str, "re.Pattern[str]", str, "Callable[[_Request], Awaitable[Any]]", int]
"""Verb, path, RPC, handler and maximum size of the body of a method."""


class RestApi:
    """Serves the control plane to aiohttp.

    :param control_plane: handles the requests for clusters.
    :param pipeline: checks and logs each request before it is handled.
    :param settings: the emulator's settings, with the project.
    :param serving: the RPCs of models, endpoints and predictions.
    :param others: the methods of Google's other services.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        pipeline: RequestPipeline,
        settings: Settings,
        serving: Sequence[Rpc] = (),
        others: CloudApis | None = None,
    ) -> None:
        self._others = others
        self._plane = control_plane
        self._pipeline = pipeline
        self._settings = settings
        table: tuple[tuple[str, str, str, str, Callable[[_Request], Awaitable[Any]]], ...] = (
            ("POST", rf"({LOCATION})/persistentResources", "", "CreatePersistentResource", self._create),
            ("GET", rf"({LOCATION})/persistentResources", "", "ListPersistentResources", self._list),
            ("GET", rf"({_RESOURCE})", "", "GetPersistentResource", self._get),
            ("PATCH", rf"({_RESOURCE})", "", "UpdatePersistentResource", self._update),
            ("DELETE", rf"({_RESOURCE})", "", "DeletePersistentResource", self._delete),
            ("GET", rf"({_OWNER})/operations", "", "ListOperations", self._operations),
            ("GET", rf"({_OPERATION})", "", "GetOperation", self._operation),
            ("DELETE", rf"({_OPERATION})", "", "DeleteOperation", self._delete_operation),
            ("POST", rf"({_OPERATION})", ":wait", "WaitOperation", self._wait),
            ("POST", rf"({_OPERATION})", ":cancel", "CancelOperation", self._cancel),
        )
        clusters: list[_Route] = [
            (verb, re.compile(path + end), rpc, _checked(rpc, work), MAX_BODY) for verb, path, end, rpc, work in table
        ]
        vertex: list[_Route] = [
            *clusters,
            *((r.verb, re.compile(f"({r.path}){r.end}"), r.name, _serve(r), r.max_body) for r in serving),
        ]
        self._routes: dict[str, list[_Route]] = {
            **dict.fromkeys(APIS, vertex),
            # Under which Google's clients poll operations.
            "ui": [route for route in clusters if "Operation" in route[2]],
            # Cloud Resource Manager is another service, in another version.
            "v3": [("GET", re.compile(r"(projects/[^/:]+)"), "GetProject", self._project, MAX_BODY)],
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request (an aiohttp handler)."""
        try:
            return await self._route(request)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - logged
            # An answer that cannot be written as JSON.
            return _error(unexpected(error))

    async def _route(self, request: web.Request) -> web.StreamResponse:
        version, _, path = request.path.lstrip("/").partition("/")
        if version.endswith(DEDICATED_SUFFIX):
            return await self._handle_dedicated(request, version, path)
        for verb, pattern, rpc, work, limit in self._routes.get(version, ()):
            match = pattern.fullmatch(path)
            if match and verb == request.method:
                return await self._answer(request, version, match.group(1), rpc, work, limit)
        found = self._others.find(request.method, request.path.lstrip("/")) if self._others else None
        if self._others and found:
            return await self._answer_other(request, self._others, found)
        return _error(ApiError("NOT_FOUND", f"Method not found: {request.method} {request.path}"))

    async def _handle_dedicated(self, request: web.Request, host: str, rest: str) -> web.StreamResponse:
        """Answer a request that was sent to the host of a dedicated endpoint, which only predicts."""
        version, _, path = rest.partition("/")
        for verb, pattern, rpc, work, _ in self._routes.get(version, ()):
            match = pattern.fullmatch(path)
            if match and verb == request.method and rpc in ("Predict", "RawPredict"):
                token = requested_host.set(host)
                try:
                    return await self._answer(request, version, match.group(1), rpc, work, MAX_DEDICATED_REQUEST)
                finally:
                    requested_host.reset(token)
        return _error(ApiError("NOT_FOUND", f"Method not found: {request.method} {request.path}"))

    async def _answer(
        self,
        request: web.Request,
        version: str,
        name: str,
        rpc: str,
        work: Callable[[_Request], Awaitable[Any]],
        limit: int,
    ) -> web.StreamResponse:
        name = self._plane.canonical(name)

        async def carry_out() -> Any:
            data = await _read(request, limit)
            return await work(
                _Request(
                    APIS.get(version, V1BETA1),
                    APIS.get(version),
                    name,
                    dict(request.query),
                    {} if rpc == "RawPredict" else json_body(data),
                    data,
                )
            )

        resource = name
        for collection, camel, snake in (
            ("persistentResources", "persistentResourceId", "persistent_resource_id"),
            ("endpoints", "endpointId", "endpoint_id"),
        ):
            wanted = request.query.get(camel, request.query.get(snake, ""))
            if rpc in ("CreatePersistentResource", "CreateEndpoint") and wanted:
                resource = f"{name}/{collection}/{wanted}"
        try:
            answer = await self._pipeline.run("rest", rpc, resource, request.headers.get("Authorization"), carry_out)
        except ApiError as error:
            return _error(error)
        except ConnectionCutError:
            return cut(request)
        return await _respond(request, answer)

    async def _answer_other(self, request: web.Request, others: CloudApis, found: Found) -> web.StreamResponse:
        async def carry_out() -> Any:
            return await others.carry_out(found, request, await _read(request, MAX_BODY))

        authorization = request.headers.get("Authorization")
        try:
            answer = await self._pipeline.run("rest", found.rpc.name, found.resource, authorization, carry_out)
        except ApiError as error:
            return web.json_response(error_body(error, request.path), status=error.http_status)
        except ConnectionCutError:
            return cut(request)
        return await _respond(request, answer)

    async def _project(self, request: _Request) -> Any:
        return get_project(request.name, self._settings)

    async def _create(self, request: _Request) -> Any:
        body = _parse(request)
        cluster_id = request.parameter("persistentResourceId")
        return (await self._plane.create(request.name, cluster_id, body, request.api)).render()

    async def _get(self, request: _Request) -> Any:
        return convert(await self._plane.get(request.name), request.api)

    async def _list(self, request: _Request) -> Any:
        size = request.parameter("pageSize") or "0"
        if not re.fullmatch(r"-?\d{1,9}", size):
            raise invalid(f"Invalid value at 'page_size' (TYPE_INT32), {size!r}")
        found, token = await self._plane.list_page(request.name, int(size), request.parameter("pageToken"))
        return request.api.ListResponse(
            persistent_resources=[convert(resource, request.api) for resource in found],
            next_page_token=token,
        )

    async def _update(self, request: _Request) -> Any:
        body = _parse(request)
        body.name = request.name
        paths = [path for path in request.parameter("updateMask").split(",") if path]
        return (await self._plane.update(body, paths, request.api)).render()

    async def _delete(self, request: _Request) -> Any:
        return (await self._plane.delete(request.name, request.api)).render()

    async def _operations(self, request: _Request) -> Any:
        found = self._plane.operations.listing(request.name)
        return operations_pb2.ListOperationsResponse(operations=[op.render(request.poll) for op in found])

    async def _operation(self, request: _Request) -> Any:
        return self._plane.operations.get(request.name).render(request.poll)

    async def _wait(self, request: _Request) -> Any:
        text = str(request.body.get("timeout") or request.parameter("timeout") or f"{WAIT_SECONDS}s")
        if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?s", text):
            raise invalid(f"Invalid value at 'timeout' (type.googleapis.com/google.protobuf.Duration), {text!r}")
        operation = await self._plane.operations.wait(request.name, float(text[:-1]))
        return operation.render(request.poll)

    async def _cancel(self, request: _Request) -> Any:
        self._plane.operations.cancel(request.name)
        return empty_pb2.Empty()

    async def _delete_operation(self, request: _Request) -> Any:
        self._plane.operations.delete(request.name)
        return empty_pb2.Empty()


def _checked(rpc: str, work: Callable[[_Request], Awaitable[Any]]) -> Callable[[_Request], Awaitable[Any]]:
    """Return the handler of a method of clusters or operations that refuses unknown query parameters."""

    async def check(request: _Request) -> Any:
        kind = re.sub("PersistentResources?$", "", rpc)
        message = getattr(request.api if kind != rpc else operations_pb2, f"{kind}Request")
        check_parameters(message, request.query, "persistent_resource")
        return await work(request)

    return check


def _serve(rpc: Rpc) -> Callable[[_Request], Awaitable[Any]]:
    async def work(request: _Request) -> Any:
        if rpc.work_json is not None:
            return await rpc.work_json(request.name, request.body)
        message = rpc.from_http(request.api, request.name, request.query, request.body, request.data)
        return await rpc.carry_out(message, request.api)

    return work


async def _read(request: web.Request, limit: int) -> bytes:
    if not request.can_read_body:
        return b""
    # The application itself has no limit because it also serves the uploads to dashboards.
    data = b""
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > limit:
            raise too_large(limit)
    return data


def _parse(request: _Request) -> Any:
    """Parse the resource in a body; unknown fields of the API version are rejected, as on the service."""
    message = request.api.PersistentResource()
    try:
        json_format.ParseDict(request.body, message)
    except UNREADABLE as error:
        raise unreadable(error, "persistent_resource") from error
    return PersistentResource.FromString(message.SerializeToString())


def _error(error: ApiError) -> web.Response:
    return web.json_response(error.body(), status=error.http_status)


async def _respond(request: web.Request, answer: Answer) -> web.StreamResponse:
    if isinstance(answer.message, httpbody_pb2.HttpBody):
        return web.Response(body=answer.message.data, content_type=answer.message.content_type)
    # GAPIC's REST clients request numbers instead of names for enum values.
    numbers = "enum-encoding=int" in request.query.get("$alt", "")
    if isinstance(answer.message, dict):
        text = json.dumps(answer.message)
    else:
        text = json_format.MessageToJson(answer.message, use_integers_for_enums=numbers, ensure_ascii=False)
    if answer.truncate_after is None:
        return web.Response(text=text, content_type="application/json")
    body = text.encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: answer.truncate_after])
    cut(request, gently=True)
    return response


def cut(request: web.Request, *, gently: bool = False) -> web.StreamResponse:
    """Close a request's connection without an answer.

    :param gently: send what was written before closing; otherwise the peer gets a reset.
    :return: a response for aiohttp, which no client receives.
    """
    transport = request.transport
    if transport is not None and gently:
        transport.close()
    elif transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)
