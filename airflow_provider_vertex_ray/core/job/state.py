"""A job's life, as pure logic: its states, its submission id, and what a task does about a job that exists already."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from airflow_provider_vertex_ray.errors import JobFailedError, JobStoppedError, SubmissionIdTakenError, VertexRayError

OWNER_KEY = "airflow_owner"
"""Key in a job's metadata that holds ``owner_key(...)``: it tells our jobs from everybody else's."""

CLEAR_EPOCH_KEY = "airflow_life"
"""Key in a job's metadata that holds ``Try.clear_epoch`` of the try that submitted it."""

TRY_KEY = "airflow_try_number"
"""Key in a job's metadata that holds the number of the try that submitted it."""

TRY_ID_KEY = "airflow_try_id"
"""Key in a job's metadata that holds ``Try.key`` of the try that submitted it."""

RESULT_MARKER = "VERTEX_RAY_RESULT "
"""A line of a job's output that starts so carries the job's result, as JSON, to the task's XCom."""

MAX_RESULT_BYTES = 48 * 1024
"""Bytes of a result line: it travels in the trigger's event, whose column holds 64 KiB on MySQL."""


class JobStatus(str, Enum):
    """Ray's job states (https://docs.ray.io/en/releases-2.47.1/cluster/running-applications/job-submission/)."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def of(cls, value: Any) -> JobStatus:
        """The status of that name; UNKNOWN, which counts as active, for a name that this package does not know."""
        try:
            return cls(value)
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


@dataclass(frozen=True)
class Job:
    """One job as the cluster's Jobs API reports it. Times are milliseconds since 1970, or None."""

    submission_id: str
    status: JobStatus
    message: str = ""
    error_type: str | None = None
    entrypoint: str = ""
    exit_code: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    is_driver: bool = False
    """Whether it was not submitted: a program that is connected to the cluster, such as a Ray Client's."""
    node_id: str | None = None
    """Ray's id of the node that its driver runs on, once it has one."""
    hidden: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Values of its environment variables, which may be secrets."""

    @classmethod
    def from_api(cls, data: dict[str, Any]) -> Job:
        """Read the API's JSON."""
        return cls(
            submission_id=str(data.get("submission_id") or data.get("job_id") or ""),
            status=JobStatus.of(data.get("status")),
            message=str(data.get("message") or ""),
            error_type=data.get("error_type"),
            entrypoint=str(data.get("entrypoint") or ""),
            exit_code=data.get("driver_exit_code"),
            start_time=data.get("start_time") or None,
            end_time=data.get("end_time") or None,
            metadata={str(k): str(v) for k, v in (data.get("metadata") or {}).items()},
            is_driver=data.get("type") == "DRIVER",
            node_id=data.get("driver_node_id") or None,
            hidden=tuple(str(v) for v in ((data.get("runtime_env") or {}).get("env_vars") or {}).values()),
        )

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from the driver's start to its end; None while either is unknown."""
        if self.start_time is None or self.end_time is None:
            return None
        return round((self.end_time - self.start_time) / 1000, 3)

    def summary(self) -> dict[str, Any]:
        """What a task returns of a job: JSON, without the runtime environment and its variables."""
        return {
            "submission_id": self.submission_id,
            "status": self.status.value,
            "message": self.message,
            "error_type": self.error_type,
            "exit_code": self.exit_code,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "duration_seconds": self.duration_seconds,
            "metadata": self.metadata,
        }

    def failure(self, last_lines: Iterable[str] = (), result: Any = None) -> VertexRayError:
        """The error for a job that ended in FAILED or STOPPED.

        :param last_lines: The last lines of its output.
        :param result: What it gave as its result before it ended.
        """
        lines = list(last_lines)
        details = {
            "submission_id": self.submission_id,
            "status": self.status.value,
            "exit_code": self.exit_code,
            "error_type": self.error_type,
            "logs_tail": lines,
            "result": result,
        }
        if self.status is JobStatus.STOPPED:
            return JobStoppedError(f"Ray job {self.submission_id} was stopped. {self.message}".strip(), details)
        # Ray appends its own cut of the output to the message; ours follows.
        reason = self.message.split(", last available logs")[0] if lines else self.message
        code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
        tail = "\nLast lines of its output:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
        return JobFailedError(f"Ray job {self.submission_id} failed{code}: {reason}{tail}", details)


def owner_key(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The identity of a task instance over all its tries, as a short hash that fits ids, labels and metadata."""
    text = "\x00".join((dag_id, run_id, task_id, str(map_index)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def submission_prefix(dag_id: str, task_id: str, map_index: int, owner: str) -> str:
    """A submission id without its attempt: readable, then the owner's hash. At most 80 characters of ``[a-z0-9-]``."""
    readable = re.sub(r"[^a-z0-9]+", "-", f"{dag_id}-{task_id}".lower()).strip("-")[:50].strip("-") or "task"
    mapped = f"-{map_index}" if map_index >= 0 else ""
    return f"af-{readable}{mapped}-{owner}"


def attempt_id(prefix: str, attempt: int) -> str:
    """The submission id of the ``attempt``-th job (from 1) of a task instance."""
    return prefix if attempt == 1 else f"{prefix}-a{attempt}"


@dataclass(frozen=True)
class Try:
    """One try of a task instance, as far as its job is concerned.

    :param owner: ``owner_key`` of the task instance: the same over all its tries.
    :param number: Airflow's try number.
    :param clear_epoch: Changes with every Clear, and with a run that is made anew under its old id; a retry keeps it.
    :param key: Airflow's own id of this one try, where it has one (3.x).
    """

    owner: str
    number: int = 1
    clear_epoch: str = ""
    key: str = ""

    def metadata(self) -> dict[str, str]:
        """What a job's metadata say of the try that submitted it."""
        return {
            OWNER_KEY: self.owner,
            CLEAR_EPOCH_KEY: self.clear_epoch,
            TRY_KEY: str(self.number),
            TRY_ID_KEY: self.key,
        }

    def goes_on_from(self, job: Job) -> bool:
        """Whether ``job`` is of this very try, or of an earlier one that was lost and not cleared."""
        if job.metadata.get(CLEAR_EPOCH_KEY) != self.clear_epoch:
            return False
        before = _try_number(job)
        return before < self.number or (before == self.number and job.metadata.get(TRY_ID_KEY) == self.key)


def _try_number(job: Job) -> int:
    number = job.metadata.get(TRY_KEY, "")
    return int(number) if number.isdecimal() else 0


class Action(Enum):
    """What to do about the job of one attempt."""

    SUBMIT = "submit"
    """There is none: submit it."""
    ADOPT = "adopt"
    """It runs, and was started by a try that was lost: wait for it."""
    RESULT = "result"
    """It succeeded, and the try that started it was lost before it could say so: take its result."""
    SUPERSEDE = "supersede"
    """It runs, but its try was cleared: stop it, then look at the next attempt."""
    NEXT = "next"
    """It is over: look at the next attempt."""


def decide(job: Job | None, this: Try) -> Action:
    """What a try does about what the cluster says of one of its task's attempts.

    :param job: The job under the attempt's id; None when the cluster knows none.
    :param this: The try that asks.
    :raises SubmissionIdTakenError: The job was submitted by somebody else.
    """
    if job is None:
        return Action.SUBMIT
    if job.metadata.get(OWNER_KEY) != this.owner:
        raise SubmissionIdTakenError(
            f"submission_id={job.submission_id!r} is in use by a job ({job.status.value}) that is not this task's.",
            {"submission_id": job.submission_id, "status": job.status.value},
        )
    ours = this.goes_on_from(job)
    if not job.status.is_terminal:
        return Action.ADOPT if ours else Action.SUPERSEDE
    # Without a key a try can not be told from the same try of a run that was made anew (``airflow dags test``).
    told_apart = bool(this.key) or _try_number(job) < this.number
    return Action.RESULT if ours and told_apart and job.status is JobStatus.SUCCEEDED else Action.NEXT


@dataclass(frozen=True)
class Record:
    """What a try keeps in Airflow before it submits: what the id alone can not say.

    :param cluster: Full name of the cluster: a later try may be given another one.
    :param attempt: Where the look for attempts begins: earlier jobs may have been deleted from the cluster.
    """

    cluster: str
    attempt: int

    def to_json(self) -> dict[str, Any]:
        """The record for Airflow's store."""
        return {"cluster": self.cluster, "attempt": self.attempt}

    @classmethod
    def of(cls, value: Any) -> Record | None:
        """Read one back; None for what is none."""
        if not isinstance(value, dict):
            return None
        cluster, attempt = value.get("cluster"), value.get("attempt")
        if not isinstance(cluster, str) or not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 1:
            return None
        return cls(cluster, attempt)
