"""Runs the entrypoints of fake jobs in processes of this machine, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import shutil
import signal
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.backends.job_environment import inherited
from vertex_ray_emulator.backends.processes import state_marker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NO_RAY = "there-is-no-ray-behind-the-fake-backend"
"""Value of RAY_ADDRESS: ``ray.init()`` fails at once and names it, instead of starting a cluster on this machine."""
STOP_SECONDS = 3.0
"""Seconds between SIGTERM and SIGKILL for a job that is stopped, as in Ray."""
_NOT_INSTALLED = ("pip", "uv", "conda", "image_uri", "container")
_PR_SET_PDEATHSIG = 1
_CHUNK = 1 << 16


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
        """
        for name in _NOT_INSTALLED:
            if runtime_env.get(name):
                write(f"WARNING: the fake backend does not apply runtime_env[{name!r}].\n")
        folder = Path(tempfile.mkdtemp(prefix="vre-job-"))
        try:
            code, modules = await asyncio.to_thread(_unpack, runtime_env, packages, folder)
            variables = {
                **inherited(),
                **self._environment,
                "RAY_ADDRESS": NO_RAY,
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join(map(str, modules)),
                **{str(name): str(value) for name, value in (runtime_env.get("env_vars") or {}).items()},
                **state_marker(self._state_dir),
            }
            return await _run(entrypoint, code, variables, write)
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


async def _run(entrypoint: str, folder: Path, variables: dict[str, str], write: Callable[[str], None]) -> int:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        entrypoint,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        cwd=folder,
        env=variables,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    try:
        if process.stdout is not None:
            await _copy(process.stdout, write)
        return await process.wait()
    finally:
        # Also what the entrypoint left behind when it ended, as Ray does.
        await _end(process)


async def _copy(source: asyncio.StreamReader, write: Callable[[str], None]) -> None:
    """Pass complete lines on, whatever their length."""
    rest = b""
    while chunk := await source.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            write(line.decode(errors="replace") + "\n")
    if rest:
        write(rest.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        if process.returncode is None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
