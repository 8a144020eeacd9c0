"""Make blocks of Arrow conform to BigQuery's fields: every value is carried as it is, or an error names it.

``pyarrow`` converts more than this step may: a timestamp to its date, a number to a boolean, and a record to one with
other keys. So each pair of types is allowed here explicitly, and records are compared at every depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .arrow_types import DECIMAL_DIGITS, arrow_type, fields_of, is_binary, is_list, is_text, plain_columns, storage
from .fields import Field, SchemaError, kind_of, mode_of, names_of, nullable

__all__ = ["SchemaError", "conform", "fields_of", "plain_columns"]

_FIRST_DAY, _LAST_DAY = -719162, 2932896
"""0001-01-01 and 9999-12-31, in days since 1970."""

_DAY = 86_400_000_000
"""Microseconds of a day."""

_LONGEST_VALUE = 80


@dataclass(frozen=True)
class _Place:
    """Where an array lies in a batch, for errors.

    :param path: path of the column.
    :param said_by: origin of the fields.
    :param first: row of the batch at which the array starts.
    :param rows: for each item, its row from ``first`` on; None if the items are the rows.
    """

    path: str
    said_by: str
    first: int = 0
    rows: Any = None

    def inside(self, name: str) -> _Place:
        return replace(self, path=f"{self.path}.{name}")

    def items(self, parents: Any) -> _Place:
        rows = parents if self.rows is None else self.rows.take(parents)
        return replace(self, path=f"{self.path}[]", rows=rows)

    def error(self, array: Any, index: int | None, reason: str) -> SchemaError:
        """Return the error for one value of an array; the first one if its index is unknown."""
        if index is None:
            index = next((place for place in range(len(array)) if array[place].is_valid), None)
        if index is None:
            return SchemaError(f"Column {self.path!r} ({array.type}) {reason}.")
        row = self.first + (index if self.rows is None else self.rows[index].as_py())
        shown = _shown(array, index)
        return SchemaError(f"Column {self.path!r} (row {row} of the batch, {array.type}, value {shown}) {reason}.")


def _shown(array: Any, index: int) -> str:
    try:
        text = repr(array[index].as_py())
    except (ValueError, OverflowError, ImportError, KeyError):
        # Python has no such time or time zone; Arrow's own form has.
        text = " ".join(array.slice(index, 1).to_string().split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def conform(table: Any, fields: Sequence[Field], said_by: str) -> Any:
    """Return the table with exactly the given columns, in their order and with their types.

    Names are compared without case, as in BigQuery. JSON columns become texts.

    :param table: a ``pyarrow.Table``.
    :param fields: the BigQuery fields.
    :param said_by: origin of the fields, for errors.
    :raises SchemaError: the table has other columns, or a value does not fit; the error names column, row and value.
    """
    import pyarrow as pa

    given = {name.lower(): place for place, name in enumerate(table.column_names)}
    wanted = {str(field["name"]).lower(): str(field["name"]) for field in fields}
    missing = [wanted[name] for name in wanted if name not in given]
    extra = [table.column_names[place] for name, place in given.items() if name not in wanted]
    if missing or extra or len(given) != table.num_columns:
        raise SchemaError(
            f"The transform returned rows {_difference(missing, extra, 'columns')}; {said_by} has the columns "
            f"{', '.join(wanted.values())}."
        )
    columns, parts = [], []
    for field in fields:
        column, chunks, first = table.column(given[str(field["name"]).lower()]), [], 0
        for chunk in column.chunks:
            chunks.append(_convert(chunk, field, _Place(str(field["name"]), said_by, first), None))
            first += len(chunk)
        kind = arrow_type(field)
        columns.append(pa.chunked_array(chunks, kind))
        parts.append(pa.field(str(field["name"]), kind, nullable=mode_of(field) != "REQUIRED"))
    return pa.Table.from_arrays(columns, schema=pa.schema(parts))


def _difference(missing: list[str], extra: list[str], what: str) -> str:
    parts = [f"without {', '.join(missing)}"] if missing else []
    parts += [f"with the additional {what} {', '.join(extra)}"] if extra else []
    return " and ".join(parts or [f"with two {what} of the same name"])


def _convert(array: Any, field: Field, place: _Place, present: Any) -> Any:
    """Return an array with the type of a field.

    :param present: where the surrounding record is not NULL; None for everywhere.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_a

    array = _plain(array, place.path)
    if mode_of(field) == "REPEATED":
        return _convert_list(array, field, place)
    if is_list(array.type):
        raise place.error(array, None, f"is a list, and {place.said_by} has one value in each row there")
    if mode_of(field) == "REQUIRED" and array.null_count:
        missing = array.is_null() if present is None else pc.and_(array.is_null(), present)
        if pc.any(missing).as_py():
            raise place.error(
                array, pc.index(missing, True).as_py(), f"is NULL, which {place.said_by} does not allow there"
            )
    if is_a.is_null(array.type):
        array = pa.nulls(len(array), arrow_type(nullable(field)))
    if kind_of(field) == "RECORD":
        return _convert_record(array, field, place)
    found = _convert_scalar(array, field, place)
    if mode_of(field) == "REQUIRED" and found.null_count:
        # Parquet has no NULL in a required column, even where the surrounding record is NULL and hides it.
        return pc.fill_null(found, _anything(found.type))
    return found


def _anything(kind: Any) -> Any:
    """Return a value of a type."""
    import pyarrow as pa

    if is_text(kind) or is_binary(kind):
        return pa.scalar("").cast(kind)
    wide = pa.types.is_time64(kind) or pa.types.is_timestamp(kind)
    return pa.array([0], pa.int64() if wide else pa.int32()).cast(kind)[0]


def _plain(array: Any, path: str) -> Any:
    """Return an array without dictionaries, run ends, views of texts and extension types."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_a

    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        storage(kind, path)
        return _plain(array.storage, path)
    if is_a.is_dictionary(kind):
        return _plain(array.dictionary_decode(), path)
    if is_a.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array), path)
    if is_a.is_map(kind):
        return array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    if is_a.is_fixed_size_list(kind):
        return array.cast(pa.list_(kind.value_type))
    if str(kind) in ("string_view", "binary_view"):
        return array.cast(pa.large_string() if str(kind) == "string_view" else pa.large_binary())
    return array


def _convert_list(array: Any, field: Field, place: _Place) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as is_a

    kind = arrow_type(field)
    if is_a.is_null(array.type):
        # BigQuery stores a NULL array as an empty one.
        return pa.ListArray.from_arrays(
            pa.array(np.zeros(len(array) + 1, np.int32)), pa.nulls(0, kind.value_type), kind
        )
    if not is_list(array.type):
        raise place.error(array, None, f"is not a list, and {place.said_by} has an array there")
    inner = array.flatten()
    if is_list(_plain(inner, place.path).type):
        raise place.error(array, None, "is a list of lists, which BigQuery does not support")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    # Not Arrow's list_parent_indices, which has none for views of lists.
    parents = pa.array(np.repeat(np.arange(len(array)), lengths))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    values = _convert(inner, {**field, "mode": "REQUIRED"}, place.items(parents), None)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, kind)


def _convert_record(array: Any, field: Field, place: _Place) -> Any:
    import pyarrow as pa
    import pyarrow.types as is_a

    if not is_a.is_struct(array.type):
        raise place.error(array, None, f"is not a record, and {place.said_by} has one there")
    names = [array.type.field(index).name for index in range(array.type.num_fields)]
    given = {name.lower(): index for index, name in enumerate(names)}
    wanted = names_of(field["fields"])
    missing = [str(each["name"]) for name, each in wanted.items() if name not in given]
    extra = [names[index] for name, index in given.items() if name not in wanted]
    if missing or extra or len(given) != len(names):
        keys = ", ".join(str(each["name"]) for each in field["fields"])
        reason = f"is a record {_difference(missing, extra, 'keys')}; {place.said_by} has the keys {keys}"
        raise place.error(array, None, reason)
    inner, present = array.flatten(), array.is_valid() if array.null_count else None
    kind = arrow_type({**field, "mode": "NULLABLE"})
    parts = [
        _convert(inner[given[name]], each, place.inside(str(each["name"])), present) for name, each in wanted.items()
    ]
    found = [kind.field(index) for index in range(kind.num_fields)]
    masked = array.null_count and mode_of(field) != "REQUIRED"
    return pa.StructArray.from_arrays(parts, fields=found, mask=array.is_null() if masked else None)


def _convert_scalar(array: Any, field: Field, place: _Place) -> Any:
    import pyarrow as pa
    import pyarrow.types as is_a

    kind, given = kind_of(field), array.type
    wanted = arrow_type({**field, "mode": "NULLABLE"})
    naive = is_a.is_timestamp(given) and not given.tz
    allowed = {
        "BOOL": is_a.is_boolean(given),
        "INT64": is_a.is_integer(given) or is_a.is_floating(given),
        "FLOAT64": is_a.is_floating(given) or is_a.is_integer(given),
        "NUMERIC": is_a.is_decimal(given) or is_a.is_integer(given),
        "BIGNUMERIC": is_a.is_decimal(given) or is_a.is_integer(given),
        "STRING": is_text(given),
        "JSON": is_text(given),
        "BYTES": is_binary(given),
        "DATE": is_a.is_date(given) or naive,
        "TIME": is_a.is_time(given),
        "DATETIME": naive or is_a.is_date(given),
        "TIMESTAMP": is_a.is_timestamp(given),
    }[kind]
    if not allowed:
        raise place.error(array, None, f"does not fit {_typed(field)} of {place.said_by}: {_remedy(kind, given)}")
    # Times are truncated to microseconds, because BigQuery has none finer. Nothing else may be cut.
    fine = (is_a.is_timestamp(given) or is_a.is_time64(given)) and given.unit == "ns"

    def cast(part: Any) -> Any:
        found = part.cast(wanted, safe=not (fine and is_a.is_temporal(wanted)))
        if kind == "DATE" and not is_a.is_date32(given) and not found.cast(given).equals(part):
            raise pa.ArrowInvalid("it has a time of day, which would be lost")
        _check_range(found, field)
        return found

    try:
        return cast(array)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        index, reason = _first_bad(array, cast, str(error))
        raise place.error(
            array, index, f"does not fit {_typed(field)} of {place.said_by}: {reason.rstrip('.')}"
        ) from None


def _typed(field: Field) -> str:
    found = [str(field[key]) for key in ("precision", "scale", "maxLength") if field.get(key)]
    return f"{kind_of(field)}({', '.join(found)})" if found else kind_of(field)


def _remedy(kind: str, given: Any) -> str:
    import pyarrow.types as is_a

    if kind == "JSON":
        return "convert it with json.dumps in the transform"
    if kind in ("NUMERIC", "BIGNUMERIC") and is_a.is_floating(given):
        return "convert it to decimal.Decimal in the transform, with the rounding that is right"
    if kind in ("DATE", "DATETIME") and is_a.is_timestamp(given):
        return "convert it to the wall time that is meant, without a time zone, in the transform"
    return "convert it in the transform"


def _check_range(array: Any, field: Field) -> None:
    """Validate what BigQuery's types allow beyond those of Arrow.

    :raises pyarrow.ArrowInvalid: a value is out of range, or too long.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = kind_of(field)
    if kind in ("DATE", "DATETIME", "TIMESTAMP"):
        numbers, step = (array.cast(pa.int32()), 1) if kind == "DATE" else (array.cast(pa.int64()), _DAY)
        bounds = pc.min_max(numbers).as_py()
        if bounds["min"] is not None and (
            bounds["min"] < _FIRST_DAY * step or bounds["max"] > (_LAST_DAY + 1) * step - 1
        ):
            raise pa.ArrowInvalid("BigQuery has the years 1 to 9999 only")
    elif kind == "TIME":
        bounds = pc.min_max(array.cast(pa.int64())).as_py()
        for microseconds in bounds.values():
            if microseconds is not None and not 0 <= microseconds < _DAY:
                # Python shows another time.
                raise pa.ArrowInvalid(f"{microseconds} microseconds are not a time of day")
    elif kind in ("NUMERIC", "BIGNUMERIC") and field.get("precision"):
        digits, scale = int(field["precision"]), int(field.get("scale") or 0)
        array.cast(pa.decimal128(digits, scale) if digits <= DECIMAL_DIGITS else pa.decimal256(digits, scale))
    if kind in ("STRING", "JSON"):
        # Arrow itself takes any bytes as a text.
        array.validate(full=True)
    if kind in ("STRING", "BYTES") and field.get("maxLength"):
        length = pc.utf8_length(array) if kind == "STRING" else pc.binary_length(array)
        if (pc.max(length).as_py() or 0) > int(field["maxLength"]):
            raise pa.ArrowInvalid("it is too long")


def _first_bad(array: Any, cast: Callable[[Any], Any], reason: str) -> tuple[int | None, str]:
    """Return the index of the first value that cannot be cast, and the reason."""
    import pyarrow as pa

    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            cast(array.slice(low, middle - low))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            high = middle
        else:
            low = middle
    try:
        cast(array.slice(low, high - low))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        return low, str(error)
    return None, reason
