"""Find the processes that belong to an emulator and kill them: all of them, and no others.

Ray starts processes that start processes; some get a session of their own (the drivers of jobs), some
overwrite their environment (the dashboard), some outlive their parents. A process belongs to a cluster when
at least one of these holds:

- the cluster's marker is in its environment (inherited unless a program clears it),
- it is in the session of the cluster's node host (inherited unless a program calls ``setsid``),
- it descends from such a process (the node host adopts orphans, so this survives the parent's death).

Processes are never selected by name: other Ray clusters on the machine must not be touched. Linux only.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

STATE_VARIABLE = "VERTEX_RAY_EMULATOR_STATE"
CLUSTER_VARIABLE = "VERTEX_RAY_EMULATOR_CLUSTER"
NODE_VARIABLE = "VERTEX_RAY_EMULATOR_NODE"
TEMP_PREFIX = "vrn-"
"""Begins the name of a cluster's temporary directory. It is short because Unix sockets are created below the directory,
and the path of a socket is limited to 107 characters."""
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """A live process.

    :param started: seconds from boot to its start, which no change of the clock affects. Together with the pid it
        identifies a process until the machine reboots.
    :param handle: the process for psutil.
    """

    pid: int
    parent: int
    session: int
    started: float
    handle: psutil.Process = field(repr=False, compare=False)


@dataclass
class ClusterRecord:
    """What is stored about a cluster, so that a later emulator can kill what this one leaves behind.

    :param key: the cluster's key.
    :param temp_dir: Ray's temporary directory, removed with the cluster.
    :param host_pid: pid of the node host, which leads the cluster's session; 0 before it is started.
    :param host_started: start of the node host, in seconds from boot.
    :param boot: id of the machine's boot during which the node host was started.
    """

    key: str
    temp_dir: str
    host_pid: int = 0
    host_started: float = 0
    boot: str = ""

    @classmethod
    def create(cls, key: str, state_dir: Path) -> ClusterRecord:
        """Return a saved record with a new temporary directory."""
        base = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()  # noqa: S108
        record = cls(key, f"{base}/{TEMP_PREFIX}{secrets.token_hex(5)}")
        # Saved first: an emulator that dies in between leaves no directory without a record.
        record.save(state_dir)
        Path(record.temp_dir).mkdir(mode=0o700)
        return record

    def set_host(self, pid: int) -> None:
        """Set the process that is the cluster's node host."""
        self.host_pid, self.host_started, self.boot = pid, started_at(pid), _boot_id()

    def save(self, state_dir: Path) -> None:
        """Write the record below the state directory, atomically."""
        path = _records(state_dir) / f"{self.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    def delete(self, state_dir: Path) -> None:
        """Remove the cluster's temporary directory, then the record."""
        # The name is checked so that a damaged record cannot make us remove another directory.
        if Path(self.temp_dir).name.startswith(TEMP_PREFIX):
            shutil.rmtree(self.temp_dir, ignore_errors=True)
        (_records(state_dir) / f"{self.key}.json").unlink(missing_ok=True)

    def marker(self, state_dir: Path) -> dict[str, str]:
        """Return the environment variables that mark every process of the cluster."""
        return {**state_marker(state_dir), CLUSTER_VARIABLE: self.key}

    def end(self, state_dir: Path, timeout: float = 20.0) -> list[int]:
        """SIGKILL every process of the cluster.

        :return: the pids, sorted.
        :raises TimeoutError: if some processes are still alive after ``timeout`` seconds.
        """
        return end_processes(self.marker(state_dir), [self], timeout=timeout)


def state_marker(state_dir: Path) -> dict[str, str]:
    """Return the environment variable that marks every process of an emulator with this state directory."""
    return {STATE_VARIABLE: str(state_dir.resolve())}


def snapshot() -> dict[int, Process]:
    """Return every live process by pid; zombies are not alive."""
    # Not psutil.process_iter(): it caches processes, and a pid that is reused would have the old process's times.
    found = (_read(pid) for pid in psutil.pids())
    return {process.pid: process for process in found if process is not None}


def is_alive(pid: int, started: float | None = None) -> bool:
    """Return whether a process is alive.

    :param started: if given, the process must be the one that was started then.
    """
    process = _read(pid)
    return process is not None and started in (None, process.started)


def started_at(pid: int) -> float:
    """Return the start of a process in seconds from boot; 0 if it is gone."""
    process = _read(pid)
    return process.started if process is not None else 0


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with.

    It is empty if the process is gone, belongs to another user, or has overwritten the memory.
    """
    process = _read(pid)
    return _environment(process) if process is not None else {}


def command_line(pid: int) -> str:
    """Return the command line of a process, or the title that it gave itself; empty if it is gone."""
    try:
        return " ".join(psutil.Process(pid).cmdline()).strip()
    except (psutil.Error, OSError):
        return ""


def descendants(roots: Iterable[int], everything: Mapping[int, Process] | None = None) -> set[int]:
    """Return the pids of the live processes among and below ``roots``.

    :param everything: the processes to search (default: all that are alive now).
    """
    everything = snapshot() if everything is None else everything
    children: dict[int, list[int]] = {}
    for process in everything.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    front = list(roots)
    while front:
        pid = front.pop()
        if pid not in found:
            found.add(pid)
            front.extend(children.get(pid, ()))
    return found & set(everything)


def find_processes(marker: Mapping[str, str], records: Iterable[ClusterRecord] = ()) -> dict[int, Process]:
    """Return the live processes with this marker or in the sessions of these clusters, and their descendants.

    The caller and its ancestors are never among them, even if the caller runs inside a cluster.
    """
    everything = snapshot()
    sessions = {
        record.host_pid: record
        for record in records
        if record.host_pid and record.boot == _boot_id() and _leads(record, everything)
    }
    wanted = marker.items()
    roots = {
        process.pid
        for process in everything.values()
        if (process.session in sessions and process.started >= sessions[process.session].host_started)
        or wanted <= _environment(process).items()
    }
    spared = _ancestors(os.getpid(), everything)
    return {pid: everything[pid] for pid in descendants(roots, everything) - spared}


def end_processes(
    marker: Mapping[str, str], records: Iterable[ClusterRecord] = (), *, timeout: float = 20.0
) -> list[int]:
    """SIGKILL what :func:`find_processes` finds until it finds nothing.

    :return: the pids, sorted.
    :raises ValueError: if the marker is empty, and so would match every process.
    :raises TimeoutError: if some processes are still alive after ``timeout`` seconds.
    """
    if not marker or not all(marker.values()):
        raise ValueError("a marker without a value would match processes that are not ours")
    records = list(records)
    hosts = {record.host_pid for record in records}
    killed: set[int] = set()
    deadline = time.monotonic() + timeout
    while found := find_processes(marker, records):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(found)} are still alive {timeout:g} s after SIGKILL")
        # The node hosts are killed last: while they live they adopt orphans, which can therefore still be found.
        victims = [process for process in found.values() if process.pid not in hosts] or list(found.values())
        for process in victims:
            if _signal(process, signal.SIGKILL):
                killed.add(process.pid)
        time.sleep(_POLL_SECONDS)
    return sorted(killed)


def send(pid: int, number: signal.Signals, started: float | None = None) -> bool:
    """Send a signal to a process.

    :param started: if given, the process must be the one that was started then.
    :return: whether the signal was sent.
    """
    process = _read(pid)
    return process is not None and started in (None, process.started) and _signal(process, number)


def reclaim(state_dir: Path) -> list[int]:
    """Remove what a dead emulator left behind: processes, temporary directories and records.

    Only for a state directory that no running emulator uses.

    :return: the pids of the processes that were killed, sorted.
    :raises TimeoutError: if some processes are still alive after 20 seconds.
    """
    records = list(_load(state_dir))
    killed = end_processes(state_marker(state_dir), records)
    for record in records:
        record.delete(state_dir)
    return killed


def _records(state_dir: Path) -> Path:
    return state_dir / "clusters"


def _load(state_dir: Path) -> Iterable[ClusterRecord]:
    for path in sorted(_records(state_dir).glob("*.json")):
        try:
            record = ClusterRecord(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            continue  # damaged; the marker still finds the processes
        texts, numbers = (record.key, record.temp_dir, record.boot), (record.host_pid, record.host_started)
        if all(isinstance(each, str) for each in texts) and all(isinstance(each, (int, float)) for each in numbers):
            yield record


def _leads(record: ClusterRecord, everything: Mapping[int, Process]) -> bool:
    """Return whether the node host leads the record's session, or no process: then its pid was not reused."""
    leader = everything.get(record.host_pid)
    return leader is None or leader.started == record.host_started


def _ancestors(pid: int, everything: Mapping[int, Process]) -> set[int]:
    found: set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        process = everything.get(pid)
        pid = process.parent if process is not None else 0
    return found


def _read(pid: int) -> Process | None:
    try:
        handle = psutil.Process(pid)
        with handle.oneshot():
            if handle.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return None
            # psutil adds the time of the boot, which changes with the clock.
            started = round(handle.create_time() - psutil.boot_time(), 2)
            return Process(pid, handle.ppid(), os.getsid(pid), started, handle)
    except (psutil.Error, OSError):
        return None


def _environment(process: Process) -> dict[str, str]:
    try:
        return process.handle.environ()
    except (psutil.Error, OSError):
        return {}


def _signal(process: Process, number: signal.Signals) -> bool:
    try:
        process.handle.send_signal(number)  # unless the pid was reused
    except psutil.Error:
        return False
    return True


def _boot_id() -> str:
    return BOOT_ID_FILE.read_text().strip()
