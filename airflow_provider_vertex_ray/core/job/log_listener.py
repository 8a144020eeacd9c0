"""One websocket that follows a job's output, beside the reads that check on it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.errors import VertexRayError

log = logging.getLogger(__name__)

CLOSING = 0.2
"""Seconds for the closing handshake of a websocket, which Ray does not answer."""


STEADY = 30.0
"""Seconds after which a connection counts as successful, even if it ended without output."""


class Listener:
    """One connection, from its opening to its end; it delivers the output from its beginning.

    :param api: Jobs API of the cluster
    :param submission_id: the job
    :param feed: processes a piece of the output at a position, and returns the position after it
    :param woken: set when output arrives and when the connection ends
    :param known: number of characters of the output that were received before it was opened
    """

    def __init__(
        self,
        api: JobsApi,
        submission_id: str,
        feed: Callable[[str, int], Awaitable[int]],
        woken: asyncio.Event,
        *,
        known: int = 0,
    ) -> None:
        self.opened = False
        """Whether the connection was accepted."""
        self.position = 0
        """Characters that it delivered."""
        self.last_frame = time.monotonic()
        """Monotonic time of its last frame."""
        self._api = api
        self._submission_id = submission_id
        self._feed = feed
        self._woken = woken
        self._known = known
        self._begin = time.monotonic()
        self._task = asyncio.create_task(self._listen())

    @property
    def ended(self) -> bool:
        """Whether the connection has ended, or could not be opened."""
        return self._task.done()

    def was_useful(self, delivered: int) -> bool:
        """Tell whether another connection after this one is likely to be of use.

        :param delivered: number of characters of the output that were received by now
        """
        if self.position < delivered:
            return False
        return self.position > self._known or (self.opened and time.monotonic() - self._begin >= STEADY)

    async def close(self) -> None:
        """Close the connection."""
        while not self._task.done():
            self._task.cancel()
            # Not "await task", which could not distinguish its cancellation from our own.
            await asyncio.wait({self._task}, timeout=CLOSING)

    async def _listen(self) -> None:
        try:
            async with self._api.tail(self._submission_id) as frames:
                self.opened = True
                async for text in frames:
                    self.position = await self._feed(text, self.position)
                    self.last_frame = time.monotonic()
                    self._woken.set()
        except VertexRayError as error:
            log.debug("Could not open the log stream of Ray job %s: %s", self._submission_id, error)
        except Exception:
            log.warning("The log stream of Ray job %s failed; reconnecting", self._submission_id, exc_info=True)
        finally:
            self._woken.set()
