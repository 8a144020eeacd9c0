"""Send signals to a component of Airflow and everything that it started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from devtools.process_tree import descendants, send


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
    """Send SIGKILL to a process and its descendants, as if its machine or container died."""
    for each in freeze(pid):
        send(each, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    return _state(pid) not in ("", "Z", "X")


def kill_one(pid: int, seconds: float = 10.0) -> None:
    """Send SIGKILL to one process and wait until it is gone.

    :raises TimeoutError: if it is still alive after ``seconds``.
    """
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Process {pid} survived SIGKILL.")
        time.sleep(0.01)


def _await_stop(pid: int, seconds: float = 5.0) -> None:
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
