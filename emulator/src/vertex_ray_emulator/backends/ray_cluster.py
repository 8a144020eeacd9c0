"""A real cluster from the emulator's side: the pipe to its node host, its nodes, and their processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.backends.job_environment import inherited
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

log = logging.getLogger(__name__)

_LOG_LINES_IN_ERROR = 20
START_TIMEOUT = 240.0
"""Seconds for a step of a start; on a busy machine the dashboard alone may take a minute."""
_REMOVAL_POLL_SECONDS = 0.05
_DRIVER_SITE = Path(__file__).resolve().parent / "ray_driver_site"
_NODE_HOST = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r}); "
    "from vertex_ray_emulator.backends.node_host import main; main()"
)


class ClusterError(RuntimeError):
    """A cluster could not be started or changed; the message includes the last lines of the node host's log."""


@dataclass
class Node:
    """A started node.

    :param plan: what the node was started from.
    :param ray_id: Ray's id of the node.
    :param processes: pid and start (in seconds from boot) of its processes, by Ray's names.
    :param runtime_env_port: port on which its agent for runtime environments must listen.
    """

    plan: NodePlan
    ray_id: str
    processes: dict[str, tuple[int, float]]
    runtime_env_port: int

    @property
    def alive(self) -> bool:
        """Whether its raylet is alive, without which the node is dead."""
        return is_alive(*self.processes["raylet"])

    def pid(self, name: str) -> int | None:
        """Return the pid of one of its processes, or None if that is not alive."""
        pid, started = self.processes.get(name, (0, 0))
        return pid if pid and is_alive(pid, started) else None


@dataclass
class Cluster:
    """A cluster of real Ray nodes.

    :param record: what is stored for a later emulator.
    :param state_dir: the emulator's state directory, which contains the record.
    """

    record: ClusterRecord
    state_dir: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    dashboard_port: int = 0
    _process: asyncio.subprocess.Process | None = None
    _watcher: asyncio.Task[None] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _commands: int = 0

    @property
    def host_alive(self) -> bool:
        """Whether the node host runs."""
        return self._process is not None and self._process.returncode is None

    async def start_host(self, metric_ports: Sequence[int], extra: Mapping[str, str]) -> None:
        """Start the node host.

        :param metric_ports: two free ports, for the metrics of the autoscaler and the dashboard.
        :param extra: environment variables that override those of the emulator.
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
        self.record.set_host(self._process.pid)
        self.record.save(self.state_dir)
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def command(self, timeout: float, **command: Any) -> dict[str, Any]:
        """Send a command to the node host and return its answer.

        :raises ClusterError: if the command failed or took longer than ``timeout`` seconds, or the node host is dead.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise self.error("the node host is not started")
        async with self._lock:
            self._commands += 1
            try:
                process.stdin.write(json.dumps({**command, "id": self._commands}).encode() + b"\n")
                await process.stdin.drain()
                answer = await asyncio.wait_for(_answer(process.stdout, self._commands), timeout)
            except asyncio.TimeoutError:
                raise self.error(f"{command['op']} took longer than {timeout:g} s") from None
            except ConnectionError:
                answer = None
        if answer is None:
            raise self.error(f"the node host died during {command['op']}")
        if not answer.pop("ok"):
            raise self.error(f"{command['op']} failed: {answer['error']}")
        return answer

    async def end(self, patience: float | None = None) -> None:
        """Kill every process of the cluster and remove its files.

        :param patience: seconds to wait for the removal of the files, which then goes on without this process; None to
            wait until they are gone. A job's pip environment is a copy of a whole virtual environment: removing it
            can take a minute on a slow disk.
        :raises TimeoutError: if some processes are still alive after 20 seconds.
        """
        if self._watcher is not None:
            self._watcher.cancel()
        await asyncio.to_thread(self.record.end, self.state_dir)
        if self._process is not None:
            await self._process.wait()
        if await self._remove_files(patience):
            await asyncio.to_thread(self.record.delete, self.state_dir)

    async def _remove_files(self, patience: float | None) -> bool:
        # A separate process is faster than shutil, and outlives an emulator that is stopping. It is not an asyncio
        # subprocess, because those are killed with their event loop. The record stays until the files are gone: if the
        # machine goes down, the next emulator with this state directory removes what is left.
        remover = subprocess.Popen(  # noqa: ASYNC220
            ["rm", "-rf", "--", self.record.temp_dir],  # noqa: S607
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        waited = 0.0
        while remover.poll() is None:
            if patience is not None and waited >= patience:
                log.info(
                    "The files of cluster %s are still being removed from %s", self.record.key, self.record.temp_dir
                )
                return False
            await asyncio.sleep(_REMOVAL_POLL_SECONDS)
            waited += _REMOVAL_POLL_SECONDS
        return True

    def pids_of(self, part: str, node_id: str, submission_id: str | None) -> list[int]:
        """Return the pids of the live processes of a part (see ``RayBackend.kill``).

        :raises KeyError: if the node does not exist.
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
            # The raylet's command line contains that of the agent.
            below = descendants([root]) - {root}
            return sorted(pid for pid in below if "dashboard/agent.py" in command_line(pid))
        return [root]

    def error(self, text: str) -> ClusterError:
        """Return an error with the cluster's key and the last lines of the node host's log."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_LINES_IN_ERROR:]
        return ClusterError("\n".join([f"cluster {self.record.key}: {text}", *lines]))

    @property
    def _log_file(self) -> Path:
        return Path(self.record.temp_dir) / "node_host.log"

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the node host to end, then kill what is left of the cluster."""
        await process.wait()
        await asyncio.to_thread(self.record.end, self.state_dir)

    def _environment(self, metric_ports: Sequence[int], extra: Mapping[str, str]) -> dict[str, str]:
        return {
            **inherited(),
            "PYTHONPATH": str(_DRIVER_SITE),
            **extra,
            # Makes Ray listen only on the given address; otherwise a cluster listens on all interfaces.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Each of the dashboard's processes has 30 seconds by default.
            "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": str(START_TIMEOUT),
            # With the default ports, two clusters on one machine would conflict.
            "AUTOSCALER_METRIC_PORT": str(metric_ports[0]),
            "DASHBOARD_METRIC_PORT": str(metric_ports[1]),
            **self.record.marker(self.state_dir),
        }

    def _driver(self, submission_id: str) -> list[int]:
        """Return the pids of a job's entrypoint, found by what Ray's job supervisor sets in their environment."""
        members = find_processes(self.record.marker(self.state_dir), [self.record])
        found = []
        for pid in members:
            config = json.loads(environment(pid).get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
            if config.get("metadata", {}).get("job_submission_id") == submission_id:
                found.append(pid)
        return sorted(found)


async def _answer(source: asyncio.StreamReader, command_id: int) -> dict[str, Any] | None:
    """Return the node host's answer to a command, or None if the host is dead.

    Answers to commands that timed out come first and are skipped.
    """
    while line := await source.readline():
        answer: dict[str, Any] = json.loads(line)
        if answer.pop("id", None) == command_id:
            return answer
    return None
