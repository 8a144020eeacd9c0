"""The BigQuery step on the cluster: query, read, transform, stage, publish.

One copy job with an id derived from the step changes the target: whatever fails or is repeated, the target is the old
table or the complete new one, and rows are appended once.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

from .. import runner
from ..job import hand_back
from ..tracebacks import show_in_tracebacks
from ..values import decode
from .jobs import done_before, once
from .names import new_staging_id

__all__ = ["main"]

READ_LABEL = "vertex-ray-rows-read"
WRITTEN_LABEL = "vertex-ray-rows-written"


class StepError(RuntimeError):
    """The step failed, and the target is unchanged."""


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
    staging = f"{plan['staging_dataset']}.{new_staging_id(plan['owner'])}"
    source, out = f"{staging}_src", f"{staging}_out"
    try:
        billed = 0
        if plan["query"]:
            billed = _query(client, plan, source)
        else:
            source = plan["source_table"]
        counts = _transform(client, plan, source, out)
        return {**_result(plan, _publish(client, plan, out, counts), adopted=False), "bytes_billed": billed}
    finally:
        for table in {f"{staging}_src", out}:
            client.delete_table(table, not_found_ok=True)


def _query(client: Any, plan: dict[str, Any], table: str) -> int:
    """Run the query into a table, which has no limit of 10 GB as a response has.

    :return: number of billed bytes.
    """
    from google.cloud import bigquery

    from .sink import expiry

    config = bigquery.QueryJobConfig(
        maximum_bytes_billed=plan["maximum_bytes_billed"], labels=plan["labels"], use_legacy_sql=False
    )
    # In one statement, so that a table that appears after this driver was killed expires as well.
    text = (
        f"CREATE TABLE `{table}` OPTIONS(expiration_timestamp=TIMESTAMP '{expiry(plan):%Y-%m-%d %H:%M:%S+00}') AS\n"
        f"{plan['query'].strip().rstrip(';')}\n"
    )
    print(f"Running the query into {table}")
    location = plan["location"]
    job = once(
        client,
        table.rpartition(".")[2],
        location,
        lambda job_id: client.query(text, job_config=config, job_id=job_id, location=location, job_retry=None),
    )
    return int(job.total_bytes_billed or 0)


def _transform(client: Any, plan: dict[str, Any], source: str, out: str) -> tuple[int, int]:
    """Read, transform and stage the rows.

    :return: number of rows read and written.
    :raises StepError: the staging table does not contain the rows that were written.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from .sink import Clerk, StagingSink, create_staging
    from .source import TableSource

    ray.data.DataContext.get_current().enable_progress_bars = False
    fields = plan["fields"]
    if fields is not None:
        create_staging(client, plan, out, fields)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    clerk = ray.remote(num_cpus=0)(Clerk).options(scheduling_strategy=here).remote(plan, out, fields)
    columns, row_filter = (None, None) if plan["query"] else (plan["columns"], plan["row_filter"])
    print(f"Reading {source}")
    table = TableSource(plan["project"], source, columns, row_filter, clerk)
    # Left alone, Ray cuts what is small into many blocks, and each would be a load job.
    rows = ray.data.read_datasource(table, override_num_blocks=max(1, len(table.streams)))
    if plan["transform"]:
        rows = rows.map_batches(_callable(plan), **_map_arguments(plan))
    sink = StagingSink(plan, out, clerk)
    rows.write_datasink(sink)
    read = ray.get(clerk.rows_read.remote())
    if not sink.written and fields is None:
        raise StepError(
            f"{source} has no rows to write, so the columns of {plan['target']} are unknown. Set schema_fields."
        )
    held = client.get_table(out).num_rows
    if held != sink.written:
        raise StepError(f"The staging table contains {held} rows instead of the {sink.written} that were written.")
    print(f"Read {read} rows, and staged {sink.written} with {sink.loads} load jobs")
    return read, sink.written


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


def _publish(client: Any, plan: dict[str, Any], out: str, counts: tuple[int, int]) -> Any:
    from google.cloud import bigquery

    read, written = counts
    config = bigquery.CopyJobConfig(
        write_disposition=plan["write_disposition"],
        create_disposition=plan["create_disposition"],
        # The labels tell a later attempt what it can no longer count.
        labels={**plan["labels"], READ_LABEL: str(read), WRITTEN_LABEL: str(written)},
    )
    location = plan["location"]
    print(f"Publishing to {plan['target']} ({plan['write_disposition']})")
    return once(
        client,
        plan["publish_id"],
        location,
        lambda job_id: client.copy_table(out, plan["target"], job_id=job_id, location=location, job_config=config),
    )


def _result(plan: dict[str, Any], published: Any, *, adopted: bool) -> dict[str, Any]:
    labels = published.labels or {}
    return {
        **plan["told"],
        "rows_read": int(labels.get(READ_LABEL, 0)),
        "rows_written": int(labels.get(WRITTEN_LABEL, 0)),
        "target_table": plan["target"],
        "publish_job_id": published.job_id,
        "published_before": adopted,
        "bytes_billed": 0,
    }
