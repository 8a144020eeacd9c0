"""The plugin that adds the page "Ray clusters" to Airflow's navigation (entry point ``airflow.plugins``).

Every Airflow process loads it, so it costs next to nothing until somebody opens the page. Airflow 2 does not support
such pages: there the plugin is empty.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_vertex_ray.links.page_address import HAS_PAGE, PREFIX, ROUTE, base_path

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class LazyApp:
    """The page's application, built at the first request, which only the API server gets."""

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if self._app is None:
            import asyncio

            # In a thread: the imports take a second, in which the API server serves other requests.
            await asyncio.to_thread(self._build)
        await self._app(scope, receive, send)

    def _build(self) -> None:
        with self._lock:
            if self._app is None:
                from airflow_provider_vertex_ray.plugins.page.app import create_page

                self._app = create_page()

    def __repr__(self) -> str:
        # Airflow shows this in its list of plugins.
        return "the page Ray clusters"


def _external_view() -> dict[str, Any]:
    # Without an icon of its own: Airflow shows one as an image without a text for screen readers, in a colour that its
    # navigation cannot change, so that a dark one disappears in the entry that is active. Its own has neither flaw.
    return {
        "name": "Ray clusters",
        "href": f"{base_path()}{PREFIX}/",
        "destination": "nav",
        "url_route": ROUTE,
        "nav_top_level": True,
    }


class VertexRayPlugin(AirflowPlugin):
    """The plugin that Airflow loads by its entry point."""

    name = "vertex_ray"
    if HAS_PAGE:
        fastapi_apps = [{"app": LazyApp(), "url_prefix": PREFIX, "name": "Ray clusters"}]
        external_views = [_external_view()]
