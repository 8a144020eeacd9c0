"""The Google provider's operators for models and endpoints, unmodified, with a predictor behind the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator_support.artifacts import put_quick
from emulator_support.clients.stages import run_client
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

pytestmark = pytest.mark.sdk

LOCATION = "projects/123456789012/locations"
Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, storage_process: StorageEmulator) -> Seen:
    folder = tmp_path_factory.mktemp("provider-models")
    artifact = put_quick(storage_process, "provider/model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{storage_process.host}")
        with EmulatorProcess(folder / "state", ["--backend", "fake", "--deploy-seconds", "0"]) as emulator:
            env = emulator.sdk_env(
                AIRFLOW_HOME=str(folder / "airflow"),
                AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT="google-cloud-platform://",
                ARTIFACT_URI=artifact,
            )
            return run_client(Path(__file__).with_name("model_client.py"), env, folder)


def test_versions_and_aliases(seen: Seen) -> None:
    stage = seen["models"]
    assert stage["versions"] == {"1": ["old"], "2": ["default"]}
    assert stage["default"] == "2"
    assert stage["listed"] == [stage["name"]]


def test_deploy(seen: Seen) -> None:
    stage = seen["endpoint"]
    assert stage["name"] == f"{LOCATION}/europe-west4/endpoints/served"
    assert stage["deployed"] == "4711"
    assert stage["traffic"] == {"4711": 100}
    assert stage["version"] == "2"
    assert stage["listed"] == [stage["name"]]


def test_delete_leaves_no_models(seen: Seen) -> None:
    assert seen["delete"]["models"] == 0
