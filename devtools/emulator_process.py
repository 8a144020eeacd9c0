"""The emulator as a process that cannot outlive this one, and the requests that the demo sends to it."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devtools.process_keeper import ProcessKeeper

_REPOSITORY = Path(__file__).resolve().parent.parent
# The emulator first ends its Ray clusters, which takes about 3 s each, and longer on a busy machine.
_STOP_SECONDS = 120.0
_REQUEST_SECONDS = 240.0
_BESIDE = ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class EmulatorError(RuntimeError):
    """The emulator did not start, or has ended; the message has the end of its log."""


class Emulator:
    """``vertex-ray-emulator start`` on a free port, with its state and log in one folder.

    :param state_dir: state directory.
    :param arguments: further command-line arguments.
    """

    def __init__(self, state_dir: Path, arguments: Sequence[str] = ()) -> None:
        self.state_dir = state_dir.resolve()
        self._arguments = list(arguments)
        self._keeper: ProcessKeeper | None = None
        self._note: dict[str, Any] = {}

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, the value of ``VERTEX_RAY_EMULATOR_HOST``."""
        return str(self._note["host"])

    @property
    def log_file(self) -> Path:
        """The emulator's log file."""
        return self.state_dir / "emulator.log"

    @property
    def airflow_environment(self) -> dict[str, str]:
        """The variables with which Airflow uses the emulator: its address, and a connection with its project."""
        extra: dict[str, Any] = {"project": self._note["project"]}
        beside = {name: value for name, value in self._note["env"].items() if name in _BESIDE}
        if beside:
            # Then the Google provider's own hooks need no credentials.
            extra["is_anonymous"] = True
        connection = {"conn_type": "google_cloud_platform", "extra": extra}
        return {
            **beside,
            "VERTEX_RAY_EMULATOR_HOST": self.host,
            "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
        }

    @property
    def sdk_environment(self) -> dict[str, str]:
        """The variables that lead an unmodified SDK to the emulator, as ``vertex-ray-emulator env`` prints them."""
        return {str(name): str(value) for name, value in self._note["env"].items()}

    def start(self, timeout: float = 240.0) -> float:
        """Start it and wait until it is ready; return the seconds that it took.

        :raises EmulatorError: if it ends or is not ready within ``timeout`` seconds.
        """
        begun = time.monotonic()
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._keeper = ProcessKeeper()
        try:
            pid = self._keeper.start(
                "emulator",
                [
                    *(sys.executable, "-m", "vertex_ray_emulator", "start"),
                    *("--port", "0", "--state-dir", str(self.state_dir), *self._arguments),
                ],
                env=_environment(os.environ),
                log=self.log_file,
                grace=_STOP_SECONDS,
            )
            while not self._is_ready(pid):
                code = self._keeper.exit_codes()["emulator"]
                if code is not None:
                    raise EmulatorError(f"the emulator ended with {code}\n{self._tail()}")
                if time.monotonic() > begun + timeout:
                    raise EmulatorError(f"the emulator is not ready after {timeout:.0f} s\n{self._tail()}")
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        return time.monotonic() - begun

    def stop(self) -> None:
        """Stop the emulator and all of its Ray clusters. May be called again.

        :raises LeftoverProcessesError: if a process survived.
        """
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.close()

    def clusters(self) -> list[dict[str, Any]]:
        """Return the clusters that exist now, in any state."""
        with _OPENER.open(f"http://{self.host}/emulator/clusters", timeout=_REQUEST_SECONDS) as answer:
            clusters: list[dict[str, Any]] = json.load(answer)["clusters"]
            return clusters

    def serving(self) -> list[str]:
        """Return the names of the existing endpoints."""
        with _OPENER.open(f"http://{self.host}/emulator/endpoints", timeout=_REQUEST_SECONDS) as answer:
            return [str(endpoint["name"]) for endpoint in json.load(answer)["endpoints"]]

    def calls(self, method: str) -> list[dict[str, Any]]:
        """Return the logged requests of one method, oldest first."""
        with _OPENER.open(f"http://{self.host}/emulator/calls?method={method}", timeout=_REQUEST_SECONDS) as answer:
            calls: list[dict[str, Any]] = json.load(answer)["calls"]
            return calls

    def _is_ready(self, pid: int) -> bool:
        try:
            self._note = json.loads((self.state_dir / "emulator.json").read_text())
        except (OSError, ValueError):
            return False
        # The file of an earlier emulator that was killed is not ours.
        return bool(self._note.get("pid") == pid)

    def _tail(self) -> str:
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return f"--- end of {self.log_file}\n" + "\n".join(text.splitlines()[-30:])


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(_REPOSITORY), own.get("PYTHONPATH")]))
    return {**own, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
