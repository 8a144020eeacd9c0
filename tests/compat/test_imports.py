"""Every name that the package takes from Airflow exists in this Airflow, also those that functions import."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

import airflow_provider_vertex_ray

ROOT = Path(airflow_provider_vertex_ray.__file__).parent
# Runs on the cluster, where there is no Airflow but Ray.
ON_THE_CLUSTER = "airflow_provider_vertex_ray.remote"
AIRFLOW_2 = airflow_version.startswith("2.")
# The page, which Airflow 2 does not have; and the command that asks for libcst itself, before it imports the others.
PAGE, MIGRATE = "airflow_provider_vertex_ray.plugins.page.", "airflow_provider_vertex_ray.migrate."
COMMAND = f"{MIGRATE}command"
# What one Airflow line alone has, and the package asks for on that line alone.
OF_AIRFLOW_2 = {"airflow.models.taskinstance", "airflow.utils.session"}


def _modules() -> list[str]:
    found = pkgutil.walk_packages([str(ROOT)], f"{airflow_provider_vertex_ray.__name__}.")
    return sorted(each.name for each in found if not each.name.startswith(ON_THE_CLUSTER))


@pytest.mark.parametrize("module", _modules())
def test_the_module_can_be_imported(module: str) -> None:
    if AIRFLOW_2 and module.startswith(PAGE):
        pytest.skip("Airflow 2 has no page")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "libcst" or not module.startswith(MIGRATE) or module == COMMAND:
            raise
        pytest.skip("it needs the extra migrate")


def _is_elsewhere(module: str) -> bool:
    """Whether the package asks for this module only where it is: on Airflow 2, or when OpenLineage calls it."""
    if module in OF_AIRFLOW_2:
        return not AIRFLOW_2
    if module.startswith("airflow.api_fastapi"):
        return AIRFLOW_2
    return module.startswith("airflow.providers.openlineage") and find_spec("airflow.providers.openlineage") is None


def _optional(node: ast.AST) -> list[ast.AST]:
    """What is imported for types alone, or in one of several ways (``except ImportError``)."""
    if isinstance(node, ast.Try):
        return [*node.body, *node.handlers]
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return [*node.body]
    return []


def _imports() -> Iterator[tuple[str, str, str]]:
    """File, module and name of each import from Airflow that is neither one of several ways nor for types alone."""
    for file in sorted(ROOT.rglob("*.py")):
        if file.relative_to(ROOT).parts[0] == "remote":
            continue
        tree = ast.parse(file.read_text("utf-8"))
        guarded = {id(inner) for node in ast.walk(tree) for each in _optional(node) for inner in ast.walk(each)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in guarded:
                top = node.module.split(".")[0]
                if top == "airflow" and not _is_elsewhere(node.module):
                    for alias in node.names:
                        yield str(file.relative_to(ROOT)), node.module, alias.name


def test_every_name_that_is_imported_from_airflow_exists() -> None:
    imports = list(_imports())
    assert ("operators/base.py", "airflow.providers.common.compat.sdk", "BaseOperator") in imports
    missing = []
    for file, module, name in imports:
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{file}: {module}: {error}")
            continue
        if not hasattr(found, name):
            missing.append(f"{file}: {module} has no {name}")
    assert missing == []
