"""Run the launcher of BigQuery's emulator with the emulator's own check of who may use its REST API.

It runs in an environment without this package, and is therefore started by its path: ``bigquery_guard.py LAUNCHER …``.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any


def _access() -> Any:
    """Load ``access.py`` of the emulator by its path."""
    spec = importlib.util.spec_from_file_location("_emulator_access", Path(__file__).resolve().parents[1] / "access.py")
    if spec is None or spec.loader is None:
        raise ImportError("access.py of the emulator is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Guard:
    """ASGI middleware that answers 403 to web pages and to other users.

    :param app: the application behind it.
    """

    access = _access()

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] in ("http", "websocket") and (why := self._refusal(scope)):
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            text = f"The Vertex Ray emulator refused this request: {why}."
            await send({"type": "http.response.body", "body": text.encode()})
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Any) -> Any:
        def values(name: bytes) -> list[str]:
            return [value.decode("latin-1") for key, value in scope["headers"] if key == name]

        site = "".join(values(b"sec-fetch-site"))
        refusal = self.access.web_refusal(values(b"host"), values(b"origin"), fetch_site=site)
        return refusal or self.access.user_refusal(scope["client"], scope["server"])


def main() -> None:
    """Guard the application that the launcher will create, and run the launcher with the other arguments."""
    from bqemulator import server  # type: ignore[import-not-found]

    create = server.create_app

    def guarded(*arguments: Any, **options: Any) -> Any:
        app = create(*arguments, **options)
        # The middleware that is added last is the outermost.
        app.add_middleware(Guard)
        return app

    server.create_app = guarded
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
