"""Autoscaling of a real cluster by what Ray waits for."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulator_support.clients.stages import run_client
from emulator_support.process import AT_ONCE, EmulatorProcess
from emulator_support.scaling import a_node_comes_and_goes_with_a_job, body

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def test_job_that_waits_for_a_node_gets_one(tmp_path: Path) -> None:
    arguments = [*AT_ONCE, "--autoscaling-idle-seconds", "3"]
    with EmulatorProcess(tmp_path / "state", arguments) as emulator:
        emulator.create("scales", body((0, 2)))
        a_node_comes_and_goes_with_a_job(emulator, "scales")


@pytest.mark.sdk
@pytest.mark.soak
def test_official_notebooks_cluster_runs_1000_tasks_and_shrinks(tmp_path: Path) -> None:
    arguments = [*AT_ONCE, "--autoscaling-idle-seconds", "3"]
    with EmulatorProcess(tmp_path / "state", arguments) as emulator:
        seen = run_client("autoscaling_sdk.py", emulator.sdk_env(), tmp_path, 600)
        assert seen["grown"]["status"] == "SUCCEEDED", seen["grown"]["logs"]
        assert "tasks 1000 nodes 2" in seen["grown"]["logs"]
        assert seen["grown"]["most"] == 3
        assert set(seen["grown"]["states"]) == {"RUNNING", "UPDATING"}
        assert seen["shrunk"]["counts"] == 1
