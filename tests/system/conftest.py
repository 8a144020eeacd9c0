"""One emulator with a real Ray behind it and one real Airflow, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtools.airflow_stack import AirflowStack
from devtools.emulator_process import Emulator
from tests.conftest import REGISTERED

REPOSITORY = Path(__file__).resolve().parents[2]
SLOTS = 2


@dataclass
class System:
    """What the tests drive."""

    emulator: Emulator
    airflow: AirflowStack
    slots: int = SLOTS


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    home = tmp_path_factory.mktemp("system")
    emulator = Emulator(home / "emulator")
    emulator.start()
    try:
        airflow = AirflowStack(
            home / "airflow",
            dag_folders=[REPOSITORY / "example_dags", REPOSITORY / "tests" / "system" / "dags"],
            slots=SLOTS,
            environment=emulator.airflow_environment,
            python_path=[REPOSITORY, *filter(None, [REGISTERED])],
        )
        airflow.start(timeout=180)
        try:
            yield System(emulator, airflow)
        finally:
            airflow.stop()
    finally:
        emulator.stop()
