"""The end of a job's output, from its cluster's dashboard, else from Cloud Logging; bounded in lines and bytes."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.http.transport import Transport
from airflow_provider_vertex_ray.core.job.client import JobsApi
from airflow_provider_vertex_ray.core.job.log_lines import Hiding, LineAssembler
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.core.monitoring.logs import LogsApi
from airflow_provider_vertex_ray.errors import VertexRayError

LINES = 200
"""Lines that are shown."""

LONGEST_LINE = 2_000
"""Characters of a line that are shown."""

MOST_READ = 32 << 20
"""Characters of a log that are read; Ray gives it from its beginning only."""


_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
"""What a terminal obeys and does not show: colours, titles, movements; Ray colours its own lines."""


@dataclass(frozen=True)
class LogTail:
    """The last lines.

    :param lines: As they are shown, with the values of the job's environment variables hidden.
    :param where: ``dashboard`` or ``Cloud Logging``.
    :param note: What a reader has to know about them; may be empty.
    """

    lines: tuple[str, ...]
    where: str
    note: str = ""


async def read_log_tail(transport: Transport, project: str, cluster: Cluster, job: Job) -> LogTail:
    """Read it.

    :raises VertexRayError: Neither the dashboard nor Cloud Logging can be read.
    """
    hide = Hiding(job.hidden)
    try:
        return await _from_dashboard(transport, cluster, job, hide)
    except VertexRayError as error:
        return await _from_logging(transport, project, cluster, job, hide, error)


async def _from_dashboard(transport: Transport, cluster: Cluster, job: Job, hide: Hiding) -> LogTail:
    if not cluster.dashboard_uri:
        raise VertexRayError("The cluster has no dashboard.")
    lines: deque[str] = deque(maxlen=LINES)
    assembler = LineAssembler(lambda line: lines.append(plain(hide(line.text))[:LONGEST_LINE]))
    read = 0
    api = JobsApi(transport, transport.addresses.dashboard(cluster.dashboard_uri))
    async with api.log_so_far(job.submission_id) as pieces:
        async for piece in pieces:
            read += len(piece)
            assembler.feed(piece)
            if read > MOST_READ:
                note = f"The log is longer than {MOST_READ >> 20} MiB; these are the lines up to there."
                return LogTail(tuple(lines), "dashboard", note)
    assembler.flush()
    return LogTail(tuple(lines), "dashboard")


async def _from_logging(
    transport: Transport, project: str, cluster: Cluster, job: Job, hide: Hiding, reason: VertexRayError
) -> LogTail:
    query = LogQuery(cluster.cluster_id, submission_id=job.submission_id, newest_first=True)
    try:
        found = await LogsApi(transport, project).entries(query, LINES, max_bytes=1 << 20)
    except VertexRayError:
        # What was wrong first is what has to be mended.
        raise reason from None
    lines = tuple(plain(hide(entry.message))[:LONGEST_LINE] for entry in reversed(found.entries))
    return LogTail(lines, "Cloud Logging", f"The dashboard does not answer: {reason.message}")


def plain(line: str) -> str:
    """A line without what only a terminal understands."""
    return _TERMINAL.sub("", line)
