"""Whether a triggerer is running, by Airflow's own health check, before a task begins to wait in one."""

from __future__ import annotations

import json
import logging
from typing import Any

from airflow.providers.common.compat.sdk import conf

HEALTHY = "healthy"

SECONDS = 2.0
"""Seconds after which the health check is abandoned: it must not delay the task."""

HEALTH_PATH = "/api/v2/monitor/health"
"""Health check of Airflow 3's API server, which needs no token."""


def warn_without_triggerer(log: Any) -> None:
    """Log a warning if Airflow says that no triggerer is running; nothing if it does not say so.

    Without one, a deferred task stays deferred, and nothing else tells why.

    :param log: logger of the task.
    """
    if no_triggerer():
        log.warning(
            "This task now waits in Airflow's triggerer, but Airflow's health check reports none that is running. "
            "Until one is started, with 'airflow triggerer', the task stays deferred. To wait without a triggerer, set "
            "deferrable=False"
        )


def no_triggerer() -> bool:
    """Tell whether Airflow's health check says that no triggerer is running; False if it cannot be read."""
    try:
        health = _health()
        healthy: list[Any] = [health[part]["status"] for part in ("metadatabase", "triggerer")]
    except Exception:
        # Whatever it is, the task is not affected.
        logging.getLogger(__name__).debug("Airflow's health could not be read", exc_info=True)
        return False
    return bool(healthy[0] == HEALTHY and healthy[1] != HEALTHY)


def _health() -> Any:
    """Return the health of Airflow's components, as its API server or, on Airflow 2, its database knows it."""
    url = _health_url()
    if url is None:
        from airflow.api.common.airflow_health import get_airflow_health

        return get_airflow_health()
    import urllib.request

    # The server is inside the deployment; a proxy of the environment leads out of it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=SECONDS) as answer:
        return json.loads(answer.read(1 << 16))


def _health_url() -> str | None:
    """Return the address of the health check; None on Airflow 2, where a task can read the database."""
    try:
        import airflow.sdk  # noqa: F401
    except ImportError:
        return None
    execution = str(conf.get("core", "execution_api_server_url", fallback="") or "")
    server = execution.rstrip("/").removesuffix("/execution") or str(conf.get("api", "base_url", fallback="") or "")
    if not server.startswith(("http://", "https://")):
        raise ValueError("no address of an API server is configured")
    return f"{server.rstrip('/')}{HEALTH_PATH}"
