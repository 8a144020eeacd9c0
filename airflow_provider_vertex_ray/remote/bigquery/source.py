"""A Ray Data source that reads a table with the Storage Read API.

Ray's own ``read_bigquery`` holds a whole stream in memory, cannot read a table in another project than the one that is
billed, and does not report the number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ray
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from .names import split_table

__all__ = ["TableSource"]

MOST_STREAMS = 1000
"""Maximum number of streams that BigQuery returns (https://cloud.google.com/bigquery/docs/reference/storage)."""


class TableSource(Datasource):  # type: ignore[misc]
    """The rows of a table at the time at which the read starts.

    :param project: project that is billed.
    :param table: the table, as ``project.dataset.table``.
    :param columns: columns to read; None for all.
    :param row_filter: SQL condition for the rows to read; None for all.
    :param clerk: the ``Clerk`` actor, which counts the rows.
    """

    def __init__(self, project: str, table: str, columns: list[str] | None, row_filter: str | None, clerk: Any) -> None:
        from google.cloud import bigquery_storage

        options = bigquery_storage.ReadSession.TableReadOptions(
            selected_fields=columns or [], row_restriction=row_filter or ""
        )
        place, dataset, name = split_table(table)
        # A session sees one snapshot of the table, however often its streams are read.
        session = bigquery_storage.BigQueryReadClient().create_read_session(
            parent=f"projects/{project}",
            read_session=bigquery_storage.ReadSession(
                table=f"projects/{place}/datasets/{dataset}/tables/{name}",
                data_format=bigquery_storage.DataFormat.ARROW,
                read_options=options,
            ),
            max_stream_count=max(1, min(MOST_STREAMS, int(4 * ray.cluster_resources().get("CPU", 1)))),
        )
        self.streams = [stream.name for stream in session.streams]
        self._clerk = clerk

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the size is unknown before the read."""
        return None

    def get_read_tasks(self, parallelism: int) -> list[ReadTask]:
        """Return one task per stream."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, schema=None, input_files=None, exec_stats=None)
        return [ReadTask(functools.partial(_read, stream, self._clerk), unknown) for stream in self.streams]


def _read(stream: str, clerk: Any) -> Iterator[Any]:
    import pyarrow as pa
    from google.cloud import bigquery_storage

    rows = 0
    # If the connection breaks, the client resumes at the right row by itself.
    for page in bigquery_storage.BigQueryReadClient().read_rows(stream).rows().pages:
        batch = page.to_arrow()
        rows += batch.num_rows
        yield pa.Table.from_batches([batch])
    # By the stream's name, so that a task that Ray repeats counts once.
    ray.get(clerk.note_read.remote(stream, rows))
