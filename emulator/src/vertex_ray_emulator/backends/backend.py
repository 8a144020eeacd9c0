"""The interface of the backends that run emulated clusters: real Ray nodes, or a fake that starts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vertex_ray_emulator.project.plan import NodePlan
    from vertex_ray_emulator.project.scaling import Demand


PARTS = ("head", "gcs", "dashboard", "agent", "raylet", "driver")
SIGNALS = ("KILL", "STOP", "CONT", "TERM")


@dataclass(frozen=True)
class ClusterAddresses:
    """Ports of a cluster on 127.0.0.1, both without TLS: the dashboard (HTTP) and the Ray Client server."""

    dashboard_port: int
    client_port: int


class ClusterBackend(Protocol):
    """Starts, resizes and stops the nodes of emulated clusters.

    A ``key`` identifies a cluster; it is never reused for another one.
    """

    async def start(self, key: str, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        """Start a cluster and wait until its Jobs API accepts jobs and every node is alive."""
        ...

    async def resize(self, key: str, nodes: Sequence[NodePlan]) -> None:
        """Add and remove nodes and wait until the cluster's own node list agrees."""
        ...

    async def stop(self, key: str) -> None:
        """Stop a cluster and wait until none of its processes is left. Does nothing for an unknown key."""
        ...

    async def nodes(self, key: str) -> list[dict[str, Any]]:
        """Return the current nodes: ``node_id``, ``pool_id``, ``alive`` and, for real nodes, ``pid``."""
        ...

    async def kill(
        self,
        key: str,
        part: str,
        signal_name: str,
        *,
        node: str | None = None,
        submission_id: str | None = None,
    ) -> list[int]:
        """Send a signal to a part of a cluster (a fault on demand) and return the pids that received it."""
        ...

    def new_log_lines(self, key: str, seen: dict[str, int], *, last: bool = False) -> list[tuple[str, list[str]]]:
        """Return the lines that were added to the nodes' log files. Called on a separate thread.

        :param seen: position in each file, in a unit of the backend; it is updated.
        :param last: also return an incomplete last line, because no more lines follow.
        :return: paths with their lines; empty for an unknown key.
        """
        ...

    async def demand(self, key: str) -> Demand:
        """Return what the cluster's workload waits for, and which nodes are free or idle.

        :raises Exception: if the cluster does not exist or its head does not answer.
        """
        ...

    async def metrics_targets(self, key: str) -> list[str]:
        """Return the ``host:port`` of each ``/metrics`` endpoint of the nodes; empty for an unknown key."""
        ...

    async def close(self) -> None:
        """Stop every cluster."""
        ...
