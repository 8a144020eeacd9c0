"""A backend without Ray: clusters that start at once, with scripted jobs behind Ray's Jobs API.

For quick tests and for benchmarks of clients. The Ray Client is not supported: nothing listens on its port.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from vertex_ray_emulator.backends.backend import PARTS, SIGNALS, ClusterAddresses
from vertex_ray_emulator.backends.fake_dashboard import FakeDashboard, FakeNode
from vertex_ray_emulator.project.plan import NodePlan
from vertex_ray_emulator.project.scaling import Demand
from vertex_ray_emulator.settings import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vertex_ray_emulator.backends.entrypoints import Entrypoints

ENDING = frozenset({"KILL", "TERM"})


class _Cluster:
    """A fake cluster: its dashboard and the server of the dashboard."""

    def __init__(self, key: str, entrypoints: Entrypoints | None) -> None:
        self.key = key
        self.dashboard = FakeDashboard(f"session_fake_{key}", entrypoints)
        self._runner: web.AppRunner | None = None
        self._client_socket: socket.socket | None = None
        self._started = 0

    async def serve(self) -> ClusterAddresses:
        self._runner = web.AppRunner(self.dashboard.application(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        # Bound but not listening: no other process gets the port, and clients get "connection refused".
        self._client_socket = socket.socket()
        self._client_socket.bind((LOOPBACK, 0))
        return ClusterAddresses(self._runner.addresses[0][1], self._client_socket.getsockname()[1])

    def reconcile(self, plans: Sequence[NodePlan]) -> None:
        nodes = self.dashboard.nodes
        wanted = {plan.node_id: plan for plan in plans}
        for node_id in [each for each in nodes if each not in wanted or not nodes[each].alive]:
            self.dashboard.jobs.fail_jobs_on(nodes.pop(node_id).ray_id)
        for node_id, plan in wanted.items():
            if node_id not in nodes:
                self._started += 1
                unique = f"{self.key}/{node_id}/{self._started}"
                nodes[node_id] = FakeNode(plan, hashlib.sha224(unique.encode()).hexdigest())
        self.dashboard.jobs.reconsider()

    async def stop_serving(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            self.dashboard.running.set()  # otherwise frozen requests would delay the shutdown
            await runner.cleanup()

    async def close(self) -> None:
        await self.dashboard.jobs.close()
        await self.stop_serving()
        if self._client_socket is not None:
            self._client_socket.close()


class FakeBackend:
    """Clusters without Ray (implements ``ClusterBackend``).

    :param entrypoints: runs the jobs' entrypoints that are not simulated; None to run none.
    """

    def __init__(self, entrypoints: Entrypoints | None = None) -> None:
        self._entrypoints = entrypoints
        self._clusters: dict[str, _Cluster] = {}

    async def start(self, key: str, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        """Start a cluster and its dashboard."""
        cluster = self._clusters[key] = _Cluster(key, self._entrypoints)
        addresses = await cluster.serve()
        cluster.reconcile(nodes)
        return addresses

    async def resize(self, key: str, nodes: Sequence[NodePlan]) -> None:
        """Add and remove nodes to match the plans; dead nodes are replaced.

        :raises KeyError: if the cluster does not exist.
        """
        self._clusters[key].reconcile(nodes)

    async def stop(self, key: str) -> None:
        """Close a cluster's dashboard and end its jobs. Does nothing for an unknown key."""
        cluster = self._clusters.pop(key, None)
        if cluster is not None:
            await cluster.close()

    async def nodes(self, key: str) -> list[dict[str, Any]]:
        """Return the nodes with the ids from their plans; empty for an unknown key."""
        cluster = self._clusters.get(key)
        found = cluster.dashboard.nodes.values() if cluster is not None else ()
        return [{"node_id": node.plan.node_id, "pool_id": node.plan.pool_id, "alive": node.alive} for node in found]

    async def kill(
        self,
        key: str,
        part: str,
        signal_name: str,
        *,
        node: str | None = None,
        submission_id: str | None = None,
    ) -> list[int]:
        """Simulate the effect of a signal on a part of a cluster.

        KILL and TERM are final; STOP freezes the dashboard until CONT and has no effect on other parts.

        :return: an empty list, because a fake cluster has no processes.
        :raises KeyError: if the cluster or the node does not exist.
        :raises ValueError: if the part or the signal is unknown, or the submission id of a driver is missing.
        """
        cluster = self._clusters[key]
        dashboard = cluster.dashboard
        if signal_name not in SIGNALS:
            raise ValueError(f"Invalid value for signal: {signal_name!r}. Use KILL, STOP, CONT or TERM.")
        ending = signal_name in ENDING
        if part in ("head", "dashboard"):
            if signal_name == "STOP":
                dashboard.running.clear()
            elif signal_name == "CONT":
                dashboard.running.set()
            else:
                await cluster.stop_serving()
                if part == "head":
                    for each in dashboard.nodes.values():
                        each.alive = False
                        dashboard.jobs.fail_jobs_on(each.ray_id)
        elif part == "gcs":
            dashboard.gcs_alive = not ending
        elif part == "agent":
            dashboard.agent_alive = not ending
        elif part == "raylet":
            victim = dashboard.nodes[node or "head"]
            victim.alive = not ending
            dashboard.jobs.fail_jobs_on(victim.ray_id)
        elif part == "driver":
            if submission_id is None:
                raise ValueError("Invalid value for submission_id: None. The part 'driver' requires one.")
            if ending:
                dashboard.jobs.kill_driver(submission_id, signal.Signals[f"SIG{signal_name}"])
        else:
            raise ValueError(f"Invalid value for part: {part!r}. Use one of {', '.join(PARTS)}.")
        return []

    def new_log_lines(self, key: str, seen: dict[str, int], *, last: bool = False) -> list[tuple[str, list[str]]]:
        """Return the new lines of the jobs' logs, under the names that Ray gives to the files."""
        cluster = self._clusters.get(key)
        found = []
        for job in cluster.dashboard.jobs.all() if cluster is not None else ():
            path = f"/tmp/ray/session_fake_{key}/logs/job-driver-{job.submission_id}.log"  # noqa: S108
            if len(job.log) > seen.get(path, 0):
                lines = job.log[seen.get(path, 0) :]
                seen[path] = seen.get(path, 0) + len(lines)
                found.append((path, [line.rstrip("\n") for line in lines]))
        return found

    async def demand(self, key: str) -> Demand:
        """Return the resources of the jobs that fit on no node; a node without a running job is idle.

        :raises KeyError: if the cluster does not exist.
        """
        return self._clusters[key].dashboard.demand()

    async def metrics_targets(self, key: str) -> list[str]:
        """Return an empty list: a fake cluster has no metrics but those set with the admin API."""
        return []

    async def close(self) -> None:
        """Stop every cluster."""
        await asyncio.gather(*(self.stop(key) for key in list(self._clusters)))
