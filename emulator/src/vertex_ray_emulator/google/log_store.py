"""The lines of log files as entries that outlive the files: what Cloud Logging keeps of a cluster.

Each line gets its time when it is first seen, and no two lines the same: the order is the same for every request, so
pages fit together. A line's own time is not used: hardly any line of a job has one.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# Bounds, so that an emulator that runs for days does not grow without end: of what is beyond, the oldest goes.
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
    """A cluster as labels know it."""

    id: str
    location: str


@dataclass(frozen=True)
class LogEntry:
    """One line.

    :param path: The file that it was read from.
    :param micros: When it was first seen, as microseconds of unix time; no other entry has the same.
    """

    cluster: ClusterName
    path: str
    message: str
    micros: int

    @property
    def severity(self) -> str:
        """What the line itself says, or DEFAULT."""
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
        """Keep the lines of a cluster from now on."""
        self._clusters.setdefault(key, _ClusterLogs(name)).gone = False

    def add(self, key: str, path: str, lines: Iterable[str]) -> None:
        """Add a file's new lines."""
        cluster = self._clusters[key]
        entries = cluster.files.setdefault(path, deque(maxlen=LINES_PER_FILE))
        for line in lines:
            self._last = max(self._last + 1, time.time_ns() // 1000)
            entries.append(LogEntry(cluster.name, path, line[:LONGEST_LINE], self._last))

    def end(self, key: str) -> None:
        """A cluster is gone; its lines stay."""
        if key in self._clusters:
            # Moved to the end: the first one that is gone is then the one that has been for the longest.
            cluster = self._clusters.pop(key)
            cluster.gone = True
            self._clusters[key] = cluster

    def trim(self) -> None:
        """Forget what is beyond the bounds."""
        gone = [key for key, cluster in self._clusters.items() if cluster.gone]
        for key in gone[: max(0, len(gone) - CLUSTERS_GONE)]:
            del self._clusters[key]
        total = sum(cluster.count() for cluster in self._clusters.values())
        for key in gone:
            if total <= LINES_IN_ALL:
                return
            if key in self._clusters:
                total -= self._clusters.pop(key).count()
        # Of clusters that live, the files that were quiet for the longest go.
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
        """Forget the clusters that are gone."""
        self._clusters = {key: cluster for key, cluster in self._clusters.items() if not cluster.gone}

    def entries(self) -> Iterator[LogEntry]:
        """All entries, in no order."""
        for cluster in list(self._clusters.values()):
            for entries in list(cluster.files.values()):
                yield from list(entries)
