"""The process that owns the Ray nodes of an emulated cluster and ends with the emulator.

``ray_cluster`` starts it in a session of its own. It reads commands as JSON lines on stdin and answers each with a line
on stdout, which has the command's ``id``:

- ``{"op": "start", "node_id": "head", "head": true, "cpus": 0, ...}`` starts a node; the answer is
  ``{"ok": true, "ray_id": "...", "processes": {"raylet": 1234, ...}, "runtime_env_port": 5432}``;
- ``{"op": "stop", "node_id": "pool-1"}`` stops a node; the answer is ``{"ok": true}``;
- ``{"op": "agent"}`` asks for the head's agent; the answer is ``{"ok": true, "address": "127.0.0.1:5432"}``, with null
  until the agent has registered;
- ``{"op": "demand"}`` asks what waits: the answer has ``pending``, a list of ``{"resources": {"CPU": 1}, "count": 9}``,
  and ``nodes``, a list of ``{"ray_id": "...", "available": {"CPU": 3}, "idle": 4.2}`` with idle times in seconds.

The end of stdin means that the emulator has ended, for whatever reason: the process kills the cluster, then exits.

``ray start`` is not used because it replaces 127.0.0.1 by the machine's address. The process calls Ray's internal
classes directly; the emulator therefore requires one version of Ray (2.47.1).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
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
from vertex_ray_emulator.ports import free_ports
from vertex_ray_emulator.settings import LOOPBACK

log = logging.getLogger("node_host")

DASHBOARD_MODULES = "UsageStatsHead,JobHead,NodeHead,ReportHead,StateHead"
"""The dashboard modules that clients of jobs need. All modules would use half a gigabyte more memory, and on a loaded
machine the dashboard would not start in time."""
OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Ray's minimum is 75 MiB. Memory is used only when objects are stored, and further objects spill to disk."""
CLIENT_SERVER_PORTS = 200
_NO_IDLE_WORKERS = re.compile(r"(?<=^--num_prestart_python_workers=)\d+")
_PR_SET_CHILD_SUBREAPER = 36
_REAP_SECONDS = 1.0

# Every Ray Client proxy assigns ports from 23000 on, and gRPC lets two servers share a port (SO_REUSEPORT): sessions of
# two clusters on one machine could reach each other's servers. So each cluster gets a range of its own.
# gRPC's fork support sometimes kills the server that the proxy forks for a session before it starts ("epoll_wait error:
# Bad file descriptor"); it is not needed, because the child only calls exec().
_CLIENT_SERVER = """
import os
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
from ray.util.client.server import proxier
from ray.util.client.server.server import main
proxier.MIN_SPECIFIC_SERVER_PORT, proxier.MAX_SPECIFIC_SERVER_PORT = {first}, {last}
main()
"""


class NodeHost:
    """Starts and stops the Ray nodes of a cluster.

    :param temp_dir: Ray's temporary directory, shared by the nodes.
    """

    def __init__(self, temp_dir: Path) -> None:
        self._temp_dir = temp_dir
        self._nodes: dict[str, Any] = {}

    def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a command and return the answer without ``ok``."""
        operation = command["op"]
        if operation == "start":
            return self._start(command)
        if operation == "stop":
            self._stop(command["node_id"])
            return {}
        if operation == "agent":
            return {"address": self._agent_address()}
        if operation == "demand":
            return self._demand()
        raise ValueError(f"unknown operation {operation!r}")

    def reap(self) -> None:
        """Reap adopted children that have died; those that Ray started are polled by Ray's own objects."""
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
        runtime_env_port, metrics_port, agent_port, listen_port, gcs_port = free_ports(5)
        parameters = RayParams(
            node_ip_address=LOOPBACK,
            num_cpus=command["cpus"],
            num_gpus=command["gpus"],
            resources=command["resources"],
            memory=command["memory"],
            object_store_memory=OBJECT_STORE_BYTES,
            # All nodes of a cluster share this machine.
            min_worker_port=0,
            max_worker_port=0,
            dashboard_agent_listen_port=listen_port,
            runtime_env_agent_port=runtime_env_port,
            metrics_export_port=metrics_port,
            metrics_agent_port=agent_port,
            # The second variable tells drivers the node that they run on (see ray_driver_site/sitecustomize.py).
            env_vars={"RAY_OVERRIDE_NODE_ID_FOR_TESTING": ray_id, NODE_VARIABLE: ray_id},
            # Otherwise all nodes, being on one machine, would unpack a job's code into the same directory.
            runtime_env_dir_name=f"runtime_resources-{command['node_id']}",
        )
        if command["head"]:
            os.environ[NODE_VARIABLE] = (
                ray_id  # the Ray Client servers run on the head, but are not started by its raylet
            )
            _replace_commands(command["client_server_ports"])
            parameters.update(
                temp_dir=str(self._temp_dir),
                include_dashboard=True,
                gcs_server_port=gcs_port,
                dashboard_host=LOOPBACK,
                dashboard_port=command["dashboard_port"],
                ray_client_server_port=command["client_port"],
                # The log directory is shared too: one monitor reads every node's files.
                include_log_monitor=True,
            )
        else:
            parameters.update(gcs_address=head.gcs_address, include_log_monitor=False)
        # spawn_reaper: on Linux the kernel kills the node's processes if this one is killed.
        node = Node(parameters, head=command["head"], shutdown_at_exit=False, spawn_reaper=True)
        self._nodes[command["node_id"]] = node
        if command["head"]:
            # As "ray start" does. Ray gives this address to a job's driver; without it, that of any Ray cluster on this
            # machine, where the job would then run.
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
        # SIGTERM first: the raylet then deregisters from the GCS, which otherwise takes 15 seconds to notice.
        node.kill_all_processes(check_alive=False, allow_graceful=True)
        for pid, since in started.items():
            send(pid, signal.SIGKILL, since)

    def _agent_address(self) -> str | None:
        """Return the address of the head's agent, which handles job requests; None until it has registered."""
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

    def _demand(self) -> dict[str, Any]:
        """Return what Ray tells its autoscaler."""
        from ray.autoscaler.v2.sdk import get_cluster_resource_state
        from ray.core.generated.autoscaler_pb2 import NodeStatus

        state = get_cluster_resource_state(self._nodes["head"].get_gcs_client())
        pending = [
            {"resources": dict(each.request.resources_bundle), "count": each.count}
            for each in state.pending_resource_requests
        ]
        # Bundles of placement groups, which are placed together or not at all.
        pending += [
            {"resources": dict(each.resources_bundle), "count": 1}
            for gang in state.pending_gang_resource_requests
            for each in gang.requests
        ]
        nodes = [
            {
                "ray_id": node.node_id.hex(),
                "available": dict(node.available_resources),
                "idle": node.idle_duration_ms / 1000 if node.status == NodeStatus.IDLE else 0.0,
            }
            for node in state.node_states
            if node.status != NodeStatus.DEAD
        ]
        return {"pending": pending, "nodes": nodes}


def _infos(node: Any) -> list[Any]:
    return [info for infos in node.all_processes.values() for info in infos]


def _pids(node: Any) -> list[tuple[str, int]]:
    return [(kind, info.process.pid) for kind, infos in node.all_processes.items() for info in infos]


def _dead_child() -> int | None:
    """Return the pid of a child that has died, without reaping it."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return info.si_pid if info is not None else None


def _replace_commands(first_port: int) -> None:
    """Change what Ray starts.

    A dashboard with fewer modules, which is waited for; no idle workers; a Ray Client server with ports of its own.
    """
    from ray._private import ray_constants, services

    original = services.start_ray_process

    def start(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            command = [*command, f"--modules-to-load={DASHBOARD_MODULES}"]
        elif process_type == ray_constants.PROCESS_TYPE_RAYLET:
            # Ray starts an idle worker for each CPU, which costs a second of one here, and makes the first driver wait
            # for them. A job with a runtime environment uses none of them.
            command = [_NO_IDLE_WORKERS.sub("0", word) for word in command]
        elif process_type == ray_constants.PROCESS_TYPE_RAY_CLIENT_SERVER:
            script = _CLIENT_SERVER.format(first=first_port, last=first_port + CLIENT_SERVER_PORTS)
            options = [word for word in command if word.startswith("--")]
            command = [sys.executable, "-c", script, *options]
        started = original(command, process_type, *args, **kwargs)
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            _until_it_serves(command, started.process)
        return started

    services.start_ray_process = start


def _until_it_serves(command: list[str], dashboard: subprocess.Popen[bytes]) -> None:
    """Wait until a dashboard has published its address, or has ended.

    Ray itself gives it 20 seconds, in which a busy machine may not even import it. How long a start may take is for
    the emulator to say.
    """
    from ray._private import ray_constants, services

    (address,) = (word.partition("=")[2] for word in command if word.startswith("--gcs-address="))
    key, namespace = ray_constants.DASHBOARD_ADDRESS.encode(), ray_constants.KV_NAMESPACE_DASHBOARD
    client = services.GcsClient(address=address)
    while dashboard.poll() is None and client.internal_kv_get(key, namespace=namespace) is None:
        time.sleep(0.1)


def _read_commands(source: IO[str], commands: queue.Queue[str], record: ClusterRecord, state_dir: Path) -> None:
    """Queue commands; at the end of the stream kill the cluster, even while a command is carried out."""
    for line in source:
        commands.put(line)
    log.info("The emulator has ended; killing the cluster")
    try:
        record.set_host(os.getpid())
        record.end(state_dir)
        record.delete(state_dir)
    finally:
        os._exit(0)


def _own_streams() -> tuple[IO[str], IO[str]]:
    """Duplicate stdin and stdout and redirect the originals, so that Ray and its children cannot use them."""
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
    # Orphans of the cluster become children of this process, so that all processes started by jobs can be found when
    # the cluster ends.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log.warning(
            "Cannot adopt orphans (%s): processes that jobs leave behind may outlive the cluster",
            os.strerror(ctypes.get_errno()),
        )
    commands: queue.Queue[str] = queue.Queue()
    record = ClusterRecord(os.environ[CLUSTER_VARIABLE], str(temp_dir))
    threading.Thread(
        target=_read_commands,
        args=(source, commands, record, Path(os.environ[STATE_VARIABLE])),
        daemon=True,
    ).start()
    host = NodeHost(temp_dir)
    # Nodes must be started on this thread: the kernel kills them when the thread that started them ends.
    while True:
        try:
            line = commands.get(timeout=_REAP_SECONDS)
        except queue.Empty:
            host.reap()
            continue
        command = json.loads(line)
        try:
            answer: dict[str, Any] = {"ok": True, **host.handle(command)}
        except Exception as error:
            log.exception("Command failed: %s", line.strip())
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        # Commands can time out, and their answers come later: the emulator tells by the id which is which.
        answer["id"] = command.get("id")
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
