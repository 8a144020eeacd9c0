"""Instances of a prediction as the JSON that the service reads: ``google.protobuf.Value``."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["encode"]

LARGEST_NUMBER = 2**53
"""Largest integer up to which all integers are exact: the service reads every number as a double."""

DEEPEST = 100
"""Maximum nesting depth of lists and dicts."""

Later = Callable[[Any], bool]


def encode(value: Any, field: str, later: Later | None = None) -> Any:
    """Return instances or parameters as JSON values.

    NumPy's scalars become numbers, its arrays and other sequences become lists, and dates and times become ISO 8601
    strings.

    :param value: the instances, one of them, or the parameters
    :param field: name of the value, for errors
    :param later: recognises values that are not known yet; they become None
    :raises InvalidArgumentError: it contains what JSON, or a double, cannot represent; the error names its place
    """
    try:
        found = _plain(_lists(value), field, later, ())
    except RecursionError:
        raise _refused(field, value, "The value is nested too deeply, or contains itself.") from None
    _check_numbers(found, field)
    return found


def _refused(path: str, value: Any, rule: str) -> InvalidArgumentError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return InvalidArgumentError(path, kind, rule)


def _plain(value: Any, path: str, later: Later | None, inside: tuple[int, ...]) -> Any:
    if later is not None and later(value):
        return None
    if value is None or isinstance(value, (bool, str, int, float)):
        return _scalar(value, path)
    if isinstance(value, (datetime.date, datetime.time)):
        text = str(value.isoformat())
        if text == "NaT":
            raise _refused(path, value, "Use None instead of NaT.")
        return text
    if isinstance(value, (Mapping, Sequence)) and not isinstance(value, (bytes, bytearray, memoryview)):
        if id(value) in inside:
            raise _refused(path, value, "Remove the reference to itself.")
        if len(inside) >= DEEPEST:
            raise _refused(path, value, f"Use at most {DEEPEST} levels of nesting.")
        inside = (*inside, id(value))
        if isinstance(value, Mapping):
            return {
                _key(key, path): _plain(item, f"{path}[{key!r}]", later, inside) for key, item in list(value.items())
            }
        return [_plain(item, f"{path}[{place}]", later, inside) for place, item in enumerate(value)]
    if getattr(value, "shape", None) == () and hasattr(getattr(value, "dtype", None), "kind"):
        return _numpy_scalar(value, path)
    raise _refused(path, value, _advice(value))


def _scalar(value: Any, path: str) -> Any:
    # Subclasses (such as enumerations, or NumPy's float64) become their value.
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return value.encode().decode()
        except UnicodeEncodeError:
            raise _refused(path, value, "Use a string without lone surrogates.") from None
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise _refused(path, value, "Use None: JSON has neither NaN nor infinity.")
    return float(value)


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise _refused(f"{path}: the key {key!r}", key, "Use str(key): keys must be strings.")
    return str(_scalar(key, path))


def _numpy_scalar(value: Any, path: str) -> Any:
    kind = value.dtype.kind
    if kind == "b":
        return bool(value)
    if kind in "iu":
        return int(value)
    if kind == "f":
        return _scalar(float(value), path)
    if kind == "M" and str(value) != "NaT":
        return str(value)
    raise _refused(path, value, "Use a number, boolean or time: other NumPy scalars are not supported.")


def _advice(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "Use a string, such as its Base64 form."
    if isinstance(value, (set, frozenset)):
        return "Use sorted(...) of it."
    if isinstance(value, datetime.timedelta):
        return "Use its total_seconds()."
    if hasattr(value, "to_dict"):
        return "Use to_dict(...) of it."
    if type(value).__name__ in ("Decimal", "UUID", "Fraction"):
        return "Use str(...) of it."
    return "Use None, booleans, numbers, strings, dates, lists and dicts."


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
