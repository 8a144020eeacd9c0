"""The process behind one emulated cluster: it owns the cluster's Ray nodes, and goes down with the emulator.

Run by ``ray_cluster`` in a session of its own. Commands come as JSON lines on stdin, one answer line each on
stdout:

- ``{"op": "start", "node_id": "head", "head": true, "cpus": 0, ...}`` starts a node and is answered
  ``{"ok": true, "ray_id": "...", "processes": {"raylet": 1234, ...}, "runtime_env_port": 5432}``;
- ``{"op": "stop", "node_id": "pool-1"}`` is answered ``{"ok": true}``;
- ``{"op": "agent"}`` is answered ``{"ok": true, "address": "127.0.0.1:5432"}``; null before it has registered.

The end of stdin means that the emulator is gone, however it went: everything of the cluster is ended, then
the process itself.

``ray start`` is not used: it replaces 127.0.0.1 by the machine's address. Ray's own classes below it are, in
the one version that the emulator asks for (2.47.1).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import queue
import random
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import IO, Any

from vertex_ray_emulator.backends.processes import (
    CLUSTER_VARIABLE,
    NODE_VARIABLE,
    STATE_VARIABLE,
    ClusterRecord,
    descendants,
    send,
    started_at,
)

log = logging.getLogger("node_host")

LOOPBACK = "127.0.0.1"
# What clients of jobs need: the whole set costs half a gigabyte more, and on a loaded machine the dashboard's
# deadline.
DASHBOARD_MODULES = "UsageStatsHead,JobHead,NodeHead,ReportHead,StateHead"
# Ray's least is 75 MiB; the pages are taken from the machine only when objects are stored, and then spill to
# disk.
OBJECT_STORE_BYTES = 128 * 1024 * 1024
CLIENT_SERVER_PORTS = 200
_PR_SET_CHILD_SUBREAPER = 36
_REAP_SECONDS = 1.0

# Every Ray Client proxy hands out the ports from 23000 on, and gRPC lets two servers share a port (SO_REUSEPORT):
# sessions of two clusters on one machine could end up on each other's servers. So each cluster gets a range of its own.
# And gRPC's handling of fork() now and then kills the server that the proxy forks for a session, before it has begun
# ("epoll_wait error: Bad file descriptor"); without it that goes well, as the child only calls exec().
_CLIENT_SERVER = """
import os
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
from ray.util.client.server import proxier
from ray.util.client.server.server import main
proxier.MIN_SPECIFIC_SERVER_PORT, proxier.MAX_SPECIFIC_SERVER_PORT = {first}, {last}
main()
"""


class NodeHost:
    """Starts and stops the Ray nodes of one cluster.

    :param temp_dir: Ray's temporary directory, shared by the nodes.
    """

    def __init__(self, temp_dir: Path) -> None:
        self._temp_dir = temp_dir
        self._nodes: dict[str, Any] = {}

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; the answer without its ``ok``."""
        operation = command["op"]
        if operation == "start":
            return self._start(command)
        if operation == "stop":
            self._stop(command["node_id"])
            return {}
        if operation == "agent":
            return {"address": self._agent_address()}
        raise ValueError(f"unknown operation {operation!r}")

    def reap(self) -> None:
        """Wait for adopted children that have died; those that Ray started are its own business."""
        ours = {each.process.pid: each.process for node in self._nodes.values() for each in _infos(node)}
        while (dead := _dead_child()) is not None:
            if dead in ours:
                ours[dead].poll()
            else:
                os.waitpid(dead, 0)

    def _start(self, command: dict[str, Any]) -> dict[str, Any]:
        import ray
        from ray._private.node import Node
        from ray._private.parameter import RayParams
        from ray._private.utils import write_ray_address

        ray_id: str = ray.NodeID.from_random().hex()
        head: Any = self._nodes.get("head")
        parameters = RayParams(
            node_ip_address=LOOPBACK,
            num_cpus=command["cpus"],
            num_gpus=command["gpus"],
            resources=command["resources"],
            memory=command["memory"],
            object_store_memory=OBJECT_STORE_BYTES,
            # Any free ports, as all "machines" of a cluster share this one. For the agent's only None will
            # do: with 0 it binds one port while jobs report another.
            min_worker_port=0,
            max_worker_port=0,
            dashboard_agent_listen_port=None,
            runtime_env_agent_port=_quiet_port(),
            # The second one tells drivers on this node which node that is (see ray_driver_site/sitecustomize.py).
            env_vars={"RAY_OVERRIDE_NODE_ID_FOR_TESTING": ray_id, NODE_VARIABLE: ray_id},
            # Else all nodes, being on one machine, unpack a job's code into one folder, one under the other's job.
            runtime_env_dir_name=f"runtime_resources-{command['node_id']}",
        )
        if command["head"]:
            os.environ[NODE_VARIABLE] = ray_id  # the Ray Client's servers are on the head, but not below its raylet
            _replace_commands(command["client_server_ports"])
            parameters.update(
                temp_dir=str(self._temp_dir),
                include_dashboard=True,
                dashboard_host=LOOPBACK,
                dashboard_port=command["dashboard_port"],
                ray_client_server_port=command["client_port"],
                # The log directory is shared too: one monitor sees every node's files.
                include_log_monitor=True,
            )
        else:
            parameters.update(gcs_address=head.gcs_address, include_log_monitor=False)
        # spawn_reaper: on Linux the kernel ends the node's processes with this one, should it be killed.
        node = Node(parameters, head=command["head"], shutdown_at_exit=False, spawn_reaper=True)
        self._nodes[command["node_id"]] = node
        if command["head"]:
            # As "ray start" does. Ray gives a job's driver the address that stands here; without it, that of any Ray on
            # this machine, so that the job would run on another cluster.
            write_ray_address(node.gcs_address, str(self._temp_dir))
        return {
            "ray_id": ray_id,
            "processes": dict(_pids(node)),
            "runtime_env_port": node.runtime_env_agent_port,
        }

    def _stop(self, node_id: str) -> None:
        node = self._nodes.pop(node_id)
        below = descendants([pid for _, pid in _pids(node)])
        started = {pid: started_at(pid) for pid in below}
        # SIGTERM first: the raylet then tells the GCS, which otherwise takes 15 seconds to notice.
        node.kill_all_processes(check_alive=False, allow_graceful=True)
        for pid, ticks in started.items():
            send(pid, signal.SIGKILL, ticks)

    def _agent_address(self) -> str | None:
        """Where the head's agent, which carries out job requests, listens; None until it has said so."""
        from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD
        from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX

        head = self._nodes["head"]
        found = head.get_gcs_client().internal_kv_get(
            f"{DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX}{head._node_id}".encode(), KV_NAMESPACE_DASHBOARD
        )
        if not found:
            return None
        host, port, _ = json.loads(found)
        return f"{host}:{port}"


def _quiet_port() -> int:
    """A free port below the range from which Linux takes ports for outgoing connections: Ray binds it seconds later."""
    while True:
        port = random.randrange(10_000, 20_000)  # noqa: S311 - guards nothing
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def _infos(node: Any) -> list[Any]:
    return [info for infos in node.all_processes.values() for info in infos]


def _pids(node: Any) -> list[tuple[str, int]]:
    return [(kind, info.process.pid) for kind, infos in node.all_processes.items() for info in infos]


def _dead_child() -> int | None:
    """A child that has died and was not waited for, left as it is."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return info.si_pid if info is not None else None


def _replace_commands(first_port: int) -> None:
    """Have Ray start a dashboard with fewer modules, and a Ray Client server with ports of its own."""
    from ray._private import ray_constants, services

    original = services.start_ray_process

    def start(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            command = [*command, f"--modules-to-load={DASHBOARD_MODULES}"]
        elif process_type == ray_constants.PROCESS_TYPE_RAY_CLIENT_SERVER:
            script = _CLIENT_SERVER.format(first=first_port, last=first_port + CLIENT_SERVER_PORTS)
            options = [word for word in command if word.startswith("--")]
            command = [sys.executable, "-c", script, *options]
        return original(command, process_type, *args, **kwargs)

    services.start_ray_process = start


def _read_commands(source: IO[str], commands: queue.Queue[str], record: ClusterRecord, state_dir: Path) -> None:
    """Hand commands over; at the end of the stream end the cluster, in the midst of whatever goes on."""
    for line in source:
        commands.put(line)
    log.info("The emulator is gone; ending the cluster.")
    try:
        record.led_by(os.getpid())
        record.end(state_dir)
        record.forget(state_dir)
    finally:
        os._exit(0)


def _own_streams() -> tuple[IO[str], IO[str]]:
    """Take stdin and stdout for ourselves: neither Ray nor its children read commands or write answers."""
    source, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, answers


def main() -> None:
    """Serve commands until stdin ends."""
    temp_dir = Path(sys.argv[1])
    source, answers = _own_streams()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Orphans of the cluster become our children, so that whatever a job started can be found when the cluster
    # ends.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log.warning("Orphans can not be adopted: %s", os.strerror(ctypes.get_errno()))
    commands: queue.Queue[str] = queue.Queue()
    record = ClusterRecord(os.environ[CLUSTER_VARIABLE], str(temp_dir))
    threading.Thread(
        target=_read_commands,
        args=(source, commands, record, Path(os.environ[STATE_VARIABLE])),
        daemon=True,
    ).start()
    host = NodeHost(temp_dir)
    # Nodes are started on this thread and no other: the kernel ends them with the thread that started them.
    while True:
        try:
            line = commands.get(timeout=_REAP_SECONDS)
        except queue.Empty:
            host.reap()
            continue
        try:
            answer: dict[str, Any] = {"ok": True, **host.handle(json.loads(line))}
        except Exception as error:
            log.exception("Failed: %s", line.strip())
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
