"""The emulator as a process of its own, for tests: start, requests, stop and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

PATIENCE = 240.0
"""Seconds that a test waits for what takes moments on a quiet machine."""
STOP_SECONDS = 120.0
# Ignore a proxy of the environment, which does not serve loopback addresses.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


PYTHON = os.environ.get("VERTEX_RAY_EMULATOR_PYTHON") or sys.executable
"""The Python that has the emulator, where the tests run in one that it does not support."""

QUICK = ["--backend", "fake", "--provisioning-seconds", "0", "--name-reuse-seconds", "0", "--deploy-seconds", "0"]
"""Arguments for an emulator without Ray and without delays."""

BRIEFLY = ["--dashboard-warmup-seconds", "0.1", "--permission-seconds", "0.1", "--leak-seconds", "0.5"]
"""Arguments of every emulator: what the profile ``google`` does for minutes, it does for moments only."""

AT_ONCE = ["--dashboard-warmup-seconds", "0", "--permission-seconds", "0"]
"""Arguments for clients of others, which do not wait for a new cluster's dashboard."""


class EmulatorProcess:
    """``vertex-ray-emulator start`` as a child process.

    :param state_dir: state directory, in which ``emulator.log`` has the output.
    :param arguments: more arguments of the command, such as ``["--backend", "fake"]``; they come after ``BRIEFLY``.
    """

    def __init__(self, state_dir: Path, arguments: Sequence[str] = ()) -> None:
        self.state_dir = state_dir
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._state: dict[str, Any] = {}

    def start(self) -> EmulatorProcess:
        """Start the emulator and wait until it is ready."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._log = (self.state_dir / "emulator.log").open("ab")
        command = [PYTHON, "-m", "vertex_ray_emulator", "start"]
        if "--port" not in self.arguments:
            command += ["--port", "0"]
        command += ["--state-dir", str(self.state_dir), *BRIEFLY, *self.arguments]
        # A session of its own: a Ctrl-C in pytest must not stop it before the running tests have ended.
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)
        # At the first use of BigQuery, its environment is created.
        seconds = PATIENCE * (3 if "--with" in self.arguments else 1)
        deadline = time.monotonic() + seconds
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"The emulator exited with code {self._process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"The emulator was not ready after {seconds:g} s:\n{self.log()}")
            time.sleep(0.02)
        return self

    def _ready(self) -> bool:
        try:
            state = json.loads((self.state_dir / "emulator.json").read_text())
        except (OSError, ValueError):
            return False
        # The state file of an emulator that was killed remains until this one has taken the directory.
        if self._process is None or state["pid"] != self._process.pid:
            return False
        self._state = state
        return True

    def log(self) -> str:
        """Return the output so far."""
        return (self.state_dir / "emulator.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Process id."""
        if self._process is None:
            raise RuntimeError("The emulator was not started.")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code; None while the process is running."""
        return None if self._process is None else self._process.poll()

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, the value of VERTEX_RAY_EMULATOR_HOST."""
        return str(self._state["host"])

    @property
    def ports(self) -> dict[str, int]:
        """Ports by purpose: ``main``, ``dashboard``, ``grpc``, ``rest``, ``proxy``."""
        return dict(self._state["ports"])

    @property
    def project(self) -> str:
        """Id of the project."""
        return str(self._state["project"])

    @property
    def project_number(self) -> str:
        """Number of the project."""
        return str(self._state["project_number"])

    @property
    def env(self) -> dict[str, str]:
        """Variables that ``vertex-ray-emulator env`` prints."""
        return dict(self._state["env"])

    def sdk_env(self, **more: str) -> dict[str, str]:
        """Return this process's environment with the emulator's variables, for a client in a process of its own."""
        environment = {k: v for k, v in os.environ.items() if k.lower() not in ("https_proxy", "http_proxy")}
        # By default google.auth waits 3 s for the metadata server, and may then look for other credentials.
        return {**environment, **self.env, "GCE_METADATA_TIMEOUT": "60", **more}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> tuple[int, Any]:
        """Send an HTTP request to the main port and return the status and the JSON body, or its text."""
        request = urllib.request.Request(f"http://{self.host}{path}", method=method, headers=headers or {})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return answer.status, _decode(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decode(error.read())

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request to ``/emulator/<path>`` and return the JSON answer.

        :raises RuntimeError: if the answer is an error.
        """
        status, answer = self.request(method, "/emulator/" + path.lstrip("/"), body)
        if status != 200:
            raise RuntimeError(f"{method} /emulator/{path}: {status} {answer}")
        return answer

    def token(self) -> str:
        """Return a new access token."""
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        status, answer = self.request("GET", path, headers={"Metadata-Flavor": "Google"})
        if status != 200:
            raise RuntimeError(f"no token: {status} {answer}")
        return str(answer["access_token"])

    def api(self, method: str, path: str, body: Any = None, *, version: str = "v1beta1") -> tuple[int, Any]:
        """Send a request to the API with a token; a path that does not start with ``projects/`` is in us-central1."""
        if not path.startswith("projects/"):
            path = f"projects/{self.project}/locations/us-central1/{path}"
        return self.request(method, f"/{version}/{path}", body, token=self.token())

    def wait(self, operation: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """Wait until an operation is done and return it."""
        name, version = operation["name"], "v1beta1"
        answer = until(lambda: _done(self.api("GET", name, version=version)[1]), f"{name} is not done", seconds)
        return dict(answer)

    def create(self, cluster_id: str, body: dict[str, Any] | None = None, *, ready: bool = True) -> dict[str, Any]:
        """Create a cluster, wait for the operation, and return the resource, which is then RUNNING or in ERROR.

        :param ready: wait until the dashboard answers as well, unless it never comes up, and until what a failed
            create leaves behind is in ERROR.
        """
        path = f"persistentResources?persistentResourceId={cluster_id}"
        status, operation = self.api("POST", path, body or cluster_body())
        if status != 200:
            raise RuntimeError(f"{cluster_id} was not created: {status} {operation}")
        self.wait(operation)
        if ready:
            until(lambda: not self._warming(cluster_id), f"{cluster_id} is not ready")
        return dict(self.api("GET", f"persistentResources/{cluster_id}")[1])

    def _warming(self, cluster_id: str) -> bool:
        return any(
            each["state"] == "PROVISIONING" or each["dashboard"] == "warming"
            for each in self.admin("GET", "clusters")["clusters"]
            if each["id"] == cluster_id
        )

    def calls(self, method: str = "*", since: float = 0.0) -> list[dict[str, Any]]:
        """Return the requests in the request log, oldest first."""
        return list(self.admin("GET", f"calls?{urlencode({'method': method, 'since': since})}")["calls"])

    @contextmanager
    def fault(self, **fault: Any) -> Iterator[None]:
        """Arm a fault within the block."""
        ids = self.admin("POST", "faults", fault)["ids"]
        try:
            yield
        finally:
            for fault_id in ids:
                self.request("DELETE", f"/emulator/faults/{fault_id}")

    def reset(self) -> None:
        """Remove clusters, models, endpoints, faults, the request log and the project script, for the next test."""
        self.admin("DELETE", "faults")
        self.admin("DELETE", "project")
        self.admin("DELETE", "clusters")
        self.admin("DELETE", "endpoints")
        self.admin("DELETE", "calls")

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit code.

        :raises TimeoutError: if the emulator does not exit; it is then killed.
        """
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"The emulator did not exit on SIGTERM:\n{self.log()}") from None
        finally:
            self._close_log()

    def kill(self) -> None:
        """Send SIGKILL, which acts as a crash."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
            self._close_log()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> EmulatorProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.returncode is None:
            self.stop()


def until(condition: Callable[[], T], what: str = "the condition is still false", seconds: float | None = None) -> T:
    """Wait until a condition is true and return its value.

    :param seconds: how long to wait at most, where that is part of what is tested, or longer than usual; by default
        so long that even a busy machine does not explain it.
    :raises TimeoutError: if it is not true by then.
    """
    limit = PATIENCE if seconds is None else seconds
    deadline = time.monotonic() + limit
    pause = pauses()
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Timed out after {limit:g} s: {what}; last seen: {found!r}")
        time.sleep(next(pause))
    return found


def pauses() -> Iterator[float]:
    """Yield the seconds between two looks. They grow: most looks are requests, which slow down what they wait for."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.3, 0.25)


def _done(operation: dict[str, Any]) -> dict[str, Any] | None:
    return operation if operation.get("done") else None


def _decode(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def cluster_body(workers: int = 1, machine: str = "n1-standard-16", **more: Any) -> dict[str, Any]:
    """Return the REST body of a Ray cluster with a head and a pool of workers."""
    pools = [_pool("head-node", 1, machine)]
    if workers:
        pools.append(_pool("worker-pool1", workers, machine))
    image = "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-47.py311:latest"
    return {
        "resourcePools": pools,
        "resourceRuntimeSpec": {"raySpec": {"resourcePoolImages": {pool["id"]: image for pool in pools}}},
        **more,
    }


def _pool(name: str, count: int, machine: str) -> dict[str, Any]:
    return {
        "id": name,
        "replicaCount": str(count),
        "machineSpec": {"machineType": machine},
        "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100},
    }
