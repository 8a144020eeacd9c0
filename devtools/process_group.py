"""Send signals to a component of Airflow and everything that it started."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from devtools.process_tree import descendants, send, wait_until

SIGNAL_SECONDS = 60.0
"""How long a process may take to be gone after SIGKILL, or to stop after SIGSTOP."""

_GONE = ("", "Z", "X")
_STOPPED = ("T", "t", *_GONE)


def freeze(pid: int) -> list[int]:
    """Send SIGSTOP to a process and its descendants, and return their pids.

    None of them can fork any longer when this returns, so the list is complete.
    """
    stopped: list[int] = []
    while new := [p for p in (pid, *descendants(pid)) if p not in stopped]:
        for each in new:
            send(each, signal.SIGSTOP)
        for each in new:
            _await(each, _STOPPED, "did not stop after SIGSTOP")
        stopped += new
    return stopped


def thaw(pids: list[int]) -> None:
    """Send SIGCONT to the pids that ``freeze`` returned."""
    for pid in pids:
        send(pid, signal.SIGCONT)


def kill_all(pid: int) -> None:
    """Kill a process and its descendants, as if its machine or container died, and wait until they are gone.

    :raises TimeoutError: if one is still alive after ``SIGNAL_SECONDS``.
    """
    frozen = freeze(pid)
    for each in frozen:
        send(each, signal.SIGKILL)
    for each in frozen:
        _await(each, _GONE, "survived SIGKILL")


def alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    return _state(pid) not in _GONE


def kill_one(pid: int) -> None:
    """Send SIGKILL to one process and wait until it is gone.

    :raises TimeoutError: if it is still alive after ``SIGNAL_SECONDS``.
    """
    os.kill(pid, signal.SIGKILL)
    _await(pid, _GONE, "survived SIGKILL")


def _await(pid: int, states: tuple[str, ...], failure: str) -> None:
    # A process stops or dies when it next runs, which on a busy machine is not at once.
    if not wait_until(lambda: _state(pid) in states, SIGNAL_SECONDS, 0.01):
        raise TimeoutError(f"Process {pid} {failure}.")


def _state(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2]
