"""What stands behind an emulated cluster: real Ray nodes, or a stand-in that answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vertex_ray_emulator.project.plan import NodePlan


@dataclass(frozen=True)
class ClusterAddresses:
    """Ports on 127.0.0.1 of a started cluster: plain HTTP dashboard, plain Ray Client."""

    dashboard_port: int
    client_port: int


class ClusterBackend(Protocol):
    """Starts, resizes and stops the nodes of emulated clusters.

    ``key`` names one created cluster; it is never used again for another one.
    """

    async def start(self, key: str, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        """Start a cluster; return when its Jobs API accepts jobs and every node is alive."""
        ...

    async def resize(self, key: str, nodes: Sequence[NodePlan]) -> None:
        """Add and remove nodes; return when the cluster's own node list agrees."""
        ...

    async def stop(self, key: str) -> None:
        """Stop a cluster; when it returns, no process of it is left. Does nothing for an unknown key."""
        ...

    async def nodes(self, key: str) -> list[dict[str, Any]]:
        """The nodes as they are now: ``node_id``, ``pool_id``, ``alive`` and, of real ones, ``pid``."""
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
        """Send a signal to a part of a cluster (a fault on demand); return the pids that got it."""
        ...

    def new_log_lines(self, key: str, seen: dict[str, int], *, last: bool = False) -> list[tuple[str, list[str]]]:
        """The lines that were added to the nodes' log files; called on a thread of its own.

        :param seen: How far each file was read, in a measure of the backend's own; it is kept up to date.
        :param last: Nothing more will come, so give also a line that does not end.
        :return: Paths with their lines; nothing for an unknown key.
        """
        ...

    async def metrics_targets(self, key: str) -> list[str]:
        """The ``host:port`` of each ``/metrics`` of the nodes; nothing for an unknown key."""
        ...

    async def close(self) -> None:
        """Stop every cluster."""
        ...
