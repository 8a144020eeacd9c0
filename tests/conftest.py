"""Airflow in a folder of its own, and emulators that the tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_support.fixtures import storage, storage_process
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from tests.support.registered import registered

# Before anything imports Airflow: it reads its settings then.
_AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="vray-airflow-"))
os.environ["AIRFLOW_HOME"] = str(_AIRFLOW_HOME)
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(_AIRFLOW_HOME / "dags")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_AIRFLOW_HOME}/airflow.db"
(_AIRFLOW_HOME / "dags").mkdir()
# DAG files use @task.vertex_ray, which Airflow finds by the provider's entry point.
REGISTERED = registered(_AIRFLOW_HOME / "registered")
"""To be in the ``PYTHONPATH`` of an Airflow that a test starts; None where the provider is installed."""
for name in ("VERTEX_RAY_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_UNIVERSE_DOMAIN"):
    os.environ.pop(name, None)

__all__ = ["storage", "storage_process"]

FAKE = ["--backend", "fake", "--provisioning-seconds", "0", "--name-reuse-seconds", "3600"]
WITH_WEBSOCKETS = ["--without", "no-websockets"]
"""Arguments for the tests whose subject is what websockets deliver; everything else must work without them."""


def pytest_unconfigure() -> None:
    shutil.rmtree(_AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def fake_process() -> Iterator[EmulatorProcess]:
    """One emulator without Ray for the whole run."""
    # Short: sockets live below it.
    with tempfile.TemporaryDirectory(prefix="vre-") as folder, EmulatorProcess(Path(folder), FAKE) as process:
        yield process


@pytest.fixture
def fake_emulator(fake_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorProcess]:
    """The emulator without Ray, empty at the start of each test, and what the hooks find by themselves."""
    use(fake_process, monkeypatch)
    yield fake_process
    fake_process.reset()
    fake_process.admin("POST", "tokens/settings", {"seconds": 3600})


@pytest.fixture(scope="session")
def websocket_process() -> Iterator[EmulatorProcess]:
    """One emulator without Ray whose dashboards let websockets pass."""
    arguments = [*FAKE, *WITH_WEBSOCKETS]
    with tempfile.TemporaryDirectory(prefix="vre-") as folder, EmulatorProcess(Path(folder), arguments) as process:
        yield process


@pytest.fixture
def websocket_emulator(
    websocket_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmulatorProcess]:
    """The emulator whose dashboards let websockets pass, empty at the start of each test."""
    use(websocket_process, monkeypatch)
    yield websocket_process
    websocket_process.reset()
    websocket_process.admin("POST", "tokens/settings", {"seconds": 3600})


@pytest.fixture(scope="module")
def ray_process() -> Iterator[EmulatorProcess]:
    """One emulator with a real Ray for the tests of a module."""
    with tempfile.TemporaryDirectory(prefix="vre-") as folder, EmulatorProcess(Path(folder)) as process:
        yield process


@pytest.fixture
def ray_emulator(ray_process: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> EmulatorProcess:
    """The emulator with a real Ray; its clusters live as long as the module's tests."""
    use(ray_process, monkeypatch)
    return ray_process


@pytest.fixture(scope="module")
def serving_process(storage_process: StorageEmulator) -> Iterator[EmulatorProcess]:
    """An emulator that deploys models at once, and reads their files from the storage emulator."""
    with tempfile.TemporaryDirectory(prefix="vre-") as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{storage_process.host}")
        with EmulatorProcess(Path(folder), ["--backend", "fake", "--deploy-seconds", "0"]) as process:
            yield process


@pytest.fixture
def serving_emulator(
    serving_process: EmulatorProcess, storage: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmulatorProcess]:
    """The same, empty, and asked again at once."""
    from airflow_provider_vertex_ray.hooks.calls import model

    use(serving_process, monkeypatch)
    monkeypatch.setattr(model, "FIRST_PAUSE", 0.02)
    yield serving_process
    serving_process.reset()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    from airflow_provider_vertex_ray.core.http.transport import RetryPolicy

    monkeypatch.setattr(RetryPolicy, "delay", lambda self, failures, retry_after: 0.01)


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preflight is made on a day on which the service has the versions for long."""
    import datetime

    from airflow_provider_vertex_ray.core.preflight import run

    monkeypatch.setattr(run, "_today", lambda: datetime.date(2026, 11, 25))


def use(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process's hooks talk to an emulator."""
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", emulator.host)
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", f"google-cloud-platform://?project={emulator.project}")


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's own database, for what needs one (a DAG run)."""
    import contextlib
    import io

    from airflow.utils import db

    # It prints each migration.
    with contextlib.redirect_stdout(io.StringIO()):
        db.initdb()
