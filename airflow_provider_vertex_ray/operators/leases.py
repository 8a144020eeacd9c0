"""Leases as tasks see them: the parameters, and giving one back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.operators.base import positive
from airflow_provider_vertex_ray.spec_error import has_template

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LEASE_TTL = 900.0
"""Seconds for which a run holds a cluster without saying so again."""


def check_lease(lease_uri: Any, lease_ttl: float = LEASE_TTL) -> None:
    """Refuse what can not be a lease's place or time.

    :raises SpecError: Names the field and the value.
    """
    from airflow_provider_vertex_ray.api.leases import parse_lease_uri

    positive("lease_ttl", lease_ttl, none_allowed=False)
    if isinstance(lease_uri, str) and not has_template(lease_uri):
        parse_lease_uri(lease_uri)


def lease_owner_of(context: Context, lease_owner: str | None) -> str:
    """Who holds a lease: what the user says, else the DAG run."""
    ti = context["ti"]
    return lease_owner or f"{ti.dag_id}/{ti.run_id}"
