"""A TCP proxy on 127.0.0.1 that counts the bytes of both directions, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

_PIECE = 1 << 16


class CountingProxy:
    """Passes connections on to one server.

    :param target: ``host:port`` of the server.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.host = ""
        self.sent = self.received = 0

    @property
    def total(self) -> int:
        """Bytes in both directions so far."""
        return self.sent + self.received

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        try:
            there, to = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, sends: bool) -> None:
            with contextlib.suppress(OSError):
                while piece := await source.read(_PIECE):
                    if sends:
                        self.sent += len(piece)
                    else:
                        self.received += len(piece)
                    sink.write(piece)
                    await sink.drain()
            sink.close()

        for work in (pass_on(reader, to, True), pass_on(there, writer, False)):
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()


@contextlib.contextmanager
def counting_proxy(target: str) -> Iterator[CountingProxy]:
    """Yield a running proxy in front of ``target``."""
    proxy = CountingProxy(target)
    thread = threading.Thread(target=proxy._run, name="counting-proxy", daemon=True)
    thread.start()
    proxy._ready.wait()
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join()
