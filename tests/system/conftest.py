"""One emulator with a real Ray behind it and one real Airflow, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from emulator_support.storage import StorageEmulator

from devtools.airflow_stack import AirflowStack
from devtools.emulator_process import Emulator
from tests.conftest import REGISTERED

REPOSITORY = Path(__file__).resolve().parents[2]
SLOTS = 2
FOLDER_VARIABLE = "SYSTEM_TEST_FOLDER"
"""Environment variable with a folder for what DAGs tell the tests."""
MIGRATED = "migrated"
"""Folder in that folder, for DAG files that a test writes."""


@dataclass
class System:
    """What the tests drive."""

    emulator: Emulator
    airflow: AirflowStack
    storage: StorageEmulator
    folder: Path
    slots: int = SLOTS


# Not for the session: its processes would go on beside all later tests.
@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    home = tmp_path_factory.mktemp("system")
    emulator = Emulator(home / "emulator")
    emulator.start()
    storage = StorageEmulator()
    (home / MIGRATED).mkdir()
    try:
        storage.__enter__()
        airflow = AirflowStack(
            home / "airflow",
            dag_folders=[REPOSITORY / "example_dags", REPOSITORY / "tests" / "system" / "dags", home / MIGRATED],
            slots=SLOTS,
            environment={
                **emulator.airflow_environment,
                "STORAGE_EMULATOR_HOST": f"http://{storage.host}",
                "AIRFLOW_VAR_VERTEX_RAY_LEASE_URI": storage.uri,
                FOLDER_VARIABLE: str(home),
                # What a DAG does not say itself; then it waits in the triggerer.
                "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            },
            python_path=[REPOSITORY, *filter(None, [REGISTERED])],
        )
        airflow.start(timeout=600)
        try:
            yield System(emulator, airflow, storage, home)
        finally:
            airflow.stop()
    finally:
        storage.__exit__(None, None, None)
        emulator.stop()
