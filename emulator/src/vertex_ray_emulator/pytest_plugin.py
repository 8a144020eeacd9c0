"""Plugin of pytest: an emulator for people's own tests.

``vertex_ray_emulator_args`` in pytest's configuration has the options of ``vertex-ray-emulator start``.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from vertex_ray_emulator.embedded import LocalEmulator, start

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTION = "vertex_ray_emulator_args"
DEFAULT_ARGUMENTS = (
    "--backend fake --provisioning-seconds 0 --name-reuse-seconds 0 --dashboard-warmup-seconds 0 --permission-seconds 0"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to pytest's configuration."""
    parser.addini(OPTION, "options of vertex-ray-emulator start for the fixtures", default=DEFAULT_ARGUMENTS)


@pytest.fixture(scope="session")
def vertex_ray_emulator_process(request: pytest.FixtureRequest) -> Iterator[LocalEmulator]:
    """Run one emulator for the whole run, without setting variables in this process."""
    with start(*shlex.split(str(request.config.getini(OPTION))), variables="none") as emulator:
        yield emulator


@pytest.fixture
def vertex_ray_emulator(
    vertex_ray_emulator_process: LocalEmulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalEmulator]:
    """Give a test an emulator with an empty project, and the variables that lead Google's clients to it."""
    for name, value in vertex_ray_emulator_process.env.items():
        monkeypatch.setenv(name, value)
    yield vertex_ray_emulator_process
    vertex_ray_emulator_process.clear()
