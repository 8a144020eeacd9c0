"""Contract of all public operators and sensors: arguments, connections, templates, serialisation and documentation."""

from __future__ import annotations

import datetime
import importlib
import inspect
import json
import re
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray import errors, get_provider_info
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.sensors.base import VertexRayBaseSensor
from tests.support.clusters import LOCATION
from tests.support.tasks import context_of, run_task

try:
    from airflow.serialization.serialized_objects import DagSerialization as Serialized
except ImportError:
    from airflow.serialization.serialized_objects import SerializedDAG as Serialized  # type: ignore[assignment]

SPEC = {"worker_node_types": [{"machine_type": "n1-standard-8"}]}
CLUSTER = {"cluster_id": "shared"}
JOB = {**CLUSTER, "submission_id": "job"}

MINIMAL: dict[str, dict[str, Any]] = {
    "VertexRayBigQueryOperator": {**CLUSTER, "source_table": "p.d.source", "target_table": "d.target"},
    "VertexRayClusterCostOperator": CLUSTER,
    "VertexRayClusterIdleSensor": CLUSTER,
    "VertexRayClusterLogsOperator": CLUSTER,
    "VertexRayClusterMetricsOperator": CLUSTER,
    "VertexRayClusterSensor": CLUSTER,
    "VertexRayCreateClusterOperator": {**CLUSTER, "spec": SPEC},
    "VertexRayDeleteClusterOperator": CLUSTER,
    "VertexRayDeleteIdleClustersOperator": {},
    "VertexRayDeleteJobOperator": JOB,
    "VertexRayDeployModelOperator": {"model": "123"},
    "VertexRayEndpointSensor": {"endpoint_id": "123"},
    "VertexRayGetClusterOperator": CLUSTER,
    "VertexRayGetJobOperator": JOB,
    "VertexRayJobSensor": JOB,
    "VertexRayListClustersOperator": {},
    "VertexRayListJobsOperator": CLUSTER,
    "VertexRayMetricSensor": {**CLUSTER, "metric": "cpu", "comparison": "<", "threshold": 5.0},
    "VertexRayPredictOperator": {"endpoint_id": "123", "instances": [[1]]},
    "VertexRayPreflightOperator": {"spec": SPEC},
    "VertexRayQuotaSensor": {"spec": SPEC},
    "VertexRayReleaseClusterOperator": {**CLUSTER, "lease_uri": "gs://bucket/leases"},
    "VertexRayResizeClusterOperator": {**CLUSTER, "replicas": {"worker-pool1": 2}},
    "VertexRayStopJobOperator": JOB,
    "VertexRaySubmitJobOperator": {**CLUSTER, "entrypoint": "true"},
    "VertexRaySubmitJobsOperator": {**CLUSTER, "jobs": [{"entrypoint": "true"}]},
    "VertexRayUndeployModelOperator": {"endpoint_id": "123"},
    "VertexRayUploadModelOperator": {"display_name": "m", "artifact_uri": "gs://b/m", "framework": "sklearn"},
}
"""Minimal valid arguments of each class, besides ``location``."""

REQUIRES: dict[tuple[str, str], dict[str, Any]] = {
    ("VertexRayBigQueryOperator", "query"): {"source_table": None},
    ("VertexRayBigQueryOperator", "fn_constructor_kwargs"): {"transform": "module:Name", "concurrency": 1},
    ("VertexRayBigQueryOperator", "fn_kwargs"): {"transform": "module:name"},
    **{
        ("VertexRayCreateClusterOperator", field): {"cluster_id": None, "shared_name": "etl"}
        for field in ("shared_name", "lease_uri", "lease_owner", "max_age", "max_cost")
    },
    ("VertexRayCreateClusterOperator", "price_table"): {"cluster_id": None, "shared_name": "etl"},
    ("VertexRayMetricSensor", "promql"): {"metric": None},
    ("VertexRayPredictOperator", "instances_uri"): {"instances": None},
    ("VertexRayResizeClusterOperator", "total_nodes"): {"replicas": None},
    ("VertexRayResizeClusterOperator", "worker_node_types"): {"replicas": None},
    ("VertexRayUploadModelOperator", "serving_container_image_uri"): {"framework": None},
    **{
        ("VertexRayDeployModelOperator", field): {"accelerator_type": "NVIDIA_L4", "accelerator_count": 1}
        for field in ("accelerator_type", "accelerator_count")
    },
}
"""Arguments that go with an argument, in addition to the minimal ones or instead of them."""

INVALID = {
    "artifact_uri": "/tmp/model",
    "bigquery_labels": "text",
    "bigquery_project_id": "Not Good",
    "bucket": "Not Good",
    "cluster_fields": "text",
    "cluster_id": "Not Good",
    "columns": "text",
    "container_spec": "text",
    "display_name": "",
    "end": "tomorrow",
    "endpoint_id": "1@2",
    "entrypoint": "",
    "env_vars": "text",
    "excludes": "text",
    "fn_constructor_kwargs": "text",
    "fn_kwargs": "text",
    "framework": "keras",
    "framework_version": "nine",
    "instances": "text",
    "jobs": "text",
    "label_filter": "text",
    "locations": "text",
    "labels": "text",
    "lease_uri": "/tmp/leases",
    "location": "Not Good",
    "metadata": "text",
    "metric": "temperature",
    "metrics": "text",
    "model": "a/b",
    "output_path": "no-uri",
    "parameters": "text",
    "parent_model": "a/b",
    "plot_path": "no-uri",
    "price_table": "/no/such/file",
    "project_id": "Not Good",
    "promql": "",
    "py_modules": "text",
    "queries": "text",
    "query": "",
    "range_partitioning": "text",
    "replicas": "many",
    "runtime_env": "text",
    "schema_fields": "text",
    "severity": "LOUD",
    "shared_name": "Not Good",
    "source_table": "no-table",
    "spec": "text",
    "staging_dataset": "not a dataset",
    "start": "yesterday",
    "statuses": "DONE",
    "submission_id": "a/b",
    "target_table": "no-table",
    "time_partitioning": "text",
    "total_nodes": "many",
    "traffic_split": "text",
    "version_aliases": "text",
    "worker_node_types": "text",
    "working_dir": "ftp://host/code.zip",
}
"""An invalid rendered value of each template field, where a string can be invalid."""

ANY_STRING = {
    "deployed_model_display_name",
    "deployed_model_id",
    "endpoint_display_name",
    "file",
    "gcp_conn_id",
    "impersonation_chain",
    "instances_uri",
    "lease_owner",
    "model_id",
    "output_uri",
    "row_filter",
    "service_account",
    "serving_container_image_uri",
    "text",
    "version_description",
}
"""Template fields of which only the service can reject a string."""

NUMBERS = {"entrypoint_memory", "entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_resources"}
"""Template fields that take the output of a task, but no template: it would render to text."""


class Thing:
    """A value that no argument accepts."""

    def __repr__(self) -> str:
        return "Thing()"


def public_classes() -> dict[str, type[Any]]:
    info = get_provider_info()
    found = {}
    for section, base in (("operators", VertexRayBaseOperator), ("sensors", VertexRayBaseSensor)):
        for entry in info[section]:
            for path in entry["python-modules"]:
                module = importlib.import_module(path)
                for name, kind in vars(module).items():
                    own = isinstance(kind, type) and issubclass(kind, base) and kind.__module__ == path
                    if own and name.startswith("VertexRay"):
                        found[name] = kind
    return found


CLASSES = public_classes()


def parameters(kind: type[Any]) -> dict[str, type[Any]]:
    """The parameters of a class and of its bases in this package, with the class that declares each."""
    found: dict[str, type[Any]] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("airflow_provider_vertex_ray.") and "__init__" in vars(base):
            for parameter in inspect.signature(vars(base)["__init__"]).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    found.setdefault(parameter.name, base)
    # These belong to the class that the BigQuery step extends; the step sets them itself.
    if kind.__name__ == "VertexRayBigQueryOperator":
        found = {name: base for name, base in found.items() if name not in ("entrypoint", "wait_for_completion")}
    return found


def build(name: str, **given: Any) -> Any:
    """An operator with its minimal arguments and those that go with the given ones."""
    more: dict[str, Any] = {}
    for field in given:
        more |= REQUIRES.get((name, field), {})
    if "deferrable" in parameters(CLASSES[name]):
        more.setdefault("deferrable", False)
    return CLASSES[name](**{"task_id": "task", "location": LOCATION, **MINIMAL[name], **more, **given})


def top_field(error: InvalidArgumentError) -> str:
    """The argument that an error names, without the place inside it."""
    return re.split(r"[.\[ ]", error.field)[0]


def cases(fields: Any) -> list[Any]:
    return [pytest.param(name, field, id=f"{name}-{field}") for name in sorted(CLASSES) for field in fields(name)]


def test_every_public_class_is_in_the_table() -> None:
    assert set(MINIMAL) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_missing_project_is_named_before_any_request(
    fake_emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(build(name))
    assert caught.value.field == "project_id"
    assert "project" in caught.value.rule
    assert fake_emulator.calls() == []


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_missing_location_is_named_before_any_request(fake_emulator: EmulatorProcess, name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(build(name, location=None))
    assert caught.value.field == "location"
    assert fake_emulator.calls() == []


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_unknown_connection_is_named(airflow_db: None, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="airflow connections add no_such_connection") as caught:
        run_task(build(name, gcp_conn_id="no_such_connection"))
    assert caught.value.field == "gcp_conn_id"


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_unknown_argument_is_named_with_the_one_that_is_meant(name: str) -> None:
    for given, meant in (("locaton", "location"), ("region", "location"), ("project", "project_id")):
        with pytest.raises(
            InvalidArgumentError, match=f"{name} has no argument of this name. Did you mean {meant}"
        ) as caught:
            build(name, **{given: "us-central1"})
        assert caught.value.field == given
    with pytest.raises(InvalidArgumentError) as caught:
        build(name, zzz={"PASSWORD": "secret-word"})
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(("name", "field"), cases(lambda name: parameters(CLASSES[name])))
def test_wrong_type_is_rejected_at_construction(fake_emulator: EmulatorProcess, name: str, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        build(name, **{field: Thing()})
    assert top_field(caught.value) == field
    assert caught.value.rule[:1].isupper()
    assert caught.value.rule.endswith(".")
    assert fake_emulator.calls() == []


@pytest.mark.parametrize(("name", "field"), cases(lambda name: CLASSES[name].template_fields))
def test_template_passes_at_construction_and_is_checked_after_rendering(
    fake_emulator: EmulatorProcess, name: str, field: str
) -> None:
    if field in NUMBERS:
        with pytest.raises(InvalidArgumentError, match=field):
            build(name, **{field: "{{ value }}"})
        return
    operator = build(name, **{field: "{{ value }}"})
    assert getattr(operator, field) == "{{ value }}"
    assert (field in INVALID) != (field in ANY_STRING)
    if field in ANY_STRING:
        return
    with pytest.raises(InvalidArgumentError) as caught:
        run_task(operator, context_of(operator, value=INVALID[field]))
    assert top_field(caught.value) == field
    assert fake_emulator.calls() == []


def test_tables_of_rendered_values_have_template_fields_only() -> None:
    known = {field for kind in CLASSES.values() for field in kind.template_fields}
    assert set(INVALID) | ANY_STRING | NUMBERS == known


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_dag_with_the_task_is_serialisable(name: str) -> None:
    with DAG("contract", start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), schedule=None) as dag:
        build(name)
    assert name in json.dumps(Serialized.to_dict(dag))


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_every_parameter_is_documented(name: str) -> None:
    kind = CLASSES[name]
    for field, owner in parameters(kind).items():
        # What a subclass inherits, it may leave to its base.
        texts = [vars(base).get("__doc__") or "" for base in kind.__mro__[: kind.__mro__.index(owner) + 1]]
        found = [
            match for text in texts if (match := re.search(rf":param {field}:(.+?)(?=\n\s*:|\n\s*\Z|\Z)", text, re.S))
        ]
        assert found, f"{field} is not documented"
        templated = found[0][1].strip().endswith("(templated)")
        assert templated is (field in kind.template_fields), f"{field}: the mark (templated) is wrong"
    own = re.findall(r":param (\w+):", kind.__doc__ or "")
    assert set(own) <= set(parameters(kind)), "a documented parameter does not exist"
    raised = re.findall(r":raises (\w+):", kind.__doc__ or "")
    assert "InvalidArgumentError" in raised
    assert all(hasattr(errors, each) for each in raised if not each.startswith("Airflow")), raised
