"""Queries of a cluster's log entries, as filters of Cloud Logging; the only module that knows how entries are found.

Source of the grammar: https://cloud.google.com/logging/docs/view/logging-query-language; of the labels of a cluster's
entries: https://cloud.google.com/vertex-ai/docs/open-source/ray-on-vertex-ai/monitor#logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.checks import check_choice, check_text, has_template
from airflow_provider_vertex_ray.core.timestamps import rfc3339
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["SEVERITIES", "LogQuery", "check_log_text", "check_severity", "driver_file", "quoted"]

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
"""Cloud Logging's severities, the lowest first; an entry without a severity has DEFAULT."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_LONGEST_TEXT = 2_000


def quoted(text: str) -> str:
    """Return a text as a value in a filter, in double quotes and escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def driver_file(submission_id: str) -> str:
    """Return the log file of a job's driver, with its suffix, because the logs of ``…-a2`` would match as well."""
    return f"job-driver-{submission_id}.log"


def check_severity(value: object, field: str = "severity") -> None:
    """Validate that ``value`` is one of ``SEVERITIES``; None and templates pass.

    :raises InvalidArgumentError: it is anything else
    """
    if value is not None and not has_template(value):
        check_choice(field, value, SEVERITIES)


def check_log_text(field: str, value: object) -> None:
    """Validate that ``value`` can be part of a single line of a log; None and templates pass.

    :raises InvalidArgumentError: it is empty, too long, or contains control characters
    """
    if value is None or has_template(value):
        return
    check_text(field, value)
    text = str(value)
    if _CONTROL.search(text):
        raise InvalidArgumentError(field, value, "Remove line breaks and other control characters.")
    if len(text) > _LONGEST_TEXT:
        raise InvalidArgumentError(field, value, f"Use at most {_LONGEST_TEXT} characters.")


@dataclass(frozen=True)
class LogQuery:
    """A query of a cluster's log entries.

    :param cluster_id: id of the cluster; entries do not contain its full name
    :param submission_id: return only the output of this job's driver
    :param file: return only entries of files whose path contains this text, such as ``raylet`` or ``worker-``; case is
        ignored
    :param severity: return only entries of at least this severity
    :param start: Unix time of the first entry; None for all entries that are retained
    :param end: Unix time before which entries are returned; None for no limit
    :param text: return only entries whose message contains this text; case is ignored
    :param newest_first: whether the newest entry comes first
    :raises InvalidArgumentError: no entry could match a value
    """

    cluster_id: str
    submission_id: str | None = None
    file: str | None = None
    severity: str | None = None
    start: float | None = None
    end: float | None = None
    text: str | None = None
    newest_first: bool = False

    def __post_init__(self) -> None:
        for field in ("cluster_id", "submission_id", "file", "text"):
            check_log_text(field, getattr(self, field))
        check_severity(self.severity)

    def filter(self) -> str:
        """Return the filter of Cloud Logging, with one comparison per line; line breaks mean AND."""
        lines = [
            'resource.labels.task_name="ray-cluster-logs"',
            f'labels."ml.googleapis.com/ray_cluster_id"={quoted(self.cluster_id)}',
        ]
        if self.submission_id:
            lines.append(f"jsonPayload.tailed_path:{quoted(driver_file(self.submission_id))}")
        if self.file:
            lines.append(f"jsonPayload.tailed_path:{quoted(self.file)}")
        if self.severity and self.severity != SEVERITIES[0]:
            lines.append(f"severity>={self.severity}")
        if self.text:
            lines.append(f"jsonPayload.message:{quoted(self.text)}")
        if self.start is not None:
            lines.append(f"timestamp>={quoted(rfc3339(self.start))}")
        if self.end is not None:
            lines.append(f"timestamp<{quoted(rfc3339(self.end))}")
        return "\n".join(lines)

    @property
    def order(self) -> str:
        """Return the value of ``orderBy`` in a request."""
        return "timestamp desc" if self.newest_first else "timestamp asc"
