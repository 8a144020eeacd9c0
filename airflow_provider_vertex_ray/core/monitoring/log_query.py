"""Which of a cluster's log entries are wanted, as Cloud Logging's filter: the one place that knows how they are found.

The grammar: https://cloud.google.com/logging/docs/view/logging-query-language. The labels of a cluster's entries:
https://cloud.google.com/vertex-ai/docs/open-source/ray-on-vertex-ai/monitor#logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.monitoring.time_window import rfc3339
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["SEVERITIES", "LogQuery", "check_log_text", "check_severity", "driver_file", "quoted"]

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
"""Cloud Logging's severities, the least one first. What says nothing of its severity has DEFAULT."""

LONGEST_FILTER = 20_000
"""Characters of a filter that the service takes (documented)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_LONGEST_TEXT = 2_000


def quoted(text: str) -> str:
    """A text as a value of a filter: in double quotes, with what ends or escapes them escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def driver_file(submission_id: str) -> str:
    """The file that a job's driver writes to; with its end, or the logs of ``…-a2`` would be found as well."""
    return f"job-driver-{submission_id}.log"


def check_severity(value: object, field: str = "severity") -> None:
    """Refuse what is neither None nor one of ``SEVERITIES``.

    :raises InvalidArgumentError: Names the field and the value.
    """
    if value is None or has_template(value):
        return
    if value not in SEVERITIES:
        raise InvalidArgumentError(field, value, f"the severities are {', '.join(SEVERITIES)}")


def check_log_text(field: str, value: object) -> None:
    """Refuse what no single line of a log can have in it. None and templates pass.

    :raises InvalidArgumentError: Names the field and the value.
    """
    if value is None or has_template(value):
        return
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgumentError(field, value, "give a text that is not empty")
    if _CONTROL.search(value):
        raise InvalidArgumentError(
            field, value, "an entry is one line: leave line breaks and other control characters out"
        )
    if len(value) > _LONGEST_TEXT:
        raise InvalidArgumentError(field, value, f"give at most {_LONGEST_TEXT} characters")


@dataclass(frozen=True)
class LogQuery:
    """What is asked of a cluster's log entries.

    :param cluster_id: The cluster, by its id alone: entries have no more of its name.
    :param submission_id: Only the output of this job's driver.
    :param file: Only files whose path has this in it, such as ``raylet`` or ``worker-``; capitals do not count.
    :param severity: Only entries of at least this severity.
    :param start: Unix time from which on; None for all that is kept.
    :param end: Unix time before which; None for no end.
    :param text: Only entries whose message has this in it; capitals do not count.
    :param newest_first: Whether the newest entry comes first.
    :raises InvalidArgumentError: A value that no entry could fit.
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
        """The filter: one comparison a line, joined by the AND that a line's end is."""
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
        """The request's ``orderBy``."""
        return "timestamp desc" if self.newest_first else "timestamp asc"
