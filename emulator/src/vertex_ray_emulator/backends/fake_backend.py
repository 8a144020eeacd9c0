"""A backend without Ray: clusters that are there at once, with scripted jobs behind Ray's Jobs API.

For quick tests and for benchmarks of what talks to clusters. The Ray Client is not served: nothing listens on
its port.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from vertex_ray_emulator.backends.backend import ClusterAddresses
from vertex_ray_emulator.backends.fake_dashboard import FakeDashboard, FakeNode
from vertex_ray_emulator.project.plan import NodePlan

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
ENDING = frozenset({"KILL", "TERM"})


class _Cluster:
    """One fake cluster: its dashboard and the server that the dashboard is reached by."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.dashboard = FakeDashboard(f"session_fake_{key}")
        self.head_alive = True
        self._runner: web.AppRunner | None = None
        self._client_socket: socket.socket | None = None
        self._started = 0

    async def serve(self) -> ClusterAddresses:
        self._runner = web.AppRunner(self.dashboard.application(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        # Bound and not listening: the port is ours, and a client is refused.
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
            self.dashboard.running.set()  # or frozen requests would hold the shutdown up
            await runner.cleanup()

    async def close(self) -> None:
        await self.dashboard.jobs.close()
        await self.stop_serving()
        if self._client_socket is not None:
            self._client_socket.close()


class FakeBackend:
    """Clusters without processes (a ``ClusterBackend``)."""

    def __init__(self) -> None:
        self._clusters: dict[str, _Cluster] = {}

    async def start(self, key: str, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        """Start a cluster; its dashboard listens when this returns."""
        cluster = self._clusters[key] = _Cluster(key)
        addresses = await cluster.serve()
        cluster.reconcile(nodes)
        return addresses

    async def resize(self, key: str, nodes: Sequence[NodePlan]) -> None:
        """Make the node list the wanted one; dead nodes are replaced.

        :raises KeyError: No such cluster.
        """
        self._clusters[key].reconcile(nodes)

    async def stop(self, key: str) -> None:
        """Close a cluster's dashboard and end its jobs. Does nothing for an unknown key."""
        cluster = self._clusters.pop(key, None)
        if cluster is not None:
            await cluster.close()

    async def nodes(self, key: str) -> list[dict[str, Any]]:
        """The nodes with their plans' ids; empty for an unknown key."""
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
        """Do to a part what the signal would have done to a real one; no pids, so always an empty list.

        KILL and TERM are final, STOP freezes the dashboard until CONT and is otherwise without effect.

        :raises KeyError: No such cluster or node.
        :raises ValueError: An unknown part or signal, or a driver without its submission id.
        """
        cluster = self._clusters[key]
        dashboard = cluster.dashboard
        if signal_name not in ("KILL", "STOP", "CONT", "TERM"):
            raise ValueError(f"signal {signal_name!r} is none of KILL, STOP, CONT, TERM")
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
                raise ValueError("part 'driver' needs a submission_id")
            if ending:
                dashboard.jobs.kill_driver(submission_id, signal.Signals[f"SIG{signal_name}"])
        else:
            raise ValueError(f"part {part!r} is none of head, gcs, dashboard, agent, raylet, driver")
        return []

    def new_log_lines(self, key: str, seen: dict[str, int], *, last: bool = False) -> list[tuple[str, list[str]]]:
        """The lines that jobs have written, as if they were in files of Ray's names."""
        cluster = self._clusters.get(key)
        found = []
        for job in cluster.dashboard.jobs.all() if cluster is not None else ():
            path = f"/tmp/ray/session_fake_{key}/logs/job-driver-{job.submission_id}.log"  # noqa: S108
            if len(job.log) > seen.get(path, 0):
                lines = job.log[seen.get(path, 0) :]
                seen[path] = seen.get(path, 0) + len(lines)
                found.append((path, [line.rstrip("\n") for line in lines]))
        return found

    async def metrics_targets(self, key: str) -> list[str]:
        """None: there is nothing to measure. The admin API sets metrics."""
        return []

    async def close(self) -> None:
        """Stop every cluster."""
        await asyncio.gather(*(self.stop(key) for key in list(self._clusters)))
