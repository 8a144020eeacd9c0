"""A Ray Data sink that writes each block to a staging table exactly once.

Ray's own ``write_bigquery`` lets BigQuery infer a schema for each block, and loads a block again when Ray repeats its
task.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable
from typing import Any

import ray
from ray.data import Datasink
from ray.data.block import BlockAccessor

from .jobs import once
from .schema import Field, SchemaError, conform, fields_of, plain_columns

__all__ = ["Clerk", "StagingSink", "create_staging", "expiry"]


def expiry(plan: dict[str, Any]) -> datetime.datetime:
    """Return when a staging table expires, in case nobody deletes it."""
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=plan["staging_seconds"])


def create_staging(client: Any, plan: dict[str, Any], table: str, fields: list[Field]) -> None:
    """Create the staging table with the target's partitioning and clustering, which a copy job requires."""
    from google.cloud import bigquery

    reference = bigquery.TableReference.from_string(table).to_api_repr()
    made = bigquery.Table.from_api_repr({"tableReference": reference, "schema": {"fields": fields}, **plan["layout"]})
    made.expires = expiry(plan)
    made.labels = plan["labels"]
    client.create_table(made, exists_ok=True)


class Clerk:
    """Shared state of the tasks of one step: an actor on the driver's node, which lives as long as the driver.

    :param plan: the plan of the step.
    :param table: the staging table.
    :param fields: its fields; None while they are unknown.
    """

    def __init__(self, plan: dict[str, Any], table: str, fields: list[Field] | None) -> None:
        self._plan = plan
        self._table = table
        self._fields = fields
        self._read: dict[str, int] = {}

    def note_read(self, stream: str, rows: int) -> None:
        """Record that a stream was read to its end."""
        self._read[stream] = rows

    def rows_read(self) -> int:
        """Return the number of rows read so far."""
        return sum(self._read.values())

    def agreed(self, proposed: list[Field]) -> list[Field]:
        """Return the fields of all blocks: the known ones, or else those of the first block that asks.

        :param proposed: the fields of the block that asks.
        :raises SchemaError: the first block has a column without any values.
        """
        if self._fields is None:
            unknown = [field["name"] for field in proposed if not _known(field)]
            if unknown:
                raise SchemaError(
                    f"The type of {', '.join(unknown)} is unknown, because a whole block has no values there. Set "
                    "schema_fields."
                )
            from google.cloud import bigquery

            client = bigquery.Client(project=self._plan["project"], location=self._plan["location"])
            create_staging(client, self._plan, self._table, proposed)
            self._fields = proposed
        return self._fields


def _known(field: Field) -> bool:
    return bool(field["type"]) and all(_known(each) for each in field.get("fields") or ())


class StagingSink(Datasink):  # type: ignore[misc]
    """Load the blocks of one write task with one load job.

    :param plan: the plan of the step.
    :param table: the staging table.
    :param clerk: the step's ``Clerk``.
    """

    def __init__(self, plan: dict[str, Any], table: str, clerk: Any) -> None:
        self._plan = plan
        self._table = table
        self._clerk = clerk
        self.written = 0
        self.loads = 0

    @property
    def min_rows_per_write(self) -> int | None:
        """Rows per load job: BigQuery accepts 1,500 load jobs per table and day (https://cloud.google.com/bigquery/quotas#load_jobs)."""
        rows: int | None = self._plan["rows_per_load"]
        return rows

    def write(self, blocks: Iterable[Any], ctx: Any) -> int:
        """Load the blocks, and return the number of rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from google.cloud import bigquery

        tables = [plain_columns(BlockAccessor.for_block(block).to_arrow()) for block in blocks]
        tables = [table for table in tables if table.num_rows]
        if not tables:
            return 0
        fields = ray.get(self._clerk.agreed.remote(fields_of(tables[0].schema)))
        ready = pa.concat_tables([conform(table, fields, self._plan["fields_said_by"]) for table in tables])
        content = io.BytesIO()
        pq.write_table(ready, content, coerce_timestamps="us", allow_truncated_timestamps=True)
        options = bigquery.ParquetOptions()
        options.enable_list_inference = True
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            parquet_options=options,
            schema=[bigquery.SchemaField.from_api_repr(field) for field in fields],
            write_disposition="WRITE_APPEND",
            # If the staging table was deleted, its step is over.
            create_disposition="CREATE_NEVER",
            labels=self._plan["labels"],
        )
        client = bigquery.Client(project=self._plan["project"], location=self._plan["location"])

        def load(job_id: str) -> Any:
            content.seek(0)
            return client.load_table_from_file(
                content, self._table, job_id=job_id, location=self._plan["location"], job_config=config
            )

        # The task's index is part of its arguments, so a task that Ray repeats uses the same job id.
        once(client, f"{self._table.rpartition('.')[2]}_{ctx.task_idx}", self._plan["location"], load)
        return int(ready.num_rows)

    def on_write_complete(self, write_result: Any) -> None:
        """Record the totals of all tasks."""
        counts = [int(count) for count in write_result.write_returns if count]
        self.written, self.loads = sum(counts), len(counts)
