"""The keeper: a small process that starts others, and ends all of them when its owner is gone.

Run as ``python -m devtools.keeper_main``; `devtools.process_keeper.ProcessKeeper` is the other end. It reads
one JSON request per line from stdin and answers each with a JSON line on stdout. The end of stdin means that the
owner has finished or died (even by SIGKILL), and then everything is stopped: first by SIGTERM, then by SIGKILL,
until no descendant is left. It runs in a session of its own, so Ctrl-C in the terminal reaches the owner only, which
determines the order of stopping.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from devtools.process_tree import become_subreaper, descendants, die_with_parent, send

# How long a killed process may stay in the process table.
_KILL_SECONDS = 10.0


class Keeper:
    """The processes that this keeper started, by name."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._grace: dict[str, float] = {}

    def start(self, name: str, argv: list[str], env: dict[str, str], cwd: str, log: str, grace: float) -> int:
        """Start a process with its output in ``log``; ``grace`` is the time it has to stop, in seconds."""
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            raise ValueError(f"{name} is already running")
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                argv,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # In case the keeper itself is killed.
                preexec_fn=die_with_parent,
            )
        self._processes[name] = process
        self._grace[name] = grace
        return process.pid

    def exit_codes(self) -> dict[str, int | None]:
        """Return the exit code of each process started so far; None while it runs."""
        return {name: process.poll() for name, process in self._processes.items()}

    def stop(self, names: Iterable[str]) -> list[str]:
        """Stop these by SIGTERM, all at once; return those that had to be killed together with what they started."""
        leaders = {name: self._processes[name] for name in names}
        # Looked up before the leaders end: afterwards their orphans cannot be told from those of others.
        trees = {name: descendants(process.pid) for name, process in leaders.items()}
        for process in leaders.values():
            if process.poll() is None:
                send(process.pid, signal.SIGTERM)
        begun = time.monotonic()
        killed: list[str] = []
        for name, process in leaders.items():
            try:
                process.wait(timeout=max(0.0, begun + self._grace[name] - time.monotonic()))
            except subprocess.TimeoutExpired:
                killed.append(name)
                trees[name] += [*descendants(process.pid), process.pid]
            # Only processes that still descend from us, so that a reused pid is never signalled.
            for pid in set(trees[name]) & set(descendants(os.getpid())):
                send(pid, signal.SIGKILL)
            process.wait()
        return killed

    def stop_everything(self) -> list[int]:
        """Stop all processes, kill every descendant that is left, and return those that remain even then."""
        self.stop(self._processes)
        deadline = time.monotonic() + _KILL_SECONDS
        while (left := descendants(os.getpid())) and time.monotonic() < deadline:
            for pid in left:
                send(pid, signal.SIGKILL)
            reap_orphans({process.pid for process in self._processes.values()})
            time.sleep(0.05)
        return left

    def leaders(self) -> set[int]:
        """Return the pids whose exit codes belong to their `Popen` objects."""
        return {process.pid for process in self._processes.values()}


def reap_orphans(leaders: set[int]) -> None:
    """Collect the exit codes of orphans that this subreaper inherited, but not those of its own processes."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in leaders:
            continue
        try:
            fields = (entry / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()
            if int(fields[1]) == os.getpid() and fields[0] == "Z":
                os.waitpid(int(entry.name), os.WNOHANG)
        except OSError:
            continue


def main() -> int:
    """Serve requests until stdin ends; return 0 if no process was left behind."""
    become_subreaper()
    # The owner handles Ctrl-C; it closes our stdin when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keeper = Keeper()

    def stop_at_once(*_: object) -> None:
        sys.exit(1 if keeper.stop_everything() else 0)

    signal.signal(signal.SIGTERM, stop_at_once)
    requests: dict[str, Callable[..., Any]] = {
        "start": keeper.start,
        "stop": keeper.stop,
        "exit_codes": keeper.exit_codes,
    }
    pending = b""
    while True:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], 1.0)
        if not readable:
            reap_orphans(keeper.leaders())
            continue
        chunk = os.read(sys.stdin.fileno(), 65536)
        if not chunk:
            break
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            answer: dict[str, Any] = {"id": request["id"]}
            try:
                answer["result"] = requests[request["do"]](**request["with"])
            except (OSError, ValueError, KeyError) as error:
                answer["error"] = f"{type(error).__name__}: {error}"
            try:
                os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")
            except BrokenPipeError:
                break  # the owner has died: stdin ends next
    return 1 if keeper.stop_everything() else 0


if __name__ == "__main__":
    sys.exit(main())
