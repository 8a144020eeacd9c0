"""Rendering of template fields: texts stay texts with both renderings, and references to other tasks draw edges."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, task

from airflow_provider_vertex_ray.cluster_spec import ClusterSpec
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.operators.cluster import VertexRayCreateClusterOperator
from airflow_provider_vertex_ray.operators.job import VertexRayGetJobOperator, VertexRaySubmitJobOperator
from airflow_provider_vertex_ray.operators.templates import _SHAPES, ANY_VALUE, STRUCTURES
from airflow_provider_vertex_ray.sensors.job import VertexRayJobSensor
from tests.operators.builders import submit_job
from tests.test_operator_contract import CLASSES

PLACE = {"cluster_id": "shared", "location": "us-central1"}


class Mode(str, enum.Enum):
    TRAIN = "train"


@pytest.fixture(params=[True, False], ids=["native", "text"])
def dag(request: pytest.FixtureRequest) -> DAG:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    return DAG("rendering", schedule=None, start_date=start, render_template_as_native_obj=request.param)


def rendered(operator: BaseOperator, **context: Any) -> Any:
    operator.render_template_fields({"params": {"n": 3, "version": "1.10", "command": ["a", "b c"]}, **context})
    return operator


TEXTS: list[tuple[str, Any, Any]] = [
    ("entrypoint", ["python", "x.py", "--n", "{{ params.n }}"], ["python", "x.py", "--n", "3"]),
    ("entrypoint", ["python", "x.py", "--version", "1.10"], ["python", "x.py", "--version", "1.10"]),
    ("entrypoint", ["x", "{{ params | tojson }}"], ["x", '{"command": ["a", "b c"], "n": 3, "version": "1.10"}']),
    ("entrypoint", "'a', 'b'", "'a', 'b'"),
    ("entrypoint", "echo '{{ params.version }}'", "echo '1.10'"),
    ("entrypoint", ["x", Mode.TRAIN, "a\n"], ["x", "train", "a\n"]),
    ("env_vars", {"N": "3", "V": "1.10", "F": "True"}, {"N": "3", "V": "1.10", "F": "True"}),
    ("env_vars", {"N": "{{ params.n }}", "M": Mode.TRAIN}, {"N": "3", "M": "train"}),
    ("env_vars", {"KEY": "-----BEGIN-----\n{{ params.n }}\n"}, {"KEY": "-----BEGIN-----\n3\n"}),
    ("env_vars", {"N": "{% set v %}1.10{% endset %}{{ v }}"}, {"N": "1.10"}),
    ("metadata", {"version": "1.10", "n": "{{ params.n }}"}, {"version": "1.10", "n": "3"}),
    ("excludes", ["2024", "{{ params.n }}"], ["2024", "3"]),
    ("submission_id", "20261128", "20261128"),
    ("submission_id", "{{ 1 + 1 }}", "2"),
    ("py_modules", ["2024", "[1]"], ["2024", "[1]"]),
    (
        "runtime_env",
        {"pip": ["1.10", "{{ params.n }}"], "py_executable": "1.0"},
        {"pip": ["1.10", "3"], "py_executable": "1.0"},
    ),
    ("runtime_env", {"env_vars": {"A": "{{ params.n }}"}}, {"env_vars": {"A": "3"}}),
]


@pytest.mark.parametrize(("field", "given", "expected"), TEXTS, ids=str)
def test_text_stays_text(dag: DAG, field: str, given: Any, expected: Any) -> None:
    with dag:
        operator = submit_job(**{field: given})
    assert getattr(rendered(operator), field) == expected


def test_template_for_a_whole_list_or_dict_is_one_with_native_rendering(dag: DAG) -> None:
    with dag:
        operator = submit_job("{{ params.command }}", env_vars="{{ variables }}", runtime_env={"pip": "{{ packages }}"})
    found = rendered(operator, variables={"V": "1.10"}, packages=["numpy"])
    if dag.render_template_as_native_obj:
        assert (found.entrypoint, found.env_vars, found.runtime_env["pip"]) == (["a", "b c"], {"V": "1.10"}, ["numpy"])
    else:
        assert found.entrypoint == "['a', 'b c']"
        with pytest.raises(InvalidArgumentError, match="env_vars"):
            found._request({"ti": TI})


def test_arguments_of_any_type_are_rendered_as_airflow_does(dag: DAG) -> None:
    with dag:

        @task.vertex_ray(**PLACE)
        def function(*values: Any) -> None: ...

        operator = function("1.10", "{{ params.n }}", Mode.TRAIN, "a\n", "True").operator
    native = dag.render_template_as_native_obj
    assert rendered(operator).op_args == ("1.10", 3 if native else "3", "train", "a\n", "True")


def test_spec_survives_the_rendering(dag: DAG) -> None:
    spec = ClusterSpec(
        ray_version="{{ params.ray }}",
        python_version="3.10",
        labels={"team": "1", "n": "{{ params.n }}"},
        worker_node_types=[{"machine_type": "n1-standard-8", "node_count": "{{ params.n }}"}],
    )
    with dag:
        operator = VertexRayCreateClusterOperator(task_id="create", spec=spec, **PLACE)
    found = ClusterSpec.from_value(rendered(operator, params={"n": 3, "ray": "2.42"}).spec)
    found.validate()
    assert (found.ray_version, found.python_version, found.labels) == ("2.42", "3.10", {"team": "1", "n": "3"})
    assert found.worker_node_types[0].node_count == 3


def test_sensor_keeps_text_too(dag: DAG) -> None:
    with dag:
        sensor = VertexRayJobSensor(task_id="wait", submission_id="20261128", **PLACE)
    assert rendered(sensor).submission_id == "20261128"


def test_every_field_that_is_no_text_is_in_a_table() -> None:
    fields = {field for kind in CLASSES.values() for field in kind.template_fields}
    # Those of function tasks, and of specs.
    others = {
        "worker_node_types",
        "op_args",
        "op_kwargs",
        "head_node_type",
        "custom_images",
        "nfs_mounts",
        "psc_interface_config",
    }
    assert (ANY_VALUE | STRUCTURES | _SHAPES) - fields - others == set()


def test_references_to_other_tasks_draw_edges_and_are_resolved() -> None:
    with DAG("edges", schedule=None) as dag:

        @task
        def up() -> str:
            return "gs://b/x"

        value = up()
        submit_job(
            ["python", "x.py", "--path", value],
            task_id="submit",
            entrypoint_num_cpus=value,
            entrypoint_resources={"disk": value},
            runtime_env={"config": {"setup_timeout_seconds": value}},
        )
    assert dag.get_task("submit").upstream_task_ids == {"up"}
    operator: Any = dag.get_task("submit")
    pulled = {"gs": "gs://b/x"}

    try:
        from airflow.sdk.definitions._internal.mixins import ResolveMixin
    except ImportError:
        from airflow.utils.mixins import ResolveMixin

    class Reference(ResolveMixin):
        def __init__(self, given: Any) -> None:
            self.given = given

        def iter_references(self) -> Any:
            return iter(())

        def resolve(self, context: Any, **more: Any) -> Any:
            return self.given

    operator.entrypoint = ["python", Reference(pulled["gs"])]
    operator.entrypoint_num_cpus = Reference(0.5)
    operator.entrypoint_resources = {"disk": Reference(2)}
    operator.runtime_env = {"config": {"setup_timeout_seconds": Reference(300)}}
    request = rendered(operator)._request({"ti": TI})
    assert (request.entrypoint, request.num_cpus, request.resources) == ("python gs://b/x", 0.5, {"disk": 2})
    operator.entrypoint_num_cpus = "many"
    with pytest.raises(InvalidArgumentError, match="entrypoint_num_cpus"):
        operator._request({"ti": TI})


class TI:
    dag_id, run_id, task_id, map_index = "d", "r", "t", -1


@pytest.mark.parametrize("native", [True, False])
def test_missing_xcom_is_explained(native: bool) -> None:
    with DAG("missing", schedule=None, render_template_as_native_obj=native):
        operator = VertexRaySubmitJobOperator(
            task_id="t", cluster_id="{{ missing }}", location="us-central1", project_id="p", entrypoint="true"
        )
        read = VertexRayGetJobOperator(task_id="g", submission_id="{{ missing }}", **PLACE)
    with pytest.raises(InvalidArgumentError, match="rendered to None.*xcom_pull"):
        rendered(operator, missing=None)._name(operator.cluster_id)
    if not native:
        with pytest.raises(InvalidArgumentError, match="rendered to None"):
            rendered(read, missing=None).execute({"ti": TI})
