"""Labels that record which task created a cluster, model or endpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_vertex_ray.operators.base import task_owner

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

OWNER_LABEL = "airflow-owner"
"""Label with the owner key of the task instance; every resource that this package creates has it."""


def label_value(text: str) -> str:
    """Return a text as a label value: at most 63 lower-case letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63].strip("-_")


def run_labels(context: Context) -> dict[str, str]:
    """Return the labels that all resources of a DAG run have in common.

    :param context: the task's context.
    """
    labels = owner_labels(context)
    return {key: labels[key] for key in ("airflow-dag", "airflow-run")}


def owner_labels(context: Context) -> dict[str, str]:
    """Return the labels that identify the task instance which creates a resource.

    :param context: the task's context.
    """
    owner, parts = task_owner(context)
    return {
        OWNER_LABEL: owner,
        "airflow-dag": label_value(parts["dag_id"]),
        "airflow-run": label_value(parts["run_id"]),
        "airflow-task": label_value(parts["task_id"]),
    }


def owner_label(context: Context) -> dict[str, str]:
    """Return the label that only resources of this task instance have, those of its earlier tries included.

    :param context: the task's context.
    """
    return {OWNER_LABEL: task_owner(context)[0]}
