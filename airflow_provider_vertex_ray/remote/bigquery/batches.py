"""Batches for the transform, and what it returns, as Arrow.

Arrow is what BigQuery gives and takes. Ray's own conversions to pandas and NumPy lose what those have no type for: NULL
in a column of integers makes it a column of floats, and dates become times. So a batch reaches the transform as pandas
with types that have NULL, or as NumPy arrays that hold Python objects wherever NumPy has no such type.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .arrow_types import plain_columns
from .fields import SchemaError
from .objects import array_of

__all__ = ["batch_of", "table_of", "wrapped"]


def batch_of(table: Any, batch_format: str) -> Any:
    """Return a ``pyarrow.Table`` as a batch.

    :param table: the rows.
    :param batch_format: ``pandas``, ``pyarrow`` or ``numpy``.
    """
    if batch_format == "pyarrow":
        return table
    if batch_format == "pandas":
        import pandas as pd  # type: ignore[import-untyped]

        if not hasattr(pd, "ArrowDtype"):
            raise SchemaError(
                f"pandas {pd.__version__} on the cluster has no Arrow types. Install pandas 2 or later on it, or use "
                "batch_format='pyarrow'."
            )
        import pyarrow as pa

        # Without it, pandas 3 takes NaN for NULL in its types with NULL; pandas 2 has no such option, and does not.
        with contextlib.suppress(KeyError):
            pd.set_option("future.distinguish_nan_and_na", True)
        # pandas' own types with NULL where they are exact: its Arrow types lack some operators, such as %.
        own = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return table.to_pandas(types_mapper=lambda kind: own.get(kind) or pd.ArrowDtype(kind))
    return {name: _numpy(table.column(place)) for place, name in enumerate(table.column_names)}


def _numpy(column: Any) -> Any:
    import numpy as np
    import pyarrow.types as is_a

    kind = column.type
    if is_a.is_timestamp(kind) or is_a.is_date32(kind):
        # NumPy's times are in UTC, and have a NULL of their own.
        return np.array(column.to_numpy())
    plain = is_a.is_integer(kind) or is_a.is_floating(kind) or is_a.is_boolean(kind)
    if plain and not column.null_count:
        return np.array(column.to_numpy())
    found = np.empty(len(column), dtype=object)
    for place, value in enumerate(column.to_pylist()):
        found[place] = value
    return found


def table_of(batch: Any, source: Any = None) -> Any:
    """Return what a transform returned as a ``pyarrow.Table``.

    :param batch: a ``pyarrow.Table``, a ``pandas.DataFrame``, or a mapping of names to arrays or lists.
    :param source: schema of the batch that the transform was given; None if unknown. NumPy's times have no time zone: a
        column that was a TIMESTAMP is one again.
    :raises SchemaError: it is none of them, or contains what BigQuery has no type for.
    """
    import pyarrow as pa

    if isinstance(batch, pa.RecordBatch):
        batch = pa.Table.from_batches([batch])
    if isinstance(batch, pa.Table):
        return plain_columns(batch)
    if type(batch).__module__.partition(".")[0] == "pandas" and hasattr(batch, "columns"):
        return _from_pandas(batch)
    if not isinstance(batch, Mapping):
        raise SchemaError(
            f"The transform returned {type(batch).__qualname__}. Return a pyarrow.Table, a pandas.DataFrame, or a dict "
            "of arrays."
        )
    columns = {_name(name): _from_numpy(_name(name), values) for name, values in batch.items()}
    for name, column in columns.items():
        if source is not None and name in source.names and pa.types.is_timestamp(column.type) and not column.type.tz:
            before, made = source.field(name).type, getattr(batch[name], "dtype", None)
            if pa.types.is_timestamp(before) and before.tz and getattr(made, "kind", "") == "M":
                columns[name] = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    return _table(list(columns), list(columns.values()))


def _table(names: list[str], columns: list[Any]) -> Any:
    import pyarrow as pa

    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        raise SchemaError(f"The transform returned columns of different lengths: {lengths}.")
    return pa.Table.from_arrays(columns, names=names)


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise SchemaError(f"The transform returned a column with the name {name!r}, which is not a string.")
    return name


def _from_pandas(frame: Any) -> Any:
    lost = [name for name in frame.index.names if name is not None]
    if lost:
        raise SchemaError(
            f"The transform returned an index with the name {', '.join(map(repr, lost))}, which is no column. Use "
            "reset_index() to keep it, or reset_index(drop=True)."
        )
    names = [_name(name) for name in frame.columns]
    return _table(names, [_from_series(name, frame.iloc[:, place]) for place, name in enumerate(names)])


def _from_series(name: str, series: Any) -> Any:
    import pyarrow as pa

    if series.dtype == object:
        return array_of(series.tolist(), name)
    try:
        # NaN of a NumPy column stays NaN, which is not NULL in BigQuery.
        values = series.array.to_numpy() if type(series.dtype).__module__.startswith("numpy") else series.array
        found = pa.array(values, from_pandas=False)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        raise SchemaError(f"Column {name!r} of the type {series.dtype}: Arrow cannot hold it: {error}.") from None
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) and found.num_chunks == 1 else found


def _from_numpy(name: str, values: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if values.ndim != 1:
            raise SchemaError(f"Column {name!r} is a masked array of {values.ndim} dimensions. Use one dimension.")
        return array_of([None if gone else value for value, gone in zip(values.data, mask, strict=True)], name)
    if not isinstance(values, np.ndarray):
        if not isinstance(values, (list, tuple)):
            raise SchemaError(f"Column {name!r} is {type(values).__qualname__}. Return an array or a list.")
        return array_of(values, name)
    if values.ndim == 0 or values.ndim > 2:
        raise SchemaError(f"Column {name!r} is an array of {values.ndim} dimensions. Use one, or two for lists.")
    if values.ndim == 2:
        flat = _from_numpy(name, values.reshape(-1))
        lengths = (
            np.arange(0, values.size + 1, max(values.shape[1], 1)) if values.shape[1] else np.zeros(len(values) + 1)
        )
        return pa.ListArray.from_arrays(pa.array(lengths, pa.int32()), flat)
    if values.dtype == object:
        return array_of(values, name)
    try:
        return pa.array(values, from_pandas=False)
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        raise SchemaError(f"Column {name!r} of the type {values.dtype}: Arrow cannot hold it: {error}.") from None


def wrapped(transform: Any, batch_format: str, finish: Callable[[Any], Any]) -> Any:
    """Return the transform as a callable that takes and returns ``pyarrow.Table``.

    :param transform: a function or a class; it may return one batch, or yield several.
    :param batch_format: format of the transform's own batches.
    :param finish: makes of each table that the transform returns the one that Ray is given.
    :return: a function, or a class if the transform is one.
    """

    def after(made: Any, table: Any) -> Any:
        return finish(table_of(made, table.schema if batch_format == "numpy" else None))

    def over_tables(call: Callable[..., Any], table: Any, more: dict[str, Any]) -> Any:
        made = call(batch_of(table, batch_format), **more)
        if inspect.isgenerator(made):
            return (after(each, table) for each in made)
        return after(made, table)

    if not isinstance(transform, type):
        # Ray takes a function, and no other object with __call__.
        return functools.wraps(transform)(lambda table, **more: over_tables(transform, table, more))

    class Wrapped:
        def __init__(self, *arguments: Any, **more: Any) -> None:
            self._call = transform(*arguments, **more)

        def __call__(self, table: Any, **more: Any) -> Any:
            return over_tables(self._call, table, more)

    class WrappedAsync(Wrapped):
        async def __call__(self, table: Any, **more: Any) -> Any:
            made = self._call(batch_of(table, batch_format), **more)
            if inspect.isasyncgen(made):
                async for each in made:
                    yield after(each, table)
            else:
                yield after(await made, table)

    call = vars(transform).get("__call__")
    found = WrappedAsync if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) else Wrapped
    found.__name__ = found.__qualname__ = transform.__name__
    return found
