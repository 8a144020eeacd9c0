"""Models and endpoints through Google's SDK, unmodified, with real models behind the endpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from emulator_support.artifacts import booster, iris, put_sklearn, put_xgboost, sklearn_model
from emulator_support.clients.stages import run_client
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator
from vertex_ray_emulator.backends.processes import find_processes, state_marker

pytestmark = pytest.mark.sdk

Seen = dict[str, dict[str, Any]]
INSTANCES = iris()[0][::40].tolist()
LOCATION = "projects/123456789012/locations"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, storage_process: StorageEmulator) -> Seen:
    folder = tmp_path_factory.mktemp("models")
    uris = {
        "SKLEARN_URI": put_sklearn(storage_process, "clients/sklearn"),
        "XGBOOST_URI": put_xgboost(storage_process, "clients/xgboost"),
    }

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{storage_process.host}")
        with EmulatorProcess(folder / "state", ["--backend", "fake", "--deploy-seconds", "0"]) as emulator:
            env = emulator.sdk_env(**uris, INSTANCES=json.dumps(INSTANCES))
            stages = run_client("model_sdk.py", env, folder)
            stages["left"] = {"processes": _predictors(folder / "state", emulator.pid)}
            return stages


def _predictors(state: Path, emulator: int) -> list[int]:
    return sorted(set(find_processes(state_marker(state))) - {emulator})


def test_upload(seen: Seen) -> None:
    stage = seen["upload"]
    assert re.fullmatch(rf"{LOCATION}/us-central1/models/\d+", stage["name"])
    assert stage["versions"] == [["1", ["default", "golden"]], ["2", ["champion"]]]
    assert stage["by_alias"] == "2"
    assert stage["by_label"] == [stage["name"]]
    assert stage["by_another"] == 0
    assert stage["golden"] == "the first"


def test_predict(seen: Seen) -> None:
    stage = seen["predict"]
    expected = sklearn_model().predict(INSTANCES).tolist()
    assert "doesn't have traffic_split" in stage["empty"]
    assert stage["predictions"] == expected
    assert stage["raw"] == {"predictions": expected}
    assert (stage["model"], stage["version"]) == (seen["upload"]["name"], "1")
    assert stage["listed"] == [stage["deployed"]]
    assert "FailedPrecondition" in stage["wrong"]
    assert "X has 2 features, but StandardScaler is expecting 4 features as input" in stage["wrong"]
    assert all("deployed" in text for text in stage["in_use"])


def test_traffic_moves_to_second_version(seen: Seen) -> None:
    import xgboost

    stage = seen["second"]
    assert stage["predictions"] == booster().predict(xgboost.DMatrix(INSTANCES)).tolist()
    assert stage["version"] == "2"
    assert list(stage["traffic"].values()) == [100]


def test_deployment_of_missing_artifact_fails(seen: Seen) -> None:
    stage = seen["failed"]
    assert "Model server terminated" in stage["error"]
    assert "'model.joblib', 'model.pkl'" in stage["error"]
    assert stage["left"] == [seen["upload"]["name"]]


def test_delete_leaves_nothing(seen: Seen) -> None:
    assert seen["delete"]["traffic"] == {}
    assert "doesn't have traffic_split" in seen["delete"]["undeployed"]
    assert (seen["delete"]["endpoints"], seen["delete"]["models"]) == (0, 0)
    assert seen["left"]["processes"] == []
