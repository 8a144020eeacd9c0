"""The last output lines of a job from Cloud Logging, for when its cluster can no longer be asked.

Best effort: whatever happens here never changes the job's outcome, and delays it by a few seconds at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.deadlines import within
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.errors import VertexRayError

SECONDS = 5.0
"""Seconds to wait for lines that Cloud Logging has not ingested yet (the delay is inferred, not documented)."""

LONGEST = 10.0
"""Seconds after which the request to Cloud Logging is abandoned."""

EARLIER = 1.0
"""Seconds before the job's start at which the search begins, because clocks differ slightly.

A wider margin might show lines of an earlier job with the same id on an earlier cluster with the same id."""

E = TypeVar("E", bound=VertexRayError)


@dataclass(frozen=True)
class LastLines:
    """The last lines of a job's output, as far as they could be found.

    :param lines: the last lines, oldest first.
    :param source: where they come from, for humans; empty if there are none.
    :param missing: why there are none, or no later ones; empty if Cloud Logging returned them.
    """

    lines: list[str] = field(default_factory=list)
    source: str = ""
    missing: str = ""

    def of(self, error: E) -> E:
        """Return the error with the lines added to its message, and to its details as ``logs_tail``."""
        text = error.message
        if self.lines:
            text += f"\nLast lines of its output, {self.source}:\n" + "\n".join(f"    {line}" for line in self.lines)
        return type(error)(self.note(text), {**error.details, "logs_tail": self.lines})

    def note(self, message: str) -> str:
        """Return the message with the reason why lines are missing."""
        return f"{message}\n{self.missing}" if self.missing else message


async def last_lines(
    connection: dict[str, Any],
    cluster_name: str,
    submission_id: str,
    *,
    known: Sequence[str] = (),
    hidden: Sequence[str] = (),
    begun: float | None = None,
) -> LastLines:
    """Return the last lines that Cloud Logging has, or the reason why it has none. Never raises.

    :param connection: ``gcp_conn_id`` and ``impersonation_chain``.
    :param cluster_name: full resource name of the cluster.
    :param submission_id: the job.
    :param known: lines that were read from the cluster; returned if Cloud Logging does not have the last of them.
    :param hidden: values to replace by ``***``.
    :param begun: Unix time of the job's start, if it is known.
    """
    from airflow_provider_vertex_ray.core.job.log_follower import LONGEST_KEPT
    from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
    from airflow_provider_vertex_ray.hooks.calls.monitoring import MonitoringCalls

    known = list(known)
    before = LastLines(known, "as they were read from the cluster") if known else LastLines()
    shown = ""
    try:
        query = LogQuery(parse_cluster_name(cluster_name).cluster_id, submission_id=submission_id)
        shown = f"The filter is: {' AND '.join(query.filter().splitlines())}"
        hook = MonitoringCalls(connection["gcp_conn_id"], connection["impersonation_chain"])
        work = hook.last_lines(
            cluster_name,
            submission_id,
            start=None if begun is None else begun - EARLIER,
            seconds=SECONDS,
            until=known[-1] if known else None,
        )
        found = await within(LONGEST, work)
    except Exception as error:  # noqa: BLE001 - the job's outcome is what matters
        why = "no answer in time" if isinstance(error, asyncio.TimeoutError) else str(error) or type(error).__name__
        return LastLines(
            before.lines, before.source, f"Its output could not be read from Cloud Logging: {why} {shown}".strip()
        )
    hide = SecretMask(hidden)
    lines = [hide(line)[:LONGEST_KEPT] for line in found]
    if known and known[-1] not in lines:
        return before
    if not lines:
        return LastLines(missing=f"Cloud Logging has no lines of its output, at least not yet. {shown}")
    return LastLines(lines, "from Cloud Logging")
