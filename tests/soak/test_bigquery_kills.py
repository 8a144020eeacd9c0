"""Fifty kills at random moments of BigQuery steps. The ordinary tests kill one driver (``test_bigquery.py``)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.soak.bigquery_kills import PARTS, Kills
from tests.support.bigquery import BigQuery, emulator_with_bigquery

pytestmark = [pytest.mark.soak, pytest.mark.ray, pytest.mark.timeout(3600)]

DISPOSITIONS = ("WRITE_APPEND", "WRITE_TRUNCATE")


@pytest.fixture(scope="module")
def kills() -> Iterator[Kills]:
    seed = random.SystemRandom().randrange(10**6)
    print("seed", seed)
    with emulator_with_bigquery() as process:
        yield Kills(process, BigQuery(process), seed)


def test_no_kill_leaves_a_half_table_or_doubles_a_row(kills: Kills) -> None:
    while sum(kills.outcome.kills.values()) < 50:
        kills.run(PARTS[sum(kills.outcome.kills.values()) % len(PARTS)], kills.chance.choice(DISPOSITIONS))
    print(kills.outcome)
    assert kills.outcome.failures == []
