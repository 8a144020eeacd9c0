"""A cache that returns the last value at once while a newer one is being read, once per key and with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.errors import InvalidArgumentError, ServiceUnavailableError, VertexRayError

T = TypeVar("T")

NEVER = float("-inf")
"""A monotonic time before all others."""


@dataclass(frozen=True)
class Cached(Generic[T]):
    """A cached value.

    :param value: the last value that was read; None if there is none yet.
    :param at: Unix time at which it was read.
    :param error: why the last read failed; None if it succeeded.
    :param reading: whether a read is in progress.
    """

    value: T | None = None
    at: float | None = None
    error: VertexRayError | None = None
    reading: bool = False

    @property
    def known(self) -> bool:
        """Whether anything is known, a failure included."""
        return self.at is not None or self.error is not None


class _Entry:
    def __init__(self) -> None:
        self.value: Any = None
        self.at: float | None = None
        self.error: VertexRayError | None = None
        self.tried = NEVER
        self.began = NEVER
        self.flight: asyncio.Task[None] | None = None

    def seen(self) -> Cached[Any]:
        return Cached(self.value, self.at, self.error, self.flight is not None)


class Cache:
    """Cached values by key, for one event loop.

    :param concurrency: number of concurrent reads.
    :param most: maximum number of values.
    :param deadline: seconds for one read, excluding the wait for its turn.
    """

    def __init__(self, *, concurrency: int = 8, most: int = 500, deadline: float = 10.0) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._turns = asyncio.Semaphore(concurrency)
        self._most = most
        self._deadline = deadline

    async def get(
        self,
        key: Hashable,
        read: Callable[[], Awaitable[T]],
        *,
        fresh: float,
        wait: float = 0.0,
        patient: bool = False,
        since: float = NEVER,
    ) -> Cached[T]:
        """Return the cached value, or wait for a first one. Never raises what ``read`` raises.

        :param key: key of the value.
        :param read: reads the value; not called while a read is in progress.
        :param fresh: seconds after a read, even a failed one, in which the value is not read again.
        :param wait: seconds to wait for a first value.
        :param patient: whether to wait for the read in progress even if a value is known.
        :param since: monotonic time; a read that began before it does not count, however fresh. Until there is another
            one, the result is marked as being read.
        """
        until = time.monotonic() + wait
        entry = self._entries.get(key)
        if entry is None:
            # Before it is added: nothing reads it yet, so it could be the one that is forgotten.
            self._forget_some()
            entry = self._entries[key] = _Entry()
        self._entries.move_to_end(key)
        # Twice if the read in progress began before ``since``.
        for _ in range(2):
            if entry.flight is None and (entry.began < since or time.monotonic() - entry.tried >= fresh):
                entry.began = time.monotonic()
                entry.flight = asyncio.create_task(self._read(entry, read))
            left = until - time.monotonic()
            if entry.flight is not None and left > 0 and (patient or not entry.seen().known):
                await asyncio.wait({entry.flight}, timeout=left)
            if entry.flight is not None or entry.began >= since:
                break
        return entry.seen()

    def outdate(self, *keys: Hashable) -> None:
        """Let the next ``get`` of these keys read again; the known values are returned until then."""
        for key in keys:
            if key in self._entries:
                self._entries[key].tried = NEVER

    async def close(self) -> None:
        """Cancel all reads."""
        flights = {entry.flight for entry in self._entries.values() if entry.flight is not None}
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    async def _read(self, entry: _Entry, read: Callable[[], Awaitable[Any]]) -> None:
        try:
            async with self._turns:
                entry.value = await within(self._deadline, read())
            entry.at, entry.error = time.time(), None
        except asyncio.TimeoutError:
            entry.error = ServiceUnavailableError(f"No answer within {self._deadline:g} s.")
        except VertexRayError as error:
            entry.error = error
        except InvalidArgumentError as error:
            entry.error = VertexRayError(str(error))
        except Exception as error:  # noqa: BLE001 - the page shows errors of any kind
            entry.error = VertexRayError(f"{type(error).__name__}: {error}")
        finally:
            entry.tried = time.monotonic()
            entry.flight = None

    def _forget_some(self) -> None:
        """Make room for a new value; values that are being read stay, even if there are too many."""
        for key in list(self._entries):
            if len(self._entries) < self._most:
                return
            if self._entries[key].flight is None:
                del self._entries[key]
