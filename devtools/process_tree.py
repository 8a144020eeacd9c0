"""What Linux tells about processes: who descends from whom, and who carries a marker.

Airflow's and Ray's processes fork, change their process group and outlive their parents, so neither a list
of pids nor a process group is enough to say "nothing of it is left". Two facts are: descent from a *child
subreaper* (orphans are handed to it, so nothing can leave its tree), and a marker in the environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl({option}, {value}): {os.strerror(errno)}")


def become_subreaper() -> None:
    """Make this process the new parent of every orphan among its descendants (prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """Ask for ``signum`` when the parent of this process ends, however it ends (prctl(2))."""
    _prctl(_PR_SET_PDEATHSIG, int(signum))


def _parents() -> dict[int, int]:
    """Parent of every live process; zombies are left out, they hold nothing."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue  # ended while we looked
        # The name, the second field, is in parentheses and may hold spaces and parentheses itself.
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] not in "ZX":
            parents[int(entry.name)] = int(fields[1])
    return parents


def descendants(pid: int) -> list[int]:
    """Live descendants of ``pid``, itself not included, parents before their children."""
    children: dict[int, list[int]] = defaultdict(list)
    for child, parent in _parents().items():
        children[parent].append(child)
    found: list[int] = []
    pending = [pid]
    while pending:
        for child in children.get(pending.pop(), ()):
            found.append(child)
            pending.append(child)
    return found


def marked(name: str, value: str) -> list[int]:
    """Live processes whose environment holds ``name=value``, as far as this user may look."""
    wanted = f"{name}={value}".encode()
    found: list[int] = []
    for pid in _parents():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.append(pid)
    return found


def command_line(pid: int) -> str:
    """Command line of a process for a message; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal; a process that has ended meanwhile is fine."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    """Poll ``condition()`` until it is true or ``timeout`` seconds have passed; tells which."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
