"""Requests of the tests of models and endpoints."""

from __future__ import annotations

from typing import Any

from emulator_support.artifacts import SKLEARN_IMAGE
from emulator_support.process import EmulatorProcess


def model_body(image: str = SKLEARN_IMAGE, uri: str = "gs://some-bucket/model", **more: Any) -> dict[str, Any]:
    """Return the REST body of a model."""
    return {"displayName": "a model", "artifactUri": uri, "containerSpec": {"imageUri": image}, **more}


def upload(emulator: EmulatorProcess, request: dict[str, Any] | None = None, **model: Any) -> str:
    """Upload a model and return its name with the version."""
    status, operation = emulator.api("POST", "models:upload", {"model": model_body(**model), **(request or {})})
    assert status == 200, operation
    response = emulator.wait(operation)["response"]
    return f"{response['model']}@{response['modelVersionId']}"


def create_endpoint(emulator: EmulatorProcess, endpoint_id: str = "e1", **more: Any) -> str:
    """Create an endpoint and return its name."""
    body = {"displayName": "an endpoint", **more}
    status, operation = emulator.api("POST", f"endpoints?endpointId={endpoint_id}", body)
    assert status == 200, operation
    return str(emulator.wait(operation)["response"]["name"])


def deployed_model(model: str, deployed_id: str = "1", machine: str = "n1-standard-2", **more: Any) -> dict[str, Any]:
    """Return the REST body of a model to deploy."""
    resources = {"machineSpec": {"machineType": machine}, "minReplicaCount": 1}
    return {"id": deployed_id, "model": model, "dedicatedResources": resources, **more}


def begin_deploy(
    emulator: EmulatorProcess, model: str, deployed_id: str = "1", split: dict[str, int] | None = None, **more: Any
) -> tuple[int, Any]:
    """Request a deployment to the endpoint e1 and return the status and the answer."""
    body = {"deployedModel": deployed_model(model, deployed_id, **more)}
    return emulator.api(
        "POST", "endpoints/e1:deployModel", {**body, "trafficSplit": {"0": 100} if split is None else split}
    )


def deploy(emulator: EmulatorProcess, model: str, deployed_id: str = "1", split: dict[str, int] | None = None) -> Any:
    """Deploy a model to the endpoint e1 and return the finished operation."""
    status, operation = begin_deploy(emulator, model, deployed_id, split)
    assert status == 200, operation
    return emulator.wait(operation)


def refusal(answer: tuple[int, Any]) -> tuple[int, str, str]:
    """Return the status, the code and the text of an error."""
    status, body = answer
    return status, body["error"]["status"], body["error"]["message"]
