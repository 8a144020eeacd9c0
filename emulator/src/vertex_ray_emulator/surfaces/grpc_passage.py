"""gRPC calls that are passed on as they come, byte by byte, to a plain server of this machine."""

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
_NOT_PASSED_ON = frozenset({"authorization", "user-agent"})


class Passage(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles every method of some services; on the wire a unary call is a stream of one message.

    :param channel: Where the calls go.
    :param prefix: How the paths of the services begin; all else is UNIMPLEMENTED.
    :param gate: A context manager around each call, given the method, the resource and the call's context.
    :param resource: What the calls are about, for the gate.
    """

    def __init__(self, channel: Any, prefix: str, gate: Callable[[str, str, Any], Any], resource: str) -> None:
        self._channel = channel
        self._prefix = prefix
        self._gate = gate
        self._resource = resource

    def service(self, details: Any) -> Any:
        """The handler for one call; None outside the services."""
        path: str = details.method
        if not path.startswith(self._prefix):
            return None

        async def run(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async with self._gate(path.removeprefix(self._prefix), self._resource, context):
                metadata = [(k, v) for k, v in context.invocation_metadata() if k not in _NOT_PASSED_ON]
                call = self._channel.stream_stream(path)(requests, metadata=metadata)
                try:
                    await context.send_initial_metadata(tuple(await call.initial_metadata()))
                    async for message in call:
                        yield message
                    context.set_trailing_metadata(tuple(await call.trailing_metadata()))
                finally:
                    call.cancel()

        return grpc.stream_stream_rpc_method_handler(run)
