"""An authenticating TLS proxy in front of each cluster's Ray Client server.

On the service, the ``RAY_CLIENT_ENDPOINT`` of a public cluster uses TLS and requires a bearer token. Here each cluster
has a port of its own, so calls need no routing information.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from vertex_ray_emulator.outcomes import as_error
from vertex_ray_emulator.settings import LOOPBACK
from vertex_ray_emulator.surfaces.grpc_forwarder import CHANNEL_OPTIONS, GrpcForwarder
from vertex_ray_emulator.wire.errors import CODES, UNAUTHENTICATED_MESSAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.request_log import RequestLog
    from vertex_ray_emulator.surfaces.tokens import Tokens

SERVICE_PREFIX = "/ray.rpc."
# The Ray Client sends arrays in single messages and pings often; the proxy must allow what Ray's own server allows.
SERVER_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.so_reuseport", 0),
]


@dataclass
class _Route:
    """One cluster's TLS server and its channel to Ray."""

    server: Any
    channel: Any

    async def close(self) -> None:
        await self.server.stop(0)
        await self.channel.close()


class RayClientProxy:
    """Proxy with one TLS port on 127.0.0.1 for each cluster.

    :param tokens: checks the bearer token in a call's ``authorization`` metadata.
    :param request_log: records each call when it ends: surface ``ray_client``, method such as ``RayletDriver/Init``.
    :param faults: faults of the scope ``auth`` are applied: a call is delayed, or fails with the fault's code.
    :param private_key: the server's key (PEM).
    :param certificate: the server's certificate chain (PEM); it must be valid for ``localhost``.
    """

    def __init__(
        self, tokens: Tokens, request_log: RequestLog, faults: Faults, private_key: bytes, certificate: bytes
    ) -> None:
        self._tokens = tokens
        self._request_log = request_log
        self._faults = faults
        self._credentials = grpc.ssl_server_credentials([(private_key, certificate)])
        self._routes: dict[str, _Route] = {}

    async def add(self, key: str, client_port: int, *, resource: str | None = None) -> int:
        """Open a TLS port for a cluster.

        :param key: identifies the cluster until :meth:`remove`.
        :param client_port: port of its Ray Client server on 127.0.0.1.
        :param resource: the cluster's name in the request log and for faults (default: ``key``).
        :return: the TLS port.
        """
        await self.remove(key)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        channel = grpc.aio.insecure_channel(f"{LOOPBACK}:{client_port}", options=CHANNEL_OPTIONS)
        server.add_generic_rpc_handlers([GrpcForwarder(channel, SERVICE_PREFIX, self._guard, resource or key)])
        port: int = server.add_secure_port(f"{LOOPBACK}:0", self._credentials)
        await server.start()
        self._routes[key] = _Route(server, channel)
        return port

    async def remove(self, key: str) -> None:
        """Close a cluster's port and abort its calls. Does nothing for an unknown key."""
        route = self._routes.pop(key, None)
        if route is not None:
            await route.close()

    async def close(self) -> None:
        """Close every port."""
        for key in list(self._routes):
            await self.remove(key)

    @contextlib.asynccontextmanager
    async def _guard(self, method: str, resource: str, context: Any) -> AsyncIterator[None]:
        """Check the token, forward the call, and log how it ended before the client learns of it."""

        async def refuse(code: Any, text: str, *, authorised: bool = False) -> None:
            self._request_log.record("ray_client", method, resource, authorised=authorised, status=CODES[code.name][1])
            await context.abort(code, text)

        authorization = dict(context.invocation_metadata()).get("authorization")
        if not self._tokens.accepts(authorization):
            await refuse(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED_MESSAGE)
        fault = self._faults.take("auth", method, resource)
        if fault is not None:
            await asyncio.sleep(fault.delay)
            if fault.action == "status":
                refused = as_error(fault)
                await refuse(grpc.StatusCode[refused.code], refused.message)
        try:
            yield
        except grpc.aio.AioRpcError as error:
            context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
            await refuse(error.code(), error.details() or "", authorised=True)
        except BaseException:
            # The client disconnected, or the cluster's port is being closed.
            self._request_log.record("ray_client", method, resource, authorised=True, status=CODES["CANCELLED"][1])
            raise
        else:
            self._request_log.record("ray_client", method, resource, authorised=True, status=CODES["OK"][1])
