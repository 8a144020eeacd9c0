"""Client of the output of a cluster's jobs: what is there, its end, and its growth.

Source: Ray 2.47.1, python/ray/dashboard/modules/job and python/ray/dashboard/modules/state, and experiments with it
(docs/service-facts.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.answers import VersionAnswer
from airflow_provider_vertex_ray.core.job.dashboard_errors import dashboard_error
from airflow_provider_vertex_ray.core.job.log_lines import LogAnswer
from airflow_provider_vertex_ray.core.job.log_routes import routes_of
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    JobNotFoundError,
    ServiceUnavailableError,
    UnreadableAnswerError,
    VertexRayError,
)

log = logging.getLogger(__name__)

LOG_ATTEMPTS = 3
"""Attempts to read the output of a job."""

HANDSHAKE_SECONDS = 15.0
"""Seconds within which a websocket must be open; a proxy that does not know websockets may never answer."""

FILE_QUIET = 30.0
"""Seconds without a piece of a log file after which the connection counts as lost."""

FILE_SECONDS = 600
"""Seconds that Ray may take to send a log file."""

FILE_TYPE = "text/plain"
"""Content type of a log file in all Ray versions. Only this distinguishes it from a proxy's page with status 200, which
would become output of the job, and hide as much of the real one."""

FILES_SINCE = (2, 47)
"""First Ray version whose state API is known to return log files as they are; older ones add a byte to each piece."""


async def _log_pieces(pieces: AsyncIterator[bytes], url: str) -> AsyncIterator[str]:
    answer = LogAnswer()
    async for piece in pieces:
        if text := answer.feed(piece):
            yield text
    if not answer.started:
        raise UnreadableAnswerError(f"The answer of {url} is not the log of a job.")
    if not answer.complete:
        raise ServiceUnavailableError(f"The answer of {url} is incomplete.")


class LogsApi:
    """Client of the output of one cluster's jobs.

    :param transport: the connection
    :param dashboard: base URL of the dashboard, from ``Addresses.dashboard``
    """

    def __init__(self, transport: Transport, dashboard: str) -> None:
        self.log_routes = routes_of(transport, dashboard)
        """What is known about the ways to this dashboard's logs."""
        self._transport = transport
        self._base = dashboard

    def move_to(self, dashboard_uri: str) -> bool:
        """Send all further requests to the dashboard's current address.

        :param dashboard_uri: the cluster's ``RAY_DASHBOARD_URI``
        :return: whether that is another address than before
        """
        before, self._base = self._base, self._transport.addresses.dashboard(dashboard_uri)
        return self._base != before

    async def logs(self, submission_id: str, *, max_bytes: int = 8 << 20) -> str:
        """Return the output of a job so far, truncated after ``max_bytes``.

        :raises UnreadableAnswerError: the answer is not the log of a job
        """
        for attempt in range(1, LOG_ATTEMPTS + 1):
            try:
                return await self._log_once(submission_id, max_bytes)
            except ServiceUnavailableError:
                if attempt == LOG_ATTEMPTS:
                    raise
                await self._transport.back_off(attempt)
        raise AssertionError

    async def _log_once(self, submission_id: str, max_bytes: int) -> str:
        found: list[str] = []
        size = 0
        async with self.log_so_far(submission_id) as pieces:
            async for piece in pieces:
                found.append(piece)
                size += len(piece)
                if size >= max_bytes:
                    break
        return "".join(found)[:max_bytes]

    @contextlib.asynccontextmanager
    async def log_so_far(self, submission_id: str) -> AsyncIterator[AsyncIterator[str]]:
        """Stream the output of a job, from its beginning to what is written by now, in a single attempt.

        Ray's head node keeps all of it in memory meanwhile.

        :raises ServiceUnavailableError: there is no answer, or (while it is read) only a part of it
        :raises JobNotFoundError: the job does not exist
        """
        url = f"{self._url(submission_id)}/logs"
        async with self._transport.stream(url, error_from=dashboard_error) as pieces:
            yield self._transport.redact.stream(_log_pieces(pieces, url))

    @contextlib.asynccontextmanager
    async def tail(self, submission_id: str) -> AsyncIterator[AsyncIterator[str]]:
        """Stream the output of a job from its beginning, as it is written, until this one connection ends.

        The end of the connection says nothing about the job, whatever the close code: call ``get``.

        :raises ServiceUnavailableError: the connection could not be opened
        """
        import aiohttp

        url = "ws" + self._url(submission_id).removeprefix("http") + "/logs/tail"
        async with contextlib.AsyncExitStack() as stack:
            opening = asyncio.ensure_future(
                stack.enter_async_context(self._transport.websocket(url, error_from=dashboard_error))
            )
            try:
                # Not wait_for, which can swallow a cancellation.
                await asyncio.wait({opening}, timeout=HANDSHAKE_SECONDS)
            finally:
                if not opening.done():
                    opening.cancel()
                    await asyncio.wait({opening})
                if not opening.cancelled():
                    # Taken note of, or asyncio logs it where this wait is cancelled just then.
                    opening.exception()
            if opening.cancelled():
                raise ServiceUnavailableError(
                    f"Could not open websocket {url}: no answer within {HANDSHAKE_SECONDS:.0f} s"
                )
            connection = opening.result()
            frames = (frame.data async for frame in connection if frame.type is aiohttp.WSMsgType.TEXT)
            yield self._transport.redact.stream(frames)

    @contextlib.asynccontextmanager
    async def log_file(
        self, submission_id: str, *, lines: int, node_id: str | None = None, supervisor: bool = False
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the last lines of a job's log file to its current end, as bytes, in a single attempt.

        Unlike Ray's other answers, this one also works for output that is not UTF-8, and Ray does not read the whole
        file for it.

        :param submission_id: the job
        :param lines: number of lines, an unfinished last one included; -1 for the whole file
        :param node_id: Ray's id of the node of the job's driver; without it, Ray looks through all jobs
        :param supervisor: whether to read what Ray itself logged about the job, for which the node's id is needed
        :raises ServiceUnavailableError: there is no answer or no such file, or (while it is read) only a part of it
        :raises UnreadableAnswerError: the answer is something else, such as a proxy's page
        :raises JobNotFoundError: the dashboard has no state API
        """
        where = {"submission_id": submission_id}
        if node_id:
            name = f"jobs/supervisor-{submission_id}.log" if supervisor else f"job-driver-{submission_id}.log"
            where = {"node_id": node_id, "filename": name}
        query = urlencode({**where, "lines": lines, "timeout": FILE_SECONDS})
        url = f"{self._base}/api/v0/logs/file?{query}"
        async with self._transport.stream(
            url, error_from=dashboard_error, quiet=FILE_QUIET, accept=FILE_TYPE
        ) as pieces:
            yield pieces

    async def has_log_files(self) -> bool:
        """Tell whether ``log_file`` can be used; all jobs of a dashboard ask it once."""
        routes = self.log_routes
        if not routes.files_due:
            return False
        if routes.has_files is not None:
            return routes.has_files
        if routes.asking is None:
            routes.asking = asyncio.ensure_future(self._ask_for_log_files())
            routes.asking.add_done_callback(lambda _: setattr(routes, "asking", None))
        # One of those who wait may be cancelled, and the others still need the answer.
        return await asyncio.shield(routes.asking)

    async def _ask_for_log_files(self) -> bool:
        try:
            answer = await self._transport.read(
                VersionAnswer,
                "GET",
                f"{self._base}/api/version",
                error_from=dashboard_error,
                attempts=1,
                timeout=FILE_QUIET,
            )
            version = answer.ray_version.split(".")
            self.log_routes.has_files = tuple(int(part) for part in version[:2]) >= FILES_SINCE
        except (JobNotFoundError, InvalidRequestError):
            self.log_routes.files_failed()
            return False
        except (VertexRayError, ValueError) as error:
            log.debug("Could not read the Ray version of %s: %s", self._base, error)
            return False
        return self.log_routes.has_files

    def _url(self, submission_id: str) -> str:
        return f"{self._base}/api/jobs/{quote(submission_id, safe='')}"
