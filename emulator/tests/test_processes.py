"""Killing exactly the processes that belong to an emulator, with small programs in place of Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from emulator_support.data_plane import remains, until
from emulator_support.process import PATIENCE
from vertex_ray_emulator.backends import processes
from vertex_ray_emulator.backends.processes import ClusterRecord, reclaim, state_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that runs ``sh -c SCRIPT`` with additional environment variables; it is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str, env: dict[str, str] | None = None, **options: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sh", "-c", script], env={**os.environ, **(env or {})}, **options)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def record(tmp_path: Path) -> Iterator[ClusterRecord]:
    made = ClusterRecord.create("etl-1a2b", tmp_path)
    yield made
    made.delete(tmp_path)
    assert remains(made, tmp_path) == []


async def test_finds_exactly_the_processes_with_the_marker(start, record, tmp_path):
    ours = start("exec sleep 600", record.marker(tmp_path))
    start("exec sleep 600", {**record.marker(tmp_path), processes.CLUSTER_VARIABLE: "another"})
    start("exec sleep 600", {processes.STATE_VARIABLE: "/some/other/state"})
    start("exec sleep 600")
    await until(lambda: processes.environment(ours.pid), "the program")
    assert set(processes.find_processes(record.marker(tmp_path))) == {ours.pid}


async def test_finds_processes_without_environment_by_session(start, record, tmp_path):
    host = start("env -i sleep 600 & exec sleep 600", start_new_session=True)
    record.set_host(host.pid)
    found = await until(
        lambda: (f := processes.find_processes(record.marker(tmp_path), [record])) and len(f) == 2 and f, "both"
    )
    assert host.pid in found
    assert all(process.session == host.pid for process in found.values())


async def test_finds_processes_without_environment_and_session_by_parent(start, record, tmp_path):
    ours = start("env -i setsid sleep 600 & wait", record.marker(tmp_path))
    found = await until(lambda: (f := processes.find_processes(record.marker(tmp_path))) and len(f) == 2 and f, "both")
    (child,) = set(found) - {ours.pid}
    assert found[child].parent == ours.pid
    # Between fork and exec, it has its parent's.
    await until(lambda: processes.STATE_VARIABLE not in processes.environment(child), "the child's own environment")


async def test_kills_stopped_processes_and_those_that_ignore_sigterm(start, record, tmp_path):
    start("trap '' TERM INT HUP; while true; do sleep 0.05; done", record.marker(tmp_path))
    stopped = start("exec sleep 600", record.marker(tmp_path))
    os.kill(stopped.pid, signal.SIGSTOP)
    await until(lambda: len(processes.find_processes(record.marker(tmp_path))) >= 2, "the programs")
    assert stopped.pid in record.end(tmp_path)
    assert processes.find_processes(record.marker(tmp_path)) == {}
    assert record.end(tmp_path) == []


def test_empty_marker_is_rejected():
    for marker in ({}, {processes.STATE_VARIABLE: ""}):
        with pytest.raises(ValueError, match="not ours"):
            processes.end_processes(marker)


def test_does_not_kill_the_caller_inside_a_cluster(record, tmp_path):
    """Jobs may start an emulator themselves."""
    script = (
        "import json, pathlib, subprocess, sys; from vertex_ray_emulator.backends.processes import *; "
        "child = subprocess.Popen(['sleep', '600']); "
        "print(json.dumps([child.pid, end_processes(state_marker(pathlib.Path(sys.argv[1])))])); child.wait()"
    )
    root = str(Path(processes.__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, **record.marker(tmp_path), "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    child, killed = json.loads(done.stdout)
    assert killed == [child]


async def test_does_not_kill_another_session_with_a_reused_pid(start, record, tmp_path):
    stranger = start("exec sleep 600", start_new_session=True)
    record.set_host(stranger.pid)
    record.host_started -= 1  # the pid was given again since the record was written
    assert record.end(tmp_path) == []
    record.set_host(stranger.pid)
    record.boot = "the boot before"
    assert record.end(tmp_path) == []
    assert stranger.poll() is None


async def test_reclaim_removes_what_a_dead_emulator_left(start, record, tmp_path):
    state, other = tmp_path / "state", tmp_path / "other"
    host = start("env -i sleep 600 & exec sleep 600", start_new_session=True)
    record.set_host(host.pid)
    record.save(state)
    marked = start("exec sleep 600", state_marker(state))
    neighbour = start("exec sleep 600", state_marker(other))
    await until(lambda: processes.environment(neighbour.pid), "the last program")
    await until(lambda: len(processes.descendants([host.pid])) == 2, "the session")
    (Path(record.temp_dir) / "sockets").mkdir()

    killed = reclaim(state)

    assert {host.pid, marked.pid} < set(killed)
    assert len(killed) == 3
    assert neighbour.poll() is None
    assert remains(record, state) == []
    assert reclaim(state) == []


def test_reclaim_of_a_missing_state_directory_does_nothing(tmp_path):
    assert reclaim(tmp_path / "nothing") == []


def test_reclaim_ignores_damaged_records(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    ClusterRecord("bent", str(precious)).save(tmp_path)
    (tmp_path / "clusters" / "torn.json").write_text('{"key": ')
    (tmp_path / "clusters" / "typed.json").write_text('{"key": "typed", "temp_dir": null}')
    (tmp_path / "clusters" / "pid.json").write_text('{"key": "pid", "temp_dir": "/tmp/x", "host_pid": [1]}')
    assert reclaim(tmp_path) == []
    assert precious.is_dir()


def test_temporary_directories_are_short_enough_for_socket_paths(record):
    socket_path = f"{record.temp_dir}/session_2026-11-23_21-14-11_199658_4194304/sockets/plasma_store.1000"
    assert len(socket_path) < 107


def test_start_of_a_process_does_not_change_with_the_clock(monkeypatch):
    before = processes.started_at(os.getpid())
    shifted = psutil.boot_time() + 3600
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: shifted)
    assert psutil.boot_time() == shifted
    assert processes.started_at(os.getpid()) == before > 0


async def test_send_does_not_signal_a_reused_pid(start):
    process = start("exec sleep 600")
    ticks = processes.started_at(process.pid)
    assert ticks > 0
    assert not processes.send(process.pid, signal.SIGKILL, ticks + 1)
    assert process.poll() is None
    assert processes.send(process.pid, signal.SIGKILL, ticks)
    await until(lambda: not processes.is_alive(process.pid), "its end")  # a zombie counts as dead
    assert not processes.send(process.pid, signal.SIGKILL, ticks)
    assert process.wait() == -signal.SIGKILL
    assert processes.command_line(process.pid) == ""
    assert processes.environment(process.pid) == {}
