"""A Ray Data sink that writes each block to a staging table exactly once.

Ray's own ``write_bigquery`` lets BigQuery infer a schema for each block, and loads a block again when Ray repeats its
task.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from ray.data import Datasink
from ray.data.block import BlockAccessor

from .arrow_types import plain_columns
from .clerk import unpacked
from .fields import Field
from .jobs import accepted, once
from .json_columns import loaded_fields
from .partition import check_rows
from .schema import conform

__all__ = ["StagingSink"]

BATCH_ROWS = 1024
"""Rows in a batch of Ray Data, if the plan does not say it."""


class StagingSink(Datasink):  # type: ignore[misc]
    """Load the blocks of one write task with one load job.

    :param plan: the plan of the step.
    :param table: the staging table.
    :param fields: its fields; JSON is loaded as STRING.
    :param conformed: whether the blocks conform to the fields already.
    """

    def __init__(self, plan: dict[str, Any], table: str, fields: list[Field], *, conformed: bool) -> None:
        self._plan = plan
        self._table = table
        self._fields = fields
        self._conformed = conformed
        self.written = 0
        self.loads = 0

    @property
    def min_rows_per_write(self) -> int | None:
        """Rows per load job: BigQuery accepts 1,500 load jobs per table and day (https://cloud.google.com/bigquery/quotas#load_jobs)."""
        rows: int | None = self._plan["rows_per_load"]
        if rows is None or self._plan["fields"] is not None:
            return rows
        # The batches are packed, each into one row.
        return max(1, rows // int(self._plan["map"].get("batch_size") or BATCH_ROWS))

    def write(self, blocks: Iterable[Any], ctx: Any) -> int:
        """Load the blocks, and return the number of rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from google.cloud import bigquery

        tables = [
            plain_columns(table)
            for block in blocks
            for table in unpacked(BlockAccessor.for_block(block).to_arrow())
            if table.num_rows
        ]
        if not tables:
            return 0
        plan, fields = self._plan, self._fields
        if not self._conformed:
            tables = [conform(table, fields, plan["fields_said_by"]) for table in tables]
        ready = pa.concat_tables(tables)
        into = self._table
        if plan["partition"]:
            check_rows(ready, plan["partition"])
            # Rows of a table by ingestion time belong where they are loaded.
            into += "" if plan["partition"]["field"] else f"${plan['partition']['id']}"
        content = io.BytesIO()
        pq.write_table(ready, content)
        options = bigquery.ParquetOptions()
        options.enable_list_inference = True
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            parquet_options=options,
            schema=[bigquery.SchemaField.from_api_repr(field) for field in loaded_fields(fields)],
            write_disposition="WRITE_APPEND",
            # If the staging table was deleted, its step is over.
            create_disposition="CREATE_NEVER",
            labels=plan["labels"],
        )
        client = bigquery.Client(project=plan["project"], location=plan["location"])

        def load(job_id: str) -> Any:
            content.seek(0)
            return client.load_table_from_file(
                content, into, job_id=job_id, location=plan["location"], job_config=config
            )

        # The task's index is part of its arguments, so a task that Ray repeats uses the same job id.
        base = f"{self._table.rpartition('.')[2]}_{ctx.task_idx}"
        accepted(lambda: once(client, base, plan["location"], load), f"{ready.num_rows} rows for {plan['target']}")
        return int(ready.num_rows)

    def on_write_complete(self, write_result: Any) -> None:
        """Record the totals of all tasks."""
        counts = [int(count) for count in write_result.write_returns if count]
        self.written, self.loads = sum(counts), len(counts)
