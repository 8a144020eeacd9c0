"""Type checks of operator and sensor arguments, made at DAG parse and again after rendering.

Each function takes arguments by name, so that an error names the field. A value that is known only when the task runs
(a template, an XComArg, or a callable, which Airflow calls while it renders) passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vertex_ray.core.checks import (
    check_flag,
    is_carried,
    is_everything_known,
    is_number,
    is_whole,
    known_at_run_time,
)
from airflow_provider_vertex_ray.core.cluster.name import validate_location
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError


def _is_open(value: Any) -> bool:
    return value is None or known_at_run_time(value) or (callable(value) and not is_everything_known())


def check_strings(**arguments: Any) -> None:
    """Validate that each argument is a string that can be stored and sent, if it is set.

    :raises InvalidArgumentError: an argument has another type, or contains NUL or a lone surrogate.
    """
    for field, value in arguments.items():
        if not _is_open(value):
            check_carried(field, value)


def check_carried(field: str, value: Any) -> str:
    """Return an argument once it is validated: it must be a string that can be stored and sent.

    :raises InvalidArgumentError: it has another type, or contains NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidArgumentError(field, value, "Use a string.")
    if not is_carried(value):
        raise InvalidArgumentError(field, value, "Use a string without NUL and lone surrogates.")
    return value


def check_mappings(**arguments: Any) -> None:
    """Validate that each argument is a dict, if it is set.

    :raises InvalidArgumentError: an argument has another type.
    """
    for field, value in arguments.items():
        if not _is_open(value) and not isinstance(value, Mapping):
            raise InvalidArgumentError(field, value, "Use a dict.")


def check_lists(**arguments: Any) -> None:
    """Validate that each argument is a list or tuple, if it is set; a string is not.

    :raises InvalidArgumentError: an argument has another type.
    """
    for field, value in arguments.items():
        if not _is_open(value) and (isinstance(value, (str, bytes)) or not isinstance(value, Sequence)):
            raise InvalidArgumentError(field, value, "Use a list.")


def check_flags(**arguments: Any) -> None:
    """Validate that each argument is True or False.

    :raises InvalidArgumentError: an argument has another type.
    """
    for field, value in arguments.items():
        check_flag(field, value)


def check_amounts(**arguments: Any) -> None:
    """Validate that each argument is a number of 0 or more, if it is set.

    :raises InvalidArgumentError: an argument is not such a number.
    """
    for field, value in arguments.items():
        if value is not None and not (is_number(value) and value >= 0):
            raise InvalidArgumentError(field, value, "Use a number of 0 or more.")


def check_counts(**arguments: Any) -> None:
    """Validate that each argument is a whole number of 1 or more, if it is set.

    :raises InvalidArgumentError: an argument is not such a number.
    """
    for field, value in arguments.items():
        if value is not None and not (is_whole(value) and value >= 1):
            raise InvalidArgumentError(field, value, "Use a whole number of 1 or more.")


def check_locations(locations: Any) -> None:
    """Validate a list of regions; templates pass.

    :raises InvalidArgumentError: it is not a list, it is empty, or a region is malformed or repeated.
    """
    if _is_open(locations) and locations is not None:
        return
    if isinstance(locations, (str, bytes)) or not isinstance(locations, Sequence) or not locations:
        raise InvalidArgumentError("locations", locations, "Use a list of at least one region.")
    for place, each in enumerate(locations):
        if not known_at_run_time(each):
            validate_location(each, f"locations[{place}]")
        if each in locations[:place]:
            raise InvalidArgumentError(f"locations[{place}]", each, "Name each region once.")


def resolve_deferrable(deferrable: Any) -> bool:
    """Return whether a task waits in the triggerer; None means Airflow's ``[operators] default_deferrable``.

    :raises InvalidArgumentError: the value is not True, False or None.
    """
    if deferrable is None:
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
    check_flag("deferrable", deferrable)
    return bool(deferrable)


def spec_fields(spec: Any) -> Any:
    """Return a cluster spec as a dict of its fields, in which Airflow renders templates.

    :param spec: the ``spec`` argument; a value that is known only when the task runs is returned as it is.
    :raises InvalidArgumentError: the spec is malformed.
    """
    return spec if known_at_run_time(spec) else ClusterSpec.from_value(spec).to_dict()
