"""Jobs whose entrypoint is a module that the task itself writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator


@contextmanager
def runs_module(operator: VertexRaySubmitJobOperator, path: Path) -> Iterator[None]:
    """Make ``operator`` upload the file or package at ``path`` and run it as its entrypoint, within the block.

    The user's own modules are kept, whether they are given in ``py_modules`` or in ``runtime_env``.
    """
    given = operator.py_modules, operator.runtime_env
    operator.entrypoint = ["python", "-m", path.stem]
    if isinstance(operator.runtime_env, dict) and operator.runtime_env.get("py_modules") and not operator.py_modules:
        operator.py_modules = operator.runtime_env["py_modules"]
        operator.runtime_env = {key: value for key, value in operator.runtime_env.items() if key != "py_modules"}
    operator.py_modules = [*(operator.py_modules or ()), str(path)]
    try:
        yield
    finally:
        operator.py_modules, operator.runtime_env = given
