"""Editors and type checkers know the arguments of ``vertex_ray_task``: those of its operator.

That mypy sees wrong ones is in ``typed_dag.py``, which ``make lint`` checks.
"""

from __future__ import annotations

import inspect
import sys
import typing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.version import version

from airflow_provider_vertex_ray.decorators.arguments import OperatorArguments
from airflow_provider_vertex_ray.decorators.job import _VertexRayDecoratedOperator, vertex_ray_task
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator

IS_AIRFLOW_3 = int(version.partition(".")[0]) >= 3


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(function).parameters.values()
    return {each.name: each for each in found if each.kind is not each.VAR_KEYWORD and each.name != "self"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not keep overloads")
def test_signature_has_the_arguments_of_the_operator_with_their_defaults() -> None:
    _, called = typing.get_overloads(vertex_ray_task)
    found = parameters(called)
    del found["python_callable"], found["multiple_outputs"]
    wanted = {**parameters(VertexRaySubmitJobOperator.__init__), **parameters(VertexRayBaseOperator.__init__)}
    del wanted["entrypoint"]
    wanted["result_path"] = parameters(_VertexRayDecoratedOperator.__init__)["result_path"]
    assert {name: each.default for name, each in found.items()} == {name: each.default for name, each in wanted.items()}
    # The output of another task is a value of every template field.
    templated = {name for name, each in found.items() if "XComArg" in str(each.annotation)}
    assert templated == set(found) & set(_VertexRayDecoratedOperator.template_fields) - {"price_table"}


def test_signature_has_the_arguments_of_airflows_operators() -> None:
    wanted = set(parameters(BaseOperator.__init__)) - {"multiple_outputs"}
    known = set(OperatorArguments.__annotations__)
    assert wanted <= known
    if IS_AIRFLOW_3:
        assert known - wanted <= {"task_concurrency", "retry_policy", "render_template_as_native_obj"}
