"""The model hook from synchronous code: a model from its upload to predictions and its deletion."""

from __future__ import annotations

import time
from typing import Any

import pytest
from emulator_support.artifacts import iris, put_quick, put_sklearn, sklearn_model
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.serving.containers import serving_container
from airflow_provider_vertex_ray.errors import (
    ArtifactNotFoundError,
    EndpointNotFoundError,
    InvalidArgumentError,
    ModelNotFoundError,
    OperationTimeoutError,
    PreconditionError,
    PredictionError,
    RateLimitedError,
    TrafficError,
)
from airflow_provider_vertex_ray.hooks.model import VertexRayModelAsyncHook, VertexRayModelHook
from tests.support.clusters import LOCATION

DEPLOYED = "123"


@pytest.fixture
def emulator(serving_emulator: EmulatorProcess) -> EmulatorProcess:
    return serving_emulator


@pytest.fixture
def hook(emulator: EmulatorProcess) -> VertexRayModelHook:
    return VertexRayModelHook(location=LOCATION)


def deadline() -> float:
    return time.time() + 240


def upload(hook: VertexRayModelHook, storage: StorageEmulator, artifact: str | None = None) -> str:
    """Upload a model, and return its name."""
    request = {
        "model": {
            "displayName": "iris",
            "artifactUri": artifact or put_quick(storage, "quick"),
            "containerSpec": {"imageUri": serving_container("sklearn", None, LOCATION)},
            "labels": {"team": "a"},
        }
    }
    response = hook.finished(hook.upload_model(request), deadline())
    return str(response["model"])


def deploy(hook: VertexRayModelHook, model: str, deployed_id: str = DEPLOYED) -> str | None:
    deployed = {
        "id": deployed_id,
        "model": model,
        "displayName": "iris",
        "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1},
    }
    return hook.deploy_model("serving", deployed, {"0": 100})


def serve(hook: VertexRayModelHook, storage: StorageEmulator, artifact: str | None = None) -> str:
    """Upload a model and deploy it to the endpoint ``serving``; return the model's name."""
    model = upload(hook, storage, artifact)
    hook.ensure_endpoint("serving", {"displayName": "serving"}, deadline())
    operation = deploy(hook, model)
    assert operation is not None
    hook.finished(operation, deadline())
    return model


def test_model_from_upload_to_deletion(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    model = upload(hook, storage)
    assert hook.get_model(model)["displayName"] == "iris"
    assert [each["displayName"] for each in hook.find_models({"team": "a"})] == ["iris"]
    assert len(hook.find_models({"team": "a"}, parent_model=model)) == 1
    assert hook.find_models({"team": "b"}) == []
    operation = hook.delete_model(model)
    assert operation is not None
    hook.finished(operation, deadline())
    with pytest.raises(ModelNotFoundError):
        hook.get_model(model)
    assert hook.delete_model(model) is None


def test_endpoint_is_created_once(hook: VertexRayModelHook) -> None:
    first, created = hook.ensure_endpoint("serving", {"displayName": "serving"}, deadline())
    again, created_again = hook.ensure_endpoint("serving", {"displayName": "serving"}, deadline())
    assert (created, created_again) == (True, False)
    assert first["name"] == again["name"] == hook.get_endpoint("serving")["name"]


def test_deployed_model_predicts_in_the_order_of_the_instances(
    hook: VertexRayModelHook, storage: StorageEmulator
) -> None:
    serve(hook, storage, put_sklearn(storage, "iris"))
    rows = iris()[0].tolist()
    chunks = [rows[start : start + 40] for start in range(0, len(rows), 40)]
    predictions, deployed = hook.predict("serving", chunks)
    assert predictions == sklearn_model().predict(iris()[0]).tolist()
    assert deployed == [DEPLOYED]
    # The full name serves as well as the id.
    assert hook.predict(hook.get_endpoint("serving")["name"], [rows[:1]])[0] == predictions[:1]


def test_deployment_is_not_repeated(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    model = serve(hook, storage)
    assert deploy(hook, model) is None
    assert len(hook.get_endpoint("serving")["deployedModels"]) == 1


def test_undeploy_gives_the_traffic_to_the_other_models(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    model = serve(hook, storage)
    deployed = {
        "id": "456",
        "model": model,
        "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1},
    }
    operation = hook.deploy_model("serving", deployed, {"0": 30, DEPLOYED: 70})
    assert operation is not None
    hook.finished(operation, deadline())
    assert hook.undeploy("serving", [DEPLOYED], deadline()) == {"undeployed": [DEPLOYED], "endpoint_deleted": False}
    assert hook.get_endpoint("serving")["trafficSplit"] == {"456": 100}


def with_idle_canary(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    """A second model that gets no traffic."""
    model = serve(hook, storage)
    deployed = {
        "id": "456",
        "model": model,
        "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1},
    }
    operation = hook.deploy_model("serving", deployed, {"0": 0, DEPLOYED: 100})
    assert operation is not None
    hook.finished(operation, deadline())


def test_undeploy_begins_with_models_without_traffic(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    with_idle_canary(hook, storage)
    assert hook.undeploy("serving", None, deadline(), delete=True) == {
        "undeployed": ["456", DEPLOYED],
        "endpoint_deleted": True,
    }


def test_undeploy_of_the_only_model_with_traffic_fails_at_once(
    hook: VertexRayModelHook, storage: StorageEmulator
) -> None:
    with_idle_canary(hook, storage)
    with pytest.raises(TrafficError, match="has all the traffic of .* and 456 would remain without any"):
        hook.undeploy("serving", [DEPLOYED], deadline())
    assert len(hook.get_endpoint("serving")["deployedModels"]) == 2


def test_nan_is_refused_before_anything_is_sent(hook: VertexRayModelHook) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Invalid value for instances\[0\]\[1\]"):
        hook.predict("nowhere", [[[1.0, float("nan")]]])


def test_undeploy_deletes_the_endpoint(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    model = serve(hook, storage)
    with pytest.raises(PreconditionError):
        hook.delete_model(model)
    assert hook.undeploy("serving", None, deadline(), delete=True) == {
        "undeployed": [DEPLOYED],
        "endpoint_deleted": True,
    }
    with pytest.raises(EndpointNotFoundError):
        hook.get_endpoint("serving")
    # Nothing is left to do, and that is no error.
    assert hook.undeploy("serving", None, deadline(), delete=True) == {"undeployed": [], "endpoint_deleted": False}
    assert hook.delete_model(model) is not None


def test_undeploy_keeps_an_endpoint_that_still_serves(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    serve(hook, storage)
    assert hook.undeploy("serving", ["another"], deadline(), delete=True) == {
        "undeployed": [],
        "endpoint_deleted": False,
    }
    assert len(hook.get_endpoint("serving")["deployedModels"]) == 1


def test_rejected_instances_are_named(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    serve(hook, storage)
    rows = iris()[0].tolist()[:4]
    with pytest.raises(PredictionError, match=r"rejected instances 2 to 3: Prediction failed") as caught:
        hook.predict("serving", [rows[:2], [rows[2], [1.0, 2.0]]])
    assert caught.value.details["first_instance"] == 2


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda hook: hook.get_model("nothing"), ModelNotFoundError),
        (lambda hook: hook.get_endpoint("nowhere"), EndpointNotFoundError),
        (lambda hook: hook.predict("nowhere", [[[1]]]), EndpointNotFoundError),
        (lambda hook: deploy(hook, "nothing"), EndpointNotFoundError),
        (lambda hook: hook.get_model("no/name"), InvalidArgumentError),
        (lambda hook: VertexRayModelHook().get_model("no-location"), InvalidArgumentError),
    ],
    ids=["model", "endpoint", "predict", "deploy", "malformed-name", "no-location"],
)
def test_missing_resources_have_typed_errors(hook: VertexRayModelHook, call: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        call(hook)


def test_artifact_files(hook: VertexRayModelHook, storage: StorageEmulator) -> None:
    uri = put_sklearn(storage, "iris")
    storage.put("iris/notes.txt", b"", {"by": "us"})
    assert hook.artifact_files(uri) == {"model.joblib": {}, "notes.txt": {"by": "us"}}
    assert hook.artifact_files(f"gs://{storage.bucket}/nothing") == {}
    with pytest.raises(ArtifactNotFoundError):
        hook.artifact_files("gs://another-bucket/iris")


def test_wait_for_an_operation_ends_at_its_deadline(hook: VertexRayModelHook, monkeypatch: pytest.MonkeyPatch) -> None:
    async def running(self: VertexRayModelAsyncHook, operation: str) -> dict[str, Any]:
        return {"name": operation}

    monkeypatch.setattr(VertexRayModelAsyncHook, "get_operation", running)
    begin = time.monotonic()
    with pytest.raises(OperationTimeoutError, match="Timed out waiting for operation one; it continues"):
        hook.finished("one", time.time() + 0.3)
    assert time.monotonic() - begin < 60


def test_wait_for_an_operation_survives_rate_limits(hook: VertexRayModelHook, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [RateLimitedError("429"), {}, {"done": True, "response": {"model": "m"}}]

    async def get_operation(self: VertexRayModelAsyncHook, operation: str) -> dict[str, Any]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    monkeypatch.setattr(VertexRayModelAsyncHook, "get_operation", get_operation)
    assert hook.finished("one", deadline()) == {"model": "m"}
    assert answers == []


def test_operation_that_cannot_be_cancelled_is_no_error(hook: VertexRayModelHook) -> None:
    name = f"projects/{hook.known_project()}/locations/{LOCATION}/operations/1"
    assert hook.cancel_operation(name) is None
