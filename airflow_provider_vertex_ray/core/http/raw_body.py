"""Bodies of requests that are not JSON: a file is sent from its beginning, however often aiohttp sends it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

PIECE = 1 << 18
"""Bytes that are read from a file at once."""


def raw_body(make: Callable[[], Any]) -> Any:
    """Return a body for aiohttp.

    aiohttp repeats a PUT on its own if a kept-alive connection turns out to be closed; before 3.14 it then sends a file
    from where the first attempt had ended, so that an empty file would arrive.

    :param make: returns the content: bytes, a form, or a binary file that can be sought
    """
    first = make()
    return _payload(make, first) if isinstance(first, io.IOBase) else first


def _payload(make: Callable[[], Any], first: Any) -> aiohttp.Payload:
    # aiohttp is not imported with the package.
    import aiohttp

    class FilePayload(aiohttp.Payload):
        def __init__(self) -> None:
            super().__init__(None)
            self._size = first.seek(0, io.SEEK_END)
            first.seek(0)
            self._next: IO[bytes] | None = first

        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            raise TypeError("The content of a file is not decoded.")

        async def write(self, writer: Any) -> None:
            file, self._next = self._next or make(), None
            with file:
                while piece := await asyncio.to_thread(file.read, PIECE):
                    await writer.write(piece)

    return FilePayload()
