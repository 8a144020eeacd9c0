"""Ray and Python versions on the service, and how long they remain available. Pure.

Source: https://cloud.google.com/vertex-ai/docs/supported-frameworks-list#ray (November 2026).
"""

from __future__ import annotations

from datetime import date

from airflow_provider_vertex_ray.core.cluster.versions import is_rejected, known_versions, newest_version, offered
from airflow_provider_vertex_ray.core.data_rows import NOTICE_DAYS
from airflow_provider_vertex_ray.core.preflight.report import Finding, Status

__all__ = ["client_finding", "full_version", "pair_finding"]

CHECK = "versions"
"""Name of the check."""


def pair_finding(ray_version: str, python_version: str | None, today: date) -> Finding:
    """Check that the service offers a pair of versions, today and for some time.

    :param ray_version: Ray version as in a spec, such as ``2.47``
    :param python_version: Python version as in a spec, such as ``3.11``
    :param today: the current day
    """
    subject = f"Ray {ray_version}, Python {python_version}"
    row = known_versions().get(ray_version)
    if is_rejected(ray_version):
        found = "no longer available" if row else f"not available; the service offers {offered()}"
        return Finding(CHECK, Status.FAIL, subject, found, _newest_but(ray_version))
    if row is None or python_version not in row.pythons:
        found = f"this package does not know whether the service offers this combination; known are {offered()}"
        return Finding(CHECK, Status.WARN, subject, found, _newest_but(""))
    if row.ends is None:
        return Finding(CHECK, Status.PASS, subject, "available; the day on which that ends is unknown")
    left = (row.ends - today).days
    if left <= 0:
        return Finding(CHECK, Status.FAIL, subject, f"not available since {row.ends}", _newest_but(ray_version))
    if left <= NOTICE_DAYS:
        found = f"available until {row.ends}, {left} days from now"
        return Finding(CHECK, Status.WARN, subject, found, _newest_but(ray_version))
    return Finding(CHECK, Status.PASS, subject, f"available until {row.ends}")


def _newest_but(ray_version: str) -> str:
    """Return the newest pair of versions as fields of a spec; empty if its Ray version is ``ray_version``."""
    newest = newest_version()
    return "" if newest.ray == ray_version else f'ray_version="{newest.ray}", python_version="{newest.pythons[0]}"'


def full_version(ray_version: str) -> str | None:
    """Return the full version of a Ray version of two numbers; None if it is unknown."""
    row = known_versions().get(ray_version)
    return row.full if row else None


def client_finding(ray_version: str, python_version: str | None, own_ray: str | None, own_python: str) -> Finding:
    """Check that the Ray Client in a process can connect to a cluster; jobs never depend on that.

    :param ray_version: Ray version of the cluster, as in a spec
    :param python_version: Python version of the cluster, as in a spec
    :param own_ray: full Ray version of the process; None if it has none
    :param own_python: Python version of the process, as in a spec
    """
    wanted = full_version(ray_version) or ray_version
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
