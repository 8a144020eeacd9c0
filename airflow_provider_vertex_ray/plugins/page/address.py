"""Where the page is served. Imported by every Airflow process, so it costs next to nothing."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.configuration import conf

PREFIX = "/ray-clusters"
"""Path of the page below Airflow's own address."""


def base_path() -> str:
    """Return the path in ``[api] base_url`` without a trailing slash; Airflow may be served below one."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
