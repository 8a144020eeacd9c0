"""The page's reader for the threads that serve requests: every call returns in time, whatever Google does."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from airflow_provider_vertex_ray.core.cluster.state import Cluster
from airflow_provider_vertex_ray.core.job.state import Job
from airflow_provider_vertex_ray.core.monitoring.metrics import Series
from airflow_provider_vertex_ray.plugins.page.airflow import ClusterOwners, option
from airflow_provider_vertex_ray.plugins.page.cache import Cached
from airflow_provider_vertex_ray.plugins.page.log import LogTail
from airflow_provider_vertex_ray.plugins.page.loop import PageLoop
from airflow_provider_vertex_ray.plugins.page.reader import ClusterFacts, PageReader, SourceFacts
from airflow_provider_vertex_ray.plugins.page.sources import Source, Sources, configured_sources

T = TypeVar("T")

MARGIN = 1.0
"""Seconds in addition to those of a read, for the way to the event loop and back."""

CONFIGURATION_SECONDS = 10.0
"""Seconds for which the configuration is cached, because an option may come from a command or a secrets backend."""


class PageService:
    """The service behind the routes.

    :param options: returns an option of ``[vertex_ray]`` by its name.
    """

    def __init__(self, options: Callable[[str], str] = option) -> None:
        self.owners = ClusterOwners()
        self._options = options
        self._loop = PageLoop()
        self._reader: PageReader | None = None
        self._sources: Sources | None = None
        self._read_at = 0.0
        self._lock = threading.Lock()

    def sources(self) -> Sources:
        """Return the configured sources."""
        with self._lock:
            if self._sources is None or time.monotonic() - self._read_at > CONFIGURATION_SECONDS:
                self._sources, self._read_at = configured_sources(self._options), time.monotonic()
            return self._sources

    def overview(self, sources: Sequence[Source], seconds: float, *, patient: bool = False) -> list[SourceFacts]:
        """Return all sources, as far as they are known in time."""

        async def work() -> list[SourceFacts]:
            return await self.reader().overview(sources, seconds, patient=patient)

        return self._result(work(), seconds, [SourceFacts(source, Cached(reading=True), ()) for source in sources])

    def cluster(
        self, source: Source, cluster_id: str, seconds: float, *, patient: bool = False, anew: bool = False
    ) -> tuple[ClusterFacts | None, Cached[Any]]:
        """Return one cluster, and how its source's list was read; see ``PageReader.cluster``."""

        async def work() -> tuple[ClusterFacts | None, Cached[Any]]:
            return await self.reader().cluster(source, cluster_id, seconds, patient=patient, anew=anew)

        return self._result(work(), seconds, (None, Cached(reading=True)))

    def metrics(self, source: Source, cluster: Cluster, seconds: float) -> Mapping[str, Cached[tuple[Series, ...]]]:
        """Return the utilisation of the last hour by metric."""

        async def work() -> Mapping[str, Cached[tuple[Series, ...]]]:
            return await self.reader().metrics(source, cluster, seconds)

        return self._result(work(), seconds, {})

    def log(
        self, source: Source, cluster: Cluster, job: Job, seconds: float, *, patient: bool = False, find: str = ""
    ) -> Cached[LogTail]:
        """Return the end of a job's output, or the last of its lines that contain a text."""

        async def work() -> Cached[LogTail]:
            return await self.reader().log(source, cluster, job, seconds, patient=patient, find=find)

        return self._result(work(), seconds, Cached(reading=True))

    def whole_log(self, source: Source, cluster: Cluster, job: Job, seconds: float) -> LogTail:
        """Return a job's output for a download.

        :raises VertexRayError: it could not be read.
        :raises TimeoutError: it could not be read in time.
        """

        async def work() -> LogTail:
            return await self.reader().whole_log(source, cluster, job)

        return self._loop.result(work(), seconds)

    def start(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start an action, which continues even when nobody waits for it."""
        return self._loop.submit(work)

    def reader(self) -> PageReader:
        """Return the reader; must be called in the loop."""
        if self._reader is None:
            self._reader = PageReader()
        return self._reader

    def stop(self) -> None:
        """Stop the reads and the loop. Only for tests; on a server, they end with the process."""
        if self._reader is not None:
            self._loop.result(self._reader.close(), 10.0)
        self._loop.stop()

    def _result(self, work: Coroutine[Any, Any, T], seconds: float, otherwise: T) -> T:
        try:
            return self._loop.result(work, seconds + MARGIN)
        except TimeoutError:
            # The loop itself is busy with a list of thousands of jobs, or with imports.
            return otherwise
