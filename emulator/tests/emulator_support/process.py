"""The emulator as a process of its own, for tests: started, asked, stopped, killed."""

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

# With a real Ray behind it nothing is started before the first create; only imports take time.
START_SECONDS = 60.0
STOP_SECONDS = 40.0
# A proxy of the environment is not for loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


QUICK = ["--backend", "fake", "--provisioning-seconds", "0", "--name-reuse-seconds", "0", "--deploy-seconds", "0"]
"""Arguments for an emulator without Ray and without delays."""


class EmulatorProcess:
    """``vertex-ray-emulator start`` as a child process.

    :param state_dir: Its state directory; its output goes to ``emulator.log`` in it.
    :param arguments: More arguments of the command, such as ``["--backend", "fake"]``.
    """

    def __init__(self, state_dir: Path, arguments: Sequence[str] = ()) -> None:
        self.state_dir = state_dir
        self.arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._note: dict[str, Any] = {}

    def start(self) -> EmulatorProcess:
        """Start it and wait until it is ready."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._log = (self.state_dir / "emulator.log").open("ab")
        command = [sys.executable, "-m", "vertex_ray_emulator", "start"]
        if "--port" not in self.arguments:
            command += ["--port", "0"]
        command += ["--state-dir", str(self.state_dir), *self.arguments]
        # Its own session: a Ctrl-C of pytest must not take it from under the tests that are being ended.
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)
        # The first time that BigQuery is asked for, its environment is made.
        seconds = START_SECONDS * (10 if "--with" in self.arguments else 1)
        deadline = time.monotonic() + seconds
        while not self._ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"the emulator ended with {self._process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"the emulator was not ready after {seconds:g} s:\n{self.log()}")
            time.sleep(0.02)
        return self

    def _ready(self) -> bool:
        try:
            note = json.loads((self.state_dir / "emulator.json").read_text())
        except (OSError, ValueError):
            return False
        # A note of an earlier one that was killed is still there until this one has taken the directory.
        if self._process is None or note["pid"] != self._process.pid:
            return False
        self._note = note
        return True

    def log(self) -> str:
        """What it has printed so far."""
        return (self.state_dir / "emulator.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, the value of VERTEX_RAY_EMULATOR_HOST."""
        return str(self._note["host"])

    @property
    def ports(self) -> dict[str, int]:
        """All ports that it listens on, by use: ``main``, ``dashboard``, ``grpc``, ``proxy``."""
        return dict(self._note["ports"])

    @property
    def project(self) -> str:
        """The project's id."""
        return str(self._note["project"])

    @property
    def project_number(self) -> str:
        """The project's number."""
        return str(self._note["project_number"])

    @property
    def env(self) -> dict[str, str]:
        """The variables that ``vertex-ray-emulator env`` prints."""
        return dict(self._note["env"])

    def sdk_env(self, **more: str) -> dict[str, str]:
        """This process's environment with the emulator's variables, for a client in a process of its own."""
        environment = {k: v for k, v in os.environ.items() if k.lower() not in ("https_proxy", "http_proxy")}
        return {**environment, **self.env, **more}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60.0,
    ) -> tuple[int, Any]:
        """A plain HTTP request to the main port; gives the status and the JSON body (or the text)."""
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
        """A request to ``/emulator/<path>``; gives the JSON answer, raises on an error."""
        status, answer = self.request(method, "/emulator/" + path.lstrip("/"), body)
        if status != 200:
            raise RuntimeError(f"{method} /emulator/{path}: {status} {answer}")
        return answer

    def token(self) -> str:
        """A new access token."""
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        status, answer = self.request("GET", path, headers={"Metadata-Flavor": "Google"})
        if status != 200:
            raise RuntimeError(f"no token: {status} {answer}")
        return str(answer["access_token"])

    def api(self, method: str, path: str, body: Any = None, *, version: str = "v1beta1") -> tuple[int, Any]:
        """A request to the API with a token; a path that does not begin with ``projects/`` is in us-central1."""
        if not path.startswith("projects/"):
            path = f"projects/{self.project}/locations/us-central1/{path}"
        return self.request(method, f"/{version}/{path}", body, token=self.token())

    def wait(self, operation: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
        """The operation once it is done."""
        name, version = operation["name"], "v1beta1"
        answer = until(lambda: _done(self.api("GET", name, version=version)[1]), seconds, f"{name} is not done")
        return dict(answer)

    def create(self, cluster_id: str, body: dict[str, Any] | None = None, seconds: float = 60.0) -> dict[str, Any]:
        """Create a cluster and wait; gives the resource as it is then, RUNNING or ERROR."""
        path = f"persistentResources?persistentResourceId={cluster_id}"
        status, operation = self.api("POST", path, body or cluster_body())
        if status != 200:
            raise RuntimeError(f"{cluster_id} was not created: {status} {operation}")
        self.wait(operation, seconds)
        return dict(self.api("GET", f"persistentResources/{cluster_id}")[1])

    def calls(self, method: str = "*", since: float = 0.0) -> list[dict[str, Any]]:
        """The call log."""
        return list(self.admin("GET", f"calls?{urlencode({'method': method, 'since': since})}")["calls"])

    @contextmanager
    def fault(self, **fault: Any) -> Iterator[None]:
        """A fault that is armed within the block."""
        ids = self.admin("POST", "faults", fault)["ids"]
        try:
            yield
        finally:
            for fault_id in ids:
                self.request("DELETE", f"/emulator/faults/{fault_id}")

    def reset(self) -> None:
        """No clusters, models, endpoints, faults and calls, and a project as it was: a clean one for the next test."""
        self.admin("DELETE", "faults")
        self.admin("DELETE", "project")
        self.admin("DELETE", "clusters")
        self.admin("DELETE", "endpoints")
        self.admin("DELETE", "calls")

    def stop(self) -> int:
        """SIGTERM, then wait; gives the exit code. SIGKILL when it does not end, which is an error."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"the emulator did not end on SIGTERM:\n{self.log()}") from None
        finally:
            self._close_log()

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
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


def until(condition: Callable[[], T], seconds: float = 20.0, what: str = "it is not so") -> T:
    """What a condition gives once it is true; fails when it is not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s: {what}")
        time.sleep(0.01)
    return found


def _done(operation: dict[str, Any]) -> dict[str, Any] | None:
    return operation if operation.get("done") else None


def _decode(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def cluster_body(workers: int = 1, machine: str = "n1-standard-16", **more: Any) -> dict[str, Any]:
    """A Ray cluster's REST body: one head and a pool of workers."""
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
