"""What happens to each task, and what must have come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from airflow_provider_vertex_ray.triggers.task_end import ENDS_HERE
from devtools.process_group import alive

from .cases import JOB_TIMEOUT, PENDING_TIMEOUT, RUN_TIMEOUT, TASK, Case
from .world import HEALTH_SECONDS, TRIGGERERS, World

FIRED = "Trigger fired event"
"""Airflow's own line in the log of a task whose trigger has ended it, or has resumed it."""

START_SECONDS = 300.0
END_SECONDS = 180.0
NEVER_STARTED = "FAILED"
"""Ray's status of a job that is stopped before it has started, as on a very busy machine: its driver is killed."""


async def _placed(world: World, case: Case, run_id: str) -> None:
    await world.trigger(case, run_id)
    await world.until(
        lambda: world.in_place(case, run_id), START_SECONDS, f"{run_id} does not wait for a job that runs"
    )


async def _succeeds(
    world: World, case: Case, run_id: str, *, tries: int, statuses: tuple[str, ...] = ("SUCCEEDED",)
) -> None:
    """It ends well, with exactly these jobs, each of which has started and, unless it was stopped, ended once.

    And where it should: in the triggerer, or in a worker.
    """
    await world.until(lambda: world.state(run_id) in ("success", "failed"), END_SECONDS, f"{run_id} does not end")
    await world.look()
    assert world.state(run_id) == "success"
    # Airflow now and then fails a task that is resumed before its executor has seen the end of the deferral
    # ("executor reported that the task instance finished"); that is one try more, and no job more.
    assert world.try_number(run_id) >= tries
    assert world.statuses(run_id) == list(statuses)
    ids = [job["submission_id"] for job in world.jobs(run_id)]
    assert world.ledger("start", run_id) == ids
    assert world.ledger("end", run_id) == [i for i, s in zip(ids, statuses, strict=True) if s == "SUCCEEDED"]
    text = world.text(case, run_id)
    # On a busy machine, Airflow now and then loses the last lines of a trigger, its own among them.
    assert (ENDS_HERE in text) is case.ends_in_triggerer or (case.ends_in_triggerer and FIRED not in text)
    assert world.result(case, run_id)["submission_id"] == ids[-1]


async def before_submit(world: World, case: Case, run_id: str) -> None:
    """The request to submit is on its way, and not carried out, when the process dies."""
    await _dies_at_submit(world, case, run_id, "hang")


async def before_the_answer(world: World, case: Case, run_id: str) -> None:
    """The job is submitted, but the task has not heard of it, when the process dies."""
    await _dies_at_submit(world, case, run_id, "hold_response")


async def _dies_at_submit(world: World, case: Case, run_id: str, action: str) -> None:
    happened = await world.arm(run_id, action)
    await world.trigger(case, run_id)
    await world.until(happened, START_SECONDS, f"{run_id} does not submit")
    expected = 0 if action == "hang" else 1
    await world.until(lambda: len(world.jobs(run_id)) == expected, END_SECONDS, f"{run_id} has not {expected} jobs")
    await world.kill_task(run_id)
    await world.until(lambda: world.in_place(case, run_id), START_SECONDS, f"{run_id} does not wait in its next try")
    world.release(run_id)
    await _succeeds(world, case, run_id, tries=2)


async def answer_lost(world: World, case: Case, run_id: str) -> None:
    """The answer to the submit is lost; nobody dies."""
    happened = await world.arm(run_id, "drop_response")
    await _placed(world, case, run_id)
    assert happened()
    world.release(run_id)
    await _succeeds(world, case, run_id, tries=1)


async def before_defer(world: World, case: Case, run_id: str) -> None:
    """The job runs, and the process dies before it waits for it."""
    await world.trigger(case, run_id)
    await _blocked_and_killed(world, run_id)
    await world.until(lambda: world.in_place(case, run_id), START_SECONDS, f"{run_id} does not wait in its next try")
    world.release(run_id)
    await _succeeds(world, case, run_id, tries=2)


async def in_complete(world: World, case: Case, run_id: str) -> None:
    """The job has succeeded, and the process dies before it can say so."""
    world.release(run_id)
    await world.trigger(case, run_id)
    await _blocked_and_killed(world, run_id)
    await _succeeds(world, case, run_id, tries=2)


async def _blocked_and_killed(world: World, run_id: str) -> None:
    note = world.folder / "blocked" / run_id
    await world.until(lambda: note.exists() and note.read_text(), START_SECONDS, f"{run_id} does not get there")
    await world.look()
    await world.kill_task(run_id)


async def _stopped(world: World, run_id: str, since: float, what: str) -> None:
    """Its (first) job is stopped soon after an action."""
    await world.until(lambda: world.statuses(run_id)[:1] == ["STOPPED"], END_SECONDS, f"{run_id}'s job is not stopped")
    took = world.jobs(run_id)[0]["end_time"] / 1000 - since
    world.say(f"{run_id}: stopped {took:.1f} s after {what}")
    assert world.stop_seconds is None or took <= world.stop_seconds
    assert world.ledger("end", run_id) == []


async def mark_failed(world: World, case: Case, run_id: str) -> None:
    await _marked(world, case, run_id, "failed")


async def mark_success(world: World, case: Case, run_id: str) -> None:
    await _marked(world, case, run_id, "success")


async def _marked(world: World, case: Case, run_id: str, state: str) -> None:
    await _placed(world, case, run_id)
    async with world.acting:
        await world.ask_airflow(world.airflow.api.mark_task, case.dag_id, run_id, TASK, state)
        await _stopped(world, run_id, time.time(), f"mark {state}")
    await world.until(lambda: world.seen.runs[run_id][0] == state, END_SECONDS, f"the run of {run_id} is not {state}")
    assert world.state(run_id) == state
    assert world.statuses(run_id) == ["STOPPED"]


async def clear(world: World, case: Case, run_id: str) -> None:
    await _placed(world, case, run_id)
    async with world.acting:
        await world.ask_airflow(world.airflow.api.clear_task, case.dag_id, run_id, TASK)
        await _stopped(world, run_id, time.time(), "the Clear")
    await world.until(lambda: world.in_place(case, run_id), START_SECONDS, f"{run_id} does not run again")
    world.release(run_id)
    await _succeeds(world, case, run_id, tries=2, statuses=("STOPPED", "SUCCEEDED"))


async def _started(world: World, case: Case, run_id: str) -> None:
    await world.trigger(case, run_id)
    await world.until(
        lambda: world.statuses(run_id)[:1] not in ([], ["PENDING"]), START_SECONDS, f"{run_id}: no job runs"
    )


async def run_timeout(world: World, case: Case, run_id: str) -> None:
    await _started(world, case, run_id)
    await world.until(
        lambda: world.seen.runs[run_id][0] == "failed", RUN_TIMEOUT + END_SECONDS, f"{run_id} does not time out"
    )
    ended = world.seen.runs[run_id][1]
    assert ended is not None
    never_started = world.statuses(run_id) == [NEVER_STARTED]
    if not never_started:
        await _stopped(world, run_id, ended.timestamp(), "the run's timeout")
    await world.until(lambda: world.state(run_id) == "skipped", END_SECONDS, f"{run_id} is {world.state(run_id)}")
    assert world.statuses(run_id) == [NEVER_STARTED if never_started else "STOPPED"]


async def job_timeout(world: World, case: Case, run_id: str) -> None:
    # The deadline may be over before a triggerer on a busy machine has had the wait for long.
    await _started(world, case, run_id)
    never_started = world.statuses(run_id) == [NEVER_STARTED]
    if not never_started:
        deadline = world.jobs(run_id)[0]["start_time"] / 1000 + JOB_TIMEOUT
        await _stopped(world, run_id, deadline, "job_timeout")
    await world.until(lambda: world.state(run_id) == "failed", END_SECONDS, f"{run_id} does not fail")
    assert world.statuses(run_id) == [NEVER_STARTED if never_started else "STOPPED"]
    assert world.ledger("end", run_id) == []
    assert "JobTimeoutError" in world.text(case, run_id)


async def pending_timeout(world: World, case: Case, run_id: str) -> None:
    """It waits for CPUs that a sibling has; once they are free it must not start after all."""
    await world.until(
        lambda: world.statuses(SIBLING_WITH_CPUS) == ["RUNNING"], START_SECONDS, "no sibling has the CPUs"
    )
    await world.trigger(case, run_id)
    await world.until(lambda: world.statuses(run_id) == ["PENDING"], START_SECONDS, f"{run_id} has no job")
    submitted = world.jobs(run_id)[0]["start_time"] / 1000
    await world.until(lambda: world.state(run_id) == "failed", PENDING_TIMEOUT + END_SECONDS, f"{run_id} does not fail")
    world.say(f"{run_id}: failed {time.time() - submitted - PENDING_TIMEOUT:.1f} s after pending_timeout")
    assert "JobPendingTimeoutError" in world.text(case, run_id)
    assert len(world.jobs(run_id)) <= 1


async def sibling(world: World, case: Case, run_id: str) -> None:
    """Waits until the others have done; nothing of what happened to them may have touched it."""
    await _placed(world, case, run_id)
    await world.others_done.wait()
    # Triggerers may have handed it over just now.
    await world.until(lambda: world.in_place(case, run_id), START_SECONDS, f"{run_id} does not wait any more")
    world.release(run_id)
    await _succeeds(world, case, run_id, tries=1)


SIBLING_WITH_CPUS = "sibling-deferred"


async def endure(world: World, case: Case, run_id: str) -> None:
    """Lives through what ``components`` does."""
    await _placed(world, case, run_id)
    await world.components_done.wait()
    assert world.statuses(run_id) == ["RUNNING"]
    world.release(run_id)
    if case.deferrable:
        await _succeeds(world, case, run_id, tries=1)
    else:
        # Its worker died with the scheduler; Airflow decides whether that was a try.
        await world.until(lambda: world.state(run_id) == "success", END_SECONDS, f"{run_id} does not succeed")
        assert world.statuses(run_id) == ["SUCCEEDED"]
        assert len(world.ledger("start", run_id)) == len(world.ledger("end", run_id)) == 1


def _holder(world: World, deferred: str, wanted: str | None = None) -> Callable[[], str | None]:
    def holder() -> str | None:
        name = world.seen.holders.get(deferred)
        return name if wanted is None or name == wanted else None

    return holder


async def components(world: World, runs: list[tuple[Case, str]], frozen_seconds: float | None) -> None:
    """Every component dies, or loses its connections, while jobs are waited for; a triggerer may be frozen, too."""
    for case, run_id in runs:
        await _waits(world, case, run_id)
    deferred = next(run_id for case, run_id in runs if case.deferrable)

    world.say("every connection is cut, and none is let through for 6 s")
    faults = [{"scope": scope, "action": "reset", "times": None} for scope in ("dashboard", "control_plane")]
    ids = world.emulator.admin("POST", "faults", faults)["ids"]
    # How many are open at one moment is chance: without websockets, a wait has one only while it asks.
    for _ in range(12):
        world.cut_connections()
        await asyncio.sleep(0.5)
    for fault in ids:
        world.emulator.admin("DELETE", f"faults/{fault}")

    for action in ("kill",) if frozen_seconds is None else ("kill", "freeze"):
        holder = await world.until(_holder(world, deferred), 240, f"no triggerer has {deferred}")
        other = next(name for name in TRIGGERERS if name != holder)
        world.say(f"{action} {holder}")
        assert holder is not None
        begun = time.monotonic()
        (world.kill_triggerer if action == "kill" else world.airflow.freeze)(holder)
        await world.until(_holder(world, deferred, other), HEALTH_SECONDS + END_SECONDS, f"{other} does not take over")
        world.say(f"{other} has taken over after {time.monotonic() - begun:.1f} s")
        if action == "kill":
            world.airflow.restart(holder)
            continue
        await asyncio.sleep(max(0.0, (frozen_seconds or 0.0) - (time.monotonic() - begun)))
        world.airflow.thaw(holder)
        world.say(f"{holder} goes on after {time.monotonic() - begun:.1f} s")
        # Now it hears that its triggers are gone, and ends them.
        await asyncio.sleep(8)
        for _, run_id in runs:
            assert world.statuses(run_id) == ["RUNNING"]
            assert world.state(run_id) in ("deferred", "running")

    world.say("kill the scheduler, with its tasks")
    world.airflow.kill("scheduler")
    world.airflow.restart("scheduler")
    for case, run_id in runs:
        await _waits(world, case, run_id)
        assert world.statuses(run_id) == ["RUNNING"]
    world.say("the scheduler is back, and everything is waited for")


async def _waits(world: World, case: Case, run_id: str) -> None:
    """A live process, or a triggerer, waits for its job."""

    def waits() -> bool:
        pid = world.seen.tasks[run_id, TASK][1] if world.in_place(case, run_id) else None
        return pid is not None and (case.deferrable or alive(pid))

    await world.until(waits, START_SECONDS, f"nobody waits for {run_id}")


SCENARIOS: dict[str, Callable[[World, Case, str], Awaitable[None]]] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        *(before_submit, before_the_answer, answer_lost, before_defer, in_complete),
        *(mark_failed, mark_success, clear, run_timeout, job_timeout, pending_timeout),
        *(sibling, endure),
    )
}
