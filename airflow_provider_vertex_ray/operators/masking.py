"""Masking of a job's secrets in Airflow's logs and rendered fields: those that are marked, and no plain settings."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow_provider_vertex_ray.core.job.secrets import SECRET_NAMES_KEY, Secret, forms_of, secret_names

__all__ = ["env_vars_in", "marked_names", "mask_secrets", "secret_metadata"]

_MASKERS = (
    "airflow.sdk._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)
"""Modules of Airflow's masker, from the newest version to 2.11."""


def marked_names(*variables: Any) -> frozenset[str]:
    """Return the names of the environment variables whose values the DAG marks with ``Secret``."""
    return frozenset(
        name
        for each in variables
        if isinstance(each, dict)
        for name, value in each.items()
        if isinstance(value, Secret) and isinstance(name, str)
    )


def env_vars_in(runtime_env: Any) -> Any:
    """Return the environment variables in a runtime environment; None where it is not known yet."""
    return runtime_env.get("env_vars") if isinstance(runtime_env, Mapping) else None


def mask_secrets(marked: Iterable[str], *variables: Any) -> set[str]:
    """Mask the secrets among rendered environment variables, in all their forms, in this process.

    :param marked: names that are secrets in any case
    :param variables: dicts of variables; others are ignored
    :return: the names of the secrets
    """
    found: set[str] = set()
    mask = _masker("mask_secret")
    for each in variables:
        names = secret_names(each, marked, _hidden_by_airflow)
        for name in names:
            for form in forms_of(each[name]):
                mask(form)
        found |= names
    return found


def secret_metadata(names: Iterable[str]) -> dict[str, str]:
    """Return the metadata by which the triggerer and the page know a job's secrets."""
    kept = sorted(names)
    return {SECRET_NAMES_KEY: json.dumps(kept)} if kept else {}


def _hidden_by_airflow(name: str, value: str) -> bool:
    """Tell whether Airflow hides a value: by its name, or because it contains a connection's or variable's secret."""
    shown = _masker("redact")({name: value})
    return isinstance(shown, dict) and shown.get(name) != value


def _masker(name: str) -> Callable[..., Any]:
    for module in _MASKERS:
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
        return found
    raise ImportError(f"This version of Airflow has no {name}")
