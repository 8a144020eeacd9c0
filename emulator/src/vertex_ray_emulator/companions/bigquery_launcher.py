"""Launcher of ``bqemulator`` that adds what only the service does: job ids can be used once.

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


def _patch_row_counts() -> None:
    """Set the number of rows of a table that was the destination of a copy."""
    from bqemulator.jobs import executor  # type: ignore[import-not-found]

    copy = executor._copy_table_into_destination

    async def counted(*, dst_proj: str, dst_ds: str, dst_table_id: str, ctx: Any, **more: Any) -> None:
        await copy(dst_proj=dst_proj, dst_ds=dst_ds, dst_table_id=dst_table_id, ctx=ctx, **more)
        reference = executor.quoted_table_ref(dst_proj, dst_ds, dst_table_id)
        (rows,) = ctx.engine.execute(f"SELECT COUNT(*) FROM {reference}").fetchone()  # noqa: S608 (quoted)
        table = ctx.catalog.get_table(dst_proj, dst_ds, dst_table_id)
        ctx.catalog.update_table(table.model_copy(update={"num_rows": int(rows)}))

    executor._copy_table_into_destination = counted


def main(project: str) -> None:
    """Serve until SIGTERM; the log has the ports."""
    from bqemulator.cli import main as serve  # type: ignore[import-not-found]
    from bqemulator.storage.engine import DuckDBEngine  # type: ignore[import-not-found]

    DuckDBEngine._load_spatial = DuckDBEngine._load_format_extensions = lambda self: None
    _patch_job_ids()
    _patch_row_counts()
    ports = ["--rest-port", "0", "--grpc-port", "0"]
    sys.argv = ["bqemulator", "start", *ports, "--project", project, "--log-level", "info", "--log-format", "json"]
    serve()


if __name__ == "__main__":
    main(sys.argv[1])
