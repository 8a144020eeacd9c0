"""Predictor processes: one for each deployed model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from vertex_ray_emulator.backends.processes import end_processes, send, started_at, state_marker
from vertex_ray_emulator.serving.prebuilt import FILES, Container
from vertex_ray_emulator.settings import LOOPBACK
from vertex_ray_emulator.wire.background import cancel

log = logging.getLogger(__name__)

DEPLOYMENT_VARIABLE = "VERTEX_RAY_EMULATOR_DEPLOYMENT"
START_SECONDS = 120.0
RESTART_SECONDS = 0.5
PREDICT_SECONDS = 60.0
"""Timeout for the answer of a predictor, as on the service."""
_LOG_LINES = 5
_DROPPED = ("RAY_", "AIRFLOW_", "VERTEX_RAY_EMULATOR_", "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD")
"""Prefixes and names of variables that belong to the shell and not to a container."""
_PREDICTOR = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r}); "
    "from vertex_ray_emulator.serving.predictor import main; main()"
)


class PredictorError(Exception):
    """A predictor did not start; the text is the predictor's own."""


class PredictorGoneError(Exception):
    """A predictor does not answer, because it died and is being restarted."""


@dataclass
class _Predictor:
    key: str
    command: list[str]
    folder: Path
    process: asyncio.subprocess.Process | None = None
    port: int = 0
    started: float = 0
    watcher: asyncio.Task[None] | None = None
    ended: bool = field(default=False)

    @property
    def pid(self) -> int | None:
        """Process id while the process is running; None otherwise."""
        process = self.process
        return process.pid if process is not None and process.returncode is None else None


class Predictors:
    """The predictor processes of one emulator.

    :param state_dir: state directory of the emulator, which holds artifacts and logs and marks the processes.
    :param storage_host: returns the address of Cloud Storage, in the form of STORAGE_EMULATOR_HOST; None without one.
    """

    def __init__(self, state_dir: Path, storage_host: Callable[[], str | None]) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / "predictors"
        self._storage_host = storage_host
        self._predictors: dict[str, _Predictor] = {}
        self._session: aiohttp.ClientSession | None = None

    def clear(self) -> None:
        """Remove the files that a dead emulator left behind; ``processes.reclaim`` ends its processes."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def start(self, container: Container, artifact_uri: str) -> str:
        """Start a predictor and return its key once it serves.

        :param container: container of the model.
        :param artifact_uri: folder of the artifact in Cloud Storage.
        :raises PredictorError: if the predictor exits or the emulator has no Cloud Storage.
        :raises TimeoutError: if the predictor is not ready within two minutes.
        """
        storage = self._storage_host()
        if storage is None:
            raise PredictorError(
                "The emulator has no Cloud Storage. Start it with --with storage, or with STORAGE_EMULATOR_HOST set."
            )
        if "://" not in storage:
            storage = f"http://{storage}"
        key = secrets.token_hex(6)
        framework = str(container.framework)
        files = ",".join(FILES[framework])
        artifact = self._folder / key / "artifact"
        command = [sys.executable, "-c", _PREDICTOR, framework, files, artifact_uri, storage.rstrip("/"), str(artifact)]
        predictor = _Predictor(key, command, self._folder / key)
        predictor.folder.mkdir(parents=True)
        self._predictors[key] = predictor
        try:
            await self._run(predictor)
        except BaseException:
            await self.stop(key)
            raise
        predictor.watcher = asyncio.create_task(self._watch(predictor))
        return key

    async def _run(self, predictor: _Predictor) -> None:
        with (predictor.folder / "predictor.log").open("ab") as output:
            predictor.process = await asyncio.create_subprocess_exec(
                *predictor.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                cwd=predictor.folder,
                env=self._environment(predictor.key),
            )
        process = predictor.process
        predictor.started = started_at(process.pid)
        if process.stdout is None:
            raise PredictorError("The predictor has no standard output.")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        except asyncio.TimeoutError:
            raise TimeoutError(f"The predictor was not ready within {START_SECONDS:g} s.") from None
        report = json.loads(line) if line else {"error": self._last_lines(predictor)}
        if "error" in report:
            raise PredictorError(str(report["error"]))
        predictor.port = int(report["port"])

    def _last_lines(self, predictor: _Predictor) -> str:
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = (predictor.folder / "predictor.log").read_text(errors="replace").splitlines()
        return "The predictor exited without any output." if not lines else "\n".join(lines[-_LOG_LINES:])

    async def _watch(self, predictor: _Predictor) -> None:
        """Restart a predictor whenever it dies, as the service does with containers."""
        while predictor.process is not None:
            await predictor.process.wait()
            if predictor.ended:
                return
            log.warning("Predictor %s exited; restarting it in %g s", predictor.key, RESTART_SECONDS)
            await asyncio.sleep(RESTART_SECONDS)
            try:
                await self._run(predictor)
            except (PredictorError, TimeoutError) as error:
                log.warning("Predictor %s did not restart: %s", predictor.key, error)

    async def predict(self, key: str, body: bytes) -> tuple[int, bytes]:
        """Send a predict request to a predictor and return the status and the body of its answer.

        :param key: key of the predictor.
        :param body: body of the request.
        :raises PredictorGoneError: if the predictor is not running.
        :raises TimeoutError: if it does not answer within a minute.
        """
        predictor = self._predictors.get(key)
        if predictor is None or predictor.pid is None:
            raise PredictorGoneError
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=PREDICT_SECONDS))
        try:
            async with self._session.post(f"http://{LOOPBACK}:{predictor.port}/predict", data=body) as answer:
                return answer.status, await answer.read()
        except asyncio.TimeoutError as error:
            raise TimeoutError(f"The predictor did not answer within {PREDICT_SECONDS:g} s.") from error
        except aiohttp.ClientError as error:
            raise PredictorGoneError from error

    def pid(self, key: str) -> int | None:
        """Return the process id of a predictor; None if it is not running."""
        predictor = self._predictors.get(key)
        return predictor.pid if predictor is not None else None

    def kill(self, key: str, number: signal.Signals) -> list[int]:
        """Send a signal to a predictor; gives the pids that got it."""
        predictor = self._predictors.get(key)
        pid = self.pid(key)
        return [pid] if predictor and pid and send(pid, number, predictor.started) else []

    async def stop(self, key: str) -> None:
        """Stop a predictor; when this returns, no process of it is left. Does nothing for an unknown key."""
        predictor = self._predictors.pop(key, None)
        if predictor is None:
            return
        predictor.ended = True
        await cancel(predictor.watcher)
        # Processes that the model itself started have the marker as well.
        await asyncio.to_thread(end_processes, self._marker(key))
        if predictor.process is not None:
            await predictor.process.wait()
        await asyncio.to_thread(shutil.rmtree, predictor.folder, ignore_errors=True)

    async def close(self) -> None:
        """Stop all predictors."""
        await asyncio.gather(*(self.stop(key) for key in list(self._predictors)))
        if self._session is not None:
            await self._session.close()

    def _marker(self, key: str) -> dict[str, str]:
        return {**state_marker(self._state_dir), DEPLOYMENT_VARIABLE: key}

    def _environment(self, key: str) -> dict[str, Any]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(_DROPPED)
        }
        # A container has a machine of its own; here, one thread each keeps predictors from competing for the cores.
        return {**inherited, "OMP_NUM_THREADS": "1", **self._marker(key)}
