"""Fields of sources, of batches and of targets, against each other."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pytest

from airflow_provider_vertex_ray.remote.bigquery.clerk import common_fields
from airflow_provider_vertex_ray.remote.bigquery.fields import SchemaError, check_carried, unfit
from airflow_provider_vertex_ray.remote.bigquery.json_columns import insert_statement, loaded_fields
from airflow_provider_vertex_ray.remote.bigquery.names import new_staging_id, split_table, staging_prefix
from airflow_provider_vertex_ray.remote.bigquery.partition import check_rows, delete_statement, partition_of


def common(*schemas: dict[str, Any], source: Any = ()) -> list[tuple[str, str, str]]:
    """The common fields of batches, which are the same in every order of the batches."""
    found = []
    for order in itertools.permutations(schemas):
        texts = [pa.schema(list(each.items())).serialize().to_pybytes() for each in order]
        found.append(common_fields(texts, list(source), "p.d.t"))
    assert all(each == found[0] for each in found)
    return [(each["name"], each["type"], each["mode"]) for each in found[0]]


def test_columns_hold_the_rows_of_all_batches() -> None:
    assert common({"a": pa.int64()}, {"a": pa.float64()}, {"a": pa.null()}) == [("a", "FLOAT64", "NULLABLE")]
    assert common({"a": pa.decimal128(5, 2)}, {"a": pa.decimal256(60, 30)}) == [("a", "BIGNUMERIC", "NULLABLE")]
    assert common({"a": pa.null()}, {"a": pa.list_(pa.string())}) == [("a", "STRING", "REPEATED")]
    assert common({"a": pa.list_(pa.null())}, {"a": pa.list_(pa.string())}) == [("a", "STRING", "REPEATED")]
    assert common({"a": pa.int8(), "B": pa.bool_()}, {"b": pa.bool_(), "A": pa.int32()}) == [
        ("A", "INT64", "NULLABLE"),
        ("B", "BOOL", "NULLABLE"),
    ]


@pytest.mark.parametrize(
    ("schemas", "text"),
    [
        ([{"a": pa.int64()}, {"a": pa.string()}], "a is INT64 in some batches and STRING in others"),
        ([{"a": pa.int64()}, {"a": pa.list_(pa.int64())}], "a is an array in some batches only"),
        ([{"a": pa.int64()}, {"b": pa.int64()}], "Only some batches have the columns a, b"),
        ([{"a": pa.null()}], "The type of a is unknown"),
        (
            [{"a": pa.struct([("x", pa.int64())])}, {"a": pa.struct([("x", pa.int64()), ("y", pa.int64())])}],
            "Only some batches have the columns a.y",
        ),
        ([], "The source has no rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batches_that_do_not_agree_are_an_error(schemas: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        common(*schemas)


def test_the_source_says_what_values_do_not() -> None:
    source = [
        {"name": "j", "type": "JSON"},
        {"name": "n", "type": "GEOGRAPHY"},
        {"name": "e", "type": "DATE", "mode": "REPEATED"},
        {"name": "r", "type": "RECORD", "fields": [{"name": "j", "type": "JSON"}]},
    ]
    given = {"j": pa.string(), "n": pa.int64(), "e": pa.list_(pa.null()), "r": pa.struct([("j", pa.string())])}
    assert common(given, source=source) == [
        ("j", "JSON", "NULLABLE"),
        ("n", "INT64", "NULLABLE"),
        ("e", "DATE", "REPEATED"),
        ("r", "RECORD", "NULLABLE"),
    ]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"name": "g", "type": "GEOGRAPHY"}, "ST_ASTEXT"),
        (
            {"name": "r", "type": "RECORD", "fields": [{"name": "i", "type": "INTERVAL"}]},
            "Column r.i has the type INTERVAL",
        ),
        ({"name": "r", "type": "STRUCT"}, "RECORD without fields"),
        ({"name": "x", "type": "TEXT"}, "type TEXT"),
        ({"name": "x"}, "type None"),
        ({"type": "INT64"}, "not a field"),
        ("x", "not a field"),
        ({"name": "x", "type": "INT64", "mode": "MANY"}, "mode 'MANY'"),
    ],
    ids=str,
)
def test_fields_that_are_not_carried_are_named(field: Any, text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        check_carried([field])


def test_a_source_that_never_fits_is_known_before() -> None:
    def fields(kind: str, mode: str = "NULLABLE") -> list[dict[str, Any]]:
        return [{"name": "r", "type": "RECORD", "fields": [{"name": "a", "type": kind, "mode": mode}]}]

    assert unfit(fields("INTEGER"), fields("FLOAT64")) is None
    assert unfit(fields("DATETIME"), fields("DATE")) is None
    assert unfit(fields("TIMESTAMP"), fields("DATETIME")) == "r.a is TIMESTAMP in the source and DATETIME in the target"
    assert (
        unfit(fields("INT64", "REPEATED"), fields("INT64"))
        == "r.a is REPEATED in the source and NULLABLE in the target"
    )
    assert unfit([], fields("INT64")) == "the source has no r"


def test_json_is_parsed_at_every_depth() -> None:
    inner = [{"name": "k", "type": "INT64"}, {"name": "j", "type": "JSON"}]
    fields = [{"name": "a", "type": "INT64"}, {"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": inner}]
    assert loaded_fields(fields)[1]["fields"][1] == {"name": "j", "type": "STRING"}
    assert insert_statement("p.d.out", "p.d.typed", fields) == (
        "INSERT INTO `p.d.typed` (`a`, `r`)\n"
        "SELECT loaded.`a`, ARRAY(SELECT IF(item0 IS NULL, NULL, STRUCT(item0.`k` AS `k`, "
        "PARSE_JSON(item0.`j`, wide_number_mode => 'exact') AS `j`)) "
        "FROM UNNEST(loaded.`r`) AS item0 WITH OFFSET AS place0 ORDER BY place0)\n"
        "FROM `p.d.out` AS loaded"
    )


def test_a_domain_is_part_of_the_project() -> None:
    assert split_table("example.com:project.d.t") == ("example.com:project", "d", "t")


def test_staging_tables_belong_to_one_job() -> None:
    assert new_staging_id("job").startswith(staging_prefix("job"))
    assert not new_staging_id("job-a2").startswith(staging_prefix("job"))
    assert new_staging_id("job") != new_staging_id("job")


def table(kind: str = "DATE", **partitioning: Any) -> dict[str, Any]:
    return {"schema": {"fields": [{"name": "D", "type": kind}]}, **partitioning}


@pytest.mark.parametrize(
    ("found", "partition", "statement"),
    [
        (table(timePartitioning={"field": "d"}), "20240229", "`d` BETWEEN DATE '2024-02-29' AND DATE '2024-02-29'"),
        (
            table("TIMESTAMP", timePartitioning={"field": "d", "type": "HOUR"}),
            "2024050123",
            "`d` BETWEEN TIMESTAMP '2024-05-01 23:00:00+00' AND TIMESTAMP '2024-05-01 23:59:59.999999+00'",
        ),
        (
            table("DATETIME", timePartitioning={"field": "d", "type": "MONTH"}),
            "202402",
            "`d` BETWEEN DATETIME '2024-02-01 00:00:00' AND DATETIME '2024-02-29 23:59:59.999999'",
        ),
        (
            table(timePartitioning={"field": "d", "type": "YEAR"}),
            "9999",
            "`d` BETWEEN DATE '9999-01-01' AND DATE '9999-12-31'",
        ),
        (
            table(timePartitioning={"type": "DAY"}),
            "20240501",
            "_PARTITIONTIME BETWEEN TIMESTAMP '2024-05-01 00:00:00+00' AND TIMESTAMP '2024-05-01 23:59:59.999999+00'",
        ),
        (
            table("INT64", rangePartitioning={"field": "d", "range": {"start": "0", "end": "25", "interval": "10"}}),
            "20",
            "`d` BETWEEN 20 AND 24",
        ),
        (table(timePartitioning={"field": "d"}), "__NULL__", "`d` IS NULL"),
    ],
    ids=str,
)
def test_partitions_have_bounds(found: dict[str, Any], partition: str, statement: str) -> None:
    made = partition_of(found, partition)
    assert delete_statement("p.d.t", made) == f"DELETE FROM `p.d.t` WHERE {statement}"


BY_TENS = {"field": "d", "range": {"start": 0, "end": 20, "interval": 10}}


@pytest.mark.parametrize(
    ("found", "partition", "text"),
    [
        (table(), "20240501", "not partitioned"),
        (table(timePartitioning={"field": "d"}), "20240231", "ids like 20240501"),
        (table(timePartitioning={"field": "d", "type": "HOUR"}), "20240501", "ids like 2024050113"),
        (
            table("INT64", rangePartitioning={"field": "d", "range": {"start": 0, "end": 20, "interval": 10}}),
            "5",
            "0, 10, …",
        ),
        (
            table("INT64", rangePartitioning={"field": "d", "range": {"start": 0, "end": 20, "interval": 10}}),
            "20",
            "below 20",
        ),
    ],
    ids=str,
)
def test_other_partitions_are_refused(found: dict[str, Any], partition: str, text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        partition_of(found, partition)


def test_rows_of_other_partitions_are_named() -> None:
    import datetime

    made = partition_of(table(timePartitioning={"field": "d"}), "20240501")
    days = [datetime.date(2024, 5, 1), datetime.date(2024, 5, 2)]
    check_rows(pa.table({"D": days[:1]}), made)
    for other in (days[1], None):
        with pytest.raises(SchemaError, match=r"Column 'D' \(row 1 .*outside of the partition 20240501"):
            check_rows(pa.table({"D": pa.array([days[0], other], pa.date32())}), made)
