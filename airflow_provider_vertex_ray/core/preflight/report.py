"""Findings of a preflight, and the report that contains them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from airflow_provider_vertex_ray.core.checks import check_choice
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["CHECKS", "Finding", "Report", "Status", "choose_checks"]

CHECKS: tuple[str, ...] = (
    "spec", "versions", "apis", "permissions", "service_account", "quota", "machines", "network", "encryption_key",
    "bucket",
)  # fmt: skip
"""Names of the checks, in the order in which they are reported."""

_HEADINGS = ("status", "check", "subject", "found")


class Status(str, Enum):
    """Status of a finding, the worst first."""

    FAIL = "fail"
    COULD_NOT_CHECK = "could_not_check"
    WARN = "warn"
    PASS = "pass"  # noqa: S105 - not a password


@dataclass(frozen=True)
class Finding:
    """One finding of a check.

    :param check: name of the check, such as ``quota``
    :param status: status of the finding; ``fail`` means that a cluster with this spec cannot be created or used
    :param subject: what was checked, such as the name of an API
    :param found: what was found, as a sentence
    :param remedy: the command, or the address in the console, that fixes it; empty if there is nothing to fix
    """

    check: str
    status: Status
    subject: str
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the finding as JSON."""
        return {
            "check": self.check,
            "status": self.status.value,
            "subject": self.subject,
            "found": self.found,
            "remedy": self.remedy,
        }

    def line(self) -> str:
        """Return the finding in one line, for the message of an error."""
        return f"{self.check}: {_plain(self.subject)}: {_plain(self.found)}"


@dataclass(frozen=True)
class Report:
    """All findings of a preflight.

    :param project: the project that was checked
    :param location: the region
    :param findings: the findings, in the order of the checks
    """

    project: str
    location: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Status:
        """Return the worst status of all findings; ``pass`` if there are none."""
        found = {finding.status for finding in self.findings}
        return next((status for status in Status if status in found), Status.PASS)

    def of(self, status: Status) -> list[Finding]:
        """Return the findings with one status."""
        return [finding for finding in self.findings if finding.status is status]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON: ``worst``, ``counts`` by status, ``findings``, ``project_id``, ``location``."""
        counts = Counter(finding.status for finding in self.findings)
        return {
            "worst": self.worst.value,
            "counts": {status.value: counts[status] for status in Status},
            "findings": [finding.to_dict() for finding in self.findings],
            "project_id": self.project,
            "location": self.location,
        }

    def table(self) -> list[str]:
        """Return the lines of a readable table: a heading, and each finding, followed by its remedy."""
        return [line for _, line in self.rows()]

    def rows(self) -> list[tuple[Status, str]]:
        """Return the lines of the table, each with the status of its finding; the heading passes."""
        rows = [_HEADINGS, *(_cells(finding) for finding in self.findings)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
        return list(self._lines(rows, widths))

    def _lines(self, rows: list[tuple[str, ...]], widths: list[int]) -> Iterator[tuple[Status, str]]:
        for place, row in enumerate(rows):
            fixed = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            finding = self.findings[place - 1] if place else None
            status = finding.status if finding else Status.PASS
            yield status, f"{fixed}  {row[-1]}"
            remedy = _plain(finding.remedy) if finding else ""
            if remedy:
                yield status, f"{' ' * widths[0]}  -> {remedy}"


def choose_checks(checks: Sequence[str] | None) -> tuple[str, ...]:
    """Return the requested checks in the order of ``CHECKS``; None for all.

    :raises InvalidArgumentError: it is not a list, or a check does not exist
    """
    if checks is None:
        return CHECKS
    if isinstance(checks, str) or not isinstance(checks, Sequence) or not checks:
        raise InvalidArgumentError(
            "checks", checks, f"Use a list of checks, or None for all; the checks are {', '.join(CHECKS)}."
        )
    for name in checks:
        check_choice("checks", name, CHECKS)
    return tuple(name for name in CHECKS if name in checks)


def _cells(finding: Finding) -> tuple[str, ...]:
    return (finding.status.value, finding.check, _plain(finding.subject), _plain(finding.found))


def _plain(text: str) -> str:
    """Return a service's text in one line, without control characters, which would break the table."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
