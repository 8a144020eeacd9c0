"""What was found about a project before a cluster is created in it: findings, and the report that they make. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["CHECKS", "Finding", "Report", "Status", "choose_checks"]

CHECKS: tuple[str, ...] = (
    "spec", "versions", "apis", "permissions", "service_account", "quota", "machines", "network", "encryption_key",
    "bucket",
)  # fmt: skip
"""The names of the checks, in their order."""

_HEADINGS = ("status", "check", "subject", "found")


class Status(str, Enum):
    """What a finding says, the worst first."""

    FAIL = "fail"
    COULD_NOT_CHECK = "could_not_check"
    WARN = "warn"
    PASS = "pass"  # noqa: S105 - no password


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    :param check: The check that looked at it, such as ``quota``.
    :param status: ``fail``: a cluster of this spec can not be created or used as things are.
    :param subject: What was looked at, such as the name of an API.
    :param found: What is so, as a sentence.
    :param remedy: The command or the console's address that mends it; empty where nothing is to mend.
    """

    check: str
    status: Status
    subject: str
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """The finding as JSON."""
        return {
            "check": self.check,
            "status": self.status.value,
            "subject": self.subject,
            "found": self.found,
            "remedy": self.remedy,
        }

    def line(self) -> str:
        """The finding in one line, for an error's text."""
        return f"{self.check}: {_plain(self.subject)}: {_plain(self.found)}"


@dataclass(frozen=True)
class Report:
    """All findings.

    :param project: The project that was looked at.
    :param location: The region.
    :param findings: In the order of the checks.
    """

    project: str
    location: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Status:
        """The worst that was found; ``pass`` when nothing was looked at."""
        found = {finding.status for finding in self.findings}
        return next((status for status in Status if status in found), Status.PASS)

    def of(self, status: Status) -> list[Finding]:
        """The findings of one status."""
        return [finding for finding in self.findings if finding.status is status]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON: ``worst``, ``counts`` by status, ``findings``, ``project_id``, ``location``."""
        counts = Counter(finding.status for finding in self.findings)
        return {
            "worst": self.worst.value,
            "counts": {status.value: counts[status] for status in Status},
            "findings": [finding.to_dict() for finding in self.findings],
            "project_id": self.project,
            "location": self.location,
        }

    def table(self) -> list[str]:
        """The lines of a table for people: a heading, a line for each finding, and below it what mends it."""
        rows = [_HEADINGS, *(_cells(finding) for finding in self.findings)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
        return list(self._lines(rows, widths))

    def _lines(self, rows: list[tuple[str, ...]], widths: list[int]) -> Iterator[str]:
        for place, row in enumerate(rows):
            fixed = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            yield f"{fixed}  {row[-1]}"
            remedy = _plain(self.findings[place - 1].remedy) if place else ""
            if remedy:
                yield f"{' ' * widths[0]}  -> {remedy}"


def choose_checks(checks: Sequence[str] | None) -> tuple[str, ...]:
    """The checks that are asked for, in their order; None for all.

    :raises InvalidArgumentError: There is none of a name.
    """
    if checks is None:
        return CHECKS
    if isinstance(checks, str) or not isinstance(checks, Sequence) or not checks:
        raise InvalidArgumentError("checks", checks, f"give a list of {', '.join(CHECKS)}, or None for all")
    for name in checks:
        if name not in CHECKS:
            raise InvalidArgumentError("checks", name, f"the checks are {', '.join(CHECKS)}")
    return tuple(name for name in CHECKS if name in checks)


def _cells(finding: Finding) -> tuple[str, ...]:
    return (finding.status.value, finding.check, _plain(finding.subject), _plain(finding.found))


def _plain(text: str) -> str:
    """A text of a service in one line: a break or a tab in it would put the columns out of line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
