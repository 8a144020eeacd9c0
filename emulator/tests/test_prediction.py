"""Real predictors: their answers, the traffic split, and that no process is left."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from emulator_support.artifacts import (
    SKLEARN_IMAGE,
    XGBOOST_IMAGE,
    booster,
    iris,
    put_sklearn,
    put_xgboost,
    sklearn_model,
)
from emulator_support.process import EmulatorProcess, until
from emulator_support.serving import begin_deploy, create_endpoint, deploy, refusal, upload
from vertex_ray_emulator.backends.processes import find_processes, is_alive, state_marker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emulator_support.storage import StorageEmulator

INSTANCES = iris()[0][::40].tolist()
NUMBER = "projects/123456789012/locations/us-central1"
ARGUMENTS = ["--backend", "fake", "--deploy-seconds", "0"]


def predict(
    emulator: EmulatorProcess, instances: Any = INSTANCES, verb: str = "predict", **more: Any
) -> tuple[int, Any]:
    return emulator.api("POST", f"endpoints/e1:{verb}", {"instances": instances, **more}, version="v1")


def undeploy(emulator: EmulatorProcess, deployed_id: str, split: dict[str, int] | None = None) -> tuple[int, Any]:
    body = {"deployedModelId": deployed_id, "trafficSplit": split or {}}
    return emulator.api("POST", "endpoints/e1:undeployModel", body)


def pids(emulator: EmulatorProcess) -> dict[str, int]:
    found = emulator.admin("GET", "endpoints")["endpoints"]
    return {each["id"]: each["pid"] for endpoint in found for each in endpoint["deployedModels"]}


def processes(emulator: EmulatorProcess) -> set[int]:
    return set(find_processes(state_marker(emulator.state_dir))) - {emulator.pid}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, storage_process: StorageEmulator) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", storage_process.host)
        yield tmp_path_factory.mktemp("prediction")


@pytest.fixture(scope="module")
def process(place: Path) -> Iterator[EmulatorProcess]:
    with EmulatorProcess(place / "state", ARGUMENTS) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def uris(storage_process: StorageEmulator) -> dict[str, str]:
    storage_process.put("prediction/other/readme.txt", b"no model")
    storage_process.put("prediction/broken/model.pkl", b"no pickle")
    return {
        "sklearn": put_sklearn(storage_process, "prediction/sklearn", "model.pkl"),
        "xgboost": put_xgboost(storage_process, "prediction/xgboost"),
        "other": f"gs://{storage_process.bucket}/prediction/other",
        "broken": f"gs://{storage_process.bucket}/prediction/broken/",
        "no_bucket": "gs://no-such-bucket/model",
    }


@pytest.fixture(scope="module")
def both(process: EmulatorProcess, uris: dict[str, str]) -> EmulatorProcess:
    """An endpoint with two models: half of the traffic for each."""
    create_endpoint(process)
    first = upload(process, {"modelId": "first"}, uri=uris["sklearn"], displayName="the first")
    second = upload(process, {"modelId": "second"}, uri=uris["xgboost"], image=XGBOOST_IMAGE)
    operation = deploy(process, first)
    assert operation["metadata"]["@type"].endswith("v1beta1.DeployModelOperationMetadata")
    deployed = operation["response"]["deployedModel"]
    assert (deployed["id"], deployed["model"], deployed["modelVersionId"]) == ("1", f"{NUMBER}/models/first", "1")
    assert deployed["dedicatedResources"]["maxReplicaCount"] == 1
    assert "response" in deploy(process, second, "22", {"1": 50, "0": 50})
    return process


@pytest.fixture
def split(both: EmulatorProcess) -> Iterator[EmulatorProcess]:
    yield both
    set_split(both, {"1": 50, "22": 50})


def set_split(emulator: EmulatorProcess, split: dict[str, int]) -> tuple[int, Any]:
    return emulator.api("PATCH", "endpoints/e1?updateMask=trafficSplit", {"trafficSplit": split})


def test_admin_api_shows_deployed_models(both: EmulatorProcess) -> None:
    endpoint = both.api("GET", "endpoints/e1")[1]
    assert [each["id"] for each in endpoint["deployedModels"]] == ["1", "22"]
    assert endpoint["trafficSplit"] == {"1": 50, "22": 50}
    references = both.api("GET", "models/first")[1]["deployedModels"]
    assert references == [{"endpoint": f"{NUMBER}/endpoints/e1", "deployedModelId": "1"}]
    assert set(pids(both)) == {"1", "22"}
    assert set(pids(both).values()) == processes(both)


def test_traffic_is_split(split: EmulatorProcess) -> None:
    answers = [predict(split)[1]["deployedModelId"] for _ in range(60)]
    # Of 60 predictions with even odds, fewer than 5 of one kind occur once in 10^11 runs.
    assert min(answers.count("1"), answers.count("22")) >= 5
    assert set_split(split, {"22": 100})[0] == 200
    assert {predict(split)[1]["deployedModelId"] for _ in range(10)} == {"22"}
    assert refusal(set_split(split, {"22": 60}))[1] == "INVALID_ARGUMENT"


def test_sklearn_predictions(split: EmulatorProcess) -> None:
    set_split(split, {"1": 100})
    status, answer = predict(split)
    assert status == 200
    assert answer == {
        "predictions": sklearn_model().predict(INSTANCES).tolist(),
        "deployedModelId": "1",
        "model": f"{NUMBER}/models/first",
        "modelDisplayName": "the first",
        "modelVersionId": "1",
    }
    raw = {"predictions": answer["predictions"]}
    assert predict(split, verb="rawPredict") == (200, raw)
    # The format of Google's generated REST client.
    data = base64.b64encode(json.dumps({"instances": INSTANCES}).encode()).decode()
    assert split.api("POST", "endpoints/e1:rawPredict", {"httpBody": {"data": data}}) == (200, raw)


def test_xgboost_predictions(split: EmulatorProcess) -> None:
    import xgboost

    set_split(split, {"22": 100})
    assert predict(split)[1]["predictions"] == booster().predict(xgboost.DMatrix(INSTANCES)).tolist()


@pytest.mark.parametrize(
    ("deployed", "instances", "more", "words"),
    [
        ("1", [[1.0, 2.0]], {}, "sklearn prediction: X has 2 features, but StandardScaler is expecting 4 features"),
        ("1", [{"a": 1}], {}, "sklearn prediction: float() argument must be a string or a real number, not 'dict'"),
        ("1", ["text"], {}, "Exception during sklearn prediction: "),
        ("1", INSTANCES, {"parameters": {}}, "got an unexpected keyword argument 'parameters'"),
        ("22", [[1.0] * 5], {}, "Number of columns does not match number of features in booster"),
        ("22", [{"a": 1}], {}, "Could not initialize DMatrix from inputs: "),
    ],
)
def test_instances_that_do_not_fit_model_are_refused(
    split: EmulatorProcess, deployed: str, instances: Any, more: dict[str, Any], words: str
) -> None:
    set_split(split, {deployed: 100})
    status, code, text = refusal(predict(split, instances, **more))
    assert (status, code) == (400, "FAILED_PRECONDITION")
    # The container's own format: a JSON string.
    assert json.loads(text).startswith("Prediction failed: ")
    assert words in json.loads(text)


def test_request_size_is_limited(both: EmulatorProcess) -> None:
    row = json.dumps([1.0] * 4)
    fitting, over = ([[1.0] * 4] * (size // (len(row) + 2)) for size in (1_550_000, 1_600_000))
    for verb in ("predict", "rawPredict"):
        status, answer = predict(both, fitting, verb)
        assert (status, len(answer["predictions"])) == (200, len(fitting))
    for verb in ("predict", "rawPredict"):
        assert refusal(predict(both, over, verb)) == (
            400,
            "INVALID_ARGUMENT",
            "Request payload size exceeds the limit: 1572864 bytes.",
        )


def test_invalid_requests_are_refused(both: EmulatorProcess) -> None:
    assert "instances; Message: Required field" in refusal(predict(both, []))[2]
    assert refusal(both.api("POST", "endpoints/none:predict", {"instances": [[1]]}))[:2] == (404, "NOT_FOUND")
    assert refusal(predict(both, [[1]], colour="red"))[1] == "INVALID_ARGUMENT"


def test_failed_deployments_leave_no_process(both: EmulatorProcess, uris: dict[str, str]) -> None:
    before = processes(both)
    for name, words in (
        ("other", "['readme.txt']"),
        ("broken", "UnpicklingError"),
        ("no_bucket", "Could not list the bucket 'no-such-bucket': HTTP 404"),
    ):
        error = deploy(both, upload(both, uri=uris[name], image=SKLEARN_IMAGE), "3", {"0": 100})["error"]
        assert error["code"] == 9
        assert "Model server terminated" in error["message"]
        assert words in error["message"]
    assert processes(both) == before
    assert set(pids(both)) == {"1", "22"}
    # The traffic split does not change.
    assert both.api("GET", "endpoints/e1")[1]["trafficSplit"] == {"1": 50, "22": 50}


def test_undeploy_ends_predictor(split: EmulatorProcess, uris: dict[str, str]) -> None:
    assert "response" in deploy(split, f"{NUMBER}/models/first", "3", {})
    # A model without traffic can be undeployed without a new split.
    assert split.api("GET", "endpoints/e1")[1]["trafficSplit"] == {"1": 50, "22": 50}
    pid = pids(split)["3"]
    operation = split.wait(undeploy(split, "3")[1])
    assert operation["response"]["@type"].endswith("v1beta1.UndeployModelResponse")
    assert not is_alive(pid)
    assert refusal(undeploy(split, "3"))[:2] == (404, "NOT_FOUND")
    assert "has traffic assigned" in refusal(undeploy(split, "1"))[2]
    assert refusal(undeploy(split, "1", {"1": 50, "22": 50}))[1] == "INVALID_ARGUMENT"
    assert "is deployed or being deployed" in refusal(split.api("DELETE", "models/first"))[2]
    assert "has deployed or being-deployed" in refusal(split.api("DELETE", "endpoints/e1"))[2]


def test_dead_predictor_is_restarted(split: EmulatorProcess) -> None:
    set_split(split, {"22": 100})
    pid = pids(split)["22"]
    assert split.admin("POST", "endpoints/e1/kill", {"deployed_model": "22"}) == {"pids": [pid]}
    seen: list[int] = []

    def answers() -> bool:
        seen.append(predict(split)[0])
        return seen[-1] == 200 and pids(split)["22"] not in (None, pid)

    until(answers)
    assert set(seen) <= {200, 503}


def test_no_predictor_survives_emulator(place: Path, uris: dict[str, str]) -> None:
    emulator = EmulatorProcess(place / "own", ARGUMENTS).start()
    create_endpoint(emulator)
    model = upload(emulator, uri=uris["xgboost"], image=XGBOOST_IMAGE)
    operations = [begin_deploy(emulator, model, name, {})[1] for name in ("1", "2")]
    assert all("response" in emulator.wait(operation) for operation in operations)
    awake, frozen = pids(emulator).values()
    os.kill(frozen, signal.SIGSTOP)
    until(lambda: psutil.Process(frozen).status() == psutil.STATUS_STOPPED, what="the predictor is not frozen")
    emulator.kill()
    until(lambda: not is_alive(awake), "the predictor outlives the emulator")
    # A frozen predictor cannot notice; the next emulator on the state directory ends it.
    assert is_alive(frozen)
    with EmulatorProcess(place / "own", ARGUMENTS) as emulator:
        assert not is_alive(frozen)
        create_endpoint(emulator)
        # A predictor that is just starting when the emulator stops.
        model = upload(emulator, uri=uris["xgboost"], image=XGBOOST_IMAGE)
        assert begin_deploy(emulator, model)[0] == 200
        until(lambda: processes(emulator))
        assert emulator.stop() == 0
        assert processes(emulator) == set()
    assert not list((place / "own" / "predictors").iterdir())
