"""Watches the clusters: reads what their nodes log and measure, and keeps it when they are gone."""

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
# Histograms' buckets are the bulk of what Ray exports, and nothing here evaluates quantiles.
_LEFT_OUT = ("_bucket", "_created")
MOST_BACKFILL = 1000


@dataclass
class _Watched:
    """A cluster that is reachable.

    :param seen: How far its log files were read.
    :param overrides: Metrics as they were set, by name: labels and value.
    """

    name: ClusterName
    seen: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Telemetry:
    """The logs and the metrics of all clusters.

    :param settings: The project, and how often metrics are read.
    :param backend: Knows where the nodes log and measure.
    """

    def __init__(self, settings: Settings, backend: ClusterBackend) -> None:
        self._settings = settings
        self._backend = backend
        self._watched: dict[str, _Watched] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.logs = LogStore()
        self.metrics = MetricsStore()

    def start(self) -> None:
        """Begin to read, again and again."""
        for work, seconds in ((self.read_logs, TAIL_SECONDS), (self.scrape, self._settings.scrape_seconds)):
            self._tasks.append(asyncio.create_task(_repeat(work, seconds)))

    async def close(self) -> None:
        """Read no more."""
        for task in self._tasks:
            await cancel(task)
        self._watched.clear()

    def begin(self, key: str, cluster_id: str, region: str) -> None:
        """Watch a cluster from now on."""
        name = ClusterName(cluster_id, region)
        self._watched[key] = _Watched(name)
        self.logs.begin(key, name)

    async def end(self, key: str) -> None:
        """A cluster is about to go: read its last lines. Does nothing for one that is not watched."""
        watched = self._watched.pop(key, None)
        if watched is None:
            return
        await self._read_logs_of(key, watched, last=True)
        self.logs.end(key)
        self.metrics.end(key, time.time())

    async def read_logs(self) -> None:
        """Read what was logged since the last time."""
        for key, watched in list(self._watched.items()):
            await self._read_logs_of(key, watched)
        self.logs.trim()

    async def _read_logs_of(self, key: str, watched: _Watched, *, last: bool = False) -> None:
        async with watched.lock:
            found = await asyncio.to_thread(self._backend.new_log_lines, key, watched.seen, last=last)
            for path, lines in found:
                self.logs.add(key, path, lines)

    async def scrape(self) -> None:
        """Read all metrics as they are now."""
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
        """Samples with the labels that Managed Service for Prometheus adds."""
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
        """The metrics that were set by hand.

        :raises LookupError: The cluster is not watched: it does not run.
        """
        found = self._watched[key].overrides
        return {name: [{"labels": labels, "value": value} for labels, value in items] for name, items in found.items()}

    def override(self, key: str, given: dict[str, Any]) -> None:
        """Set metrics by hand, all at once; those of the same names that the nodes have are hidden.

        :raises LookupError: The cluster is not watched.
        :raises ValueError: for what is no metric, with the field, the value and the rule.
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
    """A publisher that lets the telemetry know which clusters there are (a ``lifecycle.Publisher``).

    :param publisher: The one that does the work.
    """

    def __init__(self, publisher: Publisher, telemetry: Telemetry) -> None:
        self._publisher = publisher
        self._telemetry = telemetry

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        """Open it to callers, and watch it."""
        uris = await self._publisher.publish(cluster, addresses)
        self._telemetry.begin(cluster.key, cluster.id, cluster.region)
        return uris

    async def withdraw(self, cluster: Cluster) -> None:
        """Close it, and take its last lines."""
        await self._publisher.withdraw(cluster)
        try:
            await self._telemetry.end(cluster.key)
        except Exception:
            # Whatever happens to its logs, the cluster has to be stopped.
            log.exception("the last logs of the cluster %s were not read", cluster.key)


async def _repeat(work: Any, seconds: float) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("telemetry: %s failed", work.__name__)
        await asyncio.sleep(seconds)


async def _text(session: aiohttp.ClientSession, target: str) -> str:
    """A page of metrics; empty where nobody answers: the node is gone, and so are its series."""
    with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
        async with session.get(f"http://{target}/metrics") as response:
            return await response.text() if response.status == 200 else ""
    return ""


def _parse(text: str) -> Iterator[Sample]:
    if not text:
        return
    # Only real nodes have such pages, and with them Ray's requirements are there.
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith(_LEFT_OUT):
                yield sample.name, sample.labels, float(sample.value)


def _items(name: str, given: Any) -> list[tuple[dict[str, str], float, float]]:
    """A metric that is set by hand: labels, value, and for how many seconds it has been so."""
    found: list[tuple[dict[str, str], float, float]] = []
    listed = given if isinstance(given, list) else [{"value": given}]
    for k, item in enumerate(listed):
        place = f"{name}[{k}]" if isinstance(given, list) else name
        if not isinstance(item, dict) or not {"value"} <= set(item) <= {"labels", "value", "for_seconds"}:
            raise ValueError(
                f'{place} is {item!r}, but it must be like {{"labels": {{}}, "value": 1, "for_seconds": 0}}'
            )
        value, labels, seconds = item["value"], item.get("labels", {}), item.get("for_seconds", 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{place}.value is {value!r}, but it must be a finite number")
        if not isinstance(labels, dict) or not all(isinstance(each, str) for pair in labels.items() for each in pair):
            raise ValueError(f"{place}.labels is {labels!r}, but it must map texts to texts")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= KEEP_SECONDS:
            raise ValueError(f"{place}.for_seconds is {seconds!r}, but it must be between 0 and {KEEP_SECONDS:g}")
        if any(label_key(labels) == label_key(other) for other, _, _ in found):
            raise ValueError(f"{place}.labels is {labels!r}, but another one of {name} has the same labels")
        found.append((labels, float(value), float(seconds)))
    return found
