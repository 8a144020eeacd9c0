"""Validate job parameters before any request is made."""

from __future__ import annotations

import shlex
from typing import Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.job.runtime_env import runtime_environment
from airflow_provider_vertex_ray.core.job.state import JobStatus
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["check_statuses", "check_submission_id", "command_line", "runtime_environment"]


def command_line(entrypoint: Any) -> str:
    """Return the shell command of an entrypoint.

    :param entrypoint: a shell command, or a list of arguments, which are quoted
    :raises InvalidArgumentError: it is empty, or neither a string nor a list of strings
    """
    rule = "Use a shell command, or a list of arguments."
    if isinstance(entrypoint, str):
        if not entrypoint.strip():
            raise InvalidArgumentError("entrypoint", entrypoint, rule)
        return entrypoint
    if not isinstance(entrypoint, (list, tuple)) or not entrypoint:
        raise InvalidArgumentError("entrypoint", entrypoint, rule)
    if not all(isinstance(part, str) for part in entrypoint) or not entrypoint[0].strip():
        raise InvalidArgumentError("entrypoint", entrypoint, rule)
    return shlex.join(entrypoint)


def check_statuses(statuses: Any, *, rendered: bool = False) -> set[str] | None:
    """Validate a list of job states and return it as a set; None for all states.

    :param statuses: names of job states; None or an empty list for all
    :param rendered: whether all templates are rendered; before that, names with a template and XCom references pass
    :raises InvalidArgumentError: it is not a list, or one of its items is not a job state of Ray
    """
    if statuses is None or (not rendered and not isinstance(statuses, (str, list, tuple, set))):
        return None
    if isinstance(statuses, str) and has_template(statuses) and not rendered:
        return None
    known = [status.value for status in JobStatus]
    rule = f"Use a list of job states; the states are {', '.join(known)}."
    if not isinstance(statuses, (list, tuple, set)):
        raise InvalidArgumentError("statuses", statuses, rule)
    for place, status in enumerate(statuses):
        later = has_template(status) or not isinstance(status, str)
        if (rendered or not later) and status not in known:
            raise InvalidArgumentError(f"statuses[{place}]", status, rule)
    return set(statuses) if rendered and statuses else None


def check_submission_id(submission_id: Any) -> None:
    """Validate a submission id; a template or an XCom reference passes.

    :raises InvalidArgumentError: it is missing or empty, or contains a slash
    """
    if submission_id is None or (isinstance(submission_id, str) and not submission_id.strip()):
        raise InvalidArgumentError("submission_id", submission_id, "Use the id of a job.")
    if isinstance(submission_id, str) and not has_template(submission_id) and "/" in submission_id:
        raise InvalidArgumentError("submission_id", submission_id, "Use an id without slashes.")
