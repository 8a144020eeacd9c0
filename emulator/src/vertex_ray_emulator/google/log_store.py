"""Log entries of clusters, kept like in Cloud Logging after the log files are gone.

The time of an entry is when its line was first seen. No two entries have the same time, so every request sees the same
order and pages are consistent. Times in the lines are not used: few lines of jobs have one.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# Limits for an emulator that runs for days; beyond them the oldest entries are dropped.
LINES_PER_FILE = 50_000
LINES_IN_ALL = 400_000
CLUSTERS_GONE = 50
LONGEST_LINE = 64 * 1024

# "2026-01-31 12:00:00,123 ERROR worker.py:…", "[2026-… I 12 12] core_worker.cc:…" and "(pid=…) WARNING: …".
_WORD = re.compile(r"\b(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b")
_LETTER = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ([DIWEC]) ")
_SEVERITIES = {
    "WARN": "WARNING", "FATAL": "CRITICAL", "D": "DEBUG", "I": "INFO", "W": "WARNING", "E": "ERROR", "C": "CRITICAL",
}  # fmt: skip
_LEVEL_WITHIN = 80


@dataclass(frozen=True)
class ClusterName:
    """A cluster's id and location, as in labels."""

    id: str
    location: str


@dataclass(frozen=True)
class LogEntry:
    """A line of a log file.

    :param cluster: the cluster that logged it.
    :param path: path of the log file.
    :param message: the line.
    :param micros: when the line was first seen, a Unix time in microseconds that is unique among entries.
    """

    cluster: ClusterName
    path: str
    message: str
    micros: int

    @property
    def severity(self) -> str:
        """Return the severity in the line, or DEFAULT."""
        begin = self.message[:_LEVEL_WITHIN]
        match = _LETTER.match(begin) or _WORD.search(begin)
        return _SEVERITIES.get(match[1], match[1]) if match else "DEFAULT"


@dataclass
class _ClusterLogs:
    name: ClusterName
    files: dict[str, deque[LogEntry]] = field(default_factory=dict)
    gone: bool = False

    def count(self) -> int:
        return sum(map(len, self.files.values()))


class LogStore:
    """All entries, by cluster and file."""

    def __init__(self) -> None:
        self._clusters: dict[str, _ClusterLogs] = {}
        self._last = 0

    def begin(self, key: str, name: ClusterName) -> None:
        """Start to keep the lines of a cluster."""
        self._clusters.setdefault(key, _ClusterLogs(name)).gone = False

    def add(self, key: str, path: str, lines: Iterable[str]) -> None:
        """Add a file's new lines."""
        cluster = self._clusters[key]
        entries = cluster.files.setdefault(path, deque(maxlen=LINES_PER_FILE))
        for line in lines:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            entries.append(LogEntry(cluster.name, path, line[:LONGEST_LINE], self._last))

    def end(self, key: str) -> None:
        """Mark a cluster as deleted; its lines are kept."""
        if key in self._clusters:
            # Moved to the end, so that deleted clusters are in the order of their deletion.
            cluster = self._clusters.pop(key)
            cluster.gone = True
            self._clusters[key] = cluster

    def trim(self) -> None:
        """Drop the oldest entries beyond the limits."""
        gone = [key for key, cluster in self._clusters.items() if cluster.gone]
        for key in gone[: max(0, len(gone) - CLUSTERS_GONE)]:
            del self._clusters[key]
        total = sum(cluster.count() for cluster in self._clusters.values())
        for key in gone:
            if total <= LINES_IN_ALL:
                return
            if key in self._clusters:
                total -= self._clusters.pop(key).count()
        # Of running clusters, drop the files that have had no new lines for the longest time.
        files = [
            (entries[-1].micros, path, cluster)
            for cluster in self._clusters.values()
            for path, entries in cluster.files.items()
            if entries
        ]
        for _, path, cluster in sorted(files, key=lambda file: file[0]):
            if total <= LINES_IN_ALL:
                return
            total -= len(cluster.files.pop(path))

    def forget_gone(self) -> None:
        """Drop the entries of deleted clusters."""
        self._clusters = {key: cluster for key, cluster in self._clusters.items() if not cluster.gone}

    def entries(self) -> Iterator[LogEntry]:
        """Yield all entries, in no particular order."""
        for cluster in list(self._clusters.values()):
            for entries in list(cluster.files.values()):
                yield from list(entries)
