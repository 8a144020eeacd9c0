"""Which processes belong to an emulator, and ending them: all of them, and nobody else's.

Ray starts processes that start processes; some get a session of their own (the drivers of jobs), some
overwrite their environment (the dashboard's), some outlive their parents. A process belongs to a cluster when
at least one of these holds:

- the cluster's marker is in its environment (inherited unless a program clears it),
- it is in the session of the cluster's node host (inherited unless a program calls ``setsid``),
- it descends from such a process (the node host adopts orphans, so this survives the parent's death).

Never by name: other Rays of this machine are none of our business. Linux only, as it reads ``/proc``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROC = Path("/proc")
STATE_VARIABLE = "VERTEX_RAY_EMULATOR_STATE"
CLUSTER_VARIABLE = "VERTEX_RAY_EMULATOR_CLUSTER"
NODE_VARIABLE = "VERTEX_RAY_EMULATOR_NODE"
# Unix sockets lie below it, and their paths may have 107 characters only.
TEMP_PREFIX = "vrn-"
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """A live process as the kernel reports it.

    :param started: Clock ticks from boot to its start; with the pid it names a process for ever (of one
        boot).
    :param state: The kernel's letter, such as ``S`` (sleeping) or ``T`` (stopped).
    """

    pid: int
    parent: int
    session: int
    started: int
    state: str


@dataclass
class ClusterRecord:
    """What is written down about a cluster, so that a later emulator can end what this one left.

    :param key: The cluster's key.
    :param temp_dir: Ray's temporary directory, to be removed with the cluster.
    :param host_pid: The node host, which leads the cluster's session; 0 before it was started.
    :param host_started: When it was started, in the kernel's ticks.
    :param boot: Which boot of the machine the pid is of.
    """

    key: str
    temp_dir: str
    host_pid: int = 0
    host_started: int = 0
    boot: str = ""

    @classmethod
    def create(cls, key: str, state_dir: Path) -> ClusterRecord:
        """A saved record, with a fresh temporary directory of a short name."""
        base = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()  # noqa: S108
        record = cls(key, f"{base}/{TEMP_PREFIX}{secrets.token_hex(5)}")
        # Written down first: whoever dies in between leaves no directory that nobody knows of.
        record.save(state_dir)
        Path(record.temp_dir).mkdir(mode=0o700)
        return record

    def led_by(self, pid: int) -> None:
        """Note which process is the node host."""
        self.host_pid, self.host_started, self.boot = pid, started_at(pid), _boot_id()

    def save(self, state_dir: Path) -> None:
        """Write it below the state directory, at once or not at all."""
        path = _records(state_dir) / f"{self.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    def forget(self, state_dir: Path) -> None:
        """Remove the cluster's temporary directory, then the record."""
        # The name is checked, so that a damaged record can not make us remove anything else.
        if Path(self.temp_dir).name.startswith(TEMP_PREFIX):
            shutil.rmtree(self.temp_dir, ignore_errors=True)
        (_records(state_dir) / f"{self.key}.json").unlink(missing_ok=True)

    def marker(self, state_dir: Path) -> dict[str, str]:
        """The environment variables that every process of the cluster has."""
        return {**state_marker(state_dir), CLUSTER_VARIABLE: self.key}

    def end(self, state_dir: Path, timeout: float = 20.0) -> list[int]:
        """SIGKILL every process of the cluster.

        :raises TimeoutError: Some were still there after ``timeout`` seconds.
        """
        return end_processes(self.marker(state_dir), [self], timeout=timeout)


def state_marker(state_dir: Path) -> dict[str, str]:
    """The environment variable that every process of an emulator with this state directory has."""
    return {STATE_VARIABLE: str(state_dir.resolve())}


def snapshot() -> dict[int, Process]:
    """Every process that lives now, by pid; the dead that nobody has waited for are left out."""
    found = (_read(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def is_alive(pid: int, started: int | None = None) -> bool:
    """Whether a process lives, and is the one that was started then."""
    process = _read(pid)
    return process is not None and started in (None, process.started)


def started_at(pid: int) -> int:
    """The kernel's start ticks of a process; 0 if it is gone."""
    process = _read(pid)
    return process.started if process is not None else 0


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty if it is gone, not ours, or has overwritten it."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.split("=", 1) for entry in raw.decode(errors="replace").split("\0") if "=" in entry)
    return dict(pairs)


def command_line(pid: int) -> str:
    """A process's command line, or the title that it gave itself; empty if it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def descendants(roots: Iterable[int], everything: Mapping[int, Process] | None = None) -> set[int]:
    """The live processes below these, themselves included where they live."""
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
    """The live processes that have this marker or belong to these clusters' sessions, and all below them.

    The caller and its ancestors are never among them, even where the caller runs inside a cluster.
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
        or wanted <= environment(process.pid).items()
    }
    spared = _ancestors(os.getpid(), everything)
    return {pid: everything[pid] for pid in descendants(roots, everything) - spared}


def end_processes(
    marker: Mapping[str, str], records: Iterable[ClusterRecord] = (), *, timeout: float = 20.0
) -> list[int]:
    """SIGKILL what :func:`find_processes` finds, until it finds nothing.

    :return: The pids, sorted.
    :raises ValueError: The marker is empty, so that it would fit every process.
    :raises TimeoutError: Some were still there after ``timeout`` seconds.
    """
    if not marker or not all(marker.values()):
        raise ValueError("a marker without a value would fit processes that are not ours")
    records = list(records)
    hosts = {record.host_pid for record in records}
    killed: set[int] = set()
    until = time.monotonic() + timeout
    while found := find_processes(marker, records):
        if time.monotonic() > until:
            raise TimeoutError(f"processes {sorted(found)} are still there {timeout:g} s after SIGKILL")
        # The node hosts go last: as long as they live they adopt what loses its parent, and it stays in
        # sight.
        victims = [process for process in found.values() if process.pid not in hosts] or list(found.values())
        for process in victims:
            if send(process.pid, signal.SIGKILL, process.started):
                killed.add(process.pid)
        time.sleep(_POLL_SECONDS)
    return sorted(killed)


def send(pid: int, number: signal.Signals, started: int | None = None) -> bool:
    """Send a signal to a process if it (still) is the one that was started then; whether it was sent."""
    if not is_alive(pid, started):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False


def reclaim(state_dir: Path) -> list[int]:
    """End what a dead emulator of this state directory left: processes, temporary directories, records.

    Only for a state directory that no live emulator uses.

    :return: The pids that got SIGKILL, sorted.
    :raises TimeoutError: Some processes were still there after 20 seconds.
    """
    records = list(_load(state_dir))
    killed = end_processes(state_marker(state_dir), records)
    for record in records:
        record.forget(state_dir)
    return killed


def _records(state_dir: Path) -> Path:
    return state_dir / "clusters"


def _load(state_dir: Path) -> Iterable[ClusterRecord]:
    for path in sorted(_records(state_dir).glob("*.json")):
        # Of a damaged record nothing can be known; the marker still finds the processes.
        with contextlib.suppress(ValueError, TypeError):
            yield ClusterRecord(**json.loads(path.read_text()))


def _leads(record: ClusterRecord, everything: Mapping[int, Process]) -> bool:
    """Whether a session is the record's: the node host leads it, or nobody (its pid stays taken then)."""
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
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold spaces and parentheses itself.
    state, parent, _, session, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else Process(pid, int(parent), int(session), int(rest[15]), state)


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()
