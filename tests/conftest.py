"""Airflow in a folder of its own, and emulators that the tests share."""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.emulator import EmulatorProcess
from tests.support.registered import registered
from tests.support.storage import StorageEmulator

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

REPOSITORY = Path(__file__).parents[1]
FAKE = ["--backend", "fake", "--provisioning-seconds", "0.1", "--name-reuse-seconds", "30"]


def pytest_unconfigure() -> None:
    shutil.rmtree(_AIRFLOW_HOME, ignore_errors=True)


@functools.cache
def _place(file: str) -> str:
    """What runs in one process: a file; and all files with a real Ray or a real Airflow, one after the other."""
    heavy = re.search(r"mark\.(ray|system)\b", (REPOSITORY / file).read_text("utf-8"))
    return "clusters" if heavy else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs a Ray or an Airflow comes first: it takes longest, so nobody waits for it at the end."""
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0]) != "clusters")


# Its own groups by mark (--dist loadgroup) come to nothing with pytest 9.2.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How ``make test`` spreads the tests over processes."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _place(nodeid.partition("::")[0])

    return ByPlace(config, log)


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


@pytest.fixture(scope="session")
def storage_process() -> Iterator[StorageEmulator]:
    """One emulator of Cloud Storage for the whole run."""
    with StorageEmulator() as storage:
        yield storage


@pytest.fixture
def storage(storage_process: StorageEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageEmulator]:
    """Cloud Storage with an empty bucket, beside the emulator."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{storage_process.host}")
    # Other modules keep artifacts there for all of their tests.
    storage_process.clear()
    yield storage_process
    storage_process.clear()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    from airflow_provider_vertex_ray.api.transport import RetryPolicy

    monkeypatch.setattr(RetryPolicy, "delay", lambda self, failures, retry_after: 0.01)


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preflight is made on a day on which the service has the versions for long."""
    import datetime

    from airflow_provider_vertex_ray.api import preflight

    monkeypatch.setattr(preflight, "_today", lambda: datetime.date(2026, 11, 25))


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
