"""A stand-in for the metadata server of a Google Cloud machine, from which clients get tokens and the project."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from vertex_ray_emulator.outcomes import as_error

if TYPE_CHECKING:
    from vertex_ray_emulator.faults import Faults
    from vertex_ray_emulator.request_log import RequestLog
    from vertex_ray_emulator.settings import Settings
    from vertex_ray_emulator.surfaces.tokens import Tokens

HEADERS = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ACCOUNT = "instance/service-accounts/"


class MetadataServer:
    """Answers ``/computeMetadata/v1/…``, and ``/`` for clients that check whether a metadata server exists.

    :param settings: the emulator's settings, with the project.
    :param tokens: mints the access tokens.
    :param faults: faults of the scope ``auth`` with the method ``GetToken`` are applied.
    :param request_log: records each request under the surface ``metadata``.
    """

    def __init__(self, settings: Settings, tokens: Tokens, faults: Faults, request_log: RequestLog) -> None:
        self._settings = settings
        self._tokens = tokens
        self._faults = faults
        self._request_log = request_log
        self.email = f"emulator@{settings.project}.iam.gserviceaccount.com"

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request (an aiohttp handler)."""
        path = request.path.removeprefix("/computeMetadata/v1/").strip("/")
        token = path.startswith(ACCOUNT) and path.endswith("/token")
        method = "GetToken" if token else "GetMetadata"
        asked = request.headers.get("Metadata-Flavor") == "Google"
        if not asked:
            response = web.Response(status=403, text="Missing Metadata-Flavor:Google header.", headers=HEADERS)
        # A fault for every method of the scope ("*") applies to checks of tokens, not to where they are issued.
        elif fault := self._faults.take("auth", method, "default", explicit=True):
            await asyncio.sleep(fault.delay)
            error = as_error(fault)
            if fault.action == "status":
                response = web.Response(status=error.http_status, text=error.message, headers=HEADERS)
            else:
                response = self._answer(request, path, token=token)
        else:
            response = self._answer(request, path, token=token)
        self._request_log.record("metadata", method, path, authorised=asked, status=response.status)
        return response

    def _answer(self, request: web.Request, path: str, *, token: bool) -> web.Response:
        if token:
            value, seconds = self._tokens.mint()
            return web.json_response(
                {"access_token": value, "expires_in": int(seconds), "token_type": "Bearer"}, headers=HEADERS
            )
        account = {"aliases": ["default"], "email": self.email, "scopes": [SCOPE]}
        if path.startswith(ACCOUNT) and request.query.get("recursive", "").lower() == "true":
            return web.json_response(account, headers=HEADERS)
        texts = {
            "": "computeMetadata/\n",
            "instance/service-accounts": "default/\n",
            "project/project-id": self._settings.project,
            "project/numeric-project-id": self._settings.project_number,
            "universe/universe-domain": "googleapis.com",
            "universe/universe_domain": "googleapis.com",
        }
        for name in ("default", self.email):
            texts[f"{ACCOUNT}{name}/email"] = self.email
            texts[f"{ACCOUNT}{name}/scopes"] = SCOPE + "\n"
        if path in texts:
            return web.Response(text=texts[path], headers=HEADERS)
        return web.Response(status=404, text="Not Found", headers=HEADERS)
