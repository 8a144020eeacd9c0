"""The end of a job's output, from the dashboard or else from Cloud Logging; bounded in lines and bytes."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_lines import LineAssembler, LogBytes
from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.monitoring.logs import LogsApi
from airflow_provider_vertex_ray.errors import VertexRayError

LINES = 200
"""Maximum number of lines shown."""

LONGEST_LINE = 2_000
"""Maximum number of characters shown of a line."""

MOST_READ = 32 << 20
"""Maximum number of characters read of a log that Ray returns only from its start."""


_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
"""Terminal control sequences, such as colours and titles; Ray colours its own lines."""


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


async def read_log_tail(transport: Transport, project: str, cluster: Cluster, job: Job) -> LogTail:
    """Read the end of a job's output.

    :raises VertexRayError: neither the dashboard nor Cloud Logging could be read.
    """
    hide = SecretMask(job.hidden)
    try:
        return await _from_dashboard(transport, cluster, job, hide)
    except VertexRayError as error:
        return await _from_logging(transport, project, cluster, job, hide, error)


async def _from_dashboard(transport: Transport, cluster: Cluster, job: Job, hide: SecretMask) -> LogTail:
    if not cluster.dashboard_uri:
        raise VertexRayError("The cluster has no dashboard.")
    api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri))
    if await api.has_log_files():
        with contextlib.suppress(VertexRayError):
            return LogTail(await _last_lines(api, job, hide), "dashboard")
    lines: deque[str] = deque(maxlen=LINES)
    assembler = LineAssembler(lambda line: lines.append(plain(hide(line.text))[:LONGEST_LINE]))
    read = 0
    async with api.log_so_far(job.submission_id) as pieces:
        async for piece in pieces:
            read += len(piece)
            assembler.feed(piece)
            if read > MOST_READ:
                note = f"The log is longer than {MOST_READ >> 20} MiB; these are the last lines before that limit."
                return LogTail(tuple(lines), "dashboard", note)
    assembler.flush()
    return LogTail(tuple(lines), "dashboard")


async def _last_lines(api: JobsApi, job: Job, hide: SecretMask) -> tuple[str, ...]:
    """Read the last lines of the log file, whose cost does not grow with the log."""
    lines: deque[str] = deque(maxlen=LINES)
    assembler = LineAssembler(lambda line: lines.append(plain(hide(line.text))[:LONGEST_LINE]))
    text = LogBytes()
    async with api.log_file(job.submission_id, lines=LINES, node_id=job.node_id) as pieces:
        async for data in pieces:
            assembler.feed(text.feed(data))
    assembler.feed(text.close())
    assembler.flush()
    return tuple(lines)


async def _from_logging(
    transport: Transport, project: str, cluster: Cluster, job: Job, hide: SecretMask, reason: VertexRayError
) -> LogTail:
    query = LogQuery(cluster.cluster_id, submission_id=job.submission_id, newest_first=True)
    try:
        found = await LogsApi(transport, project).entries(query, LINES, max_bytes=1 << 20)
    except VertexRayError:
        # The first error is the one to fix.
        raise reason from None
    lines = tuple(plain(hide(entry.message))[:LONGEST_LINE] for entry in reversed(found.entries))
    return LogTail(lines, "Cloud Logging", f"The dashboard does not answer: {reason.message}")


def plain(line: str) -> str:
    """Remove terminal control sequences from a line."""
    return _TERMINAL.sub("", line)
