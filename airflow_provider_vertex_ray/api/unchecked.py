"""What could not be checked, why, and what to grant so that it can be."""

from __future__ import annotations

from airflow_provider_vertex_ray.errors import (
    NotAuthorisedError,
    RateLimitedError,
    ServiceDisabledError,
    ServiceUnavailableError,
    VertexRayError,
)
from airflow_provider_vertex_ray.preflight import Finding, Status
from airflow_provider_vertex_ray.preflight_needs import ROLES, Asked, enable, grant

AGAIN = "Run the preflight again in some minutes."


def unchecked(
    asked: Asked,
    check: str,
    subject: str,
    error: VertexRayError,
    permission: str | None = None,
    *,
    project: str | None = None,
) -> Finding:
    """The finding for a check that could not be made.

    :param permission: What the call needs; None for nothing.
    :param project: Where the permission is needed, if not in the project that is looked at.
    """
    where = project or asked.project
    if isinstance(error, ServiceDisabledError):
        service = str(error.details.get("service") or "the API that tells")
        found = f"{service} is disabled in the project that is asked, so it does not answer"
        remedy = enable(service, where) if "service" in error.details else error.message
    elif isinstance(error, NotAuthorisedError):
        said = error.details.get("permission")
        needed = str(said or permission or "")
        found = f"the caller lacks {needed}, with which to look" if said else f"refused: {error.message}"
        remedy = (
            grant(where, ROLES[needed], asked.member)
            if needed in ROLES
            else f"Check that project {where} exists and that the connection's account may see it."
        )
    elif isinstance(error, (ServiceUnavailableError, RateLimitedError)):
        found, remedy = f"no answer: {error.message}", AGAIN
    else:
        found, remedy = f"an answer that says nothing: {error.message}", AGAIN
    return Finding(check, Status.COULD_NOT_CHECK, subject, found, remedy)
