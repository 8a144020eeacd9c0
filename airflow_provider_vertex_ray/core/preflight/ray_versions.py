"""Ray and Python versions on the service, and how long they remain available. Pure.

Source: https://cloud.google.com/vertex-ai/docs/supported-frameworks-list#ray (November 2026).
"""

from __future__ import annotations

from datetime import date

from airflow_provider_vertex_ray.core.cluster.pools import SUPPORTED_VERSIONS
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status

__all__ = ["END_OF_AVAILABILITY", "FULL_VERSIONS", "client_finding", "pair_finding"]

FULL_VERSIONS = {"2.9": "2.9.3", "2.33": "2.33.0", "2.42": "2.42.0", "2.47": "2.47.1"}
"""Full Ray versions of the service's images, whose names have two numbers only (the SDK's SUPPORTED_RAY_VERSIONS)."""

END_OF_AVAILABILITY = {"2.42": date(2027, 3, 1), "2.47": date(2027, 7, 28)}
"""Day from which the service no longer creates clusters with a Ray version."""

NOTICE_DAYS = 90
"""Days before the end of availability from which a finding warns."""

CHECK = "versions"
"""Name of the check."""


def pair_finding(ray_version: str, python_version: str | None, today: date) -> Finding:
    """Check that the service offers a pair of versions, today and for some time.

    :param ray_version: Ray version as in a spec, such as ``2.47``
    :param python_version: Python version as in a spec, such as ``3.11``
    :param today: the current day
    """
    subject = f"Ray {ray_version}, Python {python_version}"
    if python_version not in SUPPORTED_VERSIONS.get(ray_version, ()):
        offered = "; ".join(f"Ray {ray}: Python {', '.join(each)}" for ray, each in SUPPORTED_VERSIONS.items())
        found = f"the service does not offer this combination; it offers {offered}"
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
    """Return the newest pair of versions as fields of a spec; empty if its Ray version is ``ray_version``."""
    newest = max(SUPPORTED_VERSIONS, key=lambda version: tuple(map(int, version.split("."))))
    return "" if newest == ray_version else f'ray_version="{newest}", python_version="{SUPPORTED_VERSIONS[newest][0]}"'


def client_finding(ray_version: str, python_version: str | None, own_ray: str | None, own_python: str) -> Finding:
    """Check that the Ray Client in a process can connect to a cluster; jobs never depend on that.

    :param ray_version: Ray version of the cluster, as in a spec
    :param python_version: Python version of the cluster, as in a spec
    :param own_ray: full Ray version of the process; None if it has none
    :param own_python: Python version of the process, as in a spec
    """
    wanted = FULL_VERSIONS.get(ray_version, ray_version)
    fits = own_ray == wanted and own_python == python_version
    here = f"this process has {f'Ray {own_ray}' if own_ray else 'no Ray'}, Python {own_python}"
    if fits:
        return Finding(CHECK, Status.PASS, "Ray Client", f"{here}, like the cluster")
    found = (
        f"{here}; the cluster has Ray {wanted}, Python {python_version}. Only hook.connect() needs the same versions; "
        "jobs do not"
    )
    return Finding(
        CHECK, Status.WARN, "Ray Client", found, f"pip install 'ray[client]=={wanted}', Python {python_version}"
    )
