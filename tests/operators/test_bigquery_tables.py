"""Ordinary tables through the BigQuery step, with hardly any option: real Ray, local BigQuery."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from google.cloud import bigquery

from airflow_provider_vertex_ray.errors import BigQueryStepError, BigQueryTableError, InvalidArgumentError
from airflow_provider_vertex_ray.hooks.bigquery import VertexRayBigQueryHook
from airflow_provider_vertex_ray.remote.bigquery.names import new_staging_id
from tests.support.bigquery import BigQuery, step_operator
from tests.support.clusters import jobs_of
from tests.support.tasks import TaskInstance, context_of, run_task

pytestmark = pytest.mark.ray

EVENTS = """
CREATE OR REPLACE TABLE shop.events AS
SELECT
  '20240501' AS event_date, 1714521600000000 + n AS event_timestamp,
  IF(n = 2, NULL, 9007199254740993) AS user_number,
  [
    STRUCT('page' AS key, STRUCT(CONCAT('/', CAST(n AS STRING)) AS text, CAST(NULL AS INT64) AS number) AS value),
    STRUCT('time' AS key, STRUCT(CAST(NULL AS STRING) AS text, n AS number) AS value)
  ] AS event_params,
  STRUCT('desktop' AS category, [TIMESTAMP '2024-05-01 00:00:00+00'] AS seen) AS device,
  '{"a": 9007199254740993}' AS payload, DATE '0001-01-01' AS first_day, NUMERIC '1.000000001' AS price
FROM UNNEST(GENERATE_ARRAY(1, 20)) n
"""


def step(run: str, **more: Any) -> Any:
    operator = step_operator(**more)
    return run_task(operator, context_of(operator, TaskInstance("step", run_id=run)))


def same(batch: Any) -> Any:
    return batch


def with_length(batch: Any) -> Any:
    batch["parts"] = batch["event_params"].list.len()
    return batch


def nothing(batch: Any) -> Any:
    return batch[batch["x"] < 0]


def two_types(batch: Any) -> Any:
    batch["y"] = [1, 2.5][int(batch["x"].iloc[0] % 2)]
    return batch


def other_keys(batch: Any) -> Any:
    records = [{"a": x} if x < 4 else {"a": x, "b": None} for x in batch["x"].tolist()]
    return {"x": batch["x"].to_numpy(), "r": records}


def columns(warehouse: BigQuery, table: str) -> list[tuple[str, str, str]]:
    aliases = {"INTEGER": "INT64", "FLOAT": "FLOAT64"}
    found = warehouse.client.get_table(f"shop.{table}").schema
    return [(each.name, aliases.get(each.field_type, each.field_type), each.mode) for each in found]


def test_analytics_events_pass_with_nothing_declared(warehouse: BigQuery) -> None:
    warehouse.sql(EVENTS)
    found = step("events", source_table="shop.events", transform=with_length, target_table="shop.events_out")
    assert found["rows_written"] == 20
    assert columns(warehouse, "events_out") == [*columns(warehouse, "events"), ("parts", "INT64", "NULLABLE")]
    before, after = (
        warehouse.sql(f"SELECT * FROM shop.{name} ORDER BY event_timestamp") for name in ("events", "events_out")
    )
    assert [{key: value for key, value in row.items() if key != "parts"} for row in after] == before
    assert before[0]["user_number"] == 9007199254740993
    assert before[1]["user_number"] is None
    assert {row["parts"] for row in after} == {2}


@pytest.mark.soak
def test_json_columns_are_json_again(warehouse: BigQuery) -> None:
    fields = [
        bigquery.SchemaField("x", "INT64"),
        bigquery.SchemaField("j", "JSON"),
        bigquery.SchemaField("r", "RECORD", "REPEATED", fields=[bigquery.SchemaField("k", "JSON")]),
    ]
    for name in ("json_in", "json_out"):
        warehouse.client.delete_table(f"shop.{name}", not_found_ok=True)
        warehouse.client.create_table(bigquery.Table(f"{warehouse.project}.shop.{name}", schema=fields))
    warehouse.sql(
        "INSERT INTO shop.json_in (x, j, r) VALUES (1, JSON '{\"a\": 9007199254740993}', [STRUCT(JSON '[1]' AS k)]), "
        "(2, NULL, [])"
    )
    found = step("json", source_table="shop.json_in", transform=same, target_table="shop.json_out")
    assert found["rows_written"] == 2
    assert columns(warehouse, "json_out") == columns(warehouse, "json_in")
    rows = warehouse.sql("SELECT * FROM shop.json_out ORDER BY x")
    assert rows == warehouse.sql("SELECT * FROM shop.json_in ORDER BY x")
    assert rows[0]["j"] == {"a": 9007199254740993}


@pytest.mark.parametrize("disposition", ["WRITE_TRUNCATE", pytest.param("WRITE_APPEND", marks=pytest.mark.soak)])
def test_a_day_without_rows_has_the_columns_of_the_target(warehouse: BigQuery, disposition: str) -> None:
    warehouse.numbers("source", 10)
    warehouse.numbers("daily", 3)
    found = step(
        f"empty-{disposition}",
        source_table="shop.source",
        transform=nothing,
        target_table="shop.daily",
        write_disposition=disposition,
    )
    assert found["rows_written"] == 0
    assert warehouse.counts("daily")[0] == (0 if disposition == "WRITE_TRUNCATE" else 3)
    assert [name for name, _, _ in columns(warehouse, "daily")] == ["x", "y"]


def test_the_types_of_new_columns_do_not_depend_on_the_first_batch(warehouse: BigQuery) -> None:
    warehouse.numbers("source", 10)
    step(
        "types", source_table="shop.source", columns=["x"], transform=two_types, batch_size=1, target_table="shop.mixed"
    )
    assert columns(warehouse, "mixed") == [("x", "INT64", "NULLABLE"), ("y", "FLOAT64", "NULLABLE")]
    assert warehouse.sql("SELECT y, COUNT(*) n FROM shop.mixed GROUP BY y ORDER BY y") == [
        {"y": 1.0, "n": 5},
        {"y": 2.5, "n": 5},
    ]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("shop.keyed", r"'r' \(row 0 .*without b"),
        pytest.param("shop.never", r"batches have the columns r\.b", marks=pytest.mark.soak),
    ],
)
def test_records_with_other_keys_in_another_batch_are_refused(warehouse: BigQuery, target: str, text: str) -> None:
    warehouse.numbers("source", 10)
    warehouse.sql("CREATE OR REPLACE TABLE shop.keyed AS SELECT 0 AS x, STRUCT(0 AS a, 0 AS b) AS r")
    given = {
        "source_table": "shop.source",
        "transform": other_keys,
        "batch_size": 1,
        "write_disposition": "WRITE_APPEND",
    }
    with pytest.raises(BigQueryStepError, match=text):
        step(f"keys-{target}", **given, target_table=target)
    assert warehouse.counts("keyed") == (1, 1)


def partitioned(warehouse: BigQuery, name: str) -> None:
    table = bigquery.Table(
        f"{warehouse.project}.shop.{name}",
        schema=[bigquery.SchemaField("d", "DATE"), bigquery.SchemaField("x", "INT64", "REQUIRED")],
    )
    table.time_partitioning = bigquery.TimePartitioning(field="d")
    warehouse.client.delete_table(table, not_found_ok=True)
    warehouse.client.create_table(table)
    warehouse.sql(f"INSERT INTO shop.{name} (d, x) VALUES (DATE '2024-05-01', 1), (DATE '2024-05-02', 2)")


MAY_FIRST = "SELECT DATE '2024-05-01' AS d, 7 AS x"


@pytest.mark.parametrize(
    ("query", "disposition", "expected"),
    [
        (MAY_FIRST, "WRITE_TRUNCATE", [2, 7]),
        pytest.param(f"{MAY_FIRST} FROM UNNEST([1]) WHERE FALSE", "WRITE_TRUNCATE", [2], marks=pytest.mark.soak),
        pytest.param(MAY_FIRST, "WRITE_EMPTY", "BigQuery rejected publishing to .*20240501", marks=pytest.mark.soak),
        pytest.param(MAY_FIRST, "WRITE_APPEND", [1, 2, 7], marks=pytest.mark.soak),
        pytest.param(
            "SELECT DATE '2024-05-03' AS d, 7 AS x",
            "WRITE_TRUNCATE",
            "outside of the partition 20240501",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_one_partition_is_written_and_no_other(
    warehouse: BigQuery, query: str, disposition: str, expected: list[int] | str
) -> None:
    partitioned(warehouse, "scores")
    given = {"query": query, "target_table": "shop.scores$20240501", "write_disposition": disposition}
    run = f"partition-{disposition}-{expected}"
    if isinstance(expected, str):
        with pytest.raises(BigQueryStepError, match=expected):
            step(run, **given)
        expected = [1, 2]
    else:
        assert step(run, **given)["target_table"] == "demo-project.shop.scores$20240501"
    assert [row["x"] for row in warehouse.sql("SELECT x FROM shop.scores ORDER BY x")] == expected


@pytest.mark.soak
def test_range_partitioning_is_recognised_on_the_second_run(warehouse: BigQuery) -> None:
    warehouse.numbers("source", 10)
    warehouse.client.delete_table("shop.ranged", not_found_ok=True)
    for run in ("first", "second"):
        step(
            f"range-{run}",
            source_table="shop.source",
            target_table="shop.ranged",
            range_partitioning={"field": "x", "range": {"start": 0, "end": 100, "interval": 10}},
            write_disposition="WRITE_TRUNCATE",
        )
        assert warehouse.counts("ranged") == (10, 10)
    table = warehouse.client.get_table("shop.ranged")
    assert table.range_partitioning.field == "x"


@pytest.mark.soak
def test_a_table_without_columns_gets_those_of_the_rows(warehouse: BigQuery) -> None:
    warehouse.numbers("source", 10)
    warehouse.client.delete_table("shop.bare", not_found_ok=True)
    warehouse.client.create_table(bigquery.Table(f"{warehouse.project}.shop.bare"))
    step("bare", source_table="shop.source", transform=same, target_table="shop.bare", write_disposition="WRITE_APPEND")
    assert warehouse.counts("bare") == (10, 10)


def test_a_view_is_read_by_a_query(warehouse: BigQuery) -> None:
    warehouse.numbers("source", 10)
    warehouse.sql("CREATE OR REPLACE VIEW shop.odd AS SELECT x FROM shop.source WHERE MOD(x, 2) = 1")
    found = step("view", source_table="shop.odd", row_filter="x > 3", columns=["x"], target_table="shop.from_view")
    assert (found["rows_read"], found["rows_written"]) == (3, 3)


@pytest.mark.soak
def test_a_condition_beyond_the_storage_api_is_read_by_a_query(warehouse: BigQuery) -> None:
    warehouse.numbers("source", 10)
    warehouse.sql("CREATE OR REPLACE TABLE shop.odds AS SELECT x FROM shop.source WHERE MOD(x, 2) = 1")
    found = step(
        "filter",
        source_table="shop.source",
        row_filter="x IN (SELECT x FROM shop.odds)",
        target_table="shop.from_filter",
    )
    assert (found["rows_read"], found["rows_written"]) == (5, 5)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"query": "DELETE FROM shop.source WHERE TRUE"}, InvalidArgumentError, "this is DELETE"),
        ({"query": "DECLARE k INT64 DEFAULT 1; SELECT k AS k"}, InvalidArgumentError, "this is SCRIPT"),
        ({"query": "SELECT 1 AS a; SELECT 2 AS b"}, InvalidArgumentError, "this is SCRIPT"),
        ({"query": "SELECT COUNT(*) FROM shop.source"}, InvalidArgumentError, "Give each column a name"),
        ({"source_table": "shop.source", "columns": ["x", "nope"]}, InvalidArgumentError, "columns: 'nope'"),
        ({"source_table": "shop.source", "row_filter": "x > 1; DELETE FROM shop.source WHERE TRUE"}, Exception, "."),
        ({"source_table": "shop.typed"}, BigQueryTableError, "Column g has the type GEOGRAPHY"),
        ({"source_table": "shop.source", "target_table": "shop.odd"}, BigQueryTableError, "is a VIEW"),
        (
            {"source_table": "shop.source", "target_table": "shop.kept"},
            BigQueryTableError,
            "y is FLOAT64 in the source",
        ),
        (
            {"source_table": "shop.source", "target_table": "shop.kept$20240501"},
            InvalidArgumentError,
            "not partitioned",
        ),
        (
            {
                "source_table": "shop.source",
                "target_table": "shop.unmade",
                "schema_fields": [{"name": "i", "type": "INTERVAL"}],
            },
            BigQueryTableError,
            "type INTERVAL",
        ),
        (
            {
                "source_table": "shop.source",
                "target_table": "shop.kept",
                "write_disposition": "WRITE_APPEND",
                "schema_fields": [{"name": "x", "type": "STRING"}, {"name": "y", "type": "STRING"}],
            },
            InvalidArgumentError,
            "x is NULLABLE INT64 there",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_run_is_refused_before_a_job_starts(
    warehouse: BigQuery, bigquery_emulator: EmulatorProcess, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    warehouse.numbers("source", 3)
    warehouse.sql("CREATE OR REPLACE VIEW shop.odd AS SELECT x FROM shop.source WHERE MOD(x, 2) = 1")
    warehouse.sql("CREATE OR REPLACE TABLE shop.kept AS SELECT 1 AS x, 'a' AS y FROM UNNEST([1]) WHERE FALSE")
    warehouse.client.create_table(
        bigquery.Table(
            f"{warehouse.project}.shop.typed",
            schema=[bigquery.SchemaField("x", "INT64"), bigquery.SchemaField("g", "GEOGRAPHY")],
        ),
        exists_ok=True,
    )
    before = jobs_of(bigquery_emulator, "shared")
    with pytest.raises(error, match=text):
        step("refused", **{"target_table": "shop.never", **given})
    assert jobs_of(bigquery_emulator, "shared") == before
    assert warehouse.counts("source") == (3, 3)


def test_a_value_that_does_not_fit_is_named(warehouse: BigQuery) -> None:
    warehouse.sql("CREATE OR REPLACE TABLE shop.moments AS SELECT DATETIME '2024-05-01 23:59:59' AS d")
    warehouse.sql("CREATE OR REPLACE TABLE shop.days AS SELECT DATE '2024-01-01' AS d")
    with pytest.raises(BigQueryStepError, match=r"Column 'd' \(row 0 .*23, 59, 59.*time of day"):
        step("moment", source_table="shop.moments", target_table="shop.days", write_disposition="WRITE_APPEND")
    assert warehouse.sql("SELECT d FROM shop.days") == [{"d": datetime.date(2024, 1, 1)}]


def test_the_clean_up_of_one_job_leaves_the_tables_of_the_next(warehouse: BigQuery) -> None:
    first, second = new_staging_id("job"), new_staging_id("job-a2")
    for name in (first, second):
        warehouse.numbers(f"{name}_out", 1)
    hook = VertexRayBigQueryHook("google_cloud_default", None, warehouse.project)
    assert hook.drop_staging(f"{warehouse.project}.shop", ["job"]) == [f"{warehouse.project}.shop.{first}_out"]
    assert warehouse.staging() == {f"{second}_out"}
    hook.drop_staging(f"{warehouse.project}.shop", ["job", "job-a2"])
