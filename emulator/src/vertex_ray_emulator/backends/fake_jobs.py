"""Fake jobs that behave like those of Ray 2.47.1's job manager but start no processes.

``fake_dashboard`` serves them over HTTP. An entrypoint is a small script: ``sleep N``, ``echo TEXT``,
``count N SECONDS`` (prints ``line 0`` to ``line N-1``), ``exit N``, ``true`` and ``fail``, joined with ``&&``. So
thousands of jobs cost next to nothing, yet a job can take time, write to its log and fail. Any other entrypoint is run
in a process of this machine (``entrypoints``), or, where that is turned off, succeeds at once and says so in its log.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.backends.entrypoints import (
    Entrypoints,
    RuntimeEnvError,
    check_runtime_env,
    package_file,
)
from vertex_ray_emulator.backends.job_request import JobRequest

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

log = logging.getLogger(__name__)

TERMINAL = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})
LINES_PER_FRAME = 10
LOG_LINES_IN_MESSAGE = 10
COUNT_PAUSE = 0.05
"""Seconds between the batches of lines that ``count`` prints."""
START_TIMEOUT = 900.0
"""Seconds after which a job that cannot be placed fails: Ray's default of ``RAY_JOB_START_TIMEOUT_SECONDS``."""
SIMULATED = frozenset({"sleep", "echo", "count", "exit", "true", "fail"})
"""Commands that are simulated."""
NOT_RUN = (
    "WARNING: this entrypoint was NOT RUN. The emulator's fake backend without the trait run-entrypoints simulates "
    "only sleep, echo, count, exit, true and fail; start it with that trait or with --backend ray to run code."
)
_SHELL = frozenset(";|<>$`(){}\n")
RUNTIME_ENV_LINE = "INFO job_manager.py:531 -- Runtime env is setting up."


class DuplicateJobError(ValueError):
    """A job with this submission id already exists."""


class JobNotTerminalError(RuntimeError):
    """A job cannot be deleted before it has ended."""


@dataclass
class FakeJob:
    """A submitted job and its log."""

    submission_id: str
    request: JobRequest
    status: str = "PENDING"
    message: str = ""
    start_time: int = field(default_factory=lambda: int(time.time() * 1000))
    end_time: int | None = None
    agent_address: str | None = None
    node_id: str | None = None
    exit_code: int | None = None
    log: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def terminal(self) -> bool:
        """Whether the status is final."""
        return self.status in TERMINAL

    def notify(self) -> None:
        """Wake all tasks that wait for a new line or status."""
        self.changed.set()
        self.changed = asyncio.Event()

    def append(self, text: str) -> None:
        """Append to the log."""
        self.log.append(text)
        self.notify()

    def details(self) -> dict[str, Any]:
        """Return the body of ``GET /api/jobs/{id}``, with the keys in Ray's order."""
        return {
            "type": "SUBMISSION",
            "job_id": None,
            "submission_id": self.submission_id,
            "driver_info": None,
            "status": self.status,
            "entrypoint": self.request.entrypoint,
            "message": self.message,
            "error_type": None,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "metadata": self.request.metadata,
            "runtime_env": self.request.runtime_env,
            "driver_agent_http_address": self.agent_address,
            "driver_node_id": self.node_id,
            "driver_exit_code": self.exit_code,
        }


def steps(entrypoint: str) -> Iterator[list[str]]:
    """Split an entrypoint at ``&&`` into commands; invalid shell syntax ends the list."""
    words = shlex.shlex(entrypoint, posix=True, punctuation_chars="&")
    words.commenters = ""
    words.whitespace_split = True
    command: list[str] = []
    try:
        for word in words:
            if word == "&&":
                yield command
                command = []
            else:
                command.append(word)
    except ValueError:
        return
    yield command


def is_simulated(entrypoint: str) -> bool:
    """Return whether an entrypoint consists of nothing but commands that are simulated."""
    # Between single quotes, no character has a meaning for the shell.
    if _SHELL & set(re.sub("'[^']*'", "", entrypoint)):
        return False
    return all(not command or command[0] in SIMULATED for command in steps(entrypoint))


class FakeJobs:
    """The jobs of a cluster.

    :param agent_address: address of the node's agent in a job's details, ``http://host:port``.
    :param placement: returns the id of a node with the resources that an entrypoint requests, or None: then the job
        stays PENDING.
    :param entrypoints: runs what is not simulated; None to run nothing.
    """

    def __init__(
        self,
        agent_address: str,
        placement: Callable[[Mapping[str, float]], str | None],
        entrypoints: Entrypoints | None = None,
    ) -> None:
        self._entrypoints = entrypoints
        self._folder = tempfile.TemporaryDirectory(prefix="vre-packages-") if entrypoints is not None else None
        self._agent_address = agent_address
        self._placement = placement
        self._jobs: dict[str, FakeJob] = {}
        self._sequence = 0
        self.packages: set[str] = set()

    def package_path(self, uri: str) -> Path | None:
        """Return the file for an uploaded package; None if no entrypoint will need it."""
        return Path(self._folder.name) / package_file(uri) if self._folder is not None else None

    def get(self, submission_id: str) -> FakeJob | None:
        """Return the job with this submission id, or None if it does not exist."""
        return self._jobs.get(submission_id)

    def listing(self) -> list[dict[str, Any]]:
        """Return the body of ``GET /api/jobs/``."""
        return [job.details() for job in self._jobs.values()]

    def all(self) -> list[FakeJob]:
        """Return all jobs in the order of submission."""
        return list(self._jobs.values())

    def submit(self, request: JobRequest) -> str:
        """Accept and start a job; return its submission id.

        :raises DuplicateJobError: if a job with the submission id exists.
        """
        self._sequence += 1
        submission_id = request.submission_id or request.job_id or f"raysubmit_fake{self._sequence:010d}"
        if submission_id in self._jobs:
            raise DuplicateJobError(
                f"Job with submission_id {submission_id} already exists. Please use a different submission_id."
            )
        job = FakeJob(submission_id, request, message=_pending_message(request))
        self._jobs[submission_id] = job
        job.task = asyncio.create_task(self._run(job))
        return submission_id

    def stop(self, job: FakeJob) -> bool:
        """Stop a job.

        :return: whether the job had not ended yet. As in Ray, a job that waits for resources is not stopped, although
            the answer is True.
        """
        if job.terminal:
            return False
        if job.status == "RUNNING":
            self._end(job, "STOPPED", "Job was intentionally stopped.")
        return True

    def delete(self, job: FakeJob) -> None:
        """Delete a job.

        :raises JobNotTerminalError: if it has not ended.
        """
        if not job.terminal:
            raise JobNotTerminalError(
                f"Attempted to delete job '{job.submission_id}', but it is in a non-terminal state {job.status}."
            )
        del self._jobs[job.submission_id]

    def kill_driver(self, submission_id: str, number: signal.Signals) -> bool:
        """Fail a running job as a signal to its driver would; return whether it was running."""
        job = self._jobs.get(submission_id)
        if job is None or job.status != "RUNNING":
            return False
        self._fail(job, -int(number))
        return True

    def fail_jobs_on(self, node_id: str) -> None:
        """Fail the jobs on a node that died."""
        for job in self._jobs.values():
            if job.node_id == node_id and not job.terminal:
                self._end(job, "FAILED", "Unexpected error occurred: The actor died because its node has died.")

    def reconsider(self) -> None:
        """Retry to place pending jobs, after nodes were added."""
        for job in self._jobs.values():
            if job.status == "PENDING":
                job.notify()

    async def tail(self, job: FakeJob) -> AsyncIterator[str]:
        """Yield the log from its beginning, in frames of up to ten lines, until the job has ended."""
        said = 0
        while True:
            changed = job.changed
            if said < len(job.log):
                lines = job.log[said : said + LINES_PER_FRAME]
                said += len(lines)
                yield "".join(lines)
            elif job.terminal:
                return
            else:
                await changed.wait()

    async def close(self) -> None:
        """Cancel the tasks of all jobs."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._folder is not None:
            await asyncio.to_thread(self._folder.cleanup)

    async def _run(self, job: FakeJob) -> None:
        """Take a job to its end; whatever goes wrong ends it as well, because clients wait for that."""
        try:
            await self._carry_out(job)
        except RuntimeEnvError as error:
            self._end(job, "FAILED", _setup_message(error))
        except Exception as error:
            log.exception("Job %s ended with an unexpected error", job.submission_id)
            if not job.terminal:
                self._end(job, "FAILED", f"Unexpected error occurred: {error}")

    async def _carry_out(self, job: FakeJob) -> None:
        runtime_env = job.request.runtime_env or {}
        check_runtime_env(runtime_env)
        package = runtime_env.get("working_dir") or ""
        if package.startswith("gcs://") and package not in self.packages:
            raise RuntimeEnvError(
                f"OSError: Failed to download runtime_env file package {package} from the GCS to the Ray worker node."
            )
        try:
            job.node_id = await asyncio.wait_for(self._place(job), START_TIMEOUT)
        except asyncio.TimeoutError:
            self._end(job, "FAILED", _not_placed_message(job.request))
            return
        job.agent_address = self._agent_address
        job.status, job.message = "RUNNING", "Job is currently running."
        self._write(job, f"{time.strftime('%Y-%m-%d %H:%M:%S')},000\t{RUNTIME_ENV_LINE}")
        try:
            code = await self._execute(job)
        except ValueError as error:  # an invalid number, such as in "sleep soon"
            self._write(job, str(error))
            code = 2
        if code:
            self._fail(job, code)
        else:
            job.exit_code = 0
            self._end(job, "SUCCEEDED", "Job finished successfully.")

    async def _place(self, job: FakeJob) -> str:
        while (node := self._placement(job.request.demands())) is None:
            await job.changed.wait()
        return node

    async def _execute(self, job: FakeJob) -> int:
        entrypoint = job.request.entrypoint
        if not is_simulated(entrypoint):
            if self._entrypoints is not None and self._folder is not None:
                runtime_env = job.request.runtime_env or {}
                return await self._entrypoints.run(entrypoint, runtime_env, Path(self._folder.name), job.append)
            self._write(job, NOT_RUN)
            log.warning("Job %s: %s", job.submission_id, NOT_RUN)
        for command in steps(job.request.entrypoint):
            name, *arguments = command or [""]
            if name == "sleep":
                await asyncio.sleep(float(arguments[0] if arguments else ""))
            elif name == "echo":
                self._write(job, " ".join(arguments))
            elif name == "count":
                await self._count(job, *map(float, arguments))
            elif name == "fail":
                return 1
            elif name == "exit":
                return int(arguments[0] if arguments else 0)
        return 0

    async def _count(self, job: FakeJob, lines: float = 0, seconds: float = 0, *_: float) -> None:
        """Write numbered lines to the log, evenly over a number of seconds."""
        begin, said = time.monotonic(), 0
        while said < lines:
            passed = (time.monotonic() - begin) / seconds if seconds > 0 else 1
            due = min(int(lines), int(lines * passed) + 1)
            if due > said:
                self._write(job, *(f"line {number}" for number in range(said, due)))
                said = due
            await asyncio.sleep(COUNT_PAUSE if said < lines else 0)

    def _write(self, job: FakeJob, *lines: str) -> None:
        job.log.extend(f"{line}\n" for line in lines)
        job.notify()

    def _fail(self, job: FakeJob, code: int) -> None:
        job.exit_code = code
        self._end(
            job,
            "FAILED",
            f"Job entrypoint command failed with exit code {code}, "
            "last available logs (truncated to 20,000 chars):\n" + "".join(job.log[-LOG_LINES_IN_MESSAGE:]),
        )

    def _end(self, job: FakeJob, status: str, message: str) -> None:
        job.status, job.message, job.end_time = status, message, int(time.time() * 1000)
        job.notify()
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()


def _pending_message(request: JobRequest) -> str:
    message = "Job has not started yet."
    if request.demands():
        message += " It may be waiting for resources (CPUs, GPUs, memory, custom resources) to become available."
    if request.runtime_env:
        message += " It may be waiting for the runtime environment to be set up."
    return message


def _not_placed_message(request: JobRequest) -> str:
    message = (
        f"Job supervisor actor failed to start within {START_TIMEOUT} seconds. This timeout can be configured "
        "by setting the environment variable RAY_JOB_START_TIMEOUT_SECONDS."
    )
    if request.demands():
        message += (
            " This may be because the job entrypoint's specified resources (entrypoint_num_cpus, "
            "entrypoint_num_gpus, entrypoint_resources, entrypoint_memory) aren't available on the cluster."
        )
    return message


def _setup_message(error: RuntimeEnvError) -> str:
    return (
        "runtime_env setup failed: Failed to set up runtime environment.\n"
        "Could not create the actor because its associated runtime env failed to be created.\n"
        f"{error}"
    )
