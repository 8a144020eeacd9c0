"""Job states, submission ids, and how a task treats a job that already exists. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import is_whole
from airflow_provider_vertex_ray.core.job.secret_mask import SecretMask
from airflow_provider_vertex_ray.core.job.secrets import secret_values
from airflow_provider_vertex_ray.errors import JobFailedError, JobStoppedError, SubmissionIdTakenError, VertexRayError

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.core.job.answers import JobAnswer, JobUseAnswer

OWNER_KEY = "airflow_owner"
"""Key of ``owner_key(...)`` in a job's metadata, which distinguishes the jobs of a task from all others."""

CLEAR_EPOCH_KEY = "airflow_life"
"""Key of ``Try.clear_epoch`` in a job's metadata, of the try that submitted it."""

TRY_KEY = "airflow_try_number"
"""Key of the try number in a job's metadata, of the try that submitted it."""

TRY_ID_KEY = "airflow_try_id"
"""Key of ``Try.key`` in a job's metadata, of the try that submitted it."""

RESULT_MARKER = "VERTEX_RAY_RESULT "
"""Prefix of the output line that carries the job's result, as JSON, to the task's XCom."""

DRIVER = "DRIVER"
"""Type of a program that connected to the cluster without being submitted as a job."""

MAX_RESULT_BYTES = 48 * 1024
"""Maximum size of a result in bytes: it is part of the trigger's event, whose column holds 64 KiB on MySQL."""


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
        """Return the status with this name; UNKNOWN, which counts as active, for a name this package does not know."""
        try:
            return cls(value)
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_terminal(self) -> bool:
        """Tell whether the job has ended."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


@dataclass(frozen=True)
class Job:
    """One job as the cluster's Jobs API reports it; times are milliseconds since 1970, or None."""

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
    """Whether it was not submitted, but is a program that connected to the cluster, such as through the Ray Client."""
    node_id: str | None = None
    """Ray's id of the node that its driver runs on; None until the driver has a node."""
    hidden: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Its secrets, in all forms in which its output may show them; already masked in ``message``."""

    @classmethod
    def of(cls, answer: JobAnswer) -> Job:
        """Return the job that an answer describes."""
        # DAG files import this module.
        from airflow_provider_vertex_ray.core.http.decoding import clean

        variables = answer.runtime_env.env_vars if answer.runtime_env else None
        shown = {clean(str(name)): clean(str(value)) for name, value in (variables or {}).items()}
        hidden = secret_values({"env_vars": shown}, answer.metadata)
        return cls(
            submission_id=clean(answer.submission_id or answer.job_id),
            status=JobStatus.of(answer.status),
            # It may quote the job's output, and the command with its environment.
            message=SecretMask(hidden)(clean(answer.message)),
            error_type=clean(answer.error_type) or None,
            entrypoint=clean(answer.entrypoint),
            exit_code=answer.driver_exit_code,
            start_time=answer.start_time or None,
            end_time=answer.end_time or None,
            metadata={clean(key): clean(str(value)) for key, value in (answer.metadata or {}).items()},
            is_driver=answer.type == DRIVER,
            node_id=clean(answer.driver_node_id) or None,
            hidden=hidden,
        )

    @classmethod
    def in_use(cls, answer: JobUseAnswer) -> Job:
        """Return the job that an answer describes, as far as it tells whether the job uses its cluster."""
        from airflow_provider_vertex_ray.core.http.decoding import clean

        return cls(
            submission_id=clean(answer.submission_id or answer.job_id),
            status=JobStatus.of(answer.status),
            end_time=answer.end_time or None,
            is_driver=answer.type == DRIVER,
        )

    @property
    def duration_seconds(self) -> float | None:
        """Return the seconds from the driver's start to its end; None while either is unknown."""
        if self.start_time is None or self.end_time is None:
            return None
        return round((self.end_time - self.start_time) / 1000, 3)

    def summary(self) -> dict[str, Any]:
        """Return what a task returns about a job: JSON, without the runtime environment and its variables."""
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
        """Return the error of a job that ended with status FAILED or STOPPED.

        :param last_lines: the last lines of its output
        :param result: the result that it reported before it ended
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
        # Ray appends its own excerpt of the output to the message; it is replaced by ours.
        reason = self.message.split(", last available logs")[0] if lines else self.message
        code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
        tail = "\nLast lines of its output:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
        return JobFailedError(f"Ray job {self.submission_id} failed{code}: {reason}{tail}", details)


def owner_key(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the identity of a task instance, over all its tries, as a short hash for ids, labels and metadata."""
    text = "\x00".join((dag_id, run_id, task_id, str(map_index)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def submission_prefix(dag_id: str, task_id: str, map_index: int, owner: str) -> str:
    """Return a submission id without its attempt: readable, with the owner's hash, at most 80 of ``[a-z0-9-]``."""
    readable = re.sub(r"[^a-z0-9]+", "-", f"{dag_id}-{task_id}".lower()).strip("-")[:50].strip("-") or "task"
    mapped = f"-{map_index}" if map_index >= 0 else ""
    return f"af-{readable}{mapped}-{owner}"


def attempt_id(prefix: str, attempt: int) -> str:
    """Return the submission id of the ``attempt``-th job of a task instance, counted from 1."""
    return prefix if attempt == 1 else f"{prefix}-a{attempt}"


@dataclass(frozen=True)
class Try:
    """One try of a task instance, as far as it matters to its job.

    :param owner: ``owner_key`` of the task instance, the same for all its tries
    :param number: Airflow's try number
    :param clear_epoch: value that changes with every Clear, and when a DAG run is recreated under the same id, but not
        with a retry
    :param key: Airflow's own id of this try, if it has one (3.x)
    """

    owner: str
    number: int = 1
    clear_epoch: str = ""
    key: str = ""

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a job that this try submits."""
        return {
            OWNER_KEY: self.owner,
            CLEAR_EPOCH_KEY: self.clear_epoch,
            TRY_KEY: str(self.number),
            TRY_ID_KEY: self.key,
        }

    def can_adopt(self, job: Job) -> bool:
        """Tell whether ``job`` was submitted by this try, or by an earlier try that was lost but not cleared."""
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
    """The job does not exist: submit it."""
    ADOPT = "adopt"
    """The job is active and was submitted by a try that was lost: wait for it."""
    RESULT = "result"
    """The job succeeded, but its try was lost before it could report that: take its result."""
    SUPERSEDE = "supersede"
    """The job is active, but its try was cleared: stop it, then check the next attempt."""
    NEXT = "next"
    """The job has ended: check the next attempt."""


def decide(job: Job | None, this: Try) -> Action:
    """Decide what a try does about the job of one attempt.

    :param job: the job with the id of the attempt; None if it does not exist
    :param this: the current try
    :raises SubmissionIdTakenError: the job was not submitted by this task
    """
    if job is None:
        return Action.SUBMIT
    if job.metadata.get(OWNER_KEY) != this.owner:
        raise SubmissionIdTakenError(
            f"The submission id {job.submission_id!r} belongs to a job ({job.status.value}) that this task did not "
            "submit.",
            {"submission_id": job.submission_id, "status": job.status.value},
        )
    adoptable = this.can_adopt(job)
    if not job.status.is_terminal:
        return Action.ADOPT if adoptable else Action.SUPERSEDE
    # Without a key, a try looks like the same try of a recreated run (``airflow dags test``).
    distinct = bool(this.key) or _try_number(job) < this.number
    return Action.RESULT if adoptable and distinct and job.status is JobStatus.SUCCEEDED else Action.NEXT


@dataclass(frozen=True)
class Record:
    """What a try stores in Airflow before it submits a job, because the submission id alone does not tell it.

    :param cluster: full name of the cluster; a later try may use another cluster
    :param attempt: attempt at which the search begins; earlier jobs may have been deleted from the cluster
    """

    cluster: str
    attempt: int

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON, for Airflow's store."""
        return {"cluster": self.cluster, "attempt": self.attempt}

    @classmethod
    def of(cls, value: Any) -> Record | None:
        """Return the record that ``to_json`` wrote; None for any other value."""
        if not isinstance(value, dict):
            return None
        cluster, attempt = value.get("cluster"), value.get("attempt")
        if not isinstance(cluster, str) or not is_whole(attempt) or attempt < 1:
            return None
        return cls(cluster, attempt)
