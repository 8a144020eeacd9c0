"""Real Ray does not survive its emulator, however that ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from emulator_support.process import EmulatorProcess, cluster_body
from vertex_ray_emulator.backends.processes import find_processes, state_marker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ray


def left(state_dir: Path) -> list[int]:
    return sorted(find_processes(state_marker(state_dir)))


def test_no_ray_process_survives_sigkill_restart_or_sigterm(state_dir: Path) -> None:
    first = EmulatorProcess(state_dir).start()
    assert first.create("c1")["state"] == "RUNNING"
    assert left(state_dir)
    first.kill()
    second = EmulatorProcess(state_dir).start()
    assert left(state_dir) == []
    assert second.admin("GET", "clusters") == {"clusters": []}
    # One cluster is running and another is being started when the emulator stops.
    assert second.create("c1")["state"] == "RUNNING"
    assert second.api("POST", "persistentResources?persistentResourceId=c2", cluster_body())[0] == 200
    assert second.stop() == 0
    assert left(state_dir) == []
