"""Real Ray clusters on 127.0.0.1: each has a node host process with a head and worker nodes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from vertex_ray_emulator.backends.backend import PARTS, SIGNALS, ClusterAddresses
from vertex_ray_emulator.backends.log_files import new_lines
from vertex_ray_emulator.backends.processes import ClusterRecord, send, started_at
from vertex_ray_emulator.backends.ray_cluster import START_TIMEOUT, Cluster, ClusterError, Node
from vertex_ray_emulator.ports import free_ports
from vertex_ray_emulator.project.plan import NodePlan
from vertex_ray_emulator.project.scaling import Demand
from vertex_ray_emulator.settings import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

STARTS_AT_ONCE = 2
"""A starting head uses all CPUs of a small machine for seconds: more starts at a time only delay each other."""
START_ATTEMPTS = 3
"""A start is repeated because a port that was free may be taken by the time Ray binds it."""
NODE_TIMEOUT = 60.0
RUNTIME_ENV_TIMEOUT = 30.0
"""A raylet exits after 30 seconds without its agent for runtime environments."""
LIST_TIMEOUT = 60.0
"""A killed node is declared dead after 15 seconds (measured)."""
REMOVAL_PATIENCE = 2.0
"""Seconds that a stopping emulator waits for the files of its clusters to be removed."""
_POLL_SECONDS = 0.1
# Below the range of ports that Linux uses for outgoing connections.
_CLIENT_SERVER_PORTS = range(20_000, 32_000, 200)
_NOT_READY = (aiohttp.ClientError, asyncio.TimeoutError, KeyError, TypeError, ValueError)


class RayBackend:
    """Clusters of real Ray nodes (implements ``ClusterBackend``).

    Jobs run in the emulator's own Python environment. They inherit the environment variables with which the emulator
    was started, such as ``STORAGE_EMULATOR_HOST``, except for proxies, ``PYTHONPATH`` and what begins with ``RAY_``,
    ``AIRFLOW_`` or ``VERTEX_RAY_EMULATOR_``: jobs on the service do not have them either.

    :param state_dir: directory for the records of running clusters (see ``processes.reclaim``).
    :param node_environment: additional variables for nodes and jobs, which override inherited ones. The mapping is
        read when a cluster starts and may be filled until then.
    """

    def __init__(self, state_dir: Path, *, node_environment: Mapping[str, str] | None = None) -> None:
        self._state_dir = state_dir
        self._node_environment = {} if node_environment is None else node_environment
        self._clusters: dict[str, Cluster] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)

    async def start(self, key: str, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        """Start a cluster; at most two are started at a time.

        :raises ValueError: if the key is in use.
        :raises ClusterError: if the cluster did not start; nothing is left of it.
        """
        if key in self._clusters:
            raise ValueError(f"Invalid value for key: {key!r}. A cluster with this key already exists.")
        async with self._starts:
            attempt = 0
            while True:
                attempt += 1
                cluster = self._clusters[key] = Cluster(ClusterRecord.create(key, self._state_dir), self._state_dir)
                try:
                    return await self._bring_up(cluster, nodes)
                except ClusterError:
                    # The cluster may have been stopped meanwhile, which is not a failure to retry.
                    stopped = self._clusters.get(key) is not cluster
                    await self.stop(key)
                    if stopped or attempt == START_ATTEMPTS:
                        raise
                except BaseException:
                    await self.stop(key)
                    raise

    async def resize(self, key: str, nodes: Sequence[NodePlan]) -> None:
        """Add and remove workers to match the plans; dead workers are replaced.

        :raises KeyError: if the cluster does not exist.
        :raises ClusterError: if a node did not start, or Ray's node list did not agree in time.
        """
        cluster = self._clusters[key]
        wanted = {plan.node_id: plan for plan in nodes}
        gone = [
            node_id
            for node_id, node in cluster.nodes.items()
            if node_id != "head" and (node_id not in wanted or not node.alive)
        ]
        for node_id in gone:
            del cluster.nodes[node_id]
            await cluster.command(NODE_TIMEOUT, op="stop", node_id=node_id)
        for node_id, plan in wanted.items():
            if node_id not in cluster.nodes:
                await self._start_node(cluster, plan)
        await self._until_listed(cluster, LIST_TIMEOUT)

    async def stop(self, key: str) -> None:
        """Kill a cluster and wait until its processes and its temporary directory are gone."""
        await self._stop(key, None)

    async def _stop(self, key: str, patience: float | None) -> None:
        cluster = self._clusters.pop(key, None)
        if cluster is not None:
            await cluster.end(patience)

    async def nodes(self, key: str) -> list[dict[str, Any]]:
        """Return the nodes, each alive as long as its raylet is; empty for an unknown key."""
        cluster = self._clusters.get(key)
        found = list(cluster.nodes.values()) if cluster is not None else []
        return [
            {
                "node_id": node.plan.node_id,
                "pool_id": node.plan.pool_id,
                "alive": node.alive,
                "pid": node.processes["raylet"][0],
            }
            for node in found
        ]

    async def kill(
        self,
        key: str,
        part: str,
        signal_name: str,
        *,
        node: str | None = None,
        submission_id: str | None = None,
    ) -> list[int]:
        """Send a signal to a part of a cluster.

        :param part: ``head`` (all processes of the head node, drivers included), ``gcs``, ``dashboard`` (with its
            subprocesses), ``agent``, ``raylet``, or ``driver`` (the processes of a submitted job's entrypoint).
        :param signal_name: ``KILL``, ``STOP``, ``CONT`` or ``TERM``.
        :param node: id of the node whose agent or raylet is meant (default: the head).
        :param submission_id: the job whose driver is meant.
        :return: the pids that received the signal.
        :raises KeyError: if the cluster or the node does not exist.
        :raises ValueError: if the part or the signal is unknown, or the submission id of a driver is missing.
        """
        cluster = self._clusters[key]
        if signal_name not in SIGNALS:
            raise ValueError(f"Invalid value for signal: {signal_name!r}. Use KILL, STOP, CONT or TERM.")
        if part not in PARTS:
            raise ValueError(f"Invalid value for part: {part!r}. Use one of {', '.join(PARTS)}.")
        if part == "driver" and submission_id is None:
            raise ValueError("Invalid value for submission_id: None. The part 'driver' requires one.")
        where = "head" if node is None or part in ("gcs", "dashboard") else node
        pids = await asyncio.to_thread(cluster.pids_of, part, where, submission_id)
        number = signal.Signals[f"SIG{signal_name}"]
        return [pid for pid in pids if send(pid, number)]

    def new_log_lines(self, key: str, seen: dict[str, int], *, last: bool = False) -> list[tuple[str, list[str]]]:
        """Return the lines that were added to the files in the session's ``logs`` directory."""
        cluster = self._clusters.get(key)
        if cluster is None:
            return []
        # session_latest is a link; the paths of the files must not change with it.
        session = (Path(cluster.record.temp_dir) / "session_latest").resolve()
        return new_lines(session / "logs", seen, last=last)

    async def demand(self, key: str) -> Demand:
        """Return what Ray reports to its autoscaler.

        :raises KeyError: if the cluster does not exist.
        :raises ClusterError: if its head does not answer.
        """
        cluster = self._clusters[key]
        answer = await cluster.command(NODE_TIMEOUT, op="demand")
        names = {node.ray_id: node_id for node_id, node in cluster.nodes.items()}
        nodes = {names[each["ray_id"]]: each for each in answer["nodes"] if each["ray_id"] in names}
        return Demand(
            [(each["resources"], each["count"]) for each in answer["pending"]],
            {node_id: each["available"] for node_id, each in nodes.items()},
            {node_id: each["idle"] for node_id, each in nodes.items()},
        )

    async def metrics_targets(self, key: str) -> list[str]:
        """Return the addresses of the nodes' agents from the file that the dashboard writes for Prometheus."""
        cluster = self._clusters.get(key)
        if cluster is None:
            return []
        try:
            text = (Path(cluster.record.temp_dir) / "prom_metrics_service_discovery.json").read_text()
            return [str(target) for group in json.loads(text) for target in group["targets"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []  # not written yet, or only partly

    async def close(self) -> None:
        """Kill every cluster; the removal of their files may continue in separate processes."""
        await asyncio.gather(*(self._stop(key, REMOVAL_PATIENCE) for key in list(self._clusters)))

    async def _bring_up(self, cluster: Cluster, nodes: Sequence[NodePlan]) -> ClusterAddresses:
        dashboard_port, client_port, *metric_ports = free_ports(4)
        await cluster.start_host(metric_ports, self._node_environment)
        cluster.dashboard_port = dashboard_port
        await self._start_node(
            cluster,
            next(plan for plan in nodes if plan.is_head),
            dashboard_port=dashboard_port,
            client_port=client_port,
            client_server_ports=random.choice(_CLIENT_SERVER_PORTS),  # noqa: S311
        )
        for plan in nodes:
            if not plan.is_head:
                await self._start_node(cluster, plan)
        await self._until_ready(cluster, client_port)
        return ClusterAddresses(dashboard_port, client_port)

    async def _start_node(self, cluster: Cluster, plan: NodePlan, **ports: int) -> None:
        answer = await cluster.command(
            START_TIMEOUT,
            op="start",
            node_id=plan.node_id,
            head=plan.is_head,
            cpus=0 if plan.is_head else plan.cpus,
            gpus=plan.gpus,
            resources={f"accelerator_type:{plan.accelerator}": 1} if plan.accelerator and plan.gpus else {},
            memory=plan.memory_bytes,
            **ports,
        )
        processes = {kind: (pid, started_at(pid)) for kind, pid in answer["processes"].items()}
        cluster.nodes[plan.node_id] = Node(plan, answer["ray_id"], processes, answer["runtime_env_port"])

    async def _until_ready(self, cluster: Cluster, client_port: int) -> None:
        """Wait until all nodes are listed, the head's agent answers, and the Ray Client listens."""
        await self._until_listed(cluster, START_TIMEOUT)
        # An agent that lost its port to another process keeps running without it, and its node dies half a minute after
        # the first job.
        for node in cluster.nodes.values():
            url = f"http://{LOOPBACK}:{node.runtime_env_port}/"
            await self._until_answered(cluster, url, 404, RUNTIME_ENV_TIMEOUT)
        async for _ in self._polls(cluster, "the head's agent to register", START_TIMEOUT):
            agent = (await cluster.command(NODE_TIMEOUT, op="agent"))["address"]
            if agent is not None:
                break
        # A request for a job's log makes the agent connect to the cluster; otherwise the first submission would wait
        # for that.
        await self._until_answered(cluster, f"http://{agent}/api/job_agent/jobs/no-such-job/logs", 404)
        await self._until_answered(cluster, f"http://{LOOPBACK}:{cluster.dashboard_port}/api/jobs/", 200)
        async for _ in self._polls(cluster, "the Ray Client server to listen", START_TIMEOUT):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(LOOPBACK, client_port)
                writer.close()
                break

    async def _until_answered(self, cluster: Cluster, url: str, status: int, timeout: float = START_TIMEOUT) -> None:
        async with _session() as session:
            async for _ in self._polls(cluster, f"{url} to answer {status}", timeout):
                with contextlib.suppress(*_NOT_READY):
                    async with session.get(url) as response:
                        if response.status == status:
                            return

    async def _until_listed(self, cluster: Cluster, timeout: float) -> None:
        """Wait until Ray's list of live nodes matches the started nodes."""
        url = f"http://{LOOPBACK}:{cluster.dashboard_port}/api/v0/nodes?limit=10000"
        async with _session() as session:
            async for _ in self._polls(cluster, "Ray's node list to agree", timeout):
                with contextlib.suppress(*_NOT_READY):
                    async with session.get(url) as response:
                        rows = (await response.json())["data"]["result"]["result"]
                    alive = {row["node_id"] for row in rows if row["state"] == "ALIVE"}
                    if alive == {node.ray_id for node in cluster.nodes.values()}:
                        return

    async def _polls(self, cluster: Cluster, what: str, timeout: float) -> AsyncIterator[None]:
        """Yield at intervals until the caller stops.

        :raises ClusterError: if ``timeout`` seconds have passed, or the node host is dead.
        """
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if not cluster.host_alive:
                raise cluster.error("the node host is dead")
            yield
            await asyncio.sleep(_POLL_SECONDS)
        raise cluster.error(f"timed out after {timeout:g} s waiting for {what}")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), trust_env=False)
