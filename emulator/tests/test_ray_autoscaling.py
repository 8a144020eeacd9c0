"""Autoscaling of a real cluster by what Ray waits for, with the unmodified SDK."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulator_support.clients.stages import run_client
from emulator_support.process import AT_ONCE, EmulatorProcess

pytestmark = [pytest.mark.sdk, pytest.mark.ray, pytest.mark.timeout(900)]


def test_official_notebooks_cluster_runs_1000_tasks_and_shrinks(tmp_path: Path) -> None:
    arguments = [*AT_ONCE, "--autoscaling-idle-seconds", "3"]
    with EmulatorProcess(tmp_path / "state", arguments) as emulator:
        seen = run_client("autoscaling_sdk.py", emulator.sdk_env(), tmp_path, 600)
        assert seen["grown"]["status"] == "SUCCEEDED", seen["grown"]["logs"]
        assert "tasks 1000 nodes 2" in seen["grown"]["logs"]
        assert seen["grown"]["most"] == 3
        assert set(seen["grown"]["states"]) == {"RUNNING", "UPDATING"}
        assert seen["shrunk"]["counts"] == 1
