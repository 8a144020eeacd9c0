"""Launcher of ``bqemulator`` that adds what only the service does: job ids can be used once, and copies are as there.

It runs in an environment of its own without this package, and is therefore started by its path. The extensions that
bqemulator downloads at its start are skipped, so that it has no spatial functions and reads neither Avro nor Excel.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
from typing import Any

_upload_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("upload_id", default=None)
_jobs: dict[str, asyncio.Event] = {}


@contextlib.asynccontextmanager
async def _single_use(project: str, job_id: str) -> Any:
    """Raise an error for a job id that is taken, as soon as the job with this id can be read."""
    from bqemulator.domain.errors import AlreadyExistsError  # type: ignore[import-not-found]

    key = f"{project}:{job_id}"
    while key in _jobs:
        ended = _jobs[key]
        await ended.wait()
        if _jobs.get(key) is ended:
            raise AlreadyExistsError(f"Already Exists: Job {project}:US.{job_id}")
    _jobs[key] = asyncio.Event()
    try:
        yield
    except BaseException:
        # The request was refused, so the id is not taken.
        _jobs.pop(key).set()
        raise
    # The route stores the job right after this; nothing that could read the job runs in between.
    asyncio.get_running_loop().call_soon(_jobs[key].set)


def _patch_job_ids() -> None:
    from bqemulator.api.routes import jobs, upload  # type: ignore[import-not-found]

    def once(name: str) -> None:
        original = getattr(jobs, name)

        @functools.wraps(original)
        async def run(project_id: str, job_id: str, *arguments: Any, **more: Any) -> Any:
            if more.get("dry_run"):
                return await original(project_id, job_id, *arguments, **more)
            async with _single_use(project_id, job_id):
                return await original(project_id, job_id, *arguments, **more)

        setattr(jobs, name, run)

    for name in ("execute_copy_job", "_handle_query_job", "_handle_load_job_with_async_envelope"):
        once(name)
    read, load, new_id = upload._load_configuration_from_envelope, upload._run_load, upload._new_job_id

    def configuration(envelope: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = read(envelope)
        return {**found, "_jobId": (envelope.get("jobReference") or {}).get("jobId")}

    async def run_load(*, project_id: str, configuration: dict[str, Any], **more: Any) -> Any:
        configuration = dict(configuration)
        job_id = configuration.pop("_jobId", None) or new_id()
        token = _upload_id.set(job_id)
        try:
            async with _single_use(project_id, job_id):
                return await load(project_id=project_id, configuration=configuration, **more)
        finally:
            _upload_id.reset(token)

    upload._load_configuration_from_envelope = configuration
    upload._run_load = run_load
    upload._new_job_id = lambda: _upload_id.get() or new_id()


_PARTITION_IDS = {"HOUR": "%Y%m%d%H", "DAY": "%Y%m%d", "MONTH": "%Y%m", "YEAR": "%Y"}


def _patch_copies() -> None:
    """Copy as the service does.

    A copy that does not fit is rejected with status 400 and changes nothing, WRITE_TRUNCATE replaces the columns too,
    ``table$20240501`` is a partition, and the number of rows of the destination is known.
    """
    from bqemulator.domain.errors import UnsupportedFeatureError, ValidationError
    from bqemulator.jobs import executor  # type: ignore[import-not-found]

    copy = executor._copy_table_into_destination

    def columns(fields: Any) -> list[Any]:
        same = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}
        return [
            (each.name.lower(), same.get(each.type, each.type), each.mode == "REPEATED", columns(each.fields))
            for each in fields
        ]

    def condition(table: Any, partition: str) -> str:
        parts = table.time_partitioning
        if parts is None or not parts.field:
            raise UnsupportedFeatureError("Only partitions by a time column can be copied here.")
        column = f'CAST("{parts.field}" AS TIMESTAMP)'
        return f"strftime({column}, '{_PARTITION_IDS[parts.type]}') = '{partition}'"

    async def copied(
        *,
        src_proj: str,
        src_ds: str,
        src_table_id: str,
        dst_proj: str,
        dst_ds: str,
        dst_table_id: str,
        write_disposition: str,
        ctx: Any,
        **more: Any,
    ) -> None:
        (source, _, source_part), (name, _, part) = src_table_id.partition("$"), dst_table_id.partition("$")
        reference, origin = (
            executor.quoted_table_ref(*each) for each in ((dst_proj, dst_ds, name), (src_proj, src_ds, source))
        )
        table, source_table = (
            ctx.catalog.get_table(dst_proj, dst_ds, name),
            ctx.catalog.get_table(src_proj, src_ds, source),
        )
        both = table is not None and source_table is not None
        if both and columns(table.schema_.fields) != columns(source_table.schema_.fields):
            if part or (write_disposition != "WRITE_TRUNCATE" and table.schema_.fields):
                raise ValidationError(f"Provided Schema does not match Table {dst_proj}:{dst_ds}.{name}.")
            ctx.engine.execute(f"DROP TABLE {reference}")
            ctx.catalog.delete_table(dst_proj, dst_ds, name)
        if both and part:
            inside = condition(table, part)
            held = ctx.engine.execute(f"SELECT COUNT(*) FROM {reference} WHERE {inside}").fetchone()  # noqa: S608 (quoted)
            if write_disposition == "WRITE_EMPTY" and held[0]:
                raise ValidationError(f"Already Exists: Table {dst_proj}:{dst_ds}.{dst_table_id}")
            where = f" WHERE {condition(source_table, source_part)}" if source_part else ""
            async with ctx.engine.write_lock():
                if write_disposition == "WRITE_TRUNCATE":
                    ctx.engine.execute(f"DELETE FROM {reference} WHERE {inside}")  # noqa: S608
                ctx.engine.execute(f"INSERT INTO {reference} SELECT * FROM {origin}{where}")  # noqa: S608
                ctx.snapshots.record_change(dst_proj, dst_ds, name)
        else:
            await copy(
                src_proj=src_proj,
                src_ds=src_ds,
                src_table_id=src_table_id,
                dst_proj=dst_proj,
                dst_ds=dst_ds,
                dst_table_id=dst_table_id,
                write_disposition=write_disposition,
                ctx=ctx,
                **more,
            )
        (rows,) = ctx.engine.execute(f"SELECT COUNT(*) FROM {reference}").fetchone()  # noqa: S608 (quoted)
        table = ctx.catalog.get_table(dst_proj, dst_ds, name)
        ctx.catalog.update_table(table.model_copy(update={"num_rows": int(rows)}))

    executor._copy_table_into_destination = copied


def _patch_range_partitioning() -> None:
    """Keep the ``rangePartitioning`` of a table, which bqemulator's REST API drops."""
    from bqemulator.api.routes import tables
    from bqemulator.catalog.models import RangePartitioning  # type: ignore[import-not-found]

    to_meta, to_rest = tables._rest_to_table_meta, tables._table_to_rest

    def meta(project: str, dataset: str, body: dict[str, Any], clock: Any, existing: Any = None) -> Any:
        found = to_meta(project, dataset, body, clock, existing)
        given = body.get("rangePartitioning")
        if given:
            bounds = {key: int(value) for key, value in given["range"].items()}
            return found.model_copy(update={"range_partitioning": RangePartitioning(field=given["field"], **bounds)})
        return found.model_copy(update={"range_partitioning": existing.range_partitioning if existing else None})

    def rest(table: Any) -> dict[str, Any]:
        found: dict[str, Any] = to_rest(table)
        parts = table.range_partitioning
        if parts is not None:
            bounds = {key: str(getattr(parts, key)) for key in ("start", "end", "interval")}
            found["rangePartitioning"] = {"field": parts.field, "range": bounds}
        return found

    tables._rest_to_table_meta, tables._table_to_rest = meta, rest


def main(project: str) -> None:
    """Serve until SIGTERM; the log has the ports."""
    from bqemulator.cli import main as serve  # type: ignore[import-not-found]
    from bqemulator.storage.engine import DuckDBEngine  # type: ignore[import-not-found]

    DuckDBEngine._load_spatial = DuckDBEngine._load_format_extensions = lambda self: None
    _patch_job_ids()
    _patch_copies()
    _patch_range_partitioning()
    ports = ["--rest-port", "0", "--grpc-port", "0"]
    sys.argv = ["bqemulator", "start", *ports, "--project", project, "--log-level", "info", "--log-format", "json"]
    serve()


if __name__ == "__main__":
    main(sys.argv[1])
