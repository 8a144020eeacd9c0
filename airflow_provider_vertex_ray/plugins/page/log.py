"""The end of a job's output, from the dashboard or else from Cloud Logging; bounded in lines and bytes."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import deque
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_lines import LineAssembler, LogBytes
from airflow_provider_vertex_ray.core.job.log_tidy import without_control
from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.monitoring.logs import LogsApi
from airflow_provider_vertex_ray.errors import InvalidArgumentError, VertexRayError

LINES = 200
"""Maximum number of lines shown."""

LONGEST_LINE = 2_000
"""Maximum number of characters shown of a line."""

MOST_READ = 32 << 20
"""Maximum number of characters read of a log that Ray returns only from its start."""

MOST_DOWNLOADED = 8 << 20
"""Maximum number of characters of a downloaded log: its last ones."""

DOWNLOADED_ENTRIES = 2_000
"""Maximum number of entries of a log that is downloaded from Cloud Logging."""

_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters, other than tabs and line ends."""


@dataclass(frozen=True)
class LogTail:
    """The last lines of a job's output.

    :param lines: the lines, with the values of the job's environment variables masked.
    :param where: ``dashboard`` or ``Cloud Logging``.
    :param note: a note for the reader; may be empty.
    """

    lines: tuple[str, ...]
    where: str
    note: str = ""


class _Collector:
    """Collect the last lines that fit, masked and without terminal codes.

    :param job: the job whose secrets are masked.
    :param most: maximum number of lines.
    :param room: maximum number of characters; the first lines give way.
    :param find: text that a line must contain, in any case; empty for all lines.
    """

    def __init__(self, job: Job, most: int, *, room: int = MOST_READ, find: str = "") -> None:
        self._hide = SecretMask(job.hidden)
        self._most, self._room = most, room
        self._find = find.casefold()
        self._lines: deque[str] = deque()
        self._size = 0
        self.fitting = 0

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines."""
        return tuple(self._lines)

    @property
    def searches(self) -> bool:
        """Whether lines without a text are left out."""
        return bool(self._find)

    @property
    def left_out(self) -> int:
        """Number of lines that fit, but gave way to later ones."""
        return self.fitting - len(self._lines)

    def add(self, text: str) -> None:
        """Add a line."""
        # Masked first, so that nobody can search for a secret.
        line = plain(self._hide(text))[:LONGEST_LINE]
        if self._find and self._find not in line.casefold():
            return
        self.fitting += 1
        self._lines.append(line)
        self._size += len(line) + 1
        while len(self._lines) > self._most or self._size > self._room:
            self._size -= len(self._lines.popleft()) + 1


async def read_log_tail(transport: Transport, project: str, cluster: Cluster, job: Job, find: str = "") -> LogTail:
    """Read the end of a job's output, or the last of its lines that contain a text.

    :param find: the text, in any case; empty for all lines.
    :raises VertexRayError: neither the dashboard nor Cloud Logging could be read.
    """
    try:
        return await _from_dashboard(transport, cluster, job, find)
    except VertexRayError as error:
        return await _from_logging(transport, project, cluster, job, _Collector(job, LINES, find=find), error)


async def read_whole_log(transport: Transport, project: str, cluster: Cluster, job: Job) -> LogTail:
    """Read a job's output for a download: all of it, or the last ``MOST_DOWNLOADED`` characters.

    :raises VertexRayError: neither the dashboard nor Cloud Logging could be read.
    """
    found = _Collector(job, sys.maxsize, room=MOST_DOWNLOADED)
    try:
        note = await _whole(_api(transport, cluster), job, found)
        return LogTail(found.lines, "dashboard", _together(note, _left_out(found)))
    except VertexRayError as error:
        found = _Collector(job, DOWNLOADED_ENTRIES, room=MOST_DOWNLOADED)
        return await _from_logging(transport, project, cluster, job, found, error, DOWNLOADED_ENTRIES)


def _api(transport: Transport, cluster: Cluster) -> JobsApi:
    if not cluster.dashboard_uri:
        raise VertexRayError("The cluster has no dashboard.")
    return JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri))


async def _from_dashboard(transport: Transport, cluster: Cluster, job: Job, find: str) -> LogTail:
    api = _api(transport, cluster)
    if not find and await api.has_log_files():
        with contextlib.suppress(VertexRayError):
            return LogTail(await _last_lines(api, job), "dashboard")
    found = _Collector(job, LINES, find=find)
    note = await _whole(api, job, found)
    return LogTail(found.lines, "dashboard", _together(_matches(found) if find else "", note))


async def _whole(api: JobsApi, job: Job, found: _Collector) -> str:
    """Collect the lines of a log from its start; return a note for the reader, which may be empty."""
    assembler = LineAssembler(lambda line: found.add(line.text))
    read = 0
    async with api.log_so_far(job.submission_id) as pieces:
        async for piece in pieces:
            read += len(piece)
            assembler.feed(piece)
            if read > MOST_READ:
                return f"The log is longer than {MOST_READ >> 20} MiB; these are the last lines before that limit."
    assembler.flush()
    return ""


async def _last_lines(api: JobsApi, job: Job) -> tuple[str, ...]:
    """Read the last lines of the log file, whose cost does not grow with the log."""
    found = _Collector(job, LINES)
    assembler = LineAssembler(lambda line: found.add(line.text))
    text = LogBytes()
    async with api.log_file(job.submission_id, lines=LINES, node_id=job.node_id) as pieces:
        async for data in pieces:
            assembler.feed(text.feed(data))
    assembler.feed(text.close())
    assembler.flush()
    return found.lines


async def _from_logging(
    transport: Transport,
    project: str,
    cluster: Cluster,
    job: Job,
    found: _Collector,
    reason: VertexRayError,
    most: int = LINES,
) -> LogTail:
    try:
        query = LogQuery(cluster.cluster_id, submission_id=job.submission_id, newest_first=True)
        answer = await LogsApi(transport, project).entries(query, most, max_bytes=4 << 20)
    except (VertexRayError, InvalidArgumentError):
        # The first error is the one to fix; an id that no log entry could have is none.
        raise reason from None
    for entry in reversed(answer.entries):
        found.add(entry.message)
    note = f"The dashboard does not answer: {reason.message}"
    searched = f"Only the last {most} entries were searched." if found.searches else ""
    return LogTail(found.lines, "Cloud Logging", _together(note, searched))


def _matches(found: _Collector) -> str:
    if not found.left_out:
        return ""
    return f"{found.fitting} lines match; these are the last {len(found.lines)}."


def _left_out(found: _Collector) -> str:
    return f"The first {found.left_out} lines are left out." if found.left_out else ""


def _together(*notes: str) -> str:
    return " ".join(note for note in notes if note)


def plain(line: str) -> str:
    """Remove a terminal's control sequences, such as Ray's colours, and control characters from a line."""
    return _INVISIBLE.sub("", without_control(line))
