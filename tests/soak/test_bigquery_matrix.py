"""Every process of a BigQuery step is killed in every phase of it, in a real Airflow on a real Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.bigquery.cases import CASES, Case
from tests.system.bigquery.kills import Kills

pytestmark = [pytest.mark.soak, pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    with Kills(tmp_path_factory.mktemp("bq")).running() as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_kill_leaves_the_old_table_or_the_whole_new_one(kills: Kills, case: Case) -> None:
    kills.run(case)
