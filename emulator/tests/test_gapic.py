"""Google's generated clients, unmodified, in both versions and over both transports."""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.clients.stages import run_client
from emulator_support.process import QUICK, EmulatorProcess

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gapic")
    with EmulatorProcess(folder / "state", QUICK) as emulator:
        return run_client("gapic.py", emulator.sdk_env(), folder)


def test_credentials_come_from_the_metadata_server(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["credentials"]["project"] == "demo-project"
    assert seen["credentials"]["kind"] == "google.auth.compute_engine.credentials"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_cluster_can_be_created_resized_and_deleted(
    seen: dict[str, dict[str, Any]], version: str, transport: str
) -> None:
    stage = seen[f"{version} {transport}"]
    assert stage["created"] == "RUNNING"
    assert stage["kind"] == f"aiplatform_{version}"
    assert stage["listed"] is True
    assert stage["updated"] == [1, 2]
    assert "does not exist" in stage["gone"]
