"""Start an emulator from a notebook, a script or a test; it ends with this process at the latest."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from vertex_ray_emulator.state_file import read_state

if TYPE_CHECKING:
    from types import TracebackType

Variables = Literal["all", "host", "none"]
READY_SECONDS = 120.0
"""At its first start with BigQuery, the emulator installs that for a minute."""
STOP_SECONDS = 60.0
_LOG_LINES = 20
_PR_SET_PDEATHSIG = 1


class EmulatorStartError(RuntimeError):
    """The emulator did not start; the message has the last lines of its output."""


class LocalEmulator:
    """A running emulator, as :func:`start` returns it. As a context manager, it is stopped at the end.

    :ivar host: ``127.0.0.1:PORT``, the value of VERTEX_RAY_EMULATOR_HOST.
    :ivar project: id of its project.
    :ivar env: the variables that ``vertex-ray-emulator env`` prints.
    """

    def __init__(self, arguments: tuple[str, ...], variables: Variables) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vre-"))
        self._replaced: dict[str, str | None] = {}
        self._log: IO[bytes] = (self._folder / "emulator.log").open("wb")
        # The emulator is started with the variables of the process as they were.
        command = [sys.executable, "-m", "vertex_ray_emulator", "start", "--port", "0", *arguments]
        self._process = subprocess.Popen(
            [*command, "--state-dir", str(self._folder)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        atexit.register(self.stop)
        try:
            state = self._wait()
        except BaseException:
            self.stop()
            raise
        self.host, self.project, self.env = str(state["host"]), str(state["project"]), dict(state["env"])
        if variables != "none":
            chosen = self.env if variables == "all" else {"VERTEX_RAY_EMULATOR_HOST": self.host}
            self._replaced = {name: os.environ.get(name) for name in chosen}
            os.environ.update(chosen)

    def _wait(self) -> dict[str, Any]:
        until = time.monotonic() + READY_SECONDS
        while True:
            state = read_state(self._folder)
            if state is not None and state.get("pid") == self._process.pid:
                return state
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                lines = (self._folder / "emulator.log").read_text(errors="replace").splitlines()[-_LOG_LINES:]
                how = f"exited with code {self._process.returncode}" if ended else "was not ready in time"
                raise EmulatorStartError("\n".join([f"The emulator {how}:", *lines]))
            time.sleep(0.02)

    def clear(self) -> None:
        """Remove all clusters, endpoints, models and faults, so that the next test finds an empty project."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for what in ("faults", "project", "clusters", "endpoints"):
            request = urllib.request.Request(f"http://{self.host}/emulator/{what}", method="DELETE")
            with opener.open(request, timeout=STOP_SECONDS) as answer:
                json.load(answer)

    def stop(self) -> None:
        """Stop the emulator with all clusters, and restore the environment variables. May be called again."""
        atexit.unregister(self.stop)
        for name, value in self._replaced.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._replaced = {}
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> LocalEmulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(*arguments: str, variables: Variables = "all") -> LocalEmulator:
    """Start an emulator on a free port and wait until it is ready.

    Call it before the first import of ``vertex_ray`` or another of Google's packages, which may read the variables when
    they are imported, and in a thread that lives as long as the emulator is needed: on Linux it ends with its thread.

    :param arguments: options of ``vertex-ray-emulator start``, such as ``"--backend", "fake"``; not ``--state-dir``.
    :param variables: which environment variables of this process to set until the emulator is stopped: ``all`` for
        the SDK and Ray's clients, ``host`` for the Airflow provider alone (VERTEX_RAY_EMULATOR_HOST), or ``none``.
    :raises EmulatorStartError: if it does not start.
    """
    return LocalEmulator(arguments, variables)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
