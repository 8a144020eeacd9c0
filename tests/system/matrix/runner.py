"""Runs all scenarios at once, in one Airflow on one cluster, and keeps what came of each."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .cases import ENDURING, SIBLINGS, Case
from .scenarios import SCENARIOS, START_SECONDS, components
from .world import SUBMIT, World


@dataclass
class Outcome:
    """What came of everything.

    :param failures: Tracebacks by run id; the components' scenario is ``components``.
    :param carried_out: Submits that the cluster carried out, by the emulator's call log.
    :param jobs: Jobs by Ray's own list.
    :param still_active: Jobs that had not ended at the end.
    :param started_late: Jobs that were given up before they started, and started after all.
    """

    home: Path
    failures: dict[str, str] = field(default_factory=dict)
    carried_out: int = -1
    jobs: int = -2
    still_active: list[str] = field(default_factory=list)
    started_late: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def run(
    home: Path,
    crashes: Sequence[Case],
    kills: Sequence[Case],
    *,
    rounds: int = 1,
    frozen_seconds: float | None = None,
    stop_seconds: float | None = None,
) -> Outcome:
    """Act out the matrix.

    :param crashes: the crashes to try
    :param kills: the kills to try
    :param rounds: How often each crash and each kill is tried.
    :param stop_seconds: longest that the stop of a killed task's job may take; None for no limit
    :param frozen_seconds: How long a triggerer is frozen; None to freeze none.
    """
    return asyncio.run(_run(World(home, stop_seconds), crashes, kills, rounds, frozen_seconds))


async def _run(
    world: World, crashes: Sequence[Case], kills: Sequence[Case], rounds: int, frozen_seconds: float | None
) -> Outcome:
    outcome = Outcome(world.home)
    cases = [*crashes, *kills, *SIBLINGS, *ENDURING]
    async with world.running([case.dag_id for case in cases]):
        lasting = [asyncio.create_task(_one(world, outcome, case, case.name)) for case in (*SIBLINGS, *ENDURING)]
        # A triggerer's first question to Airflow starts Airflow's API in it. Nothing is killed before that is over.
        for case in (*SIBLINGS, *ENDURING):
            with suppress(TimeoutError):  # It says so itself.
                await world.until(partial(world.in_place, case, case.name), START_SECONDS, "")
        held = 0
        for turn in range(1, rounds + 1):
            held += await _round(world, outcome, turn, [*kills, *crashes])
        world.others_done.set()
        enduring = [(case, case.name) for case in ENDURING]
        await _kept(world, outcome, "components", components(world, enduring, frozen_seconds))
        world.components_done.set()
        await asyncio.gather(*lasting)
        try:
            await world.until(lambda: not world.active(), 120, "jobs are left")
        except TimeoutError:
            outcome.still_active = world.active()
        await world.look()
        outcome.jobs = len(world.seen.jobs)
        outcome.carried_out = held + sum(call["status"] == 200 for call in world.emulator.calls(SUBMIT))
        for case in kills:
            if case.scenario == "pending-timeout":
                for turn in range(1, rounds + 1):
                    outcome.started_late += world.ledger("start", _run_id(case, turn))
        outcome.log = world.log
    return outcome


async def _round(world: World, outcome: Outcome, turn: int, ordered: Sequence[Case]) -> int:
    """Every crash and every kill once, a few at a time; gives how many submits were carried out without an answer."""
    few = asyncio.Semaphore(8)

    async def limited(case: Case) -> None:
        async with few:
            await _one(world, outcome, case, _run_id(case, turn))

    await asyncio.gather(*(limited(case) for case in ordered))
    return sum(case.scenario in ("before-the-answer", "answer-lost") for case in ordered)


def _run_id(case: Case, turn: int) -> str:
    return f"{case.name}-{turn}"


async def _one(world: World, outcome: Outcome, case: Case, run_id: str) -> None:
    await _kept(world, outcome, run_id, SCENARIOS[case.scenario](world, case, run_id))
    world.say(f"{run_id}: {'WRONG' if run_id in outcome.failures else 'as it should be'}")


async def _kept(world: World, outcome: Outcome, name: str, scenario: object) -> None:
    try:
        await scenario  # type: ignore[misc]
    except Exception:
        seen = [f"{job['submission_id']} is {job['status']}: {job['message']}" for job in world.jobs(name)]
        outcome.failures[name] = text = "\n".join([traceback.format_exc(), *seen])
        (outcome.home / f"failure-{name}.txt").write_text(text)
