"""The plugin that puts the page "Ray clusters" into Airflow's navigation (entry point ``airflow.plugins``).

Every process of Airflow loads it, so it costs next to nothing until somebody opens the page. Airflow 2 has no place for
such a page: there the plugin is empty.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow import __version__ as airflow_version
from airflow.plugins_manager import AirflowPlugin

from airflow_provider_vertex_ray.plugins.page.address import PREFIX, base_path

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class LazyApp:
    """The page's application, built at the first request: only the API server ever gets one."""

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if self._app is None:
            import asyncio

            # Imports take a second; the API server serves others meanwhile.
            await asyncio.to_thread(self._build)
        await self._app(scope, receive, send)

    def _build(self) -> None:
        with self._lock:
            if self._app is None:
                from airflow_provider_vertex_ray.plugins.page.app import create_page

                self._app = create_page()

    def __repr__(self) -> str:
        # Airflow shows it in its list of plugins.
        return "the page of Ray clusters"


def _external_view() -> dict[str, Any]:
    home = f"{base_path()}{PREFIX}"
    return {
        "name": "Ray clusters",
        "href": f"{home}/",
        "destination": "nav",
        "url_route": "ray-clusters",
        "nav_top_level": True,
        "icon": f"{home}/static/icon.svg",
        "icon_dark_mode": f"{home}/static/icon-dark.svg",
    }


class VertexRayPlugin(AirflowPlugin):
    """What Airflow finds by the entry point."""

    name = "vertex_ray"
    if not airflow_version.startswith("2."):
        fastapi_apps = [{"app": LazyApp(), "url_prefix": PREFIX, "name": "Ray clusters"}]
        external_views = [_external_view()]
