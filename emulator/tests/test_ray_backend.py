"""Real clusters start completely, listen only on loopback, and leave nothing behind, however they end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from emulator_support.data_plane import listening_addresses, plans, remains, until
from emulator_support.process import PATIENCE
from vertex_ray_emulator.backends import processes, ray_backend
from vertex_ray_emulator.backends.ray_backend import RayBackend
from vertex_ray_emulator.backends.ray_cluster import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

PYTHON_PATH = os.pathsep.join(
    [str(Path(processes.__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
)
# In the place of an emulator: a process that has a cluster with a running job, and then waits.
EMULATOR = """
import asyncio, json, pathlib, sys
import aiohttp
from vertex_ray_emulator.backends.ray_backend import RayBackend
from emulator_support.data_plane import plans

async def main():
    addresses = await RayBackend(pathlib.Path(sys.argv[1])).start("crash-1", plans(1))
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{addresses.dashboard_port}/api/jobs/"
        await (await session.post(url, json={"entrypoint": "sleep 600", "submission_id": "x"})).read()
        while (await (await session.get(url + "x")).json())["status"] != "RUNNING":
            await asyncio.sleep(0.1)
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


class Started:
    """The cluster that the tests of this module share."""

    def __init__(self, backend: RayBackend, state: Path, session: aiohttp.ClientSession) -> None:
        self.backend, self.state, self.session = backend, state, session
        self.url = ""

    async def start(self, workers: int = 1) -> None:
        self.url = await _start(self.backend, "shared-1", workers)

    def members(self) -> dict[int, processes.Process]:
        return processes.find_processes(processes.state_marker(self.state), _records(self.state))

    async def run(self, entrypoint: str, **more: Any) -> str:
        """Run a job to its end; its log without Ray's own line."""
        job = await self.submit(entrypoint, **more)
        details = await until(lambda: self.ended(job), f"{job} to end")
        assert details["status"] == "SUCCEEDED", details["message"]
        async with self.session.get(f"{self.url}{job}/logs") as response:
            return (await response.json())["logs"].split("setting up.\n", 1)[1]

    async def submit(self, entrypoint: str, **more: Any) -> str:
        async with self.session.post(self.url, json={"entrypoint": entrypoint, **more}) as response:
            assert response.status == 200, await response.text()
            return (await response.json())["submission_id"]

    async def details(self, job: str) -> dict[str, Any]:
        async with self.session.get(self.url + job) as response:
            return await response.json()

    async def ended(self, job: str) -> dict[str, Any] | None:
        details = await self.details(job)
        return details if details["end_time"] else None

    async def logged(self, job: str, text: str) -> str | None:
        """The job's log once it has this text."""
        async with self.session.get(f"{self.url}{job}/logs") as response:
            log = (await response.json())["logs"]
        return log if text in log else None


async def _start(backend: RayBackend, key: str, workers: int) -> str:
    addresses = await backend.start(key, plans(workers))
    return f"http://127.0.0.1:{addresses.dashboard_port}/api/jobs/"


def _records(state: Path) -> list[processes.ClusterRecord]:
    files = (state / "clusters").glob("*.json")
    return [processes.ClusterRecord(**json.loads(file.read_text())) for file in files]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory) -> AsyncIterator[Started]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:4443")
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        patch.setenv("https_proxy", "http://127.0.0.1:9")
        patch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
        patch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
        patch.setenv("VERTEX_RAY_EMULATOR_HOST", "127.0.0.1:1")
        patch.setenv("PYTHONPATH", "/somewhere")
        state = tmp_path_factory.mktemp("state")
        backend = RayBackend(state, node_environment={"FROM_THE_EMULATOR": "1"})
        try:
            async with aiohttp.ClientSession() as session:
                started = Started(backend, state, session)
                await started.start()
                yield started
        finally:
            await backend.close()


async def test_jobs_get_the_environment_of_the_emulator_without_settings_of_the_shell(cluster):
    seen = json.loads(await cluster.run("python -c 'import os, json; print(json.dumps(dict(os.environ)))'"))
    assert seen["STORAGE_EMULATOR_HOST"] == "http://127.0.0.1:4443"
    assert seen["FROM_THE_EMULATOR"] == "1"
    assert seen["RAY_ADDRESS"].startswith("127.0.0.1:")
    assert not {"HTTPS_PROXY", "https_proxy", "AIRFLOW__CORE__FERNET_KEY", "VERTEX_RAY_EMULATOR_HOST"} & set(seen)
    assert "/somewhere" not in seen["PYTHONPATH"]


async def test_jobs_run_in_the_python_environment_of_the_emulator_and_tasks_on_the_workers(cluster):
    script = (
        "import sys, ray; ray.init(logging_level='ERROR'); "
        "where = ray.remote(num_cpus=1, num_gpus=1)(lambda: ray.get_runtime_context().get_node_id()); "
        "print(sys.executable, ray.get(where.remote()) != ray.get_runtime_context().get_node_id())"
    )
    output = (await cluster.run(f'python -W ignore -c "{script}"')).splitlines()[-1]
    executable, elsewhere = output.split()
    assert Path(executable).parent == Path(sys.executable).parent
    assert elsewhere == "True"


async def test_drivers_are_attached_to_their_own_node_and_survive_a_resize(cluster):
    """All nodes share an address; without the emulator's patch Ray attaches a driver to any of them."""
    script = cluster.state / "driver.py"
    script.write_text(
        "import pathlib, sys, time, ray\n"
        "ray.init(logging_level='ERROR')\n"
        "print('node', ray.get_runtime_context().get_node_id(), flush=True)\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.1)\n"
        "print('answer', ray.get(ray.remote(lambda: 42).remote()))\n"
    )
    go = cluster.state / "go"
    await cluster.backend.resize("shared-1", plans(4))
    on_head = [await cluster.submit(f"python -W ignore {script} {go}") for _ in range(2)]
    placed = await cluster.submit(
        f"python -W ignore {script} {cluster.state}", entrypoint_resources={"accelerator_type:T4": 1}
    )
    for job in (*on_head, placed):
        log = await until(lambda job=job: cluster.logged(job, "node "), "the driver to be connected")
        assert log.split("node ")[1].split()[0] == (await cluster.details(job))["driver_node_id"]
    await until(lambda: cluster.ended(placed), "the driver on a worker to end")
    await cluster.backend.resize("shared-1", plans(1))
    go.touch()
    for job in on_head:
        details = await until(lambda job=job: cluster.ended(job), "the driver on the head to end")
        assert details["status"] == "SUCCEEDED", details["message"]


async def test_nothing_listens_outside_loopback(cluster):
    job = await cluster.submit("python -c 'import ray, time; ray.init(); print(1); time.sleep(600)'")
    await until(lambda: cluster.logged(job, "\n1\n"), "the driver to be connected")
    found = listening_addresses(cluster.members())
    assert {"0100007F"} <= found <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, in both families
    assert await cluster.backend.kill("shared-1", "driver", "KILL", submission_id=job)


async def test_ray_client_server_is_reachable(cluster):
    script = "import ray, sys; ray.init(sys.argv[1]); print(ray.get(ray.remote(lambda: 6 * 7).remote()))"
    members = cluster.members()
    (server,) = [pid for pid in members if "--mode=proxy" in processes.command_line(pid)]
    (port,) = [w for w in processes.command_line(server).split() if w.startswith("--port=")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, f"ray://127.0.0.1:{port[7:]}", stdout=subprocess.PIPE, env=environment
    )
    output, _ = await asyncio.wait_for(client.communicate(), PATIENCE)
    assert output.split()[-1] == b"42"


async def test_dead_worker_is_detected_at_once_and_replaced_by_a_resize(cluster):
    before = {node["node_id"]: node for node in await cluster.backend.nodes("shared-1")}
    pids = await cluster.backend.kill("shared-1", "raylet", "KILL", node="worker-pool1-0")
    assert pids == [before["worker-pool1-0"]["pid"]]

    async def alive() -> dict[str, bool]:
        return {node["node_id"]: node["alive"] for node in await cluster.backend.nodes("shared-1")}

    await until(lambda: _equal(alive, {"head": True, "worker-pool1-0": False}), "the node to be dead")
    await cluster.backend.resize("shared-1", plans(1))
    assert await alive() == {"head": True, "worker-pool1-0": True}
    after = {node["node_id"]: node for node in await cluster.backend.nodes("shared-1")}
    assert after["worker-pool1-0"]["pid"] != before["worker-pool1-0"]["pid"]


async def _equal(get: Any, expected: Any) -> bool:
    return bool(await get() == expected)


async def test_stopped_dashboard_hangs_until_it_is_continued(cluster):
    stopped = await cluster.backend.kill("shared-1", "dashboard", "STOP")
    assert len(stopped) >= 5  # the server and the processes of its modules
    with pytest.raises(asyncio.TimeoutError):
        await cluster.session.get(cluster.url, timeout=aiohttp.ClientTimeout(total=0.5))
    assert await cluster.backend.kill("shared-1", "dashboard", "CONT") == stopped
    assert (await cluster.session.get(cluster.url)).status == 200


async def test_every_part_is_found_and_unknown_names_are_rejected(cluster):
    parts = {part: await cluster.backend.kill("shared-1", part, "CONT") for part in ("gcs", "agent", "raylet", "head")}
    assert [len(parts[part]) for part in ("gcs", "agent", "raylet")] == [1, 1, 1]
    assert set(parts["gcs"] + parts["agent"] + parts["raylet"]) < set(parts["head"])
    (worker,) = await cluster.backend.kill("shared-1", "agent", "CONT", node="worker-pool1-0")
    assert worker not in parts["head"]
    assert await cluster.backend.kill("shared-1", "driver", "KILL", submission_id="nobody") == []
    for arguments, options, error in (
        (("shared-1", "engine", "KILL"), {}, ValueError),
        (("shared-1", "head", "HUP"), {}, ValueError),
        (("shared-1", "driver", "KILL"), {}, ValueError),
        (("shared-1", "raylet", "KILL"), {"node": "worker-9"}, KeyError),
        (("nobody", "head", "KILL"), {}, KeyError),
    ):
        with pytest.raises(error):
            await cluster.backend.kill(*arguments, **options)


async def test_stop_kills_daemons_of_jobs_and_leaves_nothing(cluster):
    """This ends the shared cluster; the next test starts another one."""
    daemon = "env -i setsid sh -c 'setsid sleep 987654 & exit 0'"  # no parent, no session, no environment of ours
    await cluster.run(daemon)

    def sleeping() -> list[int]:
        return [pid for pid in cluster.members() if processes.command_line(pid) == "sleep 987654"]

    # The job may end before its child has become this program.
    (orphan,) = await until(sleeping, "the daemon's own program")
    members = cluster.members()
    await cluster.submit("sleep 600")
    (record,) = _records(cluster.state)
    others = set(processes.snapshot()) - set(cluster.members())
    await asyncio.wait_for(cluster.backend.stop("shared-1"), PATIENCE)  # the job takes longer
    assert cluster.members() == {}
    assert not [pid for pid in (*members, orphan) if processes.is_alive(pid)]
    assert remains(record, cluster.state) == []
    assert await cluster.backend.nodes("shared-1") == []
    await cluster.backend.stop("shared-1")
    assert os.getpid() in others  # what is not ours goes on
    assert processes.is_alive(os.getppid())


async def test_cluster_without_its_node_host_is_dead_and_reports_it(cluster):
    await cluster.start(workers=1)
    (record,) = _records(cluster.state)
    os.kill(record.host_pid, signal.SIGKILL)

    async def dead() -> bool:
        return not any(node["alive"] for node in await cluster.backend.nodes("shared-1"))

    await until(dead, "every node to be dead")
    await until(lambda: not cluster.members(), "the processes to be gone")
    with pytest.raises(ClusterError):
        await cluster.backend.resize("shared-1", plans(2))
    await cluster.backend.stop("shared-1")
    assert remains(record, cluster.state) == []


async def test_start_is_retried_with_other_ports_when_a_port_is_taken(cluster, monkeypatch):
    asked = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        original = ray_backend.free_ports

        def free_ports(count: int) -> list[int]:
            asked.append(count)
            ports = original(count)
            return [taken.getsockname()[1], *ports[1:]] if len(asked) == 1 else ports

        monkeypatch.setattr(ray_backend, "free_ports", free_ports)
        await cluster.start(workers=0)
    assert len(asked) >= 2  # another program may take one of the second ports
    assert (await cluster.session.get(cluster.url)).status == 200
    with pytest.raises(ValueError, match="already"):
        await cluster.backend.start("shared-1", plans(0))
    await cluster.backend.kill("shared-1", "head", "KILL")

    async def dead() -> bool:
        return [node["alive"] for node in await cluster.backend.nodes("shared-1")] == [False]

    await until(dead, "the head to be dead")
    await cluster.backend.stop("shared-1")
    assert cluster.members() == {}


@pytest.mark.soak
async def test_dashboard_that_takes_longer_than_ray_allows_is_waited_for(cluster):
    await cluster.backend.stop("shared-1")
    start = asyncio.create_task(cluster.start(workers=0))

    def dashboard() -> int | None:
        return next((pid for pid in cluster.members() if "dashboard.py" in processes.command_line(pid)), None)

    pid = await until(dashboard, "a dashboard to start")
    os.kill(pid, signal.SIGSTOP)
    # Ray itself gives it 20 seconds.
    await asyncio.sleep(25)
    assert not start.done()
    assert pid in cluster.members(), "it was started anew"
    os.kill(pid, signal.SIGCONT)
    await start
    assert await cluster.run("echo there") == "there\n"


@pytest.mark.soak
async def test_cluster_whose_runtime_env_agent_lost_its_port_is_started_again(cluster, monkeypatch):
    original = ray_backend.RayBackend._start_node
    ports = []

    async def start_node(self: RayBackend, of: Any, plan: Any, **more: int) -> None:
        await original(self, of, plan, **more)
        node = of.nodes[plan.node_id]
        ports.append(node.runtime_env_port)
        # Short for the first attempt only: an agent that has its port must be waited for.
        monkeypatch.setattr(ray_backend, "RUNTIME_ENV_TIMEOUT", 5.0 if len(ports) == 1 else PATIENCE)
        if len(ports) == 1:
            # A real one loses its port to a connection, which nobody can force.
            of.nodes[plan.node_id] = dataclasses.replace(node, runtime_env_port=1)

    monkeypatch.setattr(ray_backend.RayBackend, "_start_node", start_node)
    await cluster.backend.stop("shared-1")
    await cluster.start(workers=0)
    assert len(set(ports)) >= 2
    assert await cluster.run("echo heard") == "heard\n"
    await cluster.backend.stop("shared-1")
    assert cluster.members() == {}


async def test_cluster_that_cannot_start_reports_why_and_leaves_nothing(cluster, monkeypatch):
    monkeypatch.setattr(ray_backend, "START_ATTEMPTS", 1)
    head, *_ = plans(0)
    with pytest.raises(ClusterError, match=r"cluster broken-1: start failed: .*"):
        await cluster.backend.start("broken-1", [_with_gpus(head, -1)])
    assert cluster.members() == {}
    assert list((cluster.state / "clusters").iterdir()) == []


async def test_stop_during_a_start_ends_the_start(cluster):
    starting = asyncio.create_task(cluster.backend.start("early-1", plans(1)))
    await until(lambda: [r for r in _records(cluster.state) if r.host_pid], "the node host to be started")
    await cluster.backend.stop("early-1")
    with pytest.raises(ClusterError):
        await starting
    assert cluster.members() == {}
    assert list((cluster.state / "clusters").iterdir()) == []


def _with_gpus(plan: Any, gpus: int) -> Any:
    return type(plan)(**{**vars(plan), "gpus": gpus})


@pytest_asyncio.fixture(loop_scope="module")
async def emulator(tmp_path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start an emulator process with a cluster on the state directory ``tmp_path``, to be killed by the test."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        EMULATOR,
        str(tmp_path),
        env={**os.environ, "PYTHONPATH": PYTHON_PATH},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), PATIENCE) == b"ready\n"
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()
    processes.reclaim(tmp_path)


async def test_clusters_and_jobs_of_a_killed_emulator_are_killed(emulator, tmp_path):
    marker = processes.state_marker(tmp_path)
    (record,) = _records(tmp_path)

    def driver() -> list[int]:
        members = processes.find_processes(marker, [record])
        return [pid for pid in members if processes.command_line(pid) == "sleep 600"]

    await until(driver, "the job's own program")
    emulator.kill()
    await emulator.wait()
    await until(lambda: not processes.find_processes(marker, [record]), "everything to be gone")
    await until(lambda: not remains(record, tmp_path), "the temporary directory to be gone")
    assert processes.reclaim(tmp_path) == []


async def test_what_outlives_a_killed_emulator_is_reclaimed(emulator, tmp_path):
    marker = processes.state_marker(tmp_path)
    (record,) = _records(tmp_path)
    os.kill(record.host_pid, signal.SIGSTOP)  # so that it can not notice
    emulator.kill()
    await emulator.wait()
    left = processes.find_processes(marker, [record])
    assert record.host_pid in left
    assert len(left) > 10
    assert {record.host_pid} < set(processes.reclaim(tmp_path))
    assert processes.find_processes(marker, [record]) == {}
    assert remains(record, tmp_path) == []
