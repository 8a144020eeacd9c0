"""Find processes on Linux by their ancestors, and by a marker in their environment.

Airflow's and Ray's processes fork, change their process group and outlive their parents, so neither a list
of pids nor a process group shows that nothing is left. Two facts do: descent from a *child
subreaper* (it inherits orphans, so nothing can leave its tree), and a marker in the environment.
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
    """Return the parent of every live process; zombies are left out, as they hold no resources."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        # The name, the second field, is in parentheses and may hold spaces and parentheses itself.
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] not in "ZX":
            parents[int(entry.name)] = int(fields[1])
    return parents


def descendants(pid: int) -> list[int]:
    """Return the live descendants of ``pid``, without itself, parents before their children."""
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
    """Return the live processes with ``name=value`` in their environment, as far as this user may read it."""
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
    """Return the command line of a process for a message; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal, unless the process has ended."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    """Poll ``condition()`` until it is true or ``timeout`` seconds have passed; return whether it is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
