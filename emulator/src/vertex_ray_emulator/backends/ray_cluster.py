"""One real cluster as the emulator sees it: the pipe to its node host, its nodes, and their processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.backends.processes import (
    ClusterRecord,
    command_line,
    descendants,
    environment,
    find_processes,
    is_alive,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vertex_ray_emulator.project.plan import NodePlan

PARTS = ("head", "gcs", "dashboard", "agent", "raylet", "driver")
# What describes the shell that the emulator was started from, and not a machine of the cluster. Without
# compiled modules each of Ray's dozen processes compiles them anew: a head takes 10 s then, instead of 4.
_DROPPED_NAMES = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD"}
)
_DROPPED_PREFIXES = ("RAY_", "AIRFLOW_", "VERTEX_RAY_EMULATOR_")
_LOG_LINES_IN_ERROR = 20
_DRIVER_SITE = Path(__file__).resolve().parent / "ray_driver_site"
_NODE_HOST = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r}); "
    "from vertex_ray_emulator.backends.node_host import main; main()"
)


class ClusterError(RuntimeError):
    """A cluster could not be started or changed; the text has the node host's last lines."""


@dataclass
class Node:
    """A started node: its plan, Ray's id, and its processes by Ray's names, each with its start ticks.

    :param runtime_env_port: Where its agent for runtime environments has to listen.
    """

    plan: NodePlan
    ray_id: str
    processes: dict[str, tuple[int, int]]
    runtime_env_port: int

    @property
    def alive(self) -> bool:
        """Whether its raylet lives; without it there is no node."""
        return is_alive(*self.processes["raylet"])

    def pid(self, name: str) -> int | None:
        """The pid of one of its processes while that lives."""
        pid, started = self.processes.get(name, (0, 0))
        return pid if pid and is_alive(pid, started) else None


@dataclass
class Cluster:
    """One cluster.

    :param record: What is written down for a later emulator.
    :param state_dir: Where it is written.
    """

    record: ClusterRecord
    state_dir: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    dashboard_port: int = 0
    _process: asyncio.subprocess.Process | None = None
    _watcher: asyncio.Task[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def host_alive(self) -> bool:
        """Whether the node host runs."""
        return self._process is not None and self._process.returncode is None

    async def start_host(self, metric_ports: Sequence[int], extra: Mapping[str, str]) -> None:
        """Start the node host.

        :param metric_ports: Two free ports, for the autoscaler's and the dashboard's metrics.
        :param extra: Environment variables that go before the emulator's own.
        """
        with self._log_file.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _NODE_HOST,
                self.record.temp_dir,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd=self.record.temp_dir,
                env=self._environment(metric_ports, extra),
            )
        self.record.led_by(self._process.pid)
        self.record.save(self.state_dir)
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def command(self, timeout: float, **command: Any) -> dict[str, Any]:
        """Have the node host carry out a command.

        :raises ClusterError: It failed, took longer than ``timeout`` seconds, or the node host is gone.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise self.error("there is no node host")
        async with self._lock:
            try:
                process.stdin.write(json.dumps(command).encode() + b"\n")
                await process.stdin.drain()
                line = await asyncio.wait_for(process.stdout.readline(), timeout)
            except asyncio.TimeoutError:
                raise self.error(f"{command['op']} took longer than {timeout:g} s") from None
            except ConnectionError:
                line = b""
        if not line:
            raise self.error(f"the node host went away during {command['op']}")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise self.error(f"{command['op']} failed: {answer['error']}")
        return answer

    async def end(self) -> None:
        """Kill everything of the cluster and remove what it wrote."""
        if self._watcher is not None:
            self._watcher.cancel()
        await asyncio.to_thread(self.record.end, self.state_dir)
        if self._process is not None:
            await self._process.wait()
        await asyncio.to_thread(self.record.forget, self.state_dir)

    def pids_of(self, part: str, node_id: str, submission_id: str | None) -> list[int]:
        """The live processes of a part (see ``RayBackend.kill``).

        :raises KeyError: No such node.
        """
        node = self.nodes[node_id]
        if part == "head":
            head = self.nodes["head"]
            return sorted(descendants(filter(None, map(head.pid, head.processes))))
        if part == "driver":
            return self._driver(submission_id or "")
        root = node.pid({"gcs": "gcs_server", "dashboard": "dashboard"}.get(part, "raylet"))
        if root is None:
            return []
        if part == "dashboard":
            return sorted(descendants([root]))
        if part == "agent":
            # The raylet's own command line has the agent's in it.
            below = descendants([root]) - {root}
            return sorted(pid for pid in below if "dashboard/agent.py" in command_line(pid))
        return [root]

    def error(self, text: str) -> ClusterError:
        """An error about this cluster, with the node host's last lines."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES_IN_ERROR:]
        return ClusterError("\n".join([f"cluster {self.record.key}: {text}", *lines]))

    @property
    def _log_file(self) -> Path:
        return Path(self.record.temp_dir) / "node_host.log"

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Should the node host die, the cluster is dead: end what is left, as a machine's power cut would."""
        await process.wait()
        await asyncio.to_thread(self.record.end, self.state_dir)

    def _environment(self, metric_ports: Sequence[int], extra: Mapping[str, str]) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy")
            and name not in _DROPPED_NAMES
            and not name.startswith(_DROPPED_PREFIXES)
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)])
        return {
            **inherited,
            "PATH": path,
            "PYTHONPATH": str(_DRIVER_SITE),
            **extra,
            # Keeps Ray on the address that it is given; without it a cluster listens on every interface.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Two clusters of one machine would fight over the default ports.
            "AUTOSCALER_METRIC_PORT": str(metric_ports[0]),
            "DASHBOARD_METRIC_PORT": str(metric_ports[1]),
            **self.record.marker(self.state_dir),
        }

    def _driver(self, submission_id: str) -> list[int]:
        """The processes of a job's entrypoint, by what Ray's job supervisor puts into their environment."""
        members = find_processes(self.record.marker(self.state_dir), [self.record])
        found = []
        for pid in members:
            config = json.loads(environment(pid).get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
            if config.get("metadata", {}).get("job_submission_id") == submission_id:
                found.append(pid)
        return sorted(found)
