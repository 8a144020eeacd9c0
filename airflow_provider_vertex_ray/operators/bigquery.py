"""A BigQuery table, or a query, through a function on a Ray cluster, into a table: all of it or nothing."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.function import bigquery_step as rules
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES, RESULT_MARKER
from airflow_provider_vertex_ray.errors import (
    BigQueryStepError,
    BigQueryTableError,
    InvalidArgumentError,
    JobFailedError,
    VertexRayError,
)
from airflow_provider_vertex_ray.operators.base import task_owner, task_try
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.job_entrypoint_module import runs_module
from airflow_provider_vertex_ray.triggers.bigquery import VertexRayBigQueryTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook
    from airflow_provider_vertex_ray.triggers.base import WaitTrigger

__all__ = ["VertexRayBigQueryOperator"]


class VertexRayBigQueryOperator(VertexRaySubmitJobOperator):
    """Reads a table or a query with Ray, lets a function transform the rows, and publishes them in a table.

    The rows go to a staging table of this very job; one copy job, which BigQuery carries out wholly or not at all,
    publishes them. That job's id is the task's own: a retry that finds it done takes its result. So the target is the
    old table or the whole new one, and rows are appended once, whatever dies on the way. A Clear runs the step again.

    Returns ``rows_read``, ``rows_written``, ``bytes_processed``, ``bytes_billed`` (by the query; 0 for a table,
    which the Storage Read API bills by what it reads), ``source_tables``, ``target_table``, ``publish_job_id``,
    ``published_before`` (an earlier try had done it all, and only the counts are known),
    ``submission_id``, ``cluster_id`` and ``dashboard_url``.

    :param target_table: ``project.dataset.table`` or ``dataset.table``. (templated)
    :param source_table: The table that is read. (templated)
    :param query: Or the SELECT statement, or the name of a ``.sql`` file. (templated)
    :param columns: Only these columns of ``source_table``. (templated)
    :param row_filter: Only rows of ``source_table`` for which this SQL condition holds. (templated)
    :param transform: A function of one batch that returns a batch, or a class with ``__call__``, of which each actor
        has one object: both travel as text, as functions of ``@task.vertex_ray`` do. Or ``"module:name"`` of what is in
        ``working_dir`` or ``py_modules``. None copies the rows.
    :param batch_format: What the transform gets: ``pandas``, ``pyarrow`` or ``numpy``.
    :param batch_size: Rows of a batch; None: Ray Data's own.
    :param fn_kwargs: Further arguments of the transform, of JSON values. (templated)
    :param fn_constructor_kwargs: Arguments of the class, of JSON values. (templated)
    :param concurrency: The number of a class's actors, or (fewest, most); of a function's tasks at most.
    :param num_cpus: CPUs of each of the transform's tasks or actors.
    :param num_gpus: GPUs of each.
    :param write_disposition: ``WRITE_EMPTY`` (refuse a table that has rows), ``WRITE_TRUNCATE`` or ``WRITE_APPEND``.
    :param create_disposition: ``CREATE_IF_NEEDED`` or ``CREATE_NEVER``.
    :param schema_fields: The target's columns, as in BigQuery's REST API. Default: those of the target for
        ``WRITE_APPEND``, else of the rows. (templated)
    :param time_partitioning: As in BigQuery's REST API; default: the target's own. (templated)
    :param range_partitioning: As in BigQuery's REST API; default: the target's own. (templated)
    :param cluster_fields: Columns that the table is clustered by; default: the target's own. (templated)
    :param bigquery_labels: Labels of the BigQuery jobs and staging tables. (templated)
    :param staging_dataset: Where the staging tables are; default: the target's dataset. (templated)
    :param staging_expiration: Seconds after which a staging table goes away, should nobody be left to delete it.
    :param rows_per_load: Rows of one load job at least. BigQuery takes 1,500 load jobs a table and day.
    :param maximum_bytes_billed: Bytes above which nothing is run: a dry run says before how many there are.
    :param bigquery_project_id: The project that pays BigQuery; default: ``project_id``. (templated)

    All others are ``VertexRaySubmitJobOperator``'s, but for ``entrypoint`` and ``wait_for_completion``. Raises
    InvalidArgumentError, BigQueryTableError and BytesBilledLimitError before anything was started, and
    BigQueryStepError when the step fails.
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
                    name, kwargs[name], "the step runs its own program, and waits for it; leave it out"
                )
        rules.check_source(source_table, query, columns, row_filter)
        for name, value in (("target_table", target_table), ("source_table", source_table)):
            if value is not None and not rules.later(value):
                rules.check_table(name, value, "any-project")
        if staging_dataset is not None and not rules.later(staging_dataset):
            rules.check_dataset("staging_dataset", staging_dataset, "any-project")
        rules.check_choice("batch_format", batch_format, rules.BATCH_FORMATS)
        rules.check_choice("write_disposition", write_disposition, rules.WRITE_DISPOSITIONS)
        rules.check_choice("create_disposition", create_disposition, rules.CREATE_DISPOSITIONS)
        for name, number in (
            ("batch_size", batch_size),
            ("rows_per_load", rows_per_load),
            ("maximum_bytes_billed", maximum_bytes_billed),
        ):
            rules.check_count(name, number)
        check_duration("staging_expiration", staging_expiration, none_allowed=False)
        if time_partitioning and range_partitioning:
            raise InvalidArgumentError(
                "range_partitioning", range_partitioning, "time_partitioning is given too; a table has one"
            )
        self._payload, self._is_class = rules.transform_payload(transform)
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
        self._staging: dict[str, Any] | None = None
        self._map_arguments()

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was read and written, or raise why nothing was; either way no staging table is left."""
        try:
            job = super().execute_complete(context, event)
        except JobFailedError as error:
            raise _step_error(error) from None
        finally:
            self._drop_staging(context)
        if "rows_written" in job:
            # It had failed and was run again at once: its result came through here already.
            return job
        found = (job.get("result") or {}).get("value")
        if not isinstance(found, dict):
            raise BigQueryStepError(f"Ray job {job.get('submission_id')} succeeded without a result.", job)
        keep = {key: job.get(key) for key in ("submission_id", "cluster_id", "dashboard_url")}
        return {**found, **keep}

    def on_kill(self) -> None:
        """Stop the job, and delete what it has staged."""
        super().on_kill()
        if self._staging is not None and self.stop_on_kill:
            self._bigquery.drop_staging(self._staging["dataset"], self._staging["owner"])

    def _run(self, context: Context, failures: int, cluster: str | None = None) -> Any:
        with tempfile.TemporaryDirectory(prefix="vertex-ray-bigquery-") as folder:
            from airflow_provider_vertex_ray.core.function.module import step_package

            package = step_package(self._plan(context), Path(folder))
            with runs_module(self, package):
                return super()._run(context, failures, cluster)

    def _trigger(self, **arguments: Any) -> WaitTrigger:
        return VertexRayBigQueryTrigger(staging=self._staging or {}, **arguments)

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
        return rules.map_arguments(
            {key: None if hasattr(value, "iter_references") else value for key, value in given.items()},
            is_class=self._is_class,
        )

    def _plan(self, context: Context) -> dict[str, Any]:
        """What the cluster gets.

        :raises BigQueryTableError: A dataset or table is not there, or not as the step needs it.
        :raises BytesBilledLimitError: Reading would bill too much.
        """
        rules.check_source(self.source_table, self.query, self.columns, self.row_filter)
        hook = self._bigquery
        target = rules.check_table("target_table", self.target_table, hook.project)
        own_dataset = target.rpartition(".")[0]
        staging = rules.check_dataset("staging_dataset", self.staging_dataset or own_dataset, hook.project)
        location = hook.dataset_location(own_dataset, "target_table")
        if staging != own_dataset and hook.dataset_location(staging, "staging_dataset") != location:
            raise InvalidArgumentError(
                "staging_dataset", staging, f"the target's dataset is in {location}; take one that is there"
            )
        owner = task_owner(context)[0]
        self._staging = {"dataset": staging, "owner": owner, "project": hook.project}
        clear_epoch = hashlib.sha256(task_try(context).clear_epoch.encode()).hexdigest()[:8]
        plan: dict[str, Any] = {
            "project": hook.project,
            "location": location,
            "owner": owner,
            "publish_id": f"vertex_ray_{owner}_{clear_epoch}_publish",
            "staging_dataset": staging,
            "staging_seconds": self.staging_expiration,
            "target": target,
            "source_table": self.source_table and rules.check_table("source_table", self.source_table, hook.project),
            "query": self.query,
            "columns": list(self.columns) if self.columns else None,
            "row_filter": self.row_filter,
            "write_disposition": self.write_disposition,
            "create_disposition": self.create_disposition,
            "maximum_bytes_billed": self.maximum_bytes_billed,
            "rows_per_load": self.rows_per_load,
            "labels": {str(key): str(value) for key, value in (self.bigquery_labels or {}).items()},
            "transform": self._payload,
            "transform_is_class": self._is_class,
            "map": self._map_arguments(),
            "max_bytes": MAX_RESULT_BYTES,
            "marker": RESULT_MARKER,
            "fields": None,
            "fields_said_by": "the first block that was written",
            "layout": {},
            "told": {"bytes_processed": None, "source_tables": []},
        }
        if hook.published(plan["publish_id"], location) is None:
            self._check(hook, plan)
        return plan

    def _check(self, hook: VertexRayBigQueryHook, plan: dict[str, Any]) -> None:
        """Look at source and target, and add to the plan what they say."""
        publish_id, location = str(plan["publish_id"]), str(plan["location"])
        sql = plan["query"]
        if not sql:
            columns = ", ".join(f"`{name}`" for name in plan["columns"] or ()) or "*"
            where = f" WHERE {plan['row_filter']}" if plan["row_filter"] else ""
            sql = f"SELECT {columns} FROM `{plan['source_table']}`{where}"  # noqa: S608 (the user's own query)
        source = hook.source(sql, location, self.maximum_bytes_billed)
        tables = source.tables or [plan["source_table"]] if plan["source_table"] else source.tables
        plan["told"] = {"bytes_processed": source.bytes_processed, "source_tables": tables}
        target = hook.table(plan["target"])
        if target is None and self.create_disposition == "CREATE_NEVER":
            raise BigQueryTableError(
                f"target_table: there is no {plan['target']}, and create_disposition is CREATE_NEVER."
            )
        filled = target is not None and int(target.get("numRows") or 0) > 0
        # A job of an earlier try, which still runs, may have published in between.
        if filled and self.write_disposition == "WRITE_EMPTY" and not hook.published(publish_id, location):
            raise BigQueryTableError(f"target_table: {plan['target']} has rows, and write_disposition is WRITE_EMPTY.")
        plan["layout"] = self._layout(target)
        if self.schema_fields:
            plan["fields"], plan["fields_said_by"] = [dict(field) for field in self.schema_fields], "schema_fields"
        elif target is not None and self.write_disposition == "WRITE_APPEND":
            plan["fields"], plan["fields_said_by"] = target["schema"]["fields"], f"the table {plan['target']}"
        elif self._payload is None:
            plan["fields"], plan["fields_said_by"] = source.fields, "the source"

    def _layout(self, target: dict[str, Any] | None) -> dict[str, Any]:
        """Partitions and clusters: what is given, else the target's.

        :raises InvalidArgumentError: The target has others.
        """
        given = {
            "timePartitioning": ("time_partitioning", self.time_partitioning),
            "rangePartitioning": ("range_partitioning", self.range_partitioning),
            "clustering": ("cluster_fields", {"fields": list(self.cluster_fields)} if self.cluster_fields else None),
        }
        found = {}
        for key, (name, value) in given.items():
            there = (target or {}).get(key)
            if value and target is not None and not _agrees(value, there):
                raise InvalidArgumentError(name, value, f"the table is there, and has {there or 'none'}; leave it out")
            if value or there:
                found[key] = there or value
        return found

    def _drop_staging(self, context: Context) -> None:
        """Best effort: what is left goes away by itself."""
        try:
            hook = self._bigquery
            target = rules.check_table("target_table", self.target_table, hook.project)
            dataset = rules.check_dataset(
                "staging_dataset", self.staging_dataset or target.rpartition(".")[0], hook.project
            )
            left = hook.drop_staging(dataset, task_owner(context)[0])
        except Exception:
            self.log.warning("Staging tables could not be looked for; they go away by themselves", exc_info=True)
        else:
            if left:
                self.log.info("Deleted what was left of the step: %s", ", ".join(left))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """The tables that were read and written, for OpenLineage."""
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        found = task_instance.xcom_pull(task_ids=task_instance.task_id) or {}
        return OperatorLineage(
            inputs=[Dataset(namespace="bigquery", name=name) for name in found.get("source_tables") or ()],
            outputs=[Dataset(namespace="bigquery", name=found["target_table"])] if found.get("target_table") else [],
        )


def _agrees(wanted: dict[str, Any], there: Any) -> bool:
    return isinstance(there, dict) and all(str(there.get(key)) == str(value) for key, value in wanted.items())


def _step_error(error: JobFailedError) -> VertexRayError:
    """The step's own words, where the job handed them back; else the job's."""
    if isinstance(error, BigQueryStepError):
        return error
    found = error.details.get("result")
    told = found.get("error") if isinstance(found, dict) else None
    if not isinstance(told, dict):
        return BigQueryStepError(error.message, error.details)
    details = {**error.details, **{key: str(told.get(key, "")) for key in ("type", "message", "traceback")}}
    details.pop("result")
    job = error.details.get("submission_id")
    if told.get("type") in ("SchemaError", "StepError"):
        return BigQueryStepError(f"Ray job {job}: {told['message']}", details)
    return BigQueryStepError(f"The step failed on the cluster (Ray job {job}):\n{details['traceback']}", details)
