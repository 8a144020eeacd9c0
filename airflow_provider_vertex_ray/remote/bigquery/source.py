"""Reading a table by the Storage Read API, as a source of Ray Data.

Ray's own ``read_bigquery`` holds a whole stream in memory, can not read a table that is in another project than the one
that pays, and tells no number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ray
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

__all__ = ["TableSource"]

MOST_STREAMS = 1000
"""What BigQuery gives at most (https://cloud.google.com/bigquery/docs/reference/storage)."""


class TableSource(Datasource):  # type: ignore[misc]
    """The rows that a table has at the moment in which the reading begins.

    :param project: The project that pays.
    :param table: ``project.dataset.table``.
    :param columns: Only these; None: all.
    :param row_filter: Only rows for which this SQL condition holds; None: all.
    :param clerk: The actor that is told how many rows were read.
    """

    def __init__(self, project: str, table: str, columns: list[str] | None, row_filter: str | None, clerk: Any) -> None:
        from google.cloud import bigquery_storage

        options = bigquery_storage.ReadSession.TableReadOptions(
            selected_fields=columns or [], row_restriction=row_filter or ""
        )
        place, dataset, name = table.split(".")
        # One session sees one state of the table, however often its streams are read.
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
        """Not known before it is read."""
        return None

    def get_read_tasks(self, parallelism: int) -> list[ReadTask]:
        """One for each stream."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, schema=None, input_files=None, exec_stats=None)
        return [ReadTask(functools.partial(_read, stream, self._clerk), unknown) for stream in self.streams]


def _read(stream: str, clerk: Any) -> Iterator[Any]:
    import pyarrow as pa
    from google.cloud import bigquery_storage

    rows = 0
    # The client goes on by itself, at the right row, where a connection breaks.
    for page in bigquery_storage.BigQueryReadClient().read_rows(stream).rows().pages:
        batch = page.to_arrow()
        rows += batch.num_rows
        yield pa.Table.from_batches([batch])
    # By the stream's name: a task that Ray runs again counts once.
    ray.get(clerk.note_read.remote(stream, rows))
