"""The BigQuery step on the cluster: query, read, transform, stage, publish.

One copy job with an id derived from the step changes the target: whatever fails or is repeated, the target is the old
table or the complete new one, and rows are appended once.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, NoReturn

from .. import runner
from ..job import hand_back
from ..tracebacks import show_in_tracebacks
from ..values import decode
from .batches import wrapped
from .clerk import Clerk, Packer, common_fields
from .fields import Field
from .jobs import StepError, accepted, done_before, once
from .json_columns import has_json, insert_statement, loaded_fields
from .names import create_as, new_staging_id, split_table
from .partition import delete_statement
from .schema import conform
from .staging import create_staging, expiry

__all__ = ["main"]

READ_LABEL = "vertex-ray-rows-read"
WRITTEN_LABEL = "vertex-ray-rows-written"


def main(plan: dict[str, Any]) -> NoReturn:
    """Run the step, return its result to Airflow, and exit.

    :param plan: the plan that ``VertexRayBigQueryOperator`` derives from its parameters.
    """
    hand_back(plan, lambda: {"value": step(plan)})


def step(plan: dict[str, Any]) -> dict[str, Any]:
    """Run the step, unless an earlier attempt has done it, and return what was read and written."""
    from google.cloud import bigquery

    client = bigquery.Client(project=plan["project"], location=plan["location"])
    done = done_before(client, plan["publish_id"], plan["location"])
    if done is not None:
        print(f"An earlier attempt has already written {plan['target']} with job {done.job_id}")
        return _result(plan, done, adopted=True)
    staging = f"{plan['staging_dataset']}.{new_staging_id(runner.job_name())}"
    source, out, typed = f"{staging}_src", f"{staging}_out", f"{staging}_typed"
    try:
        billed = 0
        if plan["query"]:
            billed = _query(client, plan, source)
        else:
            source = plan["source_table"]
        counts, fields = _transform(client, plan, source, out)
        ready = out
        if has_json(fields):
            ready = typed
            billed += _parse_json(client, plan, out, typed, fields, counts[1])
        return {**_result(plan, _publish(client, plan, ready, counts), adopted=False), "bytes_billed": billed}
    finally:
        for table in {f"{staging}_src", out, typed}:
            client.delete_table(table, not_found_ok=True)


def _query(client: Any, plan: dict[str, Any], table: str) -> int:
    """Run the query into a table, which has no limit of 10 GB as a response has.

    :return: number of billed bytes.
    """
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(
        maximum_bytes_billed=plan["maximum_bytes_billed"], labels=plan["labels"], use_legacy_sql=False
    )
    # In one statement, so that a table that appears after this driver was killed expires as well.
    text = create_as(table, plan["query"], f"{expiry(plan):%Y-%m-%d %H:%M:%S+00}")
    print(f"Running the query into {table}")
    job = _run(client, plan, table.rpartition(".")[2], text, config, "the query")
    return int(job.total_bytes_billed or 0)


def _run(client: Any, plan: dict[str, Any], base: str, text: str, config: Any, what: str) -> Any:
    """Run a statement once, and return its job."""

    def start(job_id: str) -> Any:
        return client.query(
            text, job_config=config, job_id=job_id, location=plan["location"], retry=None, job_retry=None
        )

    return accepted(lambda: once(client, base, plan["location"], start), what)


def _parse_json(client: Any, plan: dict[str, Any], out: str, typed: str, fields: list[Field], written: int) -> int:
    """Copy the loaded rows into a table whose JSON columns are JSON.

    :return: number of billed bytes.
    :raises StepError: a text is not JSON.
    """
    from google.cloud import bigquery

    print("Parsing the JSON columns")
    create_staging(client, plan, typed, fields)
    config = bigquery.QueryJobConfig(labels=plan["labels"], use_legacy_sql=False)
    text = insert_statement(out, typed, fields)
    job = _run(client, plan, typed.rpartition(".")[2], text, config, "the JSON columns")
    if job.num_dml_affected_rows not in (None, written):
        raise StepError(f"BigQuery parsed the JSON of {job.num_dml_affected_rows} rows instead of {written}.")
    return int(job.total_bytes_billed or 0)


def _transform(client: Any, plan: dict[str, Any], source: str, out: str) -> tuple[tuple[int, int], list[Field]]:
    """Read, transform and stage the rows.

    :return: number of rows read and written, and the fields of the target.
    :raises StepError: the staging table does not contain the rows that were written.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from .sink import StagingSink
    from .source import TableSource

    ray.data.DataContext.get_current().enable_progress_bars = False
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    clerk = ray.remote(num_cpus=0)(Clerk).options(scheduling_strategy=here).remote()
    columns, row_filter = (None, None) if plan["query"] else (plan["columns"], plan["row_filter"])
    print(f"Reading {source}")
    table = TableSource(plan["project"], source, columns, row_filter, clerk)
    # Left alone, Ray cuts what is small into many blocks, and each would be a load job.
    rows = ray.data.read_datasource(table, override_num_blocks=max(1, len(table.streams)))
    fields = plan["fields"]
    if plan["transform"]:
        # In the task of the transform, because Ray puts batches together before they are written.
        finish = (
            Packer(clerk)
            if fields is None
            else functools.partial(conform, fields=fields, said_by=plan["fields_said_by"])
        )
        arguments = {**_map_arguments(plan), "batch_format": "pyarrow"}
        rows = rows.map_batches(wrapped(_callable(plan), plan["map"]["batch_format"], finish), **arguments)
    if fields is None:
        # Only all rows together say which types the columns of a new table have.
        rows = rows.materialize()
        fields = common_fields(ray.get(clerk.schemas.remote()), plan["source_fields"], plan["target"])
    if has_json(fields):
        create_staging(client, {**plan, "layout": {}}, out, loaded_fields(fields))
    else:
        create_staging(client, plan, out, fields)
    sink = StagingSink(plan, out, fields, conformed=bool(plan["transform"] and plan["fields"]))
    rows.write_datasink(sink)
    read = ray.get(clerk.rows_read.remote())
    held = client.get_table(out).num_rows
    if held != sink.written:
        raise StepError(f"The staging table contains {held} rows instead of the {sink.written} that were written.")
    print(f"Read {read} rows, and staged {sink.written} with {sink.loads} load jobs")
    return (read, sink.written), fields


def _callable(plan: dict[str, Any]) -> Any:
    transform = plan["transform"]
    if isinstance(transform, str):
        module, _, name = transform.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found
    show_in_tracebacks(transform)
    return runner.load(transform)


def _map_arguments(plan: dict[str, Any]) -> dict[str, Any]:
    import ray

    arguments = {name: decode(value) for name, value in plan["map"].items()}
    cpus = arguments.get("num_cpus") or (0 if arguments.get("num_gpus") else 1)
    pool = arguments.get("concurrency")
    wanted = (pool if isinstance(pool, int) else (pool or [0])[0]) * cpus if plan["transform_is_class"] else 0
    have = ray.cluster_resources().get("CPU", 0)
    if wanted and wanted >= have:
        print(
            f"WARNING: The transform's actors need {wanted:g} of the cluster's {have:g} CPUs, which leaves none for "
            "reading and writing; unless the cluster grows, the step hangs. Lower concurrency or num_cpus."
        )
    if isinstance(pool, list):
        # As Airflow renders a tuple.
        arguments["concurrency"] = tuple(pool)
    return arguments


def _publish(client: Any, plan: dict[str, Any], ready: str, counts: tuple[int, int]) -> Any:
    from google.cloud import bigquery

    read, written = counts
    # The labels tell a later attempt what it can no longer count.
    labels = {**plan["labels"], READ_LABEL: str(read), WRITTEN_LABEL: str(written)}
    target, partition = plan["target"], plan["partition"]
    full, suffix = _full_name(plan), f"${partition['id']}" if partition else ""
    print(f"Publishing to {full} ({plan['write_disposition']})")
    if partition and not written:
        # A partition without rows does not exist, and cannot be copied.
        empties = plan["write_disposition"] == "WRITE_TRUNCATE"
        text = delete_statement(target, partition) if empties else "SELECT 0 AS nothing_to_publish"
        config = bigquery.QueryJobConfig(labels=labels, use_legacy_sql=False)
        return _run(client, plan, plan["publish_id"], text, config, f"publishing to {full}")
    copy = bigquery.CopyJobConfig(
        write_disposition=plan["write_disposition"], create_disposition=plan["create_disposition"], labels=labels
    )

    def start(job_id: str) -> Any:
        return client.copy_table(
            _reference(ready + suffix),
            _reference(target + suffix),
            job_id=job_id,
            location=plan["location"],
            job_config=copy,
            retry=None,
        )

    return accepted(lambda: once(client, plan["publish_id"], plan["location"], start), f"publishing to {full}")


def _full_name(plan: dict[str, Any]) -> str:
    """Return the name of the target, with its partition."""
    return f"{plan['target']}${plan['partition']['id']}" if plan["partition"] else str(plan["target"])


def _reference(table: str) -> Any:
    from google.cloud import bigquery

    project, dataset, name = split_table(table)
    return bigquery.TableReference(bigquery.DatasetReference(project, dataset), name)


def _result(plan: dict[str, Any], published: Any, *, adopted: bool) -> dict[str, Any]:
    labels = published.labels or {}
    return {
        **plan["told"],
        "rows_read": int(labels.get(READ_LABEL, 0)),
        "rows_written": int(labels.get(WRITTEN_LABEL, 0)),
        "target_table": _full_name(plan),
        "publish_job_id": published.job_id,
        "published_before": adopted,
        "bytes_billed": 0,
    }
