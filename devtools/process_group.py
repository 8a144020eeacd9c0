"""Send signals to a component of Airflow and everything that it started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from devtools.process_tree import descendants, send

KILL_SECONDS = 60.0
"""How long a killed process may take to be gone."""


def freeze(pid: int) -> list[int]:
    """Send SIGSTOP to a process and its descendants, and return their pids.

    None of them can fork any longer when this returns, so the list is complete.
    """
    stopped: list[int] = []
    while new := [p for p in (pid, *descendants(pid)) if p not in stopped]:
        for each in new:
            send(each, signal.SIGSTOP)
        for each in new:
            _await_stop(each)
        stopped += new
    return stopped


def thaw(pids: list[int]) -> None:
    """Send SIGCONT to the pids that ``freeze`` returned."""
    for pid in pids:
        send(pid, signal.SIGCONT)


def kill_all(pid: int) -> None:
    """Kill a process and its descendants, as if its machine or container died, and wait until they are gone.

    :raises TimeoutError: if one is still alive after ``KILL_SECONDS``.
    """
    frozen = freeze(pid)
    for each in frozen:
        send(each, signal.SIGKILL)
    for each in frozen:
        _await_end(each)


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    return _state(pid) not in ("", "Z", "X")


def kill_one(pid: int) -> None:
    """Send SIGKILL to one process and wait until it is gone.

    :raises TimeoutError: if it is still alive after ``KILL_SECONDS``.
    """
    os.kill(pid, signal.SIGKILL)
    _await_end(pid)


def _await_end(pid: int) -> None:
    # A process dies when it next runs, which on a busy machine is not at once.
    deadline = time.monotonic() + KILL_SECONDS
    while alive(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Process {pid} survived SIGKILL.")
        time.sleep(0.01)


def _await_stop(pid: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while _state(pid) not in ("T", "t", "Z", "X", ""):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Process {pid} did not stop after SIGSTOP.")
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2]
