"""Crashes and kills against a real scheduler, real triggerers and a real Ray: exactly one job for each attempt."""

from __future__ import annotations

import pytest

from .cases import ENDURING, SAMPLED_CRASHES, SAMPLED_KILLS, SIBLINGS, Case
from .runner import Outcome, run

pytestmark = [pytest.mark.system, pytest.mark.ray, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    home = tmp_path_factory.mktemp("matrix")
    return run(home, SAMPLED_CRASHES, SAMPLED_KILLS)


def names(case: Case) -> str:
    return case.name


def as_it_should_be(outcome: Outcome, *run_ids: str) -> None:
    """Fail with all that is known of the first of them that went wrong."""
    for run_id in run_ids:
        if run_id in outcome.failures:
            pytest.fail("\n".join([outcome.failures[run_id], *outcome.log]), pytrace=False)


@pytest.mark.parametrize("case", SAMPLED_CRASHES, ids=names)
def test_a_task_process_dies(outcome: Outcome, case: Case) -> None:
    as_it_should_be(outcome, f"{case.name}-1")


@pytest.mark.parametrize("case", SAMPLED_KILLS, ids=names)
def test_a_user_or_a_deadline_kills(outcome: Outcome, case: Case) -> None:
    as_it_should_be(outcome, f"{case.name}-1")


@pytest.mark.parametrize("case", SIBLINGS, ids=names)
def test_nothing_of_that_touches_the_others(outcome: Outcome, case: Case) -> None:
    as_it_should_be(outcome, case.name)


@pytest.mark.parametrize("case", ENDURING, ids=names)
def test_components_die(outcome: Outcome, case: Case) -> None:
    as_it_should_be(outcome, "components", case.name)


def test_each_submit_made_one_job(outcome: Outcome) -> None:
    assert outcome.carried_out == outcome.jobs


def test_no_job_is_left(outcome: Outcome) -> None:
    assert outcome.still_active == []


def test_a_job_that_was_given_up_does_not_start(outcome: Outcome) -> None:
    assert outcome.started_late == []
