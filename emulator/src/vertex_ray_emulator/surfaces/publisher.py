"""The addresses of running clusters: which dashboard host leads where, and a Ray Client port for each."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from vertex_ray_emulator.surfaces.dashboard_proxy import DASHBOARD_DOMAIN, Target

if TYPE_CHECKING:
    from vertex_ray_emulator.backends.backend import ClusterAddresses
    from vertex_ray_emulator.clusters.lifecycle import Cluster
    from vertex_ray_emulator.settings import DashboardAddresses
    from vertex_ray_emulator.surfaces.ray_client_proxy import RayClientProxy


class Publisher:
    """Opens clusters to callers (a :class:`~.lifecycle.Publisher`).

    :param warmup_seconds: For so long after it is published a dashboard answers 503.
    :param addresses: The form of dashboard addresses, see :class:`~.settings.Settings`.
    """

    def __init__(self, warmup_seconds: float, addresses: DashboardAddresses = "localhost") -> None:
        self._warmup = warmup_seconds
        self._addresses = addresses
        self._targets: dict[str, Target] = {}
        self._hosts: dict[str, str] = {}
        # Known once the emulator listens.
        self.dashboard_port = 0
        self.ray_client: RayClientProxy | None = None

    def target(self, host: str) -> Target | None:
        """The cluster that a dashboard host stands for."""
        return self._targets.get(host)

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        """Open its dashboard and its Ray Client to callers; gives the access URIs.

        The dashboard's URI has no scheme, as on the service, and in both forms passes the SDK's check of its end.
        """
        host = f"{secrets.token_hex(8)}-dot-{cluster.region}{DASHBOARD_DOMAIN}"
        address = host if self._addresses == "google" else f"localhost:{self.dashboard_port}/{host}"
        uris = {"RAY_DASHBOARD_URI": address, "RAY_HEAD_NODE_INTERACTIVE_SHELL_URI": f"{address}/shell"}
        if cluster.resource.network:
            # A peered cluster has no public endpoint; its head is reached plainly, from within the network.
            uris["RAY_HEAD_NODE_INTERNAL_IP"] = f"127.0.0.1:{addresses.client_port}"
        elif self.ray_client is not None:
            port = await self.ray_client.add(cluster.key, addresses.client_port, resource=cluster.id)
            uris["RAY_CLIENT_ENDPOINT"] = f"localhost:{port}"
        self._hosts[cluster.key] = host
        self._targets[host] = Target(cluster.id, addresses.dashboard_port, time.time() + self._warmup)
        return uris

    async def withdraw(self, cluster: Cluster) -> None:
        """Close them. Does nothing for one that is not published."""
        host = self._hosts.pop(cluster.key, None)
        if host is not None:
            del self._targets[host]
            if self.ray_client is not None:
                await self.ray_client.remove(cluster.key)
