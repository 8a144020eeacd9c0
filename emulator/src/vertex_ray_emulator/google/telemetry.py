"""Collect the logs and metrics of clusters, and keep them after the clusters are deleted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from vertex_ray_emulator.google.log_store import ClusterName, LogStore
from vertex_ray_emulator.google.metrics_store import KEEP_SECONDS, MetricsStore, label_key
from vertex_ray_emulator.wire.background import cancel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex_ray_emulator.backends.backend import ClusterAddresses, ClusterBackend
    from vertex_ray_emulator.clusters.lifecycle import Cluster, Publisher
    from vertex_ray_emulator.google.metrics_store import Sample
    from vertex_ray_emulator.settings import Settings

log = logging.getLogger(__name__)

TAIL_SECONDS = 1.0
SCRAPE_TIMEOUT = 5.0
# Histogram buckets are the bulk of what Ray exports, and the emulator does not evaluate quantiles.
_DROPPED_SUFFIXES = ("_bucket", "_created")
MOST_BACKFILL = 1000
"""The most samples that are written for the past of a metric set by hand."""


@dataclass
class _Watched:
    """A running cluster.

    :param name: the cluster's id and location.
    :param seen: position in each log file.
    :param overrides: metrics that were set by hand: labels and value, by name.
    :param lock: held while its log files are read.
    """

    name: ClusterName
    seen: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Telemetry:
    """The logs and metrics of all clusters.

    :param settings: the project and the interval between scrapes.
    :param backend: the backend that runs the clusters.
    """

    def __init__(self, settings: Settings, backend: ClusterBackend) -> None:
        self._settings = settings
        self._backend = backend
        self._watched: dict[str, _Watched] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.logs = LogStore()
        self.metrics = MetricsStore()

    def start(self) -> None:
        """Start to read logs and metrics periodically."""
        for work, seconds in ((self.read_logs, TAIL_SECONDS), (self.scrape, self._settings.scrape_seconds)):
            self._tasks.append(asyncio.create_task(_repeat(work, seconds)))

    async def close(self) -> None:
        """Stop reading logs and metrics."""
        for task in self._tasks:
            await cancel(task)
        self._watched.clear()

    def begin(self, key: str, cluster_id: str, region: str) -> None:
        """Start to watch a cluster."""
        name = ClusterName(cluster_id, region)
        self._watched[key] = _Watched(name)
        self.logs.begin(key, name)

    async def end(self, key: str) -> None:
        """Read the last lines of a cluster and stop watching it. Does nothing if it is not watched."""
        watched = self._watched.pop(key, None)
        if watched is None:
            return
        await self._read_logs_of(key, watched, last=True)
        self.logs.end(key)
        self.metrics.end(key, time.time())

    async def read_logs(self) -> None:
        """Read the new lines of all log files."""
        for key, watched in list(self._watched.items()):
            await self._read_logs_of(key, watched)
        self.logs.trim()

    async def _read_logs_of(self, key: str, watched: _Watched, *, last: bool = False) -> None:
        async with watched.lock:
            found = await asyncio.to_thread(self._backend.new_log_lines, key, watched.seen, last=last)
            for path, lines in found:
                self.logs.add(key, path, lines)

    async def scrape(self) -> None:
        """Read the current metrics of all clusters."""
        await asyncio.gather(*(self._scrape_one(key, watched) for key, watched in list(self._watched.items())))
        self.metrics.trim(time.time())

    async def _scrape_one(self, key: str, watched: _Watched) -> None:
        samples: list[Sample] = []
        targets = await self._backend.metrics_targets(key)
        if targets:
            timeout = aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT)
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
                texts = await asyncio.gather(*(_text(session, target) for target in targets))
            for target, text in zip(targets, texts, strict=True):
                samples += self._labelled(watched, _parse(text), instance=target)
        if key in self._watched:
            self._observe(key, watched, samples)

    def _observe(self, key: str, watched: _Watched, samples: list[Sample]) -> None:
        scraped = [sample for sample in samples if sample[0] not in watched.overrides]
        self.metrics.observe(key, time.time(), [*scraped, *self._set_by_hand(watched)])

    def _set_by_hand(self, watched: _Watched) -> list[Sample]:
        given = ((name, labels, value) for name, items in watched.overrides.items() for labels, value in items)
        return self._labelled(watched, given)

    def _labelled(self, watched: _Watched, samples: Any, **more: str) -> list[Sample]:
        """Add the labels that Managed Service for Prometheus adds."""
        added = {
            "cluster": watched.name.id,
            "location": watched.name.location,
            "project_id": self._settings.project,
            "namespace": "ray",
            "job": "ray",
            **more,
        }
        return [(name, {**added, **labels}, value) for name, labels, value in samples]

    def overrides(self, key: str) -> dict[str, Any]:
        """Return the metrics that were set by hand.

        :raises LookupError: if the cluster is not running.
        """
        found = self._watched[key].overrides
        return {name: [{"labels": labels, "value": value} for labels, value in items] for name, items in found.items()}

    def override(self, key: str, given: dict[str, Any]) -> None:
        """Replace all metrics that were set by hand; they hide metrics of the nodes with the same names.

        :param given: for each name a number, or a list of ``{"labels": {}, "value": 1, "for_seconds": 0}``.
        :raises LookupError: if the cluster is not running.
        :raises ValueError: if a metric is invalid; the message has the field, the value and the rule.
        """
        watched = self._watched[key]
        read = {name: _items(name, value) for name, value in given.items()}
        hidden = [
            (series.name, dict(series.labels), series.values[-1])
            for series in self.metrics.series()
            if dict(series.labels).get("cluster") == watched.name.id and not series.stale and series.name not in read
        ]
        kept = [each for each in hidden if each[0] not in watched.overrides]
        watched.overrides = {name: [(labels, value) for labels, value, _ in items] for name, items in read.items()}
        now = time.time()
        for name, items in read.items():
            for labels, value, seconds in items:
                if seconds:
                    step = max(self._settings.scrape_seconds, seconds / MOST_BACKFILL)
                    times = [now - seconds + k * step for k in range(math.ceil(seconds / step))]
                    ((_, all_labels, _),) = self._labelled(watched, [(name, labels, value)])
                    self.metrics.backfill(name, all_labels, times, value)
        self.metrics.observe(key, now, [*kept, *self._set_by_hand(watched)])


class WatchedPublisher:
    """A publisher that also starts and stops the telemetry of clusters (implements ``lifecycle.Publisher``).

    :param publisher: the wrapped publisher.
    :param telemetry: the telemetry of the clusters.
    """

    def __init__(self, publisher: Publisher, telemetry: Telemetry) -> None:
        self._publisher = publisher
        self._telemetry = telemetry

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        """Make a cluster reachable and watch it; return its access URIs."""
        uris = await self._publisher.publish(cluster, addresses)
        self._telemetry.begin(cluster.key, cluster.id, cluster.region)
        return uris

    async def withdraw(self, cluster: Cluster) -> None:
        """Make a cluster unreachable and read its last lines."""
        await self._publisher.withdraw(cluster)
        try:
            await self._telemetry.end(cluster.key)
        except Exception:
            # The cluster must be stopped even if its logs cannot be read.
            log.exception("Could not read the last log lines of cluster %s; they are lost", cluster.key)


async def _repeat(work: Any, seconds: float) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("Telemetry failed in %s; retrying in %g s", work.__name__, seconds)
        await asyncio.sleep(seconds)


async def _text(session: aiohttp.ClientSession, target: str) -> str:
    """Fetch a page of metrics; empty if the node does not answer, which ends its series."""
    with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
        async with session.get(f"http://{target}/metrics") as response:
            return await response.text() if response.status == 200 else ""
    return ""


def _parse(text: str) -> Iterator[Sample]:
    if not text:
        return
    # Only real nodes have metrics pages, and Ray requires this package.
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith(_DROPPED_SUFFIXES):
                yield sample.name, sample.labels, float(sample.value)


def _items(name: str, given: Any) -> list[tuple[dict[str, str], float, float]]:
    """Validate a metric that is set by hand and return its labels, values, and the seconds of the past to fill."""
    found: list[tuple[dict[str, str], float, float]] = []
    listed = given if isinstance(given, list) else [{"value": given}]
    for k, item in enumerate(listed):
        place = f"{name}[{k}]" if isinstance(given, list) else name
        if not isinstance(item, dict) or not {"value"} <= set(item) <= {"labels", "value", "for_seconds"}:
            raise ValueError(
                f"Invalid value for {place}: {item!r}. "
                'Use an object such as {"labels": {}, "value": 1, "for_seconds": 0}.'
            )
        value, labels, seconds = item["value"], item.get("labels", {}), item.get("for_seconds", 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"Invalid value for {place}.value: {value!r}. Use a finite number.")
        if not isinstance(labels, dict) or not all(isinstance(each, str) for pair in labels.items() for each in pair):
            raise ValueError(f"Invalid value for {place}.labels: {labels!r}. Use an object with string values.")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= KEEP_SECONDS:
            raise ValueError(
                f"Invalid value for {place}.for_seconds: {seconds!r}. "
                f"Use a number of seconds from 0 to {KEEP_SECONDS:g}."
            )
        if any(label_key(labels) == label_key(other) for other, _, _ in found):
            raise ValueError(
                f"Invalid value for {place}.labels: {labels!r}. Use different labels for each item of {name}."
            )
        found.append((labels, float(value), float(seconds)))
    return found
