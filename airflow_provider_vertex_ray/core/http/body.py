"""Bodies of answers: bounded in size before and after decompression, in pieces that do not block the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.errors import UnreadableAnswerError

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ACCEPTED_ENCODING", "TooLargeError", "beginning", "pieces_of", "whole_body"]

ACCEPTED_ENCODING = "gzip"
"""The compression that requests offer to the servers."""

PIECE = 1 << 16
"""Bytes of a body that are processed at a time."""

MAX_ERROR_BYTES = 64 << 10
"""Bytes of an error answer that are read."""

_ANY_ZLIB = 32 + zlib.MAX_WBITS
"""Tells zlib to recognise the header of gzip and of zlib."""


class TooLargeError(UnreadableAnswerError):
    """An answer is larger than the caller accepts; a repetition would be as large."""


async def pieces_of(response: aiohttp.ClientResponse, max_bytes: int | None) -> AsyncIterator[bytes]:
    """Yield the body of an answer in pieces of at most ``PIECE`` bytes, decompressed.

    :param response: the answer; its session must not decompress by itself
    :param max_bytes: maximum size before and after decompression; None for no limit
    :raises TooLargeError: the body is larger
    :raises UnreadableAnswerError: the body is compressed in another way, or damaged
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise UnreadableAnswerError(f"The answer has an unknown content encoding: {encoding[:50]!r}.")
    inflater = _Inflater() if encoding not in ("", "identity") else None
    received = 0
    size = 0
    async for chunk in response.content.iter_chunked(PIECE):
        received += len(chunk)
        for piece in inflater.feed(chunk) if inflater else (chunk,):
            size += len(piece)
            if max_bytes is not None and max(size, received) > max_bytes:
                raise TooLargeError(f"The answer is larger than {max_bytes / 2**20:.3g} MiB.")
            yield piece
            if inflater:
                # Much may come out of one chunk.
                await asyncio.sleep(0)
    if inflater and not inflater.complete:
        raise UnreadableAnswerError("The compressed answer is incomplete.")


async def whole_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytearray:
    """Return the complete body of an answer, decompressed.

    :param response: the answer
    :param max_bytes: maximum size before and after decompression
    :raises TooLargeError: the body is larger
    :raises UnreadableAnswerError: the body is compressed in another way, or damaged
    """
    body = bytearray()
    async for piece in pieces_of(response, max_bytes):
        body += piece
    return body


async def beginning(response: aiohttp.ClientResponse) -> bytearray:
    """Return the first bytes of an error answer; empty for one that is damaged."""
    found = bytearray()
    with contextlib.suppress(UnreadableAnswerError):
        async for piece in pieces_of(response, None):
            found += piece
            if len(found) >= MAX_ERROR_BYTES:
                break
    return found[:MAX_ERROR_BYTES]


class _Inflater:
    """Decompresses gzip or zlib, which may consist of several members, in bounded memory."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_ANY_ZLIB)
        self._begun = False

    @property
    def complete(self) -> bool:
        """Tell whether the data ends here."""
        return not self._begun or self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_ANY_ZLIB)
            self._begun = True
            try:
                piece = self._member.decompress(data, PIECE)
            except zlib.error as error:
                raise UnreadableAnswerError(f"The compressed answer is damaged: {error}") from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            yield piece
