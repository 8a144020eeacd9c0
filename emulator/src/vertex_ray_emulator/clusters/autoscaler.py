"""Autoscaling: watches what the clusters' workloads wait for, and adds and removes nodes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from vertex_ray_emulator.project.plan import is_ray
from vertex_ray_emulator.project.scaling import autoscales, scaled
from vertex_ray_emulator.wire.background import cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vertex_ray_emulator.backends.backend import ClusterBackend
    from vertex_ray_emulator.clusters.lifecycle import Cluster, Lifecycle

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at a cluster's demand."""


class Autoscaler:
    """Scales the autoscaling pools of all running clusters. Meanwhile a cluster is UPDATING, as on the service.

    :param clusters: returns the existing clusters.
    :param lifecycle: carries the changes out.
    :param backend: reports what waits and what is idle.
    :param idle_seconds: how long a node must be idle before it is removed.
    """

    def __init__(
        self,
        clusters: Callable[[], Iterable[Cluster]],
        lifecycle: Lifecycle,
        backend: ClusterBackend,
        idle_seconds: float,
    ) -> None:
        self._clusters = clusters
        self._lifecycle = lifecycle
        self._backend = backend
        self._idle_seconds = idle_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to watch; does nothing if it has been started."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch(), name="autoscaler")

    async def close(self) -> None:
        """Stop watching."""
        await cancel(self._task)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            watched = [each for each in self._clusters() if is_ray(each.resource) and autoscales(each.resource)]
            await asyncio.gather(*map(self._look, watched))

    async def _look(self, cluster: Cluster) -> None:
        if cluster.state != "RUNNING":
            return
        try:
            demand = await self._backend.demand(cluster.key)
        except Exception as error:  # noqa: BLE001 - a dead head, or a cluster that is being deleted
            log.debug("The demand of cluster %s is unknown: %s", cluster.key, error)
            return
        present = [node.node_id for node in cluster.nodes]
        wanted = scaled(cluster.resource, present, demand, self._idle_seconds)
        # An update or a delete may have begun while the demand was read.
        if wanted and cluster.state == "RUNNING":
            cluster.set_state("UPDATING")
            self._lifecycle.spawn(cluster, self._lifecycle.scale(cluster, wanted))
