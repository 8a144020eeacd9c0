"""Emulators for the tests of the emulator itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from emulator_support.fixtures import storage, storage_process
from emulator_support.process import QUICK, EmulatorProcess
from emulator_support.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

__all__ = ["storage", "storage_process"]


@pytest.fixture(scope="session")
def running_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """One emulator without Ray for the whole run."""
    with EmulatorProcess(tmp_path_factory.mktemp("emulator"), QUICK) as process:
        yield process


@pytest.fixture
def emulator(running_emulator: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """The emulator without Ray: quick, and empty at the start of each test."""
    yield running_emulator
    running_emulator.reset()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state directory for an emulator of the test's own."""
    return tmp_path / "state"


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., World]]:
    worlds: list[World] = []

    def build(**settings: Any) -> World:
        worlds.append(World(**settings))
        return worlds[-1]

    yield build
    for world in worlds:
        await world.plane.close()
