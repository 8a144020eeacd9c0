"""Type checks of operator and sensor arguments, made at DAG parse and again after rendering.

Each function takes arguments by name, so that an error names the field. A value that is known only when the task runs
(a template, an XComArg, or a callable, which Airflow calls while it renders) passes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_vertex_ray.core.checks import (
    check_flag,
    did_you_mean,
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


_OTHER_NAMES = {"region": "location", "conn_id": "gcp_conn_id", "cluster": "cluster_id", "command": "entrypoint"}
"""Names that other packages use for the same thing."""


def refuse_unknown_arguments(task: type, base: type, given: Mapping[str, Any]) -> None:
    """Validate that a task knows all of its arguments; the error names the one that is probably meant.

    :param task: class of the operator or sensor.
    :param base: Airflow's own base class of it.
    :param given: arguments that no class of this package has taken.
    :raises InvalidArgumentError: an argument is unknown.
    """
    known = _parameters(base)
    for name in given:
        # Those that begin so are Airflow's own messages to its base class.
        if name in known or name.startswith("_airflow"):
            continue
        own = sorted(_parameters(task))
        longer = [each for each in own if each.endswith(f"_{name}")]
        other = [each for each in own if each == _OTHER_NAMES.get(name)]
        likely = (other or longer)[:1]
        hint = f" Did you mean {likely[0]}?" if likely else did_you_mean(name, own)
        # A structure may hold secrets, such as the environment variables under another name.
        value = given[name]
        shown = value if value is None or isinstance(value, (bool, int, float, str)) else type(value)
        raise InvalidArgumentError(name, shown, f"{task.__name__} has no argument of this name.{hint}")


# A DAG file may have hundreds of tasks, and reading a signature takes longer than all other checks of one.
@functools.cache
def _parameters(kind: type) -> frozenset[str]:
    """Return the names of the arguments of a class, and of those that it inherits from."""
    return frozenset(
        parameter.name
        for each in kind.__mro__
        if "__init__" in vars(each)
        for parameter in inspect.signature(vars(each)["__init__"]).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and parameter.name != "self"
    )


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
