"""The page's application with Airflow's own auth manager in front of it; Airflow 3 only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from emulator_support.process import PATIENCE, EmulatorProcess
from emulator_support.storage import StorageEmulator

from tests.support.clusters import LOCATION, submit

AIRFLOW_3 = not airflow_version.startswith("2.")
USERS = {"ada": "ADMIN", "vic": "VIEWER"}
SOURCE = f"google_cloud_default.{LOCATION}"
POSTED = {"X-Vertex-Ray-Page": "1", "Sec-Fetch-Site": "same-origin"}


@dataclass
class Page:
    """The page, and who looks at it."""

    app: Any
    options: dict[str, str]
    token: Callable[[str], str]

    def client(self, user: str | None) -> Any:
        from fastapi.testclient import TestClient

        headers = {} if user is None else {"Cookie": f"_token={self.token(user)}"}
        return TestClient(self.app, headers=headers, follow_redirects=False)

    def get(self, path: str = "", user: str | None = "ada", **more: Any) -> Any:
        return self.client(user).get(f"/{path}", **more)

    def post(self, path: str, body: Any, user: str | None = "ada", headers: dict[str, str] | None = None) -> Any:
        return self.client(user).post(f"/{path}", json=body, headers=POSTED if headers is None else headers)


@pytest.fixture(scope="session")
def auth_manager(tmp_path_factory: pytest.TempPathFactory, airflow_db: None) -> Iterator[Any]:
    """Airflow's simple auth manager with an admin and a viewer."""
    from airflow.api_fastapi.app import init_auth_manager, purge_cached_app

    folder = tmp_path_factory.mktemp("auth")
    passwords: Path = folder / "passwords.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", ",".join(f"{n}:{r}" for n, r in USERS.items()))
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(passwords))
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 64)
        # As in the API server's own process: it reads connections from the database, too.
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        purge_cached_app()
        yield init_auth_manager()
        purge_cached_app()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page waits for what it reads and does, however busy the machine is; only its first paint is as soon."""
    from airflow_provider_vertex_ray.plugins.page import actions, app, connections, reader, service

    for module, names in {
        app: ("LATER", "DOWNLOAD_SECONDS"),
        connections: ("ATTEMPT_SECONDS",),
        reader: ("DEADLINE",),
        service: ("MARGIN",),
        actions: ("READ_SECONDS", "WAIT_SECONDS", "STOP_WAIT_SECONDS"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, PATIENCE)
    monkeypatch.setattr(actions, "STOP_READ_SECONDS", PATIENCE / 4)
    # It has taken READ_SECONDS when it was defined.
    monkeypatch.setattr(actions.Actions._find, "__defaults__", (PATIENCE,))


@pytest.fixture
def page(auth_manager: Any, fake_emulator: EmulatorProcess, storage: StorageEmulator, patient: None) -> Iterator[Page]:
    """The page over the emulator, with leases."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    from airflow_provider_vertex_ray.plugins.page.app import create_page
    from airflow_provider_vertex_ray.plugins.page.service import PageService

    options = {"page_sources": json.dumps([{"location": LOCATION, "lease_uri": storage.uri, "idle_for": 3600}])}
    service = PageService(lambda name: options.get(name, ""))

    def token(user: str) -> str:
        return str(auth_manager.generate_jwt(SimpleAuthManagerUser(username=user, role=USERS[user])))

    yield Page(create_page(service), options, token)
    try:
        service.stop()
    except TimeoutError:
        # Its limit is 10 s.
        service.stop()


@pytest.fixture
def busy(fake_emulator: EmulatorProcess) -> str:
    """A cluster with a job that runs; the page's path of it."""
    from tests.support.clusters import start

    start(fake_emulator, "busy")
    submit(fake_emulator, "busy", "runs", "sleep 600")
    return f"{SOURCE}/busy"
