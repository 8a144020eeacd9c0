"""The BigQuery step from end to end: a real Ray, and an emulator of BigQuery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, until

from airflow_provider_vertex_ray.errors import (
    BigQueryStepError,
    BigQueryTableError,
    BytesBilledLimitError,
    InvalidArgumentError,
)
from airflow_provider_vertex_ray.hooks.bigquery import Source, VertexRayBigQueryHook
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from tests.support.bigquery import BigQuery, step_operator
from tests.support.clusters import jobs_of
from tests.support.tasks import TaskInstance, context_of, deferral_of, run_task

pytestmark = pytest.mark.ray


def doubled(batch: Any, times: int = 2) -> Any:
    batch["z"] = batch["x"] * times
    return batch


class Adder:
    def __init__(self, plus: int) -> None:
        self.plus = plus

    def __call__(self, batch: Any) -> Any:
        batch["z"] = batch["x"] + self.plus
        return batch


def one_column(batch: Any) -> Any:
    return batch[["x"]]


def failing(batch: Any) -> Any:
    raise RuntimeError(f"no rows like these: {len(batch)}")


def gated(batch: Any, folder: str) -> Any:
    import pathlib
    import time

    pathlib.Path(folder, "started").touch()
    while not pathlib.Path(folder, "go").exists():
        time.sleep(0.05)
    return batch


def test_a_table_through_a_function_into_a_new_table(warehouse: BigQuery, bigquery_emulator: EmulatorProcess) -> None:
    source = warehouse.numbers("source", 1000)
    operator = step_operator(
        source_table=source,
        columns=["x"],
        row_filter="x <= 600",
        transform=doubled,
        fn_kwargs={"times": 3},
        target_table="shop.fresh",
        cluster_fields=["x"],
    )
    first = context_of(operator, TaskInstance("step", run_id="fresh", max_tries=2))
    before = len(jobs_of(bigquery_emulator, "shared"))
    found = run_task(operator, first)
    assert (found["rows_read"], found["rows_written"], found["published_before"]) == (600, 600, False)
    assert found["target_table"] == "demo-project.shop.fresh"
    assert found["source_tables"] == ["demo-project.shop.source"]
    assert warehouse.sql("SELECT SUM(z) s, COUNT(DISTINCT x) d FROM shop.fresh") == [
        {"s": 3 * 600 * 601 // 2, "d": 600}
    ]
    assert warehouse.client.get_table("shop.fresh").clustering_fields == ["x"]
    # The worker died before it could say so: the next try takes what there is, and writes nothing.
    again = context_of(operator, TaskInstance("step", run_id="fresh", max_tries=2, try_number=2))
    assert run_task(operator, again) == found
    assert len(jobs_of(bigquery_emulator, "shared")) == before + 1


def test_a_query_through_actors_is_appended_once(warehouse: BigQuery, bigquery_emulator: EmulatorProcess) -> None:
    source = warehouse.numbers("source", 100)
    warehouse.sql("CREATE OR REPLACE TABLE shop.appended AS SELECT 0 AS x, 0 AS z")
    operator = step_operator(
        query=f"SELECT x FROM {source} WHERE x > {{{{ ti.try_number * 0 }}}}",
        transform=Adder,
        fn_constructor_kwargs={"plus": 7},
        concurrency=1,
        target_table="shop.appended",
        write_disposition="WRITE_APPEND",
        deferrable=True,
    )
    first = context_of(operator, TaskInstance("step", run_id="appended", max_tries=2))
    assert run_task(operator, first)["rows_written"] == 100
    assert warehouse.counts("appended") == (101, 101)
    # A cluster that knows nothing of the job, as one that was made anew: what was published is not published again.
    operator.submission_id = "of-another-cluster"
    again = context_of(operator, TaskInstance("step", run_id="appended", max_tries=2, try_number=2))
    assert run_task(operator, again)["published_before"] is True
    assert warehouse.counts("appended") == (101, 101)


def test_other_columns_than_declared_leave_the_table_as_it_was(warehouse: BigQuery) -> None:
    source = warehouse.numbers("source", 10)
    warehouse.sql("CREATE OR REPLACE TABLE shop.kept AS SELECT 1 AS x, 2.0 AS y")
    operator = step_operator(
        source_table=source,
        transform=one_column,
        target_table="shop.kept",
        write_disposition="WRITE_TRUNCATE",
        schema_fields=[{"name": "x", "type": "INT64"}, {"name": "y", "type": "FLOAT64"}],
    )
    with pytest.raises(BigQueryStepError, match="rows without y; schema_fields has the columns x, y"):
        run_task(operator, context_of(operator, TaskInstance("step", run_id="other-columns")))
    assert warehouse.sql("SELECT * FROM shop.kept") == [{"x": 1, "y": 2.0}]


def test_the_transforms_own_error_comes_with_its_lines(warehouse: BigQuery) -> None:
    operator = step_operator(source_table=warehouse.numbers("source", 10), transform=failing, target_table="shop.never")
    with pytest.raises(BigQueryStepError, match=r"RuntimeError: no rows like these: 10") as caught:
        run_task(operator, context_of(operator, TaskInstance("step", run_id="failing")))
    assert "in failing" in str(caught.value)
    assert "never" not in warehouse.tables()


def test_a_killed_driver_leaves_the_old_table_and_a_retry_the_new_one(
    warehouse: BigQuery, bigquery_emulator: EmulatorProcess, tmp_path: Path
) -> None:
    import threading

    warehouse.numbers("replaced", 3)
    operator = step_operator(
        source_table=warehouse.numbers("source", 50),
        transform=gated,
        fn_kwargs={"folder": str(tmp_path)},
        target_table="shop.replaced",
        write_disposition="WRITE_TRUNCATE",
        deferrable=True,
    )
    context = context_of(operator, TaskInstance("step", run_id="killed", max_tries=1))
    waiting = deferral_of(operator, context)

    def kill() -> None:
        until((tmp_path / "started").exists, "the transform has not begun")
        job = waiting.trigger.submission_id  # type: ignore[attr-defined]
        bigquery_emulator.admin("POST", "clusters/shared/kill", {"part": "driver", "submission_id": job})

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BigQueryStepError):
        _finish(operator, context, waiting)
    killer.join()
    assert warehouse.counts("replaced") == (3, 3)
    assert warehouse.staging() == set()
    (tmp_path / "go").touch()
    again = context_of(operator, TaskInstance("step", run_id="killed", max_tries=1, try_number=2))
    assert run_task(operator, again)["rows_written"] == 50
    assert warehouse.counts("replaced") == (50, 50)


def _finish(operator: VertexRayBigQueryOperator, context: Any, waiting: Any) -> Any:
    import asyncio

    from tests.support.tasks import first_event, round_trip

    event = asyncio.run(first_event(round_trip(waiting.trigger)))
    return operator.execute_complete(context, event)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"target_table": "nowhere.t"}, "BigQuery rejected target_table: dataset .*nowhere"),
        ({"source_table": "shop.missing"}, "BigQuery rejected the source: .*missing"),
        ({"source_table": None, "query": "SELECT nothing FROM shop.source"}, "BigQuery rejected the source"),
        ({"target_table": "shop.filled"}, "has rows, and write_disposition is WRITE_EMPTY"),
        ({"create_disposition": "CREATE_NEVER"}, "demo-project.shop.new does not exist, and create_disposition"),
        ({"staging_dataset": "nowhere"}, "staging_dataset: dataset"),
    ],
    ids=str,
)
def test_what_is_not_there_is_said_before_anything_starts(
    warehouse: BigQuery, bigquery_emulator: EmulatorProcess, given: dict[str, Any], text: str
) -> None:
    warehouse.numbers("source", 10)
    warehouse.numbers("filled", 1)
    before = jobs_of(bigquery_emulator, "shared")
    with pytest.raises(BigQueryTableError, match=text):
        run_task(step_operator(**{"source_table": "shop.source", "target_table": "shop.new", **given}))
    assert jobs_of(bigquery_emulator, "shared") == before
    assert "new" not in warehouse.tables()


def test_other_partitions_than_the_tables_are_refused(warehouse: BigQuery) -> None:
    warehouse.numbers("source", 10)
    operator = step_operator(
        source_table="shop.source",
        target_table="shop.source",
        write_disposition="WRITE_TRUNCATE",
        cluster_fields=["y"],
    )
    with pytest.raises(InvalidArgumentError, match="cluster_fields"):
        run_task(operator)


def test_more_bytes_than_the_limit_are_refused(warehouse: BigQuery, monkeypatch: pytest.MonkeyPatch) -> None:
    # The emulator of BigQuery counts no bytes, so its answer is made up.
    class Job:
        total_bytes_processed = 2000
        schema = ()
        referenced_tables = ()

    class Client:
        def query(self, sql: str, **more: Any) -> Job:
            assert more["job_config"].dry_run
            return Job()

    monkeypatch.setattr(VertexRayBigQueryHook, "client", lambda self, location=None: Client())
    hook = VertexRayBigQueryHook("google_cloud_default", None, "demo-project")
    with pytest.raises(BytesBilledLimitError, match="2,000 bytes, and maximum_bytes_billed is 1,999"):
        hook.source("SELECT 1", "US", 1999)
    assert hook.source("SELECT 1", "US", 2000) == Source(2000)
