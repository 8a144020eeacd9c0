"""Where the page "Ray clusters" is served. Imported by every Airflow process, so it costs next to nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow import __version__ as airflow_version
from airflow.configuration import conf

PREFIX = "/ray-clusters"
"""Path of the page below Airflow's own address."""

ROUTE = "ray-clusters"
"""Name of the page in Airflow's own addresses, which show it within Airflow's navigation."""

FRAMED_SINCE = (3, 3)
"""Airflow version since which an address within the navigation may lead to any part of the page."""

HAS_PAGE = not airflow_version.startswith("2.")
"""Whether this Airflow can show the page."""


def base_path() -> str:
    """Return the path in ``[api] base_url`` without a trailing slash; Airflow may be served below one."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


def home_within_airflow() -> str:
    """Return the page's path without a trailing slash: within Airflow's navigation if that can show any part of it."""
    version = tuple(int(part) for part in airflow_version.split(".")[:2])
    return f"{base_path()}/plugin/{ROUTE}{PREFIX}" if version >= FRAMED_SINCE else f"{base_path()}{PREFIX}"
