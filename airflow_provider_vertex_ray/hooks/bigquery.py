"""Hook for the BigQuery calls that a BigQuery step makes from Airflow, with the Google provider's own hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_vertex_ray.errors import (
    BigQueryTableError,
    BytesBilledLimitError,
    NotAuthorisedError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.remote.bigquery.jobs import done_before
from airflow_provider_vertex_ray.remote.bigquery.names import split_table, staging_prefix

__all__ = ["Source", "VertexRayBigQueryHook"]


@dataclass(frozen=True)
class Source:
    """Result of a dry run of a source query.

    :param bytes_processed: maximum number of bytes that reading the source bills.
    :param tables: tables that it reads, as ``project.dataset.table``.
    :param fields: its columns, as in the REST API.
    :param statement_type: kind of the statement, such as SELECT; None if BigQuery does not say it.
    """

    bytes_processed: int
    tables: list[str] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    statement_type: str | None = None


class VertexRayBigQueryHook:
    """Access BigQuery for one step. All calls block.

    :param gcp_conn_id: Airflow connection to Google Cloud.
    :param impersonation_chain: Service account to impersonate, or a chain of them.
    :param project_id: project that is billed; None for the connection's.
    """

    def __init__(
        self, gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None, project_id: str | None
    ) -> None:
        from airflow.providers.google.cloud.hooks.bigquery import BigQueryHook

        self._hook = BigQueryHook(
            gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain, use_legacy_sql=False
        )
        self.project = project_id or _answer_of(lambda: self._hook.project_id, "the connection's project")

    def client(self, location: str | None = None) -> Any:
        """Return the Google provider's BigQuery client."""
        return self._hook.get_client(project_id=self.project, location=location)

    def dataset_location(self, dataset: str, what: str) -> str:
        """Return the location of a dataset.

        :param dataset: the dataset, as ``project.dataset`` or ``dataset``.
        :param what: parameter that names the dataset, for error messages.
        :raises BigQueryTableError: the dataset does not exist.
        """
        return str(_answer_of(lambda: self.client().get_dataset(dataset), f"{what}: dataset {dataset}").location)

    def table(self, table: str) -> dict[str, Any] | None:
        """Return a table as in the REST API; None if it does not exist."""
        from google.api_core.exceptions import NotFound

        def get() -> dict[str, Any] | None:
            try:
                found: dict[str, Any] = self.client().get_table(_reference(table)).to_api_repr()
            except NotFound:
                return None
            return found

        answer: dict[str, Any] | None = _answer_of(get, f"table {table}")
        return answer

    def source(self, sql: str, location: str, limit: int | None) -> Source:
        """Return what a query would read, from a dry run.

        :param sql: the query.
        :param location: location of the job.
        :param limit: maximum number of bytes that it may bill; None for no limit.
        :raises BigQueryTableError: the query is invalid, or refers to something that does not exist.
        :raises BytesBilledLimitError: the query would bill more than the limit.
        """
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False, use_legacy_sql=False)
        job = _answer_of(lambda: self.client(location).query(sql, job_config=config, location=location), "the source")
        processed = int(job.total_bytes_processed or 0)
        if limit is not None and processed > limit:
            raise BytesBilledLimitError(
                f"Reading the source would bill {processed:,} bytes, and maximum_bytes_billed is {limit:,}.",
                {"bytes_processed": processed, "maximum_bytes_billed": limit},
            )
        tables = [f"{each.project}.{each.dataset_id}.{each.table_id}" for each in job.referenced_tables or ()]
        fields = [each.to_api_repr() for each in job.schema or ()]
        return Source(processed, tables, fields, getattr(job, "statement_type", None))

    def published(self, publish_id: str, location: str) -> Any:
        """Return the job that has already published a step's result; None if there is none."""
        return done_before(self.client(location), publish_id, location)

    def drop_staging(self, dataset: str, submissions: Sequence[str]) -> list[str]:
        """Delete the staging tables that Ray jobs left in a dataset.

        :param dataset: the dataset, as ``project.dataset``.
        :param submissions: submission ids of the jobs, which have ended.
        :return: names of the deleted tables.
        """
        from google.api_core.exceptions import NotFound

        client = self.client()
        prefixes = tuple(staging_prefix(each) for each in submissions)
        try:
            names = [item.table_id for item in client.list_tables(dataset)]
        except NotFound:
            return []
        left = [f"{dataset}.{name}" for name in names if name.startswith(prefixes)]
        for table in left:
            client.delete_table(table, not_found_ok=True)
        return left


def _reference(table: str) -> Any:
    from google.cloud import bigquery

    project, dataset, name = split_table(table)
    return bigquery.TableReference(bigquery.DatasetReference(project, dataset), name)


def _answer_of(call: Any, what: str) -> Any:
    """Return the answer of a call.

    :raises BigQueryTableError: BigQuery rejected the request.
    :raises NotAuthorisedError: the account lacks a permission, or the connection's credentials cannot be used.
    :raises ServiceUnavailableError: BigQuery did not answer.
    """
    from google.api_core.exceptions import BadRequest, Forbidden, GoogleAPIError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        return call()
    except (NotFound, BadRequest) as error:
        raise BigQueryTableError(f"BigQuery rejected {what}: {error.message}") from None
    except (Forbidden, Unauthorized) as error:
        raise NotAuthorisedError(
            f"BigQuery denied access to {what}: {error.message}", {"http_status": error.code}
        ) from None
    except GoogleAuthError as error:
        raise NotAuthorisedError(f"The credentials cannot be used for BigQuery: {error}") from None
    except (GoogleAPIError, OSError) as error:
        raise ServiceUnavailableError(
            f"BigQuery did not answer a request for {what}: {type(error).__name__}: {error}"
        ) from None
