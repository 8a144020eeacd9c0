"""Start processes that cannot outlive this one: the owner's side of the keeper."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from devtools.process_tree import command_line, marked

_MARKER = "VERTEX_RAY_DEVTOOLS_KEEPER"
_REPOSITORY = Path(__file__).resolve().parent.parent


class LeftoverProcessesError(RuntimeError):
    """Processes are still alive after everything was stopped."""


class ProcessKeeper:
    """Start processes through a separate keeper process, and end them with everything that they started.

    However this process ends (return, exception, Ctrl-C, SIGKILL), the keeper sees the pipe close and stops
    everything, orphans included. Use it as a context manager, or call `close`.
    """

    def __init__(self) -> None:
        self._marker = uuid.uuid4().hex
        self._ids = itertools.count()
        self._grace: dict[str, float] = {}
        self._asking = threading.Lock()
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-m", "devtools.keeper_main"],
            cwd=_REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        grace: float = 10.0,
    ) -> int:
        """Start ``argv`` under ``name`` and return its pid.

        :param env: complete environment of the process; a marker is added to it.
        :param log: file to which its output is appended.
        :param cwd: working directory; default: the log's folder.
        :param grace: seconds between SIGTERM and SIGKILL when it is stopped.
        :raises RuntimeError: if it cannot be started, or a process of this name is running.
        """
        self._grace[name] = grace
        pid = self._ask(
            "start",
            name=name,
            argv=list(argv),
            env={**env, _MARKER: self._marker},
            cwd=str(cwd or log.parent),
            log=str(log),
            grace=grace,
        )
        assert isinstance(pid, int)
        return pid

    def exit_codes(self) -> dict[str, int | None]:
        """Return the exit code of each process started: None while it runs, negative if ended by that signal."""
        result = self._ask("exit_codes")
        assert isinstance(result, dict)
        return result

    def stop(self, names: Iterable[str]) -> list[str]:
        """Stop processes, all at once; return the names of those that had to be killed."""
        result = self._ask("stop", names=list(names))
        assert isinstance(result, list)
        return result

    def close(self) -> None:
        """Stop everything and verify that it is gone. May be called again.

        :raises LeftoverProcessesError: if a process survived; the message names it.
        """
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        if not stdin.closed:
            # The keeper may be gone already; what counts is the check below.
            with suppress(BrokenPipeError):
                stdin.close()
        # A second Ctrl-C may interrupt this wait; the keeper continues all the same.
        self._process.wait(timeout=max(self._grace.values(), default=0.0) + 30.0)
        stdout.close()
        left = [f"{pid} {command_line(pid)}" for pid in marked(_MARKER, self._marker)]
        if left or self._process.returncode != 0:
            raise LeftoverProcessesError(
                f"The keeper ended with {self._process.returncode}; still alive: {left or 'no marked process'}."
            )

    def __enter__(self) -> ProcessKeeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, do: str, **parameters: Any) -> object:
        with self._asking:
            return self._asked(do, parameters)

    def _asked(self, do: str, parameters: dict[str, Any]) -> object:
        request_id = next(self._ids)
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        stdin.write(json.dumps({"id": request_id, "do": do, "with": parameters}) + "\n")
        stdin.flush()
        while line := stdout.readline():
            answer = json.loads(line)
            # If Ctrl-C interrupted the reading, the answer to an earlier request is still in the pipe.
            if answer["id"] != request_id:
                continue
            if "error" in answer:
                raise RuntimeError(f"{do}: {answer['error']}")
            result: object = answer["result"]
            return result
        raise RuntimeError(f"The keeper process ended with code {self._process.wait()}.")


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
