"""Limits of the wait for many jobs: which errors reject one, how long others are waited out, which limit ended it."""

from __future__ import annotations

import time
from typing import Any

from airflow_provider_vertex_ray.core.job.state import Job, JobStatus
from airflow_provider_vertex_ray.errors import (
    InvalidRequestError,
    RequestTooLargeError,
    SubmissionIdTakenError,
    VertexRayError,
)
from airflow_provider_vertex_ray.triggers.job_batch_output import BatchRules
from airflow_provider_vertex_ray.triggers.job_cluster import TaskLog

REJECTIONS: tuple[type[VertexRayError], ...] = (InvalidRequestError, RequestTooLargeError, SubmissionIdTakenError)
"""Errors of a submission that say that this job is invalid. All others say something about the cluster, or the way to
it, and would reject all jobs alike."""


class Undelivered:
    """How long the cluster has accepted no job.

    Apart from the time for which the statuses cannot be read: a cluster that answers the one may not answer the other.

    :param lost_timeout: seconds after which to give up.
    :param log: log of the task.
    """

    def __init__(self, lost_timeout: float, log: TaskLog) -> None:
        self._lost_timeout = lost_timeout
        self._log = log
        self._since: float | None = None
        self._gave_up = False

    def accepted(self) -> None:
        """Note that the cluster has accepted a job."""
        self._since, self._gave_up = None, False

    def too_long(self, begin: float, error: VertexRayError) -> str | None:
        """Note that a job could not be submitted.

        :param begin: Unix time at which its submission began.
        :param error: why it could not.
        :return: the error of the job if it is not to be tried again; otherwise None.
        """
        self._since = min(self._since or begin, begin)
        waited = time.time() - self._since
        if waited > self._lost_timeout:
            return f"was not submitted: for {waited:.0f} s the cluster accepted no job. Last error: {error.message}"
        self._log.warning(
            "Could not submit the next Ray jobs; retrying for up to %.0f s more: %s",
            self._lost_timeout - waited,
            error.message,
        )
        return None

    def give_up(self) -> bool:
        """Note that jobs are not tried again; return whether that holds for all that are not submitted yet.

        First only for those that were tried: the cluster may fail over one odd job. When it accepts no other one
        either, for all.
        """
        gave_up, self._gave_up = self._gave_up, True
        return gave_up


def job_timeout_passed(seconds: float) -> str:
    """Return why a job was stopped that did not end in time."""
    return f"it did not end within job_timeout ({seconds:g} s)"


def pending_timeout_passed(seconds: float) -> str:
    """Return why a job was stopped whose driver did not start in time."""
    return f"its driver did not start within pending_timeout ({seconds:g} s)"


def limit_passed(job: Job, rules: BatchRules) -> str | None:
    """Return which of the user's limits a stopped job had passed, as far as the cluster's record tells; else None.

    So another triggerer can tell a job that was stopped for that from one that an earlier try's kill has stopped.
    """
    lasted = job.duration_seconds
    if lasted is None:
        return None
    if rules.job_timeout is not None and lasted >= rules.job_timeout:
        return job_timeout_passed(rules.job_timeout)
    if rules.pending_timeout is not None and job.node_id is None and lasted >= rules.pending_timeout:
        return pending_timeout_passed(rules.pending_timeout)
    return None


def error_of(job: Job, reason: str | None) -> str:
    """Return how a job has ended, for its error; empty if it succeeded.

    :param job: the job, which has ended
    :param reason: why it was stopped, if that is known
    """
    if job.status is JobStatus.SUCCEEDED:
        return ""
    if job.status is JobStatus.FAILED:
        return f"failed: {job.message}"
    return f"was stopped: {reason}" if reason else "was stopped"


def packages_of(environment: dict[str, Any]) -> list[str]:
    """Return the URIs of the packages in a runtime environment that are kept by the cluster itself."""
    found = [environment.get("working_dir"), *(environment.get("py_modules") or ())]
    return [uri for uri in found if isinstance(uri, str) and uri.startswith("gcs://")]
