"""The addresses of running clusters: dashboard host names and Ray Client ports."""

from __future__ import annotations

import math
import secrets
import time
from typing import TYPE_CHECKING

from vertex_ray_emulator.project.plan import has_small_head
from vertex_ray_emulator.surfaces.dashboard_proxy import DASHBOARD_DOMAIN
from vertex_ray_emulator.surfaces.dashboard_target import Target

if TYPE_CHECKING:
    from collections.abc import Collection

    from vertex_ray_emulator.backends.backend import ClusterAddresses
    from vertex_ray_emulator.clusters.lifecycle import Cluster
    from vertex_ray_emulator.settings import DashboardAddresses
    from vertex_ray_emulator.surfaces.dashboard_target import Readiness
    from vertex_ray_emulator.surfaces.ray_client_proxy import RayClientProxy


class Publisher:
    """Makes clusters reachable (implements ``lifecycle.Publisher``).

    :param warmup_seconds: how long a dashboard answers 524 or 503 after it is published.
    :param permission_seconds: how long it then answers 401 and 403, with the trait ``late-permissions``.
    :param addresses: form of the dashboard addresses, see ``Settings.dashboard_addresses``.
    :param traits: traits of the emulator (see ``profile.TRAITS``).
    """

    def __init__(
        self,
        warmup_seconds: float,
        permission_seconds: float,
        addresses: DashboardAddresses = "localhost",
        traits: Collection[str] = (),
    ) -> None:
        self._warmup = warmup_seconds
        self._permission_seconds = permission_seconds if "late-permissions" in traits else 0.0
        self._traits = traits
        self._addresses = addresses
        self._targets: dict[str, Target] = {}
        self._hosts: dict[str, str] = {}
        # Set once the emulator listens.
        self.dashboard_port = 0
        self.ray_client: RayClientProxy | None = None

    def target(self, host: str) -> Target | None:
        """Return the cluster with this dashboard host name, or None if it does not exist."""
        return self._targets.get(host)

    def readiness(self, cluster: Cluster) -> Readiness | None:
        """Return whether a cluster's dashboard answers; None if the cluster is not published."""
        target = self._targets.get(self._hosts.get(cluster.key, ""))
        return None if target is None else target.readiness

    async def publish(self, cluster: Cluster, addresses: ClusterAddresses) -> dict[str, str]:
        """Make a cluster's dashboard and Ray Client server reachable and return the access URIs.

        The dashboard's URI has no scheme, as on the service, and in both forms ends as the SDK requires.
        """
        host = f"{secrets.token_hex(8)}-dot-{cluster.region}{DASHBOARD_DOMAIN}"
        address = host if self._addresses == "google" else f"localhost:{self.dashboard_port}/{host}"
        uris = {"RAY_DASHBOARD_URI": address, "RAY_HEAD_NODE_INTERACTIVE_SHELL_URI": f"{address}/shell"}
        if cluster.resource.network:
            # A peered cluster has no public endpoint; clients in the network connect to its head without TLS.
            uris["RAY_HEAD_NODE_INTERNAL_IP"] = f"127.0.0.1:{addresses.client_port}"
        elif self.ray_client is not None:
            port = await self.ray_client.add(cluster.key, addresses.client_port, resource=cluster.id)
            uris["RAY_CLIENT_ENDPOINT"] = f"localhost:{port}"
        self._hosts[cluster.key] = host
        dead = "small-heads" in self._traits and has_small_head(cluster.resource)
        warm_at = math.inf if dead else time.time() + self._warmup
        self._targets[host] = Target(
            cluster.id,
            addresses.dashboard_port,
            warm_at,
            permission_seconds=self._permission_seconds,
            cold_status=524 if dead or "warmup" in self._traits else 503,
        )
        return uris

    async def withdraw(self, cluster: Cluster) -> None:
        """Make a cluster unreachable. Does nothing if it is not published."""
        host = self._hosts.pop(cluster.key, None)
        if host is not None:
            del self._targets[host]
            if self.ray_client is not None:
                await self.ray_client.remove(cluster.key)
