"""Signals to a component of Airflow with everything that it has started."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from devtools.process_tree import descendants, send


def freeze(pid: int) -> list[int]:
    """SIGSTOP a process and its descendants; gives all of them.

    None of them can fork when this returns, so the list is complete.
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
    """SIGCONT to what ``freeze`` gave."""
    for pid in pids:
        send(pid, signal.SIGCONT)


def kill_all(pid: int) -> None:
    """SIGKILL a process and its descendants, as when its machine or its container dies."""
    for each in freeze(pid):
        send(each, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    return _state(pid) not in ("", "Z", "X")


def kill_one(pid: int, seconds: float = 10.0) -> None:
    """SIGKILL one process and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} survives SIGKILL")
        time.sleep(0.01)


def _await_stop(pid: int, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while _state(pid) not in ("T", "t", "Z", "X", ""):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2]
