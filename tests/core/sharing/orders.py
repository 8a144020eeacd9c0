"""A world that goes through all orders of its actors' requests, or draws some of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from airflow_provider_vertex_ray.core.http.transport import Transport

from .service import SimulatedTransport, World


class OrderedWorld(World):
    """A world in which a list of choices says whose turn it is; time passes only while all sleep.

    :param choices: place of the one whose turn it is among those who wait, for each time that several do
    :param then: draws the others; without it the first one has its turn
    """

    def __init__(self, choices: list[int], then: random.Random | None = None) -> None:
        super().__init__(0)
        self.late_answers = False
        self.choices = choices
        self.then = then
        # In some orders each goes on for long, in others the turns change all the time.
        self.going_on = 0.0 if then is None else then.random()
        self.made: list[tuple[int, int]] = []
        """Each choice, and among how many it was."""
        self.ok: set[str] = set()
        """Who went on."""

    async def run(self, tasks: list[asyncio.Task[Any]]) -> None:
        while True:
            await self._settle(tasks)
            if all(task.done() for task in tasks):
                for task in tasks:
                    task.result()
                return
            if not self._turns:
                self._sleeps.sort(key=lambda each: each[0])
                due, future = self._sleeps.pop(0)
                self.time = max(self.time, due)
                future.set_result(None)
                continue
            place = 0
            if len(self._turns) > 1:
                number = len(self.made)
                if number < len(self.choices):
                    place = self.choices[number]
                elif self.then is not None:
                    # The last one is who just had a turn.
                    longer = self.then.random() < self.going_on
                    place = len(self._turns) - 1 if longer else self.then.randrange(len(self._turns))
                self.made.append((place, len(self._turns)))
            self._turns.pop(place).set_result(None)


Actor = Callable[[OrderedWorld, Transport], Awaitable[None]]


@dataclass
class Seen:
    """What happened in all orders."""

    orders: int = 0
    outcomes: set[frozenset[str]] = field(default_factory=set)
    worlds: list[OrderedWorld] = field(default_factory=list)


def every_order(
    clock: list[OrderedWorld],
    prepare: Actor | None,
    *actors: Actor,
    until: Iterable[str] | None = None,
    sample: int | None = None,
) -> Seen:
    """Let the actors act in every order of their requests.

    :param until: stop once these have all gone on in one order
    :param sample: number of orders to draw instead, always the same ones
    """
    return asyncio.run(_every_order(clock, prepare, actors, until, sample))


async def _every_order(
    clock: list[OrderedWorld],
    prepare: Actor | None,
    actors: tuple[Actor, ...],
    until: Iterable[str] | None,
    sample: int | None,
) -> Seen:
    seen = Seen()
    choices: list[int] | None = []
    while choices is not None:
        world = OrderedWorld(choices, None if sample is None else random.Random(seen.orders))
        clock.append(world)
        transport = cast("Transport", SimulatedTransport(world))
        if prepare is not None:
            await world.run([asyncio.ensure_future(prepare(world, transport))])
            world.made.clear()
        await world.run([asyncio.ensure_future(actor(world, transport)) for actor in actors])
        seen.orders += 1
        seen.outcomes.add(frozenset(world.ok))
        seen.worlds.append(world)
        if until is not None and world.ok.issuperset(until):
            break
        if sample is None:
            choices = following(world.made)
        elif seen.orders == sample:
            break
    return seen


def following(made: list[tuple[int, int]]) -> list[int] | None:
    """The choices of the next order; None after the last one."""
    for place in range(len(made) - 1, -1, -1):
        choice, among = made[place]
        if choice + 1 < among:
            return [each for each, _ in made[:place]] + [choice + 1]
    return None
