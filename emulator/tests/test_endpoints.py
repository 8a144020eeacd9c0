from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.serving import begin_deploy, create_endpoint, deploy, model_body, refusal, upload

NUMBER = "projects/123456789012/locations/us-central1"
TYPE = "type.googleapis.com/google.cloud.aiplatform."


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_endpoint_from_create_to_delete(emulator: EmulatorProcess, version: str) -> None:
    body = {"displayName": "an endpoint", "labels": {"team": "a"}}
    status, operation = emulator.api("POST", "endpoints?endpointId=e1", body, version=version)
    assert status == 200
    assert operation["name"].startswith(f"{NUMBER}/endpoints/e1/operations/")
    assert operation["metadata"]["@type"] == f"{TYPE}{version}.CreateEndpointOperationMetadata"
    done = emulator.api("POST", operation["name"] + ":wait?timeout=200s", version=version)[1]
    assert done["response"].pop("@type") == f"{TYPE}{version}.Endpoint"
    status, endpoint = emulator.api("GET", "endpoints/e1", version=version)
    assert (status, endpoint) == (200, done["response"])
    assert {"name": f"{NUMBER}/endpoints/e1", **body}.items() <= endpoint.items()

    assert emulator.api("GET", "endpoints?filter=labels.team%3Da", version=version)[1] == {"endpoints": [endpoint]}
    assert emulator.api("GET", "endpoints?filter=labels.team%3Db", version=version)[1] == {}
    updated = emulator.api(
        "PATCH",
        "endpoints/e1?updateMask=displayName,labels.run",
        {"displayName": "new", "labels": {"run": "r", "team": "not in the mask"}},
        version=version,
    )[1]
    assert (updated["displayName"], updated["labels"]) == ("new", {"run": "r", "team": "a"})

    operation = emulator.api("DELETE", "endpoints/e1", version=version)[1]
    assert emulator.wait(operation)["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    assert refusal(emulator.api("GET", "endpoints/e1", version=version))[:2] == (404, "NOT_FOUND")


def test_part_of_a_field_is_updated_for_labels_only(emulator: EmulatorProcess) -> None:
    emulator.wait(emulator.api("POST", "endpoints?endpointId=e1", {"displayName": "an endpoint"})[1])
    for mask in ("trafficSplit.77", "displayName.foo"):
        body = {"displayName": "x", "trafficSplit": {"77": 100}}
        assert "is not supported" in refusal(emulator.api("PATCH", f"endpoints/e1?updateMask={mask}", body))[2]
    assert "trafficSplit" not in emulator.api("GET", "endpoints/e1")[1]


def test_service_assigns_missing_endpoint_id(emulator: EmulatorProcess) -> None:
    operation = emulator.wait(emulator.api("POST", "endpoints", {"displayName": "x"})[1])
    assert operation["response"]["name"].rsplit("/", 1)[1].isdigit()


@pytest.mark.parametrize(
    ("query", "body", "code", "words"),
    [
        ("", {}, "INVALID_ARGUMENT", "endpoint.display_name; Message: Required field is not set."),
        ("?endpointId=1234567890", {"displayName": "x"}, "INVALID_ARGUMENT", "endpoint_id"),
        ("?endpointId=Upper", {"displayName": "x"}, "INVALID_ARGUMENT", "endpoint_id"),
        ("", {"displayName": "x", "labels": {"A": "b"}}, "INVALID_ARGUMENT", "labels"),
        ("", {"displayName": "x", "colour": "red"}, "INVALID_ARGUMENT", "Unknown name \"colour\" at 'endpoint'"),
        ("", {"displayName": "x", "network": "projects/1/global/networks/n"}, "UNIMPLEMENTED", "public endpoints only"),
    ],
)
def test_invalid_endpoint_is_refused(
    emulator: EmulatorProcess, query: str, body: dict[str, Any], code: str, words: str
) -> None:
    _, found, text = refusal(emulator.api("POST", f"endpoints{query}", body))
    assert found == code
    assert words in text
    assert emulator.api("GET", "endpoints")[1] == {}


RESOURCES = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        ({"id": "12345678901"}, {"0": 100}, "deployed_model.id"),
        ({"id": "one"}, {"0": 100}, "deployed_model.id"),
        ({"model": ""}, {"0": 100}, "deployed_model.model; Message: Required field is not set."),
        ({"dedicatedResources": {"minReplicaCount": 1}}, {"0": 100}, "machine_type; Message: Required field"),
        ({"dedicatedResources": {**RESOURCES, "minReplicaCount": 0}}, {"0": 100}, "min_replica_count"),
        (
            {"dedicatedResources": {**RESOURCES, "minReplicaCount": 2, "maxReplicaCount": 1}},
            {"0": 100},
            "max_replica_count",
        ),
        (
            {"dedicatedResources": {**RESOURCES, "machineSpec": {"machineType": "n9-huge"}}},
            {"0": 100},
            "'n9-huge' is not",
        ),
        (
            {"dedicatedResources": None, "automaticResources": {}},
            {"0": 100},
            "'automatic_resources' is not supported for",
        ),
        ({}, {"0": 90}, "must add up to 100, not 90"),
        ({}, {"7": 100}, "no DeployedModel '7'"),
    ],
)
def test_invalid_deployment_is_refused(
    emulator: EmulatorProcess, change: dict[str, Any], split: dict[str, int], words: str
) -> None:
    create_endpoint(emulator)
    body = {"id": "1", "model": upload(emulator), "dedicatedResources": RESOURCES, **change}
    answer = emulator.api("POST", "endpoints/e1:deployModel", {"deployedModel": body, "trafficSplit": split})
    status, code, text = refusal(answer)
    assert (status, code) == (400, "INVALID_ARGUMENT")
    assert words in text


def test_missing_model_or_endpoint_cannot_be_deployed(emulator: EmulatorProcess) -> None:
    assert refusal(begin_deploy(emulator, upload(emulator)))[:2] == (404, "NOT_FOUND")
    create_endpoint(emulator)
    assert refusal(begin_deploy(emulator, f"{NUMBER}/models/none"))[:2] == (404, "NOT_FOUND")
    assert refusal(emulator.api("POST", "endpoints/e1:undeployModel", {"deployedModelId": "1"}))[:2] == (
        404,
        "NOT_FOUND",
    )


@pytest.mark.parametrize(
    "image",
    [
        "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.9-9:latest",
        "us-docker.pkg.dev/vertex-ai/prediction/sklearn-gpu.1-6:latest",
        "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:stable",
        "africa-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest",
    ],
)
def test_unknown_prebuilt_container_is_refused(emulator: EmulatorProcess, image: str) -> None:
    create_endpoint(emulator)
    status, code, text = refusal(begin_deploy(emulator, upload(emulator, image=image)))
    assert (status, code) == (400, "INVALID_ARGUMENT")
    assert f'Invalid image "{image}" for deployment' in text


def left(emulator: EmulatorProcess) -> list[Any]:
    (endpoint,) = emulator.admin("GET", "endpoints")["endpoints"]
    return [*endpoint["deployedModels"], *emulator.api("GET", "endpoints/e1")[1].get("deployedModels", [])]


@pytest.mark.parametrize(
    "image", ["us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest", "us-docker.pkg.dev/mine/repo/server:1"]
)
def test_unsupported_container_fails_deployment(emulator: EmulatorProcess, image: str) -> None:
    create_endpoint(emulator)
    error = deploy(emulator, upload(emulator, image=image))["error"]
    assert error["code"] == 9
    assert f"The emulator cannot run the image '{image}'" in error["message"]
    assert left(emulator) == []


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        ("stockout", 8, "Machine type temporarily unavailable"),
        ("quota", 8, "aiplatform.googleapis.com/custom_model_serving_cpus"),
        ("unhealthy", 9, "Model server never became ready"),
        ("internal", 13, "Internal error"),
    ],
)
def test_deployment_outcomes_on_demand(emulator: EmulatorProcess, outcome: str, code: int, words: str) -> None:
    create_endpoint(emulator)
    model = upload(emulator)
    with emulator.fault(scope="deployment", outcome=outcome, resource="e1"):
        error = deploy(emulator, model)["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert left(emulator) == []
    # The model can be deleted again.
    assert emulator.wait(emulator.api("DELETE", model.split("@")[0])[1])["done"]


def test_hanging_deployment_blocks_deletion_of_endpoint_and_model(emulator: EmulatorProcess) -> None:
    create_endpoint(emulator)
    model = upload(emulator)
    with emulator.fault(scope="deployment", outcome="stuck"):
        status, operation = begin_deploy(emulator, model)
    assert status == 200
    assert "done" not in emulator.api("POST", operation["name"] + ":wait?timeout=0.1s")[1]
    # The deployment is not visible to callers yet.
    assert "deployedModels" not in emulator.api("GET", "endpoints/e1")[1]
    (entry,) = left(emulator)
    assert (entry["id"], entry["state"], entry["pid"]) == ("1", "DEPLOYING", None)
    assert refusal(emulator.api("DELETE", "endpoints/e1"))[1] == "FAILED_PRECONDITION"
    assert refusal(emulator.api("DELETE", model.split("@")[0]))[1] == "FAILED_PRECONDITION"
    assert refusal(begin_deploy(emulator, model))[:2] == (409, "ALREADY_EXISTS")
    busy = emulator.api("POST", "endpoints/e1:undeployModel", {"deployedModelId": "1"})
    assert refusal(busy)[1:] == (
        "FAILED_PRECONDITION",
        f"The DeployedModel '1' of '{NUMBER}/endpoints/e1' is being deployed.",
    )
    assert refusal(emulator.api("POST", operation["name"] + ":cancel"))[:2] == (501, "UNIMPLEMENTED")
    emulator.admin("DELETE", "endpoints")
    assert emulator.api("GET", operation["name"])[1]["error"]["code"] == 1


def test_stuck_deployment_fails_after_delay(emulator: EmulatorProcess) -> None:
    create_endpoint(emulator)
    with emulator.fault(scope="deployment", outcome="stuck", delay=0.1):
        assert "never became ready" in deploy(emulator, upload(emulator))["error"]["message"]


def test_invalid_deployment_faults_are_refused(emulator: EmulatorProcess) -> None:
    for fault, words in (
        ({"scope": "deployment"}, "require an outcome"),
        ({"scope": "deployment", "outcome": "partial"}, "The outcomes of scope"),
        ({"scope": "provisioning", "outcome": "unhealthy"}, "The outcomes of scope"),
        ({"scope": "control_plane", "outcome": "stuck"}, "require an outcome"),
    ):
        assert words in refusal(emulator.request("POST", "/emulator/faults", fault))[2]


def test_deployment_without_cloud_storage_fails_with_remedy(emulator: EmulatorProcess) -> None:
    create_endpoint(emulator)
    error = deploy(emulator, upload(emulator, uri=model_body()["artifactUri"]))["error"]
    assert "The emulator has no Cloud Storage" in error["message"]
    assert left(emulator) == []
