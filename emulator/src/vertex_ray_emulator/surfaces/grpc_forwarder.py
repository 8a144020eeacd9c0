"""Forward gRPC calls unchanged to a server on this machine without TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
_NOT_FORWARDED = frozenset({"authorization", "user-agent"})


class GrpcForwarder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handler of every method of some services; on the wire a unary call is a stream of one message.

    :param channel: the channel to the server.
    :param prefix: common prefix of the services' paths; other calls are answered UNIMPLEMENTED.
    :param guard: returns a context manager around a call, given the method, the resource and the call's context.
    :param resource: name of the resource that the calls are for.
    """

    def __init__(self, channel: Any, prefix: str, guard: Callable[[str, str, Any], Any], resource: str) -> None:
        self._channel = channel
        self._prefix = prefix
        self._guard = guard
        self._resource = resource

    def service(self, details: Any) -> Any:
        """Return the handler of a call, or None if it is for another service."""
        path: str = details.method
        if not path.startswith(self._prefix):
            return None

        async def run(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async with self._guard(path.removeprefix(self._prefix), self._resource, context):
                metadata = [(k, v) for k, v in context.invocation_metadata() if k not in _NOT_FORWARDED]
                call = self._channel.stream_stream(path)(requests, metadata=metadata)
                try:
                    await context.send_initial_metadata(tuple(await call.initial_metadata()))
                    async for message in call:
                        yield message
                    context.set_trailing_metadata(tuple(await call.trailing_metadata()))
                finally:
                    call.cancel()

        return grpc.stream_stream_rpc_method_handler(run)
