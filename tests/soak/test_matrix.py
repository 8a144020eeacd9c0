"""The whole matrix of crashes and kills, several times over, in one Airflow."""

from __future__ import annotations

import pytest

from tests.system.matrix.cases import CRASHES, KILLS
from tests.system.matrix.runner import run

pytestmark = [pytest.mark.soak, pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(3600)]

ROUNDS = 4
FROZEN_SECONDS = 45
STOP_SECONDS = 10.0


def test_the_matrix_again_and_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("matrix")
    outcome = run(home, CRASHES, KILLS, rounds=ROUNDS, frozen_seconds=FROZEN_SECONDS, stop_seconds=STOP_SECONDS)
    assert outcome.failures == {}
    assert outcome.carried_out == outcome.jobs
    assert outcome.still_active == []
    assert outcome.started_late == []
