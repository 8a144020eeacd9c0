"""A CONNECT proxy through which the unmodified SDK reaches the emulator.

A client that uses it (``https_proxy``, ``grpc_proxy``) connects to Google's host names and reaches the emulator: only
environment variables need to be set, and no request leaves the machine by mistake. All other hosts are rejected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from vertex_ray_emulator.access import user_refusal
from vertex_ray_emulator.settings import LOOPBACK
from vertex_ray_emulator.surfaces.client_hello import RECORD_HEADER, offered_protocols

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
CHUNK = 1 << 16


@dataclass(frozen=True)
class Destination:
    """The local TLS ports behind a domain.

    :param http1: for clients that speak HTTP/1.1 (REST).
    :param http2: for clients that speak only HTTP/2 (gRPC).
    """

    http1: int
    http2: int


class ConnectProxy:
    """CONNECT proxy on a port of 127.0.0.1.

    :param destinations: the destination for each suffix of a host name.
    """

    def __init__(self, destinations: dict[str, Destination]) -> None:
        self._destinations = destinations
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen on a free port of 127.0.0.1 and return the port."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and close all tunnels."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tunnels):
            task.cancel()
        await asyncio.gather(*self._tunnels, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tunnels.add(task)
            task.add_done_callback(self._tunnels.discard)
        try:
            await self._serve(reader, writer)
        except (
            OSError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            asyncio.TimeoutError,
        ) as error:
            log.debug("A tunnel failed: %r", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
        destination = self._destination(words)
        # The servers behind it see the emulator's own connections, whoever is on the other end of the tunnel.
        refusal = user_refusal(writer.get_extra_info("peername"), writer.get_extra_info("sockname"))
        if destination is None or refusal is not None:
            reason = refusal or "it does not serve this host"
            log.warning("Rejected the request %s: %s", " ".join(words[:2]), reason)
            body = f"The Vertex Ray emulator refused this request: {reason}.\n".encode()
            writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        # One host name serves both gRPC and REST; the protocols that the client offers tell which one it wants.
        first = await asyncio.wait_for(_first_record(reader), HEAD_SECONDS)
        port = destination.http2 if offered_protocols(first) == ["h2"] else destination.http1
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            inner_writer.write(first)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        finally:
            inner_writer.close()

    def _destination(self, words: list[str]) -> Destination | None:
        if len(words) != 3 or words[0] != "CONNECT":
            return None
        host, _, port = words[1].rpartition(":")
        if port != "443":
            return None
        found = (to for suffix, to in self._destinations.items() if host.lower().endswith(suffix))
        return next(found, None)


async def _first_record(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(RECORD_HEADER)
    return header + await reader.readexactly(int.from_bytes(header[3:5], "big"))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        # The end of one direction ends the other: TLS connections are not used half-open.
        writer.close()
