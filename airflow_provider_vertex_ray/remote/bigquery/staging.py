"""Staging tables: what is written before it is published."""

from __future__ import annotations

import datetime
from typing import Any

from .fields import Field
from .names import split_table

__all__ = ["create_staging", "expiry"]


def expiry(plan: dict[str, Any]) -> datetime.datetime:
    """Return when a staging table expires, in case nobody deletes it."""
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=plan["staging_seconds"])


def create_staging(client: Any, plan: dict[str, Any], table: str, fields: list[Field]) -> None:
    """Create a staging table with the target's partitioning and clustering, which a copy job requires."""
    from google.cloud import bigquery

    project, dataset, name = split_table(table)
    reference = {"projectId": project, "datasetId": dataset, "tableId": name}
    made = bigquery.Table.from_api_repr({"tableReference": reference, "schema": {"fields": fields}, **plan["layout"]})
    made.expires = expiry(plan)
    made.labels = plan["labels"]
    client.create_table(made, exists_ok=True)
