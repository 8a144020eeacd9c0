"""Validate job parameters before any request is made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from airflow_provider_vertex_ray.core.checks import (
    MISSING_RULE,
    has_template,
    is_carried,
    is_number,
    is_whole,
    known_at_run_time,
)
from airflow_provider_vertex_ray.core.job.runtime_env import runtime_environment
from airflow_provider_vertex_ray.core.job.state import JobStatus
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = [
    "check_metadata",
    "check_reservation",
    "check_statuses",
    "check_submission_id",
    "command_line",
    "runtime_environment",
]

SMALLEST_QUANTITY = 0.0001
"""Smallest quantity of a resource that Ray counts."""

_OWN_ARGUMENTS = {
    "CPU": "Use entrypoint_num_cpus.",
    "GPU": "Use entrypoint_num_gpus.",
    "memory": "Use entrypoint_memory.",
    "object_store_memory": "A job's driver cannot reserve memory of the object store.",
}
"""What to use instead of names that are no custom resources."""

_UNADDRESSABLE = re.compile(r"[/\x00-\x1f\x7f]")


def command_line(entrypoint: Any, *, rendered: bool = True) -> str:
    """Return the shell command of an entrypoint.

    :param entrypoint: a shell command, or a list of arguments, which are quoted
    :param rendered: whether all values are known; before that, templates and XComArgs pass as arguments, and the result
        means nothing
    :raises InvalidArgumentError: it is empty, or neither a string nor a list of strings
    """
    rule = "Use a shell command, or a list of arguments, which must be strings."
    if not rendered and known_at_run_time(entrypoint):
        return ""
    if isinstance(entrypoint, str):
        if not entrypoint.strip() or not is_carried(entrypoint):
            raise InvalidArgumentError("entrypoint", entrypoint, rule)
        return str.__str__(entrypoint)
    if not isinstance(entrypoint, (list, tuple)) or not entrypoint:
        raise InvalidArgumentError("entrypoint", entrypoint, rule)
    known = [part for part in entrypoint if rendered or not known_at_run_time(part)]
    if not all(map(is_carried, known)) or (known == list(entrypoint) and not known[0].strip()):
        raise InvalidArgumentError("entrypoint", entrypoint, rule)
    return shlex.join(map(str.__str__, known))


def check_reservation(cpus: Any, gpus: Any, memory: Any, resources: Any, *, rendered: bool = True) -> None:
    """Validate what a job's driver reserves; None reserves nothing.

    :param cpus: number of CPUs
    :param gpus: number of GPUs
    :param memory: bytes
    :param resources: number of each custom resource, by name
    :param rendered: whether all values are known; before that, XComArgs pass, but no templates
    :raises InvalidArgumentError: a value is not such a number; templates in them are never rendered to numbers
    """
    number = f"Use a number, 0 or at least {SMALLEST_QUANTITY}, or the output of a task that returns one."
    for field, value in (("entrypoint_num_cpus", cpus), ("entrypoint_num_gpus", gpus)):
        if not (value is None or _is_quantity(value) or _is_later(value, rendered)):
            raise InvalidArgumentError(field, value, number)
    if is_number(gpus) and gpus > 1 and gpus % 1:
        raise InvalidArgumentError(
            "entrypoint_num_gpus", gpus, "Use a whole number, or a part of one GPU; Ray shares no second one."
        )
    if not (memory is None or (is_whole(memory) and memory >= 0) or _is_later(memory, rendered)):
        raise InvalidArgumentError("entrypoint_memory", memory, "Use a whole number of bytes, 0 or more.")
    if resources is None or _is_later(resources, rendered):
        return
    if not isinstance(resources, Mapping):
        raise InvalidArgumentError("entrypoint_resources", resources, "Use a dict of numbers, by name of resource.")
    for name, value in resources.items():
        field = f"entrypoint_resources[{name!r}]"
        if not isinstance(name, str) or not name.strip() or not is_carried(name):
            raise InvalidArgumentError(field, name, "Use a non-empty string as the name of a resource.")
        if name in _OWN_ARGUMENTS:
            raise InvalidArgumentError(field, name, f"It is not a custom resource. {_OWN_ARGUMENTS[name]}")
        if not (_is_quantity(value) or _is_later(value, rendered)):
            raise InvalidArgumentError(field, value, number)


def _is_quantity(value: Any) -> bool:
    return bool(is_number(value) and (value == 0 or value >= SMALLEST_QUANTITY))


def _is_later(value: Any, rendered: bool) -> bool:
    return not rendered and known_at_run_time(value) and not isinstance(value, str)


def check_metadata(metadata: Any, *, rendered: bool = True) -> None:
    """Validate the metadata of a job.

    :param metadata: strings by name, or None
    :param rendered: whether all values are known; before that, templates and XComArgs pass
    :raises InvalidArgumentError: it is not a dict of strings
    """
    if metadata is None or (not rendered and known_at_run_time(metadata)):
        return
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError("metadata", metadata, "Use a dict of strings.")
    for key, value in metadata.items():
        if not is_carried(key) or not (is_carried(value) or (not rendered and known_at_run_time(value))):
            raise InvalidArgumentError(f"metadata[{key!r}]", value, "Use strings as names and values.")


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


LONGEST_SUBMISSION_ID = 240
"""Maximum size of a submission id in bytes: Ray's file ``job-driver-ID.log`` has a name of at most 255."""


def check_submission_id(submission_id: Any) -> None:
    """Validate a submission id; a template or an XCom reference passes.

    :raises InvalidArgumentError: it is missing or empty, or Ray's Jobs API cannot address it
    """
    if submission_id is None or (isinstance(submission_id, str) and not submission_id.strip()):
        raise InvalidArgumentError("submission_id", submission_id, "Use the id of a job.")
    if known_at_run_time(submission_id):
        return
    rule = (
        f"Use a string of at most {LONGEST_SUBMISSION_ID} bytes without slashes and control characters, other than "
        "'.' and '..'."
    )
    if submission_id == "None":
        rule = MISSING_RULE
    elif (
        is_carried(submission_id)
        and submission_id not in (".", "..")
        and not _UNADDRESSABLE.search(submission_id)
        and len(submission_id.encode()) <= LONGEST_SUBMISSION_ID
    ):
        return
    raise InvalidArgumentError("submission_id", submission_id, rule)
