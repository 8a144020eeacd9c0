"""Outcome of a function that ran as a job, from the job's result: the same in a worker and in the triggerer. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from airflow_provider_vertex_ray.errors import JobFailedError, VertexRayTaskError
from airflow_provider_vertex_ray.remote.values import decode

FAIL_AT_ONCE = "AirflowFailException"
"""Name, in the details of a function's error, of the exception after which a task is not retried."""


class Returned(NamedTuple):
    """The function returned a value."""

    value: Any


class Skipped(NamedTuple):
    """The function raised ``AirflowSkipException`` with this message."""

    reason: str


class Stored(NamedTuple):
    """The function's result is an object in an object store."""

    path: str


def function_outcome(job: dict[str, Any]) -> Returned | Skipped | Stored:
    """Return the outcome of a function whose job succeeded.

    :param job: result of the job's task
    :raises VertexRayTaskError: the job has no result of a function, or one that cannot be read
    """
    found = job.get("result")
    if isinstance(found, dict) and "value" in found:
        return Returned(decoded(found["value"]))
    if isinstance(found, dict) and isinstance(found.get("skipped"), str):
        return Skipped(found["skipped"])
    if isinstance(found, dict) and isinstance(found.get("path"), str):
        return Stored(found["path"])
    raise VertexRayTaskError(
        f"Ray job {job.get('submission_id')} succeeded without returning the function's result: the process "
        "exited before the function returned (os._exit?), or other code printed a result line of its own.",
        {"submission_id": job.get("submission_id"), "logs_tail": job.get("logs_tail")},
    )


def decoded(value: Any) -> Any:
    """Return a function's result as Python values.

    :raises VertexRayTaskError: it is malformed
    """
    try:
        return decode(value)
    except ValueError as error:
        raise VertexRayTaskError(f"The function's result cannot be read: {error}", {}) from None


def function_error(error: JobFailedError) -> JobFailedError:
    """Return the error of the function, if the job returned one, else the error of the job."""
    found = error.details.get("result")
    raised = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, VertexRayTaskError) or not isinstance(raised, dict):
        return error
    job = error.details.get("submission_id")
    told = {key: str(raised.get(key, "")) for key in ("type", "message", "traceback")}
    details = {**error.details, **told}
    if raised.get("airflow"):
        details["airflow"] = str(raised["airflow"])
    details.pop("result")
    return VertexRayTaskError(f"The function failed on the cluster (Ray job {job}):\n{details['traceback']}", details)
