"""Pairs of Ray and Python on the service: which there are, and for how long. Pure.

Source: https://cloud.google.com/vertex-ai/docs/supported-frameworks-list#ray (November 2026).
"""

from __future__ import annotations

from datetime import date

from airflow_provider_vertex_ray.core.cluster.pools import SUPPORTED_VERSIONS
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status

__all__ = ["END_OF_AVAILABILITY", "FULL_VERSIONS", "client_finding", "pair_finding"]

FULL_VERSIONS = {"2.9": "2.9.3", "2.33": "2.33.0", "2.42": "2.42.0", "2.47": "2.47.1"}
"""Ray's version on the service's images, whose names have two numbers only (the SDK's SUPPORTED_RAY_VERSIONS)."""

END_OF_AVAILABILITY = {"2.42": date(2027, 3, 1), "2.47": date(2027, 7, 28)}
"""The day from which the service creates no more clusters of a version."""

NOTICE_DAYS = 90
"""Days before the end from which a finding warns."""

CHECK = "versions"


def pair_finding(ray_version: str, python_version: str | None, today: date) -> Finding:
    """Whether the service has a pair of versions, today and for some time.

    :param ray_version: As in a spec: ``2.47``.
    :param python_version: As in a spec: ``3.11``.
    """
    subject = f"Ray {ray_version}, Python {python_version}"
    if python_version not in SUPPORTED_VERSIONS.get(ray_version, ()):
        offered = "; ".join(f"Ray {ray}: Python {', '.join(each)}" for ray, each in SUPPORTED_VERSIONS.items())
        found = f"the service has no such pair; it has {offered}"
        return Finding(CHECK, Status.FAIL, subject, found, _newest_but(""))
    end = END_OF_AVAILABILITY[ray_version]
    left = (end - today).days
    if left <= 0:
        return Finding(CHECK, Status.FAIL, subject, f"not available since {end}", _newest_but(ray_version))
    if left <= NOTICE_DAYS:
        found = f"available until {end}, {left} days from now"
        return Finding(CHECK, Status.WARN, subject, found, _newest_but(ray_version))
    return Finding(CHECK, Status.PASS, subject, f"available until {end}")


def _newest_but(ray_version: str) -> str:
    """The newest pair as fields of a spec; nothing where that is the version at hand."""
    newest = max(SUPPORTED_VERSIONS, key=lambda version: tuple(map(int, version.split("."))))
    return "" if newest == ray_version else f'ray_version="{newest}", python_version="{SUPPORTED_VERSIONS[newest][0]}"'


def client_finding(ray_version: str, python_version: str | None, own_ray: str | None, own_python: str) -> Finding:
    """Whether the Ray Client could connect from a process to a cluster; jobs never depend on it.

    :param ray_version: The cluster's, as in a spec.
    :param python_version: The cluster's, as in a spec.
    :param own_ray: The process's, in full; None for none.
    :param own_python: The process's, as in a spec.
    """
    wanted = FULL_VERSIONS.get(ray_version, ray_version)
    fits = own_ray == wanted and own_python == python_version
    here = f"this process has {f'Ray {own_ray}' if own_ray else 'no Ray'}, Python {own_python}"
    if fits:
        return Finding(CHECK, Status.PASS, "Ray Client", f"{here}, as the cluster will have")
    found = (
        f"{here}; the cluster Ray {wanted}, Python {python_version}. Only hook.connect() needs the same; jobs do not"
    )
    return Finding(
        CHECK, Status.WARN, "Ray Client", found, f"pip install 'ray[client]=={wanted}', Python {python_version}"
    )
