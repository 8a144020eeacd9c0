"""Runs the entrypoints of fake jobs in processes of this machine, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.backends.job_environment import inherited
from vertex_ray_emulator.backends.processes import end_processes, state_marker
from vertex_ray_emulator.wire.background import cancel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NO_RAY = "there-is-no-ray-behind-the-fake-backend"
"""Value of RAY_ADDRESS: ``ray.init()`` fails at once and names it, instead of starting a cluster on this machine."""
STOP_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL for a job that is stopped, as in Ray."""
JOB_VARIABLE = "VERTEX_RAY_EMULATOR_JOB"
"""Environment variable that marks the processes of a job, together with those of the emulator's state directory."""
_POLL_SECONDS = 0.05
_DRAIN_SECONDS = 1.0
"""Seconds for the rest of the output after a job's processes have ended."""
_NOT_INSTALLED = ("pip", "uv", "conda", "image_uri", "container")
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 16


class RuntimeEnvError(Exception):
    """A job's runtime environment cannot be set up; the text is that of Ray's own exception."""


def check_runtime_env(runtime_env: Mapping[str, Any]) -> None:
    """Check the types of the parts of a runtime environment that are used.

    :raises RuntimeEnvError: if one has another type than in Ray.
    """
    working_dir, modules, variables = (runtime_env.get(name) for name in ("working_dir", "py_modules", "env_vars"))
    if working_dir is not None and not isinstance(working_dir, str):
        raise RuntimeEnvError(f"TypeError: `working_dir` must be a string, got {type(working_dir)}.")
    if modules is not None and not (isinstance(modules, list) and all(isinstance(each, str) for each in modules)):
        raise RuntimeEnvError(f"TypeError: `py_modules` must be a list of strings, got {type(modules)}.")
    if variables and not isinstance(variables, dict):
        raise RuntimeEnvError(
            f"TypeError: runtime_env['env_vars'] must be of type Dict[str, str], got {type(variables)}"
        )


class Entrypoints:
    """Runs entrypoints for the clusters of one emulator.

    :param state_dir: state directory, with which the processes are marked: the next emulator ends those that are left.
    :param environment: additional variables for jobs, which override inherited ones. It may be filled later.
    """

    def __init__(self, state_dir: Path, environment: Mapping[str, str]) -> None:
        self._state_dir = state_dir
        self._environment = environment

    async def run(
        self, entrypoint: str, runtime_env: Mapping[str, Any], packages: Path, write: Callable[[str], None]
    ) -> int:
        """Run an entrypoint to its end and return its exit code; cancelling ends its processes.

        :param entrypoint: shell command.
        :param runtime_env: the job's runtime environment, of which the code and the variables are used.
        :param packages: folder with the uploaded packages.
        :param write: receives the output as it comes.
        :raises RuntimeEnvError: if a package cannot be unpacked.
        """
        for name in _NOT_INSTALLED:
            if runtime_env.get(name):
                write(f"WARNING: the fake backend does not apply runtime_env[{name!r}].\n")
        folder = Path(tempfile.mkdtemp(prefix="vre-job-"))
        try:
            try:
                code, modules = await asyncio.to_thread(_unpack, runtime_env, packages, folder)
            except Exception as error:
                # Whatever zipfile raises for a damaged file, and OSError for names that cannot be written.
                raise RuntimeEnvError(f"{type(error).__name__}: {error}") from error
            variables = {
                **inherited(),
                **self._environment,
                "RAY_ADDRESS": NO_RAY,
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join(map(str, modules)),
                **{str(name): str(value) for name, value in (runtime_env.get("env_vars") or {}).items()},
            }
            marker = {**state_marker(self._state_dir), JOB_VARIABLE: secrets.token_hex(6)}
            return await _run(entrypoint, code, variables, write, marker)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _unpack(runtime_env: Mapping[str, Any], packages: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Unpack the code of a job; return its working directory and the directories for PYTHONPATH."""
    working_dir = folder / "working_dir"
    working_dir.mkdir()
    sources = {str(uri): folder / f"module-{k}" for k, uri in enumerate(runtime_env.get("py_modules") or ())}
    if uri := runtime_env.get("working_dir"):
        sources[str(uri)] = working_dir
    for uri, target in sources.items():
        file = packages / package_file(uri)
        if file.is_file():
            with zipfile.ZipFile(file) as archive:
                archive.extractall(target)
    return working_dir, [working_dir, *(target for target in sources.values() if target != working_dir)]


def package_file(uri: str) -> str:
    """Return the name of the file in which the package with a URI is stored."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", uri)


async def _run(
    entrypoint: str, folder: Path, variables: dict[str, str], write: Callable[[str], None], marker: Mapping[str, str]
) -> int:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        entrypoint,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        cwd=folder,
        env={**variables, **marker},
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    copying = asyncio.create_task(_copy(process.stdout, write)) if process.stdout is not None else None
    try:
        # Not the end of the output, which a child in the background may hold open: Ray waits for the shell only.
        return await _exited(process)
    finally:
        try:
            # Also what the entrypoint left behind when it ended, as Ray does.
            await _end(process, marker)
            if copying is not None:
                await asyncio.wait({copying}, timeout=_DRAIN_SECONDS)
        finally:
            await cancel(copying)


async def _copy(source: asyncio.StreamReader, write: Callable[[str], None]) -> None:
    """Pass complete lines on, whatever their length."""
    rest = b""
    while chunk := await source.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            write(line.decode(errors="replace") + "\n")
    if rest:
        write(rest.decode(errors="replace"))


async def _exited(process: asyncio.subprocess.Process) -> int:
    # Not process.wait(), which in Python 3.11 also waits until nobody holds the pipe.
    while process.returncode is None:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
    return process.returncode


async def _end(process: asyncio.subprocess.Process, marker: Mapping[str, str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_exited(process), STOP_SECONDS)
    # Those in a session of their own, which the signals to the group do not reach.
    await asyncio.to_thread(end_processes, marker)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
