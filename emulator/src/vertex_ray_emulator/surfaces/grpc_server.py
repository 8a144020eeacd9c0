"""The API as gRPC over TLS, v1 and v1beta1, with the other services that the SDK calls: operations and projects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from vertex_ray_emulator.google.projects import get_project
from vertex_ray_emulator.serving.serving_api import too_large
from vertex_ray_emulator.settings import LOOPBACK, Settings
from vertex_ray_emulator.wire.errors import ApiError, ConnectionCutError
from vertex_ray_emulator.wire.operations import WAIT_SECONDS
from vertex_ray_emulator.wire.protos import APIS, Api, GetProjectRequest, PersistentResource, convert

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vertex_ray_emulator.clusters.control_plane import ControlPlane
    from vertex_ray_emulator.serving.serving_api import Rpc
    from vertex_ray_emulator.surfaces.request_pipeline import RequestPipeline

SLEEPER = "+vertex_ray"
"""Part of what the vertex_ray SDK says about itself, which sleeps for 150 s if its first Get finds PROVISIONING."""
OPTIONS = [
    # Otherwise two emulators could share a port, and its connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 << 20),
]
CUT = "Socket closed"
"""The message that a gRPC client sees when the connection breaks during a call."""


@dataclass(frozen=True)
class _Method:
    """One RPC.

    :param request: message class of the request.
    :param name_of: returns the name of the resource that a request is for.
    :param work: handles a request and returns the response.
    """

    name: str
    request: Any
    name_of: Callable[[Any], str]
    work: Callable[[Any], Awaitable[Any]]


class GrpcApi:
    """The gRPC server.

    :param control_plane: handles the requests for clusters.
    :param pipeline: checks and logs each request before it is handled.
    :param settings: the emulator's settings, with the project.
    :param serving: the RPCs of models, endpoints and predictions.
    """

    def __init__(
        self, control_plane: ControlPlane, pipeline: RequestPipeline, settings: Settings, serving: Sequence[Rpc] = ()
    ) -> None:
        self.forwarders: list[Any] = []
        """Handlers that forward calls to other services; they must be added before the start."""
        self._serving = serving
        self._plane = control_plane
        self._pipeline = pipeline
        self._settings = settings
        self._server: Any = None

    async def start(self, private_key: bytes, certificate: bytes) -> int:
        """Listen with TLS on a free port of 127.0.0.1 and return the port."""
        self._server = grpc.aio.server(options=OPTIONS)
        services = [
            (f"google.cloud.aiplatform.{api.version}.PersistentResourceService", self._resources(api))
            for api in APIS.values()
        ]
        for api in APIS.values():
            for service in sorted({rpc.service for rpc in self._serving}):
                methods = [_method(rpc, api) for rpc in self._serving if rpc.service == service]
                services.append((f"google.cloud.aiplatform.{api.version}.{service}", methods))
        services.append(("google.longrunning.Operations", self._operations()))
        services.append(("google.cloud.resourcemanager.v3.Projects", self._projects()))
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(name, {m.name: self._handler(m) for m in methods})
                for name, methods in services
            ]
            + self.forwarders
        )
        credentials = grpc.ssl_server_credentials([(private_key, certificate)])
        port = int(self._server.add_secure_port(f"{LOOPBACK}:0", credentials))
        await self._server.start()
        return port

    async def close(self) -> None:
        """Stop listening and abort the calls in progress."""
        if self._server is not None:
            await self._server.stop(0)

    def _handler(self, method: _Method) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            resource = self._plane.canonical(method.name_of(request))

            async def work() -> Any:
                if method.name == "GetPersistentResource" and SLEEPER in metadata.get("x-goog-api-client", ""):
                    await self._plane.wait_provisioned(resource)
                return await method.work(request)

            try:
                found = await self._pipeline.run("grpc", method.name, resource, metadata.get("authorization"), work)
            except ApiError as error:
                await context.abort(getattr(grpc.StatusCode, error.code), error.message)
            except ConnectionCutError:
                await context.abort(grpc.StatusCode.UNAVAILABLE, CUT)
            if found.truncate_after is not None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, CUT)
            return found.message

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=method.request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _resources(self, api: Api) -> list[_Method]:
        plane = self._plane

        async def create(request: Any) -> Any:
            body = _neutral(request.persistent_resource)
            return (await plane.create(request.parent, request.persistent_resource_id, body, api)).render()

        async def get(request: Any) -> Any:
            return convert(await plane.get(request.name), api)

        async def list_page(request: Any) -> Any:
            found, token = await plane.list_page(request.parent, request.page_size, request.page_token)
            return api.ListResponse(
                persistent_resources=[convert(resource, api) for resource in found], next_page_token=token
            )

        async def update(request: Any) -> Any:
            body = _neutral(request.persistent_resource)
            return (await plane.update(body, list(request.update_mask.paths), api)).render()

        async def delete(request: Any) -> Any:
            return (await plane.delete(request.name, api)).render()

        return [
            _Method(
                "CreatePersistentResource",
                api.CreateRequest,
                lambda q: f"{q.parent}/persistentResources/{q.persistent_resource_id}",
                create,
            ),
            _Method("GetPersistentResource", api.GetRequest, lambda q: str(q.name), get),
            _Method("ListPersistentResources", api.ListRequest, lambda q: str(q.parent), list_page),
            _Method(
                "UpdatePersistentResource",
                api.UpdateRequest,
                lambda q: str(q.persistent_resource.name),
                update,
            ),
            _Method("DeletePersistentResource", api.DeleteRequest, lambda q: str(q.name), delete),
        ]

    def _operations(self) -> list[_Method]:
        operations, canonical = self._plane.operations, self._plane.canonical

        async def get(request: Any) -> Any:
            return operations.get(canonical(request.name)).render()

        async def list_all(request: Any) -> Any:
            found = operations.listing(canonical(request.name))
            return operations_pb2.ListOperationsResponse(operations=[op.render() for op in found])

        async def wait(request: Any) -> Any:
            seconds = request.timeout.seconds + request.timeout.nanos / 1e9 or WAIT_SECONDS
            return (await operations.wait(canonical(request.name), seconds)).render()

        async def cancel(request: Any) -> Any:
            operations.cancel(canonical(request.name))
            return empty_pb2.Empty()

        async def delete(request: Any) -> Any:
            operations.delete(canonical(request.name))
            return empty_pb2.Empty()

        pb = operations_pb2
        return [
            _Method("GetOperation", pb.GetOperationRequest, lambda q: str(q.name), get),
            _Method("ListOperations", pb.ListOperationsRequest, lambda q: str(q.name), list_all),
            _Method("WaitOperation", pb.WaitOperationRequest, lambda q: str(q.name), wait),
            _Method("CancelOperation", pb.CancelOperationRequest, lambda q: str(q.name), cancel),
            _Method("DeleteOperation", pb.DeleteOperationRequest, lambda q: str(q.name), delete),
        ]

    def _projects(self) -> list[_Method]:
        settings = self._settings

        async def get(request: Any) -> Any:
            return get_project(request.name, settings)

        return [_Method("GetProject", GetProjectRequest, lambda q: str(q.name), get)]


def _method(rpc: Rpc, api: Api) -> _Method:
    async def work(request: Any) -> Any:
        if request.ByteSize() > rpc.max_body:
            raise too_large(rpc.max_body)
        return await rpc.carry_out(request, api)

    return _Method(rpc.name, rpc.request(api), rpc.resource, work)


def _neutral(resource: Any) -> Any:
    """Convert a resource of any API version to the one that the control plane uses."""
    return PersistentResource.FromString(resource.SerializeToString())
