"""The last lines of a job whose cluster can not be asked for them, from Cloud Logging: soon, or not at all.

Best effort: whatever happens here, the job's outcome is what it was before, and told a few seconds later at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.name import parse_cluster_name
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery
from airflow_provider_vertex_ray.errors import VertexRayError

SECONDS = 5.0
"""Seconds in which lines that are still on their way may arrive (that they are late is inferred)."""

LONGEST = 10.0
"""Seconds after which Cloud Logging's answer is no longer waited for."""

EARLIER = 1.0
"""Seconds before the job's start from which on lines are looked for: clocks differ, if little. A wider margin might
show the lines of an earlier job of the same id on an earlier cluster of the same id."""

E = TypeVar("E", bound=VertexRayError)


@dataclass(frozen=True)
class LastLines:
    """What could be found out of a job's output.

    :param lines: The last lines, the oldest first.
    :param source: Where they are from, for a person; empty where there are none.
    :param missing: Why there are none, or no later ones; empty when Cloud Logging has given them.
    """

    lines: list[str] = field(default_factory=list)
    source: str = ""
    missing: str = ""

    def of(self, error: E) -> E:
        """The error with the lines, in its message and as ``logs_tail`` in its details."""
        text = error.message
        if self.lines:
            text += f"\nLast lines of its output, {self.source}:\n" + "\n".join(f"    {line}" for line in self.lines)
        return type(error)(self.note(text), {**error.details, "logs_tail": self.lines})

    def note(self, message: str) -> str:
        """The message, with why lines are missing."""
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
    """The last lines that Cloud Logging has, or why it has none. Raises nothing.

    :param connection: ``gcp_conn_id`` and ``impersonation_chain``.
    :param cluster_name: Full name of the cluster.
    :param known: Lines that were read from the cluster; they are taken if Cloud Logging does not have the last of them.
    :param hidden: Values that are replaced by ``***``.
    :param begun: Unix time of the job's start, where it is known.
    """
    from airflow_provider_vertex_ray.core.job.log_follower import LONGEST_KEPT
    from airflow_provider_vertex_ray.core.job.log_lines import Hiding
    from airflow_provider_vertex_ray.hooks.monitoring import VertexRayMonitoringAsyncHook

    known = list(known)
    before = LastLines(known, "as they were read from the cluster") if known else LastLines()
    shown = ""
    try:
        query = LogQuery(parse_cluster_name(cluster_name).cluster_id, submission_id=submission_id)
        shown = f"The filter is: {' AND '.join(query.filter().splitlines())}"
        hook = VertexRayMonitoringAsyncHook(connection["gcp_conn_id"], connection["impersonation_chain"])
        work = hook.last_lines(
            cluster_name,
            submission_id,
            start=None if begun is None else begun - EARLIER,
            seconds=SECONDS,
            until=known[-1] if known else None,
        )
        found = await asyncio.wait_for(work, LONGEST)
    except Exception as error:  # noqa: BLE001 - the job's outcome is what matters
        why = "no answer in time" if isinstance(error, asyncio.TimeoutError) else str(error) or repr(error)
        return LastLines(
            before.lines, before.source, f"Its output could not be read from Cloud Logging: {why} {shown}".strip()
        )
    hide = Hiding(hidden)
    lines = [hide(line)[:LONGEST_KEPT] for line in found]
    if known and known[-1] not in lines:
        return before
    if not lines:
        return LastLines(missing=f"Cloud Logging has no lines of its output, at least not yet. {shown}")
    return LastLines(lines, "from Cloud Logging")
