"""Arguments that are no string, list or number at all: an error that names the field, and never one of Python's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from airflow_provider_vertex_ray.core.checks import everything_known, has_template, unless_empty
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from tests.support.input_fuzz import Incomparable, connected
from tests.support.tasks import context_of
from tests.test_operator_contract import build

ARRAY = np.array([1.5, 2.5])

AT_PARSE: list[tuple[str, dict[str, Any], str]] = [
    ("VertexRayResizeClusterOperator", {"replicas": None, "total_nodes": 10**400}, "total_nodes"),
    ("VertexRayResizeClusterOperator", {"replicas": None, "total_nodes": float("inf")}, "total_nodes"),
    ("VertexRayResizeClusterOperator", {"replicas": {"workers": float("inf")}}, "replicas['workers']"),
    ("VertexRayResizeClusterOperator", {"replicas": {"workers": 2.5}}, "replicas['workers']"),
    ("VertexRayResizeClusterOperator", {"replicas": {"workers": True}}, "replicas['workers']"),
    ("VertexRaySubmitJobOperator", {"excludes": ARRAY}, "excludes"),
    ("VertexRaySubmitJobOperator", {"metadata": ARRAY}, "metadata"),
    ("VertexRayUploadModelOperator", {"container_spec": ARRAY}, "container_spec"),
    ("VertexRayUploadModelOperator", {"version_aliases": Incomparable()}, "version_aliases"),
    ("VertexRayBigQueryOperator", {"schema_fields": ARRAY}, "schema_fields"),
    ("VertexRayBigQueryOperator", {"batch_format": Incomparable()}, "batch_format"),
    ("VertexRayUndeployModelOperator", {"delete_endpoint": Incomparable()}, "delete_endpoint"),
    ("VertexRayPreflightOperator", {"checks": [Incomparable()]}, "checks"),
]


@pytest.mark.parametrize(("kind", "arguments", "field"), AT_PARSE)
def test_at_dag_parse(kind: str, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        build(kind, **arguments)
    assert caught.value.field == field
    assert str(caught.value)


RENDERED: list[tuple[str, str, Any, str]] = [
    ("VertexRayPredictOperator", "instances", 1e999, "instances"),
    ("VertexRayPredictOperator", "instances", ..., "instances"),
    ("VertexRayMetricSensor", "promql", "\ud800", "promql"),
    ("VertexRayClusterMetricsOperator", "metrics", ["{% x %}"], "metrics[0]"),
    ("VertexRayDeleteClusterOperator", "lease_uri", "{'a': '{% x %}'}", "lease_uri"),
    ("VertexRayUploadModelOperator", "metrics", {Incomparable: 1}, "metrics"),
    ("VertexRayUploadModelOperator", "labels", {"a": ARRAY}, "labels['a']"),
]


@pytest.mark.parametrize(("kind", "argument", "value", "field"), RENDERED)
def test_once_rendered(kind: str, argument: str, value: Any, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(monkeypatch) as service:
        operator = build(kind)
        if argument == "promql":
            operator.metric = None
        setattr(operator, argument, value)
        with pytest.raises(InvalidArgumentError) as caught:
            operator.execute(context_of(operator))
        assert caught.value.field == field
        assert service.asked() == []


def test_braces_are_a_template_only_until_the_task_runs() -> None:
    assert has_template("{{ x }}")
    with everything_known():
        assert not has_template("{{ x }}")


@pytest.mark.parametrize(("value", "kept"), [("", None), ([], None), ({}, None), ((), None), (0, 0), ("a", "a")])
def test_what_is_empty_is_not_given(value: Any, kept: Any) -> None:
    assert unless_empty(value) == kept
    assert unless_empty(ARRAY) is ARRAY
