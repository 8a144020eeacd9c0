"""What a BigQuery step refuses when its DAG is parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_vertex_ray.core.function.module import step_package
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.bigquery import VertexRayBigQueryOperator
from tests.support.clusters import LOCATION
from tests.support.ids import case_id


def step(**more: Any) -> VertexRayBigQueryOperator:
    given = {"source_table": "p.d.source", "target_table": "d.target", "cluster_id": "shared", "location": LOCATION}
    return VertexRayBigQueryOperator(task_id="step", **{**given, **more})


class Predictor:
    def __call__(self, batch: Any) -> Any:
        return batch


def same(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"query": "SELECT 1"}, "query"),
        ({"source_table": None}, "source_table"),
        ({"source_table": None, "query": "  "}, "query"),
        ({"source_table": None, "query": "SELECT 1", "columns": ["a"]}, "columns"),
        ({"source_table": None, "query": "SELECT 1", "row_filter": "a > 1"}, "row_filter"),
        ({"columns": []}, "columns"),
        ({"source_table": "no-table"}, "source_table"),
        ({"target_table": "a.b.c.d e.f"}, "target_table"),
        ({"staging_dataset": "not a dataset"}, "staging_dataset"),
        ({"write_disposition": "TRUNCATE"}, "write_disposition"),
        ({"create_disposition": "ALWAYS"}, "create_disposition"),
        ({"batch_format": "polars"}, "batch_format"),
        ({"batch_size": 0}, "batch_size"),
        ({"rows_per_load": -1}, "rows_per_load"),
        ({"maximum_bytes_billed": True}, "maximum_bytes_billed"),
        ({"staging_expiration": 0}, "staging_expiration"),
        ({"time_partitioning": {"type": "DAY"}, "range_partitioning": {"field": "a"}}, "range_partitioning"),
        ({"time_partitioning": {"type": "DAILY"}}, r"time_partitioning\['type'\]"),
        ({"cluster_fields": ["a"] * 5}, "cluster_fields"),
        ({"bigquery_labels": {"Team": "a"}}, "bigquery_labels"),
        ({"bigquery_labels": {"team": None}}, r"bigquery_labels\['team'\]"),
        ({"transform": "not a name"}, "transform"),
        ({"transform": lambda batch: batch}, "transform"),
        ({"transform": Predictor}, "concurrency"),
        ({"transform": same, "fn_constructor_kwargs": {"a": 1}}, "fn_constructor_kwargs"),
        ({"transform": same, "fn_kwargs": {"a": object()}}, r"fn_kwargs\['a'\]"),
        ({"entrypoint": "python x.py"}, "entrypoint"),
        ({"wait_for_completion": False}, "wait_for_completion"),
    ],
    ids=case_id,
)
def test_a_wrong_value_is_named_at_parse(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^Invalid value for {field}"):
        step(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"source_table": "{{ ds }}.t"},
        {"write_disposition": "{{ params.how }}"},
        {"transform": same},
        {"transform": Predictor, "concurrency": (1, 4), "num_gpus": 1},
        {"transform": "scoring.model:Predictor", "concurrency": 2, "fn_constructor_kwargs": {"path": "gs://b/m"}},
        {"source_table": None, "query": "score.sql"},
    ],
    ids=case_id,
)
def test_what_is_right_or_not_known_yet_passes(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "score.sql").write_text("SELECT 1")
    assert step(**given).target_table == "d.target"


def test_the_package_that_travels_is_named_by_its_content(tmp_path: Path) -> None:
    plan = {"target": "p.d.t", "kwargs": {"z": {"b": 1, "a": 2}, "y": 1}, "text": "quote \" and ' and \\n"}
    one, same_one, other = (
        step_package(each, tmp_path / str(place)) for place, each in enumerate((plan, plan, {**plan, "target": "x"}))
    )
    assert one.name == same_one.name != other.name
    names = {str(path.relative_to(one)) for path in one.rglob("*.py")}
    assert {"__init__.py", "__main__.py", "runner.py", "bigquery/program.py", "bigquery/jobs.py"} <= names
    start = (one / "__main__.py").read_text()
    namespace: dict[str, Any] = {"main": lambda given: namespace.update(given=given), "json": json}
    exec(start.split("main\n", 1)[1], namespace)
    assert namespace["given"] == plan
    # The order of a dict's keys is a part of its value.
    assert json.dumps(namespace["given"]) == json.dumps(plan)
