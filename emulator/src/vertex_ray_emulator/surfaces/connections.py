"""End the connection of a request without a regular answer."""

from __future__ import annotations

import socket
import struct

from aiohttp import web


def is_disconnected(request: web.Request) -> bool:
    """Return whether the client of a request has gone."""
    return request.transport is None or request.transport.is_closing()


def reset_connection(request: web.Request) -> web.Response:
    """Reset the connection before anything is answered; no client receives the returned response."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response(status=500)


def cut_connection(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """Close the connection after what was sent, without a regular end of the answer or websocket."""
    if request.transport is not None:
        request.transport.close()
    return answer
