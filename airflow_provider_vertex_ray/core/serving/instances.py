"""Instances of a prediction as the JSON that the service reads: ``google.protobuf.Value``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.remote.runner import NotPlainError, plain

__all__ = ["encode"]

LARGEST_NUMBER = 2**53
"""Largest integer up to which all integers are exact: the service reads every number as a double."""


def encode(value: Any, field: str, later: Callable[[Any], bool] | None = None) -> Any:
    """Return instances or parameters as JSON values.

    NumPy's scalars become numbers, its arrays become lists, and dates and times become ISO 8601 strings.

    :param value: the instances, one of them, or the parameters
    :param field: name of the value, for errors
    :param later: recognises values that are not known yet; they become None
    :raises InvalidArgumentError: it contains what JSON, or a double, cannot represent; the error names its place
    """
    try:
        found = plain(_lists(value), field, later)
    except NotPlainError as error:
        raise InvalidArgumentError(error.path, error.kind, error.rule) from None
    _check_numbers(found, field)
    return found


def _lists(value: Any) -> Any:
    """Return a value with lists in place of NumPy's arrays."""
    if getattr(value, "shape", None) and hasattr(value, "tolist") and hasattr(value, "dtype"):
        # By item, because the list of an array of times has numbers.
        return [_lists(each) for each in value]
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(each) for each in value]
    return value


def _check_numbers(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _check_numbers(each, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for place, each in enumerate(value):
            _check_numbers(each, f"{path}[{place}]")
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST_NUMBER:
        raise InvalidArgumentError(path, value, "Use a string: the service reads numbers as doubles, which change it.")
