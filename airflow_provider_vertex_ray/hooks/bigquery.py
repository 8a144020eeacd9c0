"""What a BigQuery step asks of BigQuery from Airflow, through the Google provider's own hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.errors import BigQueryTableError, BytesBilledLimitError, NotAuthorisedError
from airflow_provider_vertex_ray.remote.bigquery.jobs import done_before
from airflow_provider_vertex_ray.remote.bigquery.names import staging_prefix

__all__ = ["Source", "VertexRayBigQueryHook"]


@dataclass(frozen=True)
class Source:
    """What a dry run says of a source.

    :param bytes_processed: Bytes that reading it bills at most.
    :param tables: The tables that it reads, ``project.dataset.table``.
    :param fields: Its columns, as in the REST API.
    """

    bytes_processed: int
    tables: list[str] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)


class VertexRayBigQueryHook:
    """BigQuery for one step; all calls block.

    :param gcp_conn_id: The Airflow connection.
    :param impersonation_chain: Service account to act as, or a chain.
    :param project_id: The project that pays.
    """

    def __init__(
        self, gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None, project_id: str | None
    ) -> None:
        from airflow.providers.google.cloud.hooks.bigquery import BigQueryHook

        self._hook = BigQueryHook(
            gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain, use_legacy_sql=False
        )
        self.project = project_id or self._hook.project_id

    def client(self, location: str | None = None) -> Any:
        """The Google provider's client."""
        return self._hook.get_client(project_id=self.project, location=location)

    def dataset_location(self, dataset: str, what: str) -> str:
        """Where a dataset is.

        :param what: The parameter that names it, for errors.
        :raises BigQueryTableError: There is none of that name.
        """
        return str(_asked(lambda: self.client().get_dataset(dataset), f"{what}: dataset {dataset}").location)

    def table(self, table: str) -> dict[str, Any] | None:
        """A table's resource; None when there is none."""
        from google.api_core.exceptions import NotFound

        try:
            found: dict[str, Any] = self.client().get_table(table).to_api_repr()
        except NotFound:
            return None
        return found

    def source(self, sql: str, location: str, limit: int | None) -> Source:
        """What a query would read.

        :param limit: Bytes that it may bill at most; None: no limit.
        :raises BigQueryTableError: It names what is not there, or is wrong.
        :raises BytesBilledLimitError: It would bill more.
        """
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False, use_legacy_sql=False)
        job = _asked(lambda: self.client(location).query(sql, job_config=config, location=location), "the source")
        processed = int(job.total_bytes_processed or 0)
        if limit is not None and processed > limit:
            raise BytesBilledLimitError(
                f"Reading the source would bill {processed:,} bytes, and maximum_bytes_billed is {limit:,}.",
                {"bytes_processed": processed, "maximum_bytes_billed": limit},
            )
        tables = [f"{each.project}.{each.dataset_id}.{each.table_id}" for each in job.referenced_tables or ()]
        return Source(processed, tables, [each.to_api_repr() for each in job.schema or ()])

    def published(self, publish_id: str, location: str) -> Any:
        """The job that has published a step already; None when there is none."""
        return done_before(self.client(location), publish_id, location)

    def drop_staging(self, dataset: str, owner: str) -> list[str]:
        """Delete what a task instance has left in a dataset; the tables' names."""
        from google.api_core.exceptions import NotFound

        client = self.client()
        try:
            names = [item.table_id for item in client.list_tables(dataset)]
        except NotFound:
            return []
        left = [f"{dataset}.{name}" for name in names if name.startswith(staging_prefix(owner))]
        for table in left:
            client.delete_table(table, not_found_ok=True)
        return left


def _asked(call: Any, what: str) -> Any:
    """The answer, or a typed error that says what was asked."""
    from google.api_core.exceptions import BadRequest, Forbidden, NotFound, Unauthorized

    try:
        return call()
    except (NotFound, BadRequest) as error:
        raise BigQueryTableError(f"{what} is refused by BigQuery: {error.message}") from None
    except (Forbidden, Unauthorized) as error:
        raise NotAuthorisedError(f"{what}: BigQuery says: {error.message}", {"http_status": error.code}) from None
