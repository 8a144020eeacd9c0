"""What the tasks of one step tell its driver: the rows that they read, and the columns that the transform returned."""

from __future__ import annotations

from typing import Any

from .arrow_types import fields_of
from .fields import Field, SchemaError, adopt_source_types, check_carried, has_type, merge_fields

__all__ = ["Clerk", "Packer", "common_fields", "unpacked"]

PACKED = "__vertex_ray_batch__"
"""Column of packed batches."""


class Clerk:
    """Shared state of the tasks of one step: an actor on the driver's node, which lives as long as the driver."""

    def __init__(self) -> None:
        self._read: dict[str, int] = {}
        self._schemas: dict[bytes, bool] = {}

    def note_read(self, stream: str, rows: int) -> None:
        """Record that a stream was read to its end."""
        self._read[stream] = rows

    def rows_read(self) -> int:
        """Return the number of rows read so far."""
        return sum(self._read.values())

    def note_schema(self, schema: bytes, filled: bool) -> None:
        """Record the Arrow schema of a batch that the transform returned, and whether the batch has rows."""
        self._schemas[schema] = filled or self._schemas.get(schema, False)

    def schemas(self) -> list[bytes]:
        """Return the schemas of all batches that have rows; without any, those of the empty ones."""
        return sorted(schema for schema, filled in self._schemas.items() if filled or not any(self._schemas.values()))


class Packer:
    """Packs each batch as it is into one value, and tells the clerk of each schema once in a process.

    Ray fills columns and keys that some batches lack with NULL when it puts batches together.

    :param clerk: the step's ``Clerk``.
    """

    def __init__(self, clerk: Any) -> None:
        self._clerk = clerk
        self._told: set[tuple[bytes, bool]] = set()

    def __call__(self, table: Any) -> Any:
        """Return a table with one row, which contains the given table."""
        import pyarrow as pa

        schema = table.schema.remove_metadata().serialize().to_pybytes()
        filled = table.num_rows > 0
        if (schema, filled) not in self._told:
            import ray

            ray.get(self._clerk.note_schema.remote(schema, filled))
            self._told.add((schema, filled))
        content = pa.BufferOutputStream()
        with pa.ipc.new_stream(content, table.schema) as stream:
            stream.write_table(table)
        return pa.table({PACKED: pa.array([content.getvalue().to_pybytes()], pa.large_binary())})


def unpacked(table: Any) -> list[Any]:
    """Return the batches in a table, if they are packed, else the table itself."""
    import pyarrow as pa

    if table.column_names != [PACKED]:
        return [table]
    return [pa.ipc.open_stream(value.as_buffer()).read_all() for value in table.column(0)]


def common_fields(schemas: list[bytes], source: list[Field], target: str) -> list[Field]:
    """Return the fields that hold the rows of all batches, in whichever order these were made.

    :param schemas: the batches' Arrow schemas, serialized.
    :param source: the source's fields, which say what values alone do not.
    :param target: name of the table, for the error.
    :raises SchemaError: the batches do not agree, or a column has no type.
    """
    import pyarrow as pa

    fields: list[Field] | None = None
    for schema in schemas:
        found = fields_of(pa.ipc.read_schema(pa.py_buffer(schema)))
        fields = found if fields is None else merge_fields(fields, found)
    if fields is None:
        raise SchemaError(f"The source has no rows, so the columns of {target} are unknown. Set schema_fields.")
    fields = adopt_source_types(fields, source)
    unknown = [field["name"] for field in fields if not has_type(field)]
    if unknown:
        raise SchemaError(
            f"The type of {', '.join(unknown)} is unknown, because no row has a value there. Set schema_fields."
        )
    check_carried(fields)
    return fields
