"""Python objects as Arrow arrays: one family of types for a column, and the same keys in all records.

``pyarrow`` fills a key that some records lack with NULL, takes the date of a datetime if a date came before it, and
ignores the time zone of all but the first. A step must not change a value, so all of that is an error here.
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .fields import SchemaError

__all__ = ["array_of"]

_TOGETHER = ({"an integer", "a float"}, {"an integer", "a decimal"})
"""Families that may be mixed, because one of them holds the values of the other."""


def array_of(values: Any, path: str) -> Any:
    """Return an Arrow array of Python objects.

    None, ``pandas.NA`` and ``NaT`` are NULL; NaN is NULL among values that are no numbers.

    :param values: the values: a list, or an array of objects.
    :param path: path of the column, for errors.
    :raises SchemaError: the values are not of one type that BigQuery has.
    """
    return _array(list(values), path, range(len(values)))


def _array(values: list[Any], path: str, rows: Sequence[int]) -> Any:
    import numpy as np
    import pyarrow as pa

    kinds = {kind: _family(kind) for kind in set(map(type, values))}
    # The usual case, which needs no look at each value.
    if {family for kind, family in kinds.items() if kind is not type(None)} == {"a string"}:
        return _scalars(values, path, rows)
    if kinds.keys() - {type(None)}:
        values = _without_missing(values)
    families = [
        None if value is None else _family_of(value, kinds, path, row) for value, row in zip(values, rows, strict=True)
    ]
    found = {family for family in families if family is not None}
    if not found:
        return pa.nulls(len(values))
    if len(found) > 1 and found not in _TOGETHER:
        first = next(place for place, family in enumerate(families) if family is not None)
        other = next(place for place, family in enumerate(families) if family not in (None, families[first]))
        raise SchemaError(
            f"Column {path!r} contains {families[first]} in row {rows[first]} of the batch and {families[other]} in "
            f"row {rows[other]}. Return values of one type."
        )
    if found & {"a float", "a decimal"}:
        # Beside integers, Arrow takes NumPy's half floats for integers: 0.75 would become 0.
        values = [_number(value) if isinstance(value, np.number) else value for value in values]
    if found == {"a record"}:
        return _records(values, path, rows)
    if found == {"a list"}:
        return _lists(values, path, rows)
    return _scalars(values, path, rows)


def _number(value: Any) -> Any:
    """Return a number of NumPy's as one of Python's, unless that has not its precision."""
    return value if value.itemsize > 8 else value.item()


def _scalars(values: list[Any], path: str, rows: Sequence[int]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, from_pandas=False)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        for value, row in zip(values, rows, strict=True):
            try:
                pa.array([value], from_pandas=False)
            except (pa.ArrowException, ValueError, TypeError, OverflowError) as reason:
                raise SchemaError(
                    f"Column {path!r}, row {row} of the batch, value {value!r:.80}: Arrow cannot hold it: {reason}."
                ) from None
        raise SchemaError(f"Column {path!r}: Arrow cannot hold its values: {error}.") from None


def _records(values: list[Any], path: str, rows: Sequence[int]) -> Any:
    import pyarrow as pa

    first = next(place for place, value in enumerate(values) if value is not None)
    keys = list(values[first])
    wanted = set(keys)
    for value, row in zip(values, rows, strict=True):
        if value is None or value.keys() == wanted:
            continue
        differing = sorted(map(repr, wanted ^ set(value)))
        raise SchemaError(
            f"Column {path!r}, row {row} of the batch: the records of rows {rows[first]} and {row} differ in the keys "
            f"{', '.join(differing)}. Return the same keys in all records, with None for NULL."
        )
    wrong = [key for key in keys if not isinstance(key, str)]
    if wrong:
        raise SchemaError(f"Column {path!r}: the key {wrong[0]!r} is not a string.")
    parts = [_array([None if value is None else value[key] for value in values], f"{path}.{key}", rows) for key in keys]
    missing = [value is None for value in values]
    return pa.StructArray.from_arrays(
        parts,
        fields=[pa.field(key, part.type) for key, part in zip(keys, parts, strict=True)],
        mask=pa.array(missing) if any(missing) else None,
    )


def _lists(values: list[Any], path: str, rows: Sequence[int]) -> Any:
    import pyarrow as pa

    offsets: list[int | None] = []
    flat: list[Any] = []
    parents: list[int] = []
    for value, row in zip(values, rows, strict=True):
        offsets.append(None if value is None else len(flat))
        if value is not None:
            # An array's own list would turn times of nanoseconds into numbers.
            flat.extend(value)
            parents.extend([row] * (len(flat) - len(parents)))
    offsets.append(len(flat))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _array(flat, f"{path}[]", parents))


def _without_missing(values: list[Any]) -> list[Any]:
    """Return the values with None for what means a missing value."""
    found = [None if _is_missing(value) else value for value in values]
    if any(isinstance(value, float) and math.isnan(value) for value in found):
        others = [
            value for value in found if value is not None and not (isinstance(value, float) and math.isnan(value))
        ]
        if others and not any(_family(type(value)) in ("a float", "an integer") for value in others):
            return [None if isinstance(value, float) and math.isnan(value) else value for value in found]
    return found


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    if type(value).__name__ in ("NAType", "NaTType"):
        return True
    return type(value).__name__ in ("datetime64", "timedelta64") and str(value) == "NaT"


def _family(kind: type) -> str | None:
    import numpy as np

    if issubclass(kind, (bool, np.bool_)):
        return "a boolean"
    for family, types in (
        ("an integer", (int, np.integer)),
        ("a float", (float, np.floating)),
        ("a string", (str,)),
        ("bytes", (bytes, bytearray, memoryview)),
        ("a decimal", (decimal.Decimal,)),
        ("a datetime", (datetime.datetime,)),
        ("a date", (datetime.date,)),
        ("a time", (datetime.time,)),
        ("a numpy.datetime64", (np.datetime64,)),
        ("a record", (Mapping,)),
        ("a list", (list, tuple, np.ndarray)),
    ):
        if issubclass(kind, types) and not issubclass(kind, np.timedelta64):
            return family
    return None


def _family_of(value: Any, kinds: dict[type, str | None], path: str, row: int) -> str:
    family = kinds.get(type(value)) or _family(type(value))
    wrong = None
    if family is None:
        wrong = f"{type(value).__module__}.{type(value).__qualname__} is no type that BigQuery has"
    elif family == "a decimal" and not value.is_finite():
        wrong = "BigQuery's decimals are finite"
    elif family == "a time" and value.tzinfo is not None:
        wrong = "BigQuery's times have no time zone"
    elif family == "a list" and getattr(value, "ndim", 1) != 1:
        wrong = "BigQuery has no lists of lists"
    if wrong:
        raise SchemaError(f"Column {path!r}, row {row} of the batch, value {value!r:.80}: {wrong}.")
    if family == "a datetime":
        return "a datetime with a time zone" if value.tzinfo is not None else "a datetime without a time zone"
    return str(family)
