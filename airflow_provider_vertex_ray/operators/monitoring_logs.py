"""Operator that shows the logs of a cluster and writes them to a file."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_flag, is_whole, known_at_run_time
from airflow_provider_vertex_ray.core.cluster.name import ClusterName
from airflow_provider_vertex_ray.core.job.inputs import check_submission_id
from airflow_provider_vertex_ray.core.monitoring.log_query import LogQuery, check_log_text, check_severity
from airflow_provider_vertex_ray.core.monitoring.time_window import span
from airflow_provider_vertex_ray.core.timestamps import rfc3339
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.links.link_sets import JOB_LINKS
from airflow_provider_vertex_ray.operators.arguments import check_strings
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.monitoring_base import MonitoringOperator
from airflow_provider_vertex_ray.operators.output_files import check_file_uri, write_file

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.core.monitoring.logs import LogEntry

DAY = 86_400.0
LEEWAY = 60.0
"""Seconds after now to include if no end is given: new entries arrive during the reading, which must still end."""

LOG_SUFFIXES = (".log", ".txt", ".jsonl")
MOST_SHOWN = 10_000
RETURNED_BYTES = 48 * 1024
"""Maximum size of the entries in the result of a task, as JSON; the task log and the file have all entries."""

LONGEST_RETURNED = 1_000
"""Maximum number of characters of a message in the result of a task."""


class VertexRayClusterLogsOperator(MonitoringOperator):
    """Show the logs of a cluster's nodes from Cloud Logging, even after the cluster is deleted.

    Returns ``cluster_id``, ``filter``, ``count`` (the number of entries shown), ``entries`` (as many of them as fit
    into 48 KiB, with messages truncated to 1,000 characters), ``more`` (whether more entries matched than were shown),
    ``output_path`` and ``written`` (the number of entries in that file). Cloud Logging receives entries with a delay,
    so those of the last minute may be missing.

    :param cluster_id: cluster ID or full resource name. (templated)
    :param submission_id: only show the output of this job's driver. (templated)
    :param file: only show entries of files whose path contains this text, such as ``raylet`` or ``worker-``.
        (templated)
    :param severity: only show entries of at least this severity, such as ``ERROR``. (templated)
    :param text: only show entries whose message contains this text, ignoring case. (templated)
    :param start: start of the time range: an ISO 8601 time, a datetime, or unix seconds. (templated)
    :param end: end of the time range; default: now. (templated)
    :param window: length of the time range before ``end`` in seconds, instead of ``start``; default: one day.
    :param max_entries: maximum number of entries to show, up to 10,000.
    :param newest_first: whether to start with the newest entry, so that the newest entries are shown.
    :param output_path: URI of a file to write all matching entries to, in any storage that ``ObjectStoragePath``
        supports: ``.log`` or ``.txt`` for lines with time, severity and file, ``.jsonl`` for JSON. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises LogsNotAuthorisedError: the credentials lack the permission to read logs.
    :raises InvalidRequestError: Cloud Logging rejected the filter.
    :raises RateLimitedError: the quota for reading logs is exhausted, even after retries.
    :raises ServiceUnavailableError: Cloud Logging did not answer, even after retries.
    """

    template_fields: Sequence[str] = (
        "cluster_id",
        "submission_id",
        "file",
        "severity",
        "text",
        "start",
        "end",
        "output_path",
        *VertexRayBaseOperator.connection_fields,
    )
    operator_extra_links = JOB_LINKS

    def __init__(
        self,
        *,
        submission_id: str | None = None,
        file: str | None = None,
        severity: str | None = None,
        text: str | None = None,
        max_entries: int = 200,
        newest_first: bool = False,
        output_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_strings(submission_id=submission_id, file=file, severity=severity, text=text)
        if submission_id is not None:
            check_submission_id(submission_id)
        for field, value in (("file", file), ("text", text)):
            if not known_at_run_time(value):
                check_log_text(field, value)
        if not known_at_run_time(severity):
            check_severity(severity)
        if not is_whole(max_entries) or not 1 <= max_entries <= MOST_SHOWN:
            raise InvalidArgumentError("max_entries", max_entries, f"Use a whole number from 1 to {MOST_SHOWN}.")
        check_flag("newest_first", newest_first)
        check_file_uri("output_path", output_path, LOG_SUFFIXES)
        self.submission_id = submission_id
        self.file = file
        self.severity = severity
        self.text = text
        self.max_entries = max_entries
        self.newest_first = newest_first
        self.output_path = output_path

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the logs page by page, show them, and write them to the file."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        name = self._name(str(self.cluster_id))
        check_file_uri("output_path", self.output_path, LOG_SUFFIXES)
        if self.submission_id:
            check_submission_id(self.submission_id)
        start, end = span(self.start, self.end, self.window, DAY)
        if not self.end:
            end += LEEWAY
        query = LogQuery(
            name.full,
            submission_id=self.submission_id or None,
            file=self.file or None,
            severity=self.severity or None,
            start=start,
            end=end,
            text=self.text or None,
            newest_first=self.newest_first,
        )
        return run_sync(lambda: self._read(context, name, query))

    async def _read(self, context: Context, name: ClusterName, query: LogQuery) -> dict[str, Any]:
        shown: list[LogEntry] = []
        written, more = 0, False
        hook = self.monitoring_hook
        text = replace(query, cluster_id=name.cluster_id).filter()
        async with hook.session():
            await self._keep_link_facts(context, name, submission_id=query.submission_id, log_filter=text)
            if not self.output_path:
                found = await hook.logs(query, most=self.max_entries)
                shown, more = list(found.entries), found.more
                for entry in shown:
                    self.log.info("%s", _line(entry))
            else:
                # The file is complete before the upload begins, so a failure leaves no partial file.
                with tempfile.TemporaryFile(prefix="vertex-ray-logs-") as file:
                    async for page in hook.log_pages(query):
                        for entry in page.entries[: self.max_entries - len(shown)]:
                            self.log.info("%s", _line(entry))
                            shown.append(entry)
                        written += _write(file, page.entries, self.output_path.endswith(".jsonl"))
                    file.seek(0)
                    await asyncio.to_thread(write_file, self.output_path, file, self.gcp_conn_id)
                more = written > len(shown)
                self.log.info("Wrote %d entries to %s", written, self.output_path)
        if not shown:
            self.log.info("No log entries matched the filter:\n%s", text)
        return {
            "cluster_id": name.cluster_id,
            "filter": text,
            "count": len(shown),
            "entries": _bounded(shown),
            "more": more,
            "output_path": self.output_path or None,
            "written": written,
        }


def _line(entry: LogEntry) -> str:
    return f"{rfc3339(entry.time)} {entry.severity:<8} {entry.path.rsplit('/', 1)[-1]}: {entry.message}"


def _write(file: IO[bytes], entries: Sequence[LogEntry], as_json: bool) -> int:
    for entry in entries:
        text = json.dumps(entry.to_json(), ensure_ascii=False) if as_json else _line(entry)
        file.write(text.encode("utf-8", "replace") + b"\n")
    return len(entries)


def _bounded(entries: Sequence[LogEntry]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        data = {**entry.to_json(), "message": entry.message[:LONGEST_RETURNED]}
        size += len(json.dumps(data)) + 2
        if size > RETURNED_BYTES:
            break
        found.append(data)
    return found
