"""Clients that are not ours, unmodified, with real models: Google's SDK and the Google provider's operators.

Each runs in a process of its own, both at the same time, as their imports take most of it.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
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
def seen(tmp_path_factory: pytest.TempPathFactory, storage_process: StorageEmulator) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("models")
    uris = {
        "SKLEARN_URI": put_sklearn(storage_process, "clients/sklearn"),
        "XGBOOST_URI": put_xgboost(storage_process, "clients/xgboost"),
    }

    def client(name: str, env: dict[str, str]) -> Seen:
        place = folder / name
        place.mkdir()
        own = {"AIRFLOW_HOME": str(place / "airflow"), "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": "google-cloud-platform://"}
        return run_client(f"{name}.py", {**env, **own, **uris, "INSTANCES": json.dumps(INSTANCES)}, place)

    storage_host = f"http://{storage_process.host}"
    with (
        pytest.MonkeyPatch.context() as patch,
        ThreadPoolExecutor(2) as pool,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", storage_host)
        with EmulatorProcess(folder / "state", ["--backend", "fake", "--deploy-seconds", "0"]) as emulator:
            stages = dict(
                zip(
                    ("sdk", "provider"),
                    pool.map(lambda name: client(name, emulator.sdk_env()), ("model_sdk", "model_provider")),
                    strict=True,
                )
            )
            stages["sdk"]["left"] = {"processes": _predictors(folder / "state", emulator.pid)}
            return stages


def _predictors(state: Path, emulator: int) -> list[int]:
    return sorted(set(find_processes(state_marker(state))) - {emulator})


def test_sdk_upload(seen: dict[str, Seen]) -> None:
    stage = seen["sdk"]["upload"]
    assert re.fullmatch(rf"{LOCATION}/us-central1/models/\d+", stage["name"])
    assert stage["versions"] == [["1", ["default", "golden"]], ["2", ["champion"]]]
    assert stage["by_alias"] == "2"
    assert stage["by_label"] == [stage["name"]]
    assert stage["by_another"] == 0
    assert stage["golden"] == "the first"


def test_sdk_predict(seen: dict[str, Seen]) -> None:
    stage = seen["sdk"]["predict"]
    expected = sklearn_model().predict(INSTANCES).tolist()
    assert "doesn't have traffic_split" in stage["empty"]
    assert stage["predictions"] == expected
    assert stage["raw"] == {"predictions": expected}
    assert (stage["model"], stage["version"]) == (seen["sdk"]["upload"]["name"], "1")
    assert stage["listed"] == [stage["deployed"]]
    assert "FailedPrecondition" in stage["wrong"]
    assert "X has 2 features, but StandardScaler is expecting 4 features as input" in stage["wrong"]
    assert all("deployed" in text for text in stage["in_use"])


def test_sdk_second_version(seen: dict[str, Seen]) -> None:
    import xgboost

    stage = seen["sdk"]["second"]
    assert stage["predictions"] == booster().predict(xgboost.DMatrix(INSTANCES)).tolist()
    assert stage["version"] == "2"
    assert list(stage["traffic"].values()) == [100]


def test_sdk_artifact_that_is_not_there(seen: dict[str, Seen]) -> None:
    stage = seen["sdk"]["failed"]
    assert "Model server terminated" in stage["error"]
    assert "'model.joblib', 'model.pkl'" in stage["error"]
    assert stage["left"] == [seen["sdk"]["upload"]["name"]]


def test_sdk_delete_leaves_nothing(seen: dict[str, Seen]) -> None:
    assert seen["sdk"]["delete"]["traffic"] == {}
    assert "doesn't have traffic_split" in seen["sdk"]["delete"]["undeployed"]
    assert (seen["sdk"]["delete"]["endpoints"], seen["sdk"]["delete"]["models"]) == (0, 0)
    assert seen["sdk"]["left"]["processes"] == []


def test_provider_models(seen: dict[str, Seen]) -> None:
    stage = seen["provider"]["models"]
    assert stage["versions"] == {"1": ["old"], "2": ["default"]}
    assert stage["default"] == "2"
    assert stage["listed"] == [stage["name"]]


def test_provider_endpoints(seen: dict[str, Seen]) -> None:
    stage = seen["provider"]["endpoint"]
    assert stage["name"] == f"{LOCATION}/europe-west4/endpoints/served"
    assert stage["deployed"] == "4711"
    assert stage["traffic"] == {"4711": 100}
    assert stage["version"] == "2"
    assert stage["listed"] == [stage["name"]]


def test_provider_delete(seen: dict[str, Seen]) -> None:
    assert seen["provider"]["delete"]["models"] == 0
