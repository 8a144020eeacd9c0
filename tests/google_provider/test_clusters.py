"""The Google provider's Ray operators, unmodified, against real Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_support.clients.stages import run_client
from emulator_support.process import AT_ONCE, EmulatorProcess

pytestmark = [pytest.mark.sdk, pytest.mark.ray]

NAME = "projects/123456789012/locations/us-central1/persistentResources/from-provider"
Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("provider")
    # The provider takes an address for a Vertex one only when it is a bare host of Google's.
    arguments = [*AT_ONCE, "--hold-get", "--dashboard-addresses", "google"]
    with EmulatorProcess(folder / "state", arguments) as emulator:
        env = emulator.sdk_env(
            AIRFLOW_HOME=str(folder / "airflow"),
            AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT="google-cloud-platform://",
        )
        return run_client(Path(__file__).with_name("cluster_client.py"), env, folder)


def test_create(seen: Seen) -> None:
    assert seen["create"]["name"] == NAME
    assert seen["create"]["cluster_id"] == "from-provider"


def test_get(seen: Seen) -> None:
    assert seen["get"]["state"] == "RUNNING"
    assert "/" not in seen["get"]["address"]


def test_list(seen: Seen) -> None:
    assert seen["list"]["names"] == [NAME]


def test_submit_job(seen: Seen) -> None:
    assert seen["submit"]["job"] == "provider-job"
    assert seen["submit"]["status"] == "SUCCEEDED"
    assert "hello from the provider" in seen["submit"]["logs"]


def test_update(seen: Seen) -> None:
    assert seen["update"]["name"] == NAME
    assert seen["update"]["counts"] == [2]


def test_delete(seen: Seen) -> None:
    assert "delete" in seen
