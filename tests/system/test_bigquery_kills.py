"""A BigQuery step in a real Airflow survives the death of a process; all pairs of process and phase are in the soak."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .bigquery.cases import SAMPLE, Case
from .bigquery.kills import Kills

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    with Kills(tmp_path_factory.mktemp("bq")).running() as running:
        yield running


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_a_kill_leaves_the_old_table_or_the_whole_new_one(kills: Kills, case: Case) -> None:
    kills.run(case)
