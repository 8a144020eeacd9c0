"""Operator that transforms a BigQuery table or query on a Ray cluster and publishes the result atomically."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.core.checks import (
    check_choice,
    check_duration,
    has_template,
    known_at_run_time,
    unless_empty,
)
from airflow_provider_vertex_ray.core.cluster.name import validate_project
from airflow_provider_vertex_ray.core.function import bigquery_step
from airflow_provider_vertex_ray.core.function.bigquery_layout import check_layout
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER, attempt_id, submission_prefix
from airflow_provider_vertex_ray.core.labels import check_labels
from airflow_provider_vertex_ray.errors import (
    BigQueryStepError,
    InvalidArgumentError,
    JobFailedError,
    VertexRayError,
)
from airflow_provider_vertex_ray.operators.arguments import (
    check_amounts,
    check_counts,
    check_lists,
    check_mappings,
    check_strings,
)
from airflow_provider_vertex_ray.operators.base import map_index_of, task_owner, task_try
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.job_entrypoint_module import runs_module
from airflow_provider_vertex_ray.operators.price_tables import CATALOG, read_price_table
from airflow_provider_vertex_ray.triggers.bigquery import VertexRayBigQueryTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger

__all__ = ["VertexRayBigQueryOperator"]

MOST_ATTEMPTS = 20
"""Number of earlier attempts whose staging tables are looked for."""

_DICTS = ("fn_kwargs", "fn_constructor_kwargs", "time_partitioning", "range_partitioning", "bigquery_labels")


class VertexRayBigQueryOperator(VertexRaySubmitJobOperator):
    """Read a table or query with Ray, transform the rows with a function, and publish them to a table.

    The job writes the rows to a staging table of its own. One BigQuery copy job, which is atomic, then publishes them.
    The ID of the copy job is derived from the task instance, so a retry that finds it done takes its result. The target
    is therefore either unchanged or complete, and rows are appended exactly once, even after crashes. A clear runs the
    step again.

    Returns ``rows_read``, ``rows_written``, ``bytes_processed``, ``bytes_billed`` (for the query; 0 for a table, which
    the Storage Read API bills by bytes read), ``source_tables``, ``target_table``, ``publish_job_id``,
    ``published_before`` (an earlier try published the rows, so that only the counts are known), ``submission_id``,
    ``cluster_id`` and ``dashboard_url``.

    The other arguments are those of ``VertexRaySubmitJobOperator``, except ``entrypoint`` and ``wait_for_completion``.

    :param target_table: table to write: ``project.dataset.table`` or ``dataset.table``; or a partition of it, such as
        ``dataset.table$20240501``. (templated)
    :param source_table: table or view to read. (templated)
    :param query: SELECT statement, or the name of a ``.sql`` file, to read instead of ``source_table``. (templated)
    :param columns: columns of ``source_table`` to read, of a table also nested ones (``address.city``); default: all.
        (templated)
    :param row_filter: SQL condition on the rows of ``source_table`` to read; default: all. (templated)
    :param transform: a function that takes a batch and returns a batch, or a class with ``__call__``, of which each
        actor creates one instance; both are sent as source code, like functions of ``@task.vertex_ray``. Or
        ``"module:name"`` of an object in ``working_dir`` or ``py_modules``. None copies the rows.
    :param batch_format: format of the batches: ``pandas`` (with types that have NULL), ``pyarrow`` or ``numpy``.
    :param batch_size: rows in a batch; None: Ray Data's default.
    :param fn_kwargs: additional keyword arguments of the transform, as JSON values. (templated)
    :param fn_constructor_kwargs: keyword arguments of the constructor of the class, as JSON values. (templated)
    :param concurrency: number of actors of a class, or ``(minimum, maximum)``; for a function, the maximum number of
        tasks.
    :param num_cpus: CPUs for each task or actor of the transform.
    :param num_gpus: GPUs for each task or actor of the transform.
    :param write_disposition: ``WRITE_EMPTY`` (fail if the target has rows), ``WRITE_TRUNCATE`` or ``WRITE_APPEND``.
    :param create_disposition: ``CREATE_IF_NEEDED`` or ``CREATE_NEVER``.
    :param schema_fields: columns of the target, as in BigQuery's REST API. Default: those of the existing target, else
        those of the rows. (templated)
    :param time_partitioning: time partitioning, as in BigQuery's REST API; default: that of the target. (templated)
    :param range_partitioning: range partitioning, as in BigQuery's REST API; default: that of the target. (templated)
    :param cluster_fields: columns to cluster the table by; default: those of the target. (templated)
    :param bigquery_labels: labels of the BigQuery jobs and staging tables. (templated)
    :param staging_dataset: dataset for the staging tables; default: that of the target. (templated)
    :param staging_expiration: seconds after which BigQuery deletes a staging table that the task could not delete.
    :param rows_per_load: minimum number of rows in one load job. BigQuery allows 1,500 load jobs per table and day.
    :param maximum_bytes_billed: fail before anything runs if a dry run shows that reading would bill more bytes. None:
        no limit.
    :param bigquery_project_id: project that BigQuery bills; default: ``project_id``. (templated)
    :raises InvalidArgumentError: an argument is invalid; nothing was started.
    :raises BigQueryTableError: a dataset or table does not exist, or is not as the step needs it; nothing was started.
    :raises BytesBilledLimitError: reading would bill more than ``maximum_bytes_billed``; nothing was started.
    :raises BigQueryStepError: the step failed on the cluster.
    """

    template_fields: Sequence[str] = (
        *(field for field in VertexRaySubmitJobOperator.template_fields if field != "entrypoint"),
        "target_table",
        "source_table",
        "query",
        "columns",
        "row_filter",
        "fn_kwargs",
        "fn_constructor_kwargs",
        "schema_fields",
        "time_partitioning",
        "range_partitioning",
        "cluster_fields",
        "bigquery_labels",
        "staging_dataset",
        "bigquery_project_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **{key: kind for key, kind in VertexRaySubmitJobOperator.template_fields_renderers.items() if "env" in key},
        "query": "sql",
        "row_filter": "sql",
        "schema_fields": "json",
    }

    def __init__(
        self,
        *,
        target_table: str,
        source_table: str | None = None,
        query: str | None = None,
        columns: Sequence[str] | None = None,
        row_filter: str | None = None,
        transform: str | type | Callable[..., Any] | None = None,
        batch_format: str = "pandas",
        batch_size: int | None = None,
        fn_kwargs: dict[str, Any] | None = None,
        fn_constructor_kwargs: dict[str, Any] | None = None,
        concurrency: int | tuple[int, int] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        write_disposition: str = "WRITE_EMPTY",
        create_disposition: str = "CREATE_IF_NEEDED",
        schema_fields: Sequence[dict[str, Any]] | None = None,
        time_partitioning: dict[str, Any] | None = None,
        range_partitioning: dict[str, Any] | None = None,
        cluster_fields: Sequence[str] | None = None,
        bigquery_labels: dict[str, str] | None = None,
        staging_dataset: str | None = None,
        staging_expiration: float = 86400.0,
        rows_per_load: int | None = None,
        maximum_bytes_billed: int | None = None,
        bigquery_project_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("entrypoint", "wait_for_completion"):
            if name in kwargs:
                raise InvalidArgumentError(
                    name, kwargs[name], "Remove it: the step runs its own program and waits for it."
                )
        for field, value, choices in (
            ("batch_format", batch_format, bigquery_step.BATCH_FORMATS),
            ("write_disposition", write_disposition, bigquery_step.WRITE_DISPOSITIONS),
            ("create_disposition", create_disposition, bigquery_step.CREATE_DISPOSITIONS),
        ):
            if not has_template(value):
                check_choice(field, value, choices)
        check_counts(batch_size=batch_size, rows_per_load=rows_per_load, maximum_bytes_billed=maximum_bytes_billed)
        check_amounts(num_cpus=num_cpus, num_gpus=num_gpus)
        for count in concurrency if isinstance(concurrency, (list, tuple)) else (concurrency,):
            check_counts(concurrency=count)
        check_duration("staging_expiration", staging_expiration, none_allowed=False)
        if time_partitioning and range_partitioning:
            raise InvalidArgumentError(
                "range_partitioning", range_partitioning, "Use either time_partitioning or range_partitioning."
            )
        self._payload, self._is_class = bigquery_step.transform_payload(transform)
        super().__init__(entrypoint="python -m vertex_ray_bigquery", **kwargs)
        self.target_table = target_table
        self.source_table = source_table
        self.query = query
        self.columns = columns
        self.row_filter = row_filter
        self.transform = transform
        self.batch_format = batch_format
        self.batch_size = batch_size
        self.fn_kwargs = fn_kwargs
        self.fn_constructor_kwargs = fn_constructor_kwargs
        self.concurrency = concurrency
        self.num_cpus = num_cpus
        self.num_gpus = num_gpus
        self.write_disposition = write_disposition
        self.create_disposition = create_disposition
        self.schema_fields = schema_fields
        self.time_partitioning = time_partitioning
        self.range_partitioning = range_partitioning
        self.cluster_fields = cluster_fields
        self.bigquery_labels = bigquery_labels
        self.staging_dataset = staging_dataset
        self.staging_expiration = staging_expiration
        self.rows_per_load = rows_per_load
        self.maximum_bytes_billed = maximum_bytes_billed
        self.bigquery_project_id = bigquery_project_id
        self._staging: dict[str, Any] = {}
        self._prefix = ""
        self._check_templated()
        self._map_arguments()

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the counts of rows, or raise the reason for the failure; delete the staging tables either way."""
        try:
            job = super().execute_complete(context, event)
        except JobFailedError as error:
            raise _step_error(error) from None
        finally:
            # Those of the jobs that have ended; the next attempt may have been submitted meanwhile, and has its own.
            self._drop_staging(((event or {}).get("passthrough") or {}).get("staging"))
        if "rows_written" in job:
            # The adopted job was stopped and the next attempt ran at once: its result has already passed through here.
            return job
        found = (job.get("result") or {}).get("value")
        if not isinstance(found, dict):
            raise BigQueryStepError(f"Ray job {job.get('submission_id')} succeeded but returned no result.", job)
        keep = {key: job.get(key) for key in ("submission_id", "cluster_id", "dashboard_url")}
        return {**found, **keep}

    def on_kill(self) -> None:
        """Stop the job, and delete its staging tables."""
        super().on_kill()
        if self._job is not None and self.stop_on_kill:
            self._drop_staging({**self._staging, "submissions": [self._job.submission_id]})

    def _run(self, context: Context, cluster: str | None = None) -> Any:
        # The job's own arguments are validated before BigQuery is called.
        self._name(cluster or self.cluster_id)
        self._request(context)
        if self.price_table != CATALOG:
            read_price_table(self.price_table)
        with tempfile.TemporaryDirectory(prefix="vertex-ray-bigquery-") as folder:
            from airflow_provider_vertex_ray.core.function.module import step_package

            package = step_package(self._plan(context), Path(folder))
            with runs_module(self, package):
                return super()._run(context, cluster)

    def _trigger(self, **arguments: Any) -> WaitTrigger:
        ended = [arguments["submission_id"]]
        for attempt in range(1, MOST_ATTEMPTS):
            # Earlier attempts have ended; one whose driver was killed may have left its tables.
            submission = attempt_id(self._prefix, attempt)
            if submission in ended:
                break
            ended.append(submission)
        arguments["passthrough"] = {**arguments["passthrough"], "staging": {**self._staging, "submissions": ended}}
        return VertexRayBigQueryTrigger(staging=self._staging, **arguments)

    @property
    def _bigquery(self) -> VertexRayBigQueryHook:
        from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook

        return VertexRayBigQueryHook(
            self.gcp_conn_id, self.impersonation_chain, self.bigquery_project_id or self.project_id or None
        )

    def _map_arguments(self) -> dict[str, Any]:
        if self._payload is None:
            return {}
        given = {
            "batch_format": self.batch_format,
            "batch_size": self.batch_size,
            "fn_kwargs": self.fn_kwargs,
            "fn_constructor_kwargs": self.fn_constructor_kwargs,
            "concurrency": self.concurrency,
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
        }
        return bigquery_step.map_arguments(
            {key: None if known_at_run_time(value) else value for key, value in given.items()},
            is_class=self._is_class,
        )

    def _plan(self, context: Context) -> dict[str, Any]:
        """Return the plan of the step, which is sent to the cluster.

        :raises InvalidArgumentError: a rendered argument is invalid.
        :raises BigQueryTableError: a dataset or table does not exist, or is not as the step needs it.
        :raises BytesBilledLimitError: reading would bill too many bytes.
        """
        from airflow_provider_vertex_ray.hooks.bigquery_preflight import check_source, check_target

        self._check_templated()
        hook = self._bigquery
        target, partition = bigquery_step.check_target("target_table", self.target_table, hook.project)
        own_dataset = target.rpartition(".")[0]
        staging = bigquery_step.check_dataset("staging_dataset", self.staging_dataset or own_dataset, hook.project)
        location = hook.dataset_location(own_dataset, "target_table")
        if staging != own_dataset and hook.dataset_location(staging, "staging_dataset") != location:
            raise InvalidArgumentError(
                "staging_dataset", staging, f"Use a dataset in {location}, where the target's dataset is."
            )
        owner, parts = task_owner(context)
        self._prefix = self.submission_id or submission_prefix(
            parts["dag_id"], parts["task_id"], int(parts["map_index"]), task_try(context).owner
        )
        self._staging = {"dataset": staging, "project": hook.project}
        clear_epoch = hashlib.sha256(task_try(context).clear_epoch.encode()).hexdigest()[:8]
        plan: dict[str, Any] = {
            "project": hook.project,
            "location": location,
            "publish_id": f"vertex_ray_{owner}_{clear_epoch}_publish",
            "staging_dataset": staging,
            "staging_seconds": self.staging_expiration,
            "target": target,
            "source_table": self.source_table
            and bigquery_step.check_table("source_table", self.source_table, hook.project),
            "query": self.query,
            "columns": list(self.columns) if self.columns else None,
            "row_filter": self.row_filter,
            "write_disposition": self.write_disposition,
            "create_disposition": self.create_disposition,
            "maximum_bytes_billed": self.maximum_bytes_billed,
            "rows_per_load": self.rows_per_load,
            "labels": dict(self.bigquery_labels or {}),
            "transform": self._payload,
            "transform_is_class": self._is_class,
            "map": self._map_arguments(),
            "max_bytes": MAX_RESULT_BYTES,
            "marker": RESULT_MARKER,
            "fields": None,
            "fields_said_by": "the other batches",
            "source_fields": [],
            "layout": {},
            "partition": None,
            "told": {"bytes_processed": None, "source_tables": []},
        }
        if hook.published(plan["publish_id"], location) is None:
            check_source(hook, plan, self.log.info)
            clustering = {"fields": list(self.cluster_fields)} if self.cluster_fields else None
            given = {
                "schema": ("schema_fields", self.schema_fields),
                "timePartitioning": ("time_partitioning", self.time_partitioning),
                "rangePartitioning": ("range_partitioning", self.range_partitioning),
                "clustering": ("cluster_fields", clustering),
            }
            check_target(hook, plan, partition, given)
        return plan

    def _check_templated(self) -> None:
        """Validate the templated arguments, at DAG parse and again after rendering.

        :raises InvalidArgumentError: an argument is invalid.
        """
        bigquery_step.check_source(self.source_table, self.query, self.columns, self.row_filter)
        check_strings(query=self.query, row_filter=self.row_filter, bigquery_project_id=self.bigquery_project_id)
        for field in ("columns", "schema_fields", "cluster_fields"):
            check_lists(**{field: unless_empty(getattr(self, field))})
        for field in _DICTS:
            check_mappings(**{field: unless_empty(getattr(self, field))})
        check_layout(self.time_partitioning, self.range_partitioning, self.cluster_fields)
        if isinstance(self.bigquery_labels, Mapping):
            check_labels("bigquery_labels", self.bigquery_labels)
        if self.bigquery_project_id and not known_at_run_time(self.bigquery_project_id):
            validate_project(self.bigquery_project_id, "bigquery_project_id")
        if not known_at_run_time(self.target_table):
            bigquery_step.check_target("target_table", self.target_table, "any-project")
        if self.source_table is not None and not known_at_run_time(self.source_table):
            bigquery_step.check_table("source_table", self.source_table, "any-project")
        if self.staging_dataset and not known_at_run_time(self.staging_dataset):
            bigquery_step.check_dataset("staging_dataset", self.staging_dataset, "any-project")

    def _drop_staging(self, left: Any) -> None:
        """Delete the staging tables of ended jobs if possible; BigQuery deletes the others once they expire.

        :param left: ``dataset``, ``project`` and ``submissions``; nothing if no job was started.
        """
        if not left or not left.get("dataset"):
            return
        try:
            tables = self._bigquery.drop_staging(left["dataset"], left["submissions"])
        except Exception:
            self.log.warning(
                "Could not delete the staging tables; BigQuery deletes them after %g seconds",
                self.staging_expiration,
                exc_info=True,
            )
        else:
            if tables:
                self.log.info("Deleted leftover staging tables: %s", ", ".join(tables))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the tables that were read and written, for OpenLineage.

        :param task_instance: the task instance, whose XCom has the result.
        """
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        # Without a map index, the results of all task instances are returned if the task is mapped.
        index = map_index_of(task_instance)
        found = task_instance.xcom_pull(task_ids=task_instance.task_id, map_indexes=index) or {}
        target = found.get("target_table")
        return OperatorLineage(
            inputs=[Dataset(namespace="bigquery", name=name) for name in found.get("source_tables") or ()],
            outputs=[Dataset(namespace="bigquery", name=target.partition("$")[0])] if target else [],
        )


def _step_error(error: JobFailedError) -> VertexRayError:
    """Return the error of the step, if the job returned one, else the error of the job."""
    if isinstance(error, BigQueryStepError):
        return error
    found = error.details.get("result")
    raised = found.get("error") if isinstance(found, dict) else None
    if not isinstance(raised, dict):
        return BigQueryStepError(error.message, error.details)
    details = {**error.details, **{key: str(raised.get(key, "")) for key in ("type", "message", "traceback")}}
    details.pop("result")
    job = error.details.get("submission_id")
    if raised.get("type") in ("SchemaError", "StepError"):
        return BigQueryStepError(f"Ray job {job}: {raised['message']}", details)
    return BigQueryStepError(f"The step failed on the cluster (Ray job {job}):\n{details['traceback']}", details)
