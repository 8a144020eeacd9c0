from __future__ import annotations

from typing import Any

import pytest
from emulator_support.process import EmulatorProcess
from emulator_support.serving import create_endpoint, model_body, refusal, upload

NUMBER = "projects/123456789012/locations/us-central1"
TYPE = "type.googleapis.com/google.cloud.aiplatform."


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_model_from_upload_to_delete(emulator: EmulatorProcess, version: str) -> None:
    request = {"modelId": "iris", "model": model_body(labels={"team": "a"}, versionDescription="first")}
    status, operation = emulator.api("POST", "models:upload", request, version=version)
    assert status == 200
    assert operation["name"].startswith(f"{NUMBER}/models/iris/operations/")
    assert operation["metadata"]["@type"] == f"{TYPE}{version}.UploadModelOperationMetadata"
    assert "done" not in operation
    done = emulator.api("POST", operation["name"] + ":wait?timeout=200s", version=version)[1]
    response = {
        "@type": f"{TYPE}{version}.UploadModelResponse",
        "model": f"{NUMBER}/models/iris",
        "modelVersionId": "1",
    }
    assert done["response"] == response

    status, model = emulator.api("GET", "models/iris", version=version)
    assert status == 200
    expected = {"name": f"{NUMBER}/models/iris", "versionId": "1", "versionAliases": ["default"], **request["model"]}
    assert expected.items() <= model.items()
    assert model["supportedDeploymentResourcesTypes"] == ["DEDICATED_RESOURCES"]
    assert {"createTime", "updateTime", "versionCreateTime", "versionUpdateTime", "etag"} <= set(model)
    assert emulator.api("GET", "models", version=version)[1] == {"models": [model]}

    wanted = {"displayName": "new", "labels": {"team": "b"}, "description": "not in the mask"}
    status, updated = emulator.api("PATCH", "models/iris?updateMask=displayName,labels", wanted, version=version)
    assert (status, updated["displayName"], updated["labels"]) == (200, "new", {"team": "b"})
    assert "description" not in updated

    operation = emulator.api("DELETE", "models/iris", version=version)[1]
    assert operation["metadata"]["@type"] == f"{TYPE}{version}.DeleteOperationMetadata"
    assert emulator.wait(operation)["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    assert refusal(emulator.api("GET", "models/iris", version=version))[:2] == (404, "NOT_FOUND")


def aliases(emulator: EmulatorProcess, model: str) -> dict[str, list[str]]:
    found = emulator.api("GET", f"{model}:listVersions")[1]["models"]
    assert [each["name"] for each in found] == [f"{model}@{each['versionId']}" for each in found]
    return {each["versionId"]: each.get("versionAliases", []) for each in found}


def test_versions_and_aliases(emulator: EmulatorProcess) -> None:
    first = upload(emulator, labels={"run": "one"}, versionAliases=["golden"])
    model = first.split("@")[0]
    under = {"parentModel": model}
    assert upload(emulator, under, labels={"run": "two"}) == f"{model}@2"
    assert upload(emulator, under, versionAliases=["default", "golden"]) == f"{model}@3"
    assert aliases(emulator, model) == {"1": [], "2": [], "3": ["default", "golden"]}
    assert emulator.api("GET", model)[1]["versionId"] == "3"
    assert emulator.api("GET", f"{model}@golden")[1]["versionId"] == "3"
    assert emulator.api("GET", f"{model}@2")[1]["labels"] == {"run": "two"}
    assert refusal(emulator.api("GET", f"{model}@4"))[1] == "NOT_FOUND"
    found = emulator.api("GET", f"{model}:listVersions?filter=labels.run%3Dtwo")[1]["models"]
    assert [each["versionId"] for each in found] == ["2"]
    # A list of models shows the default version of each.
    assert [each["versionId"] for each in emulator.api("GET", "models")[1]["models"]] == ["3"]

    merge = f"{model}@2:mergeVersionAliases"
    status, merged = emulator.api("POST", merge, {"versionAliases": ["default", "golden", "other"]})
    assert (status, merged["versionAliases"]) == (200, ["default", "golden", "other"])
    assert aliases(emulator, model)["3"] == []
    assert emulator.api("POST", merge, {"versionAliases": ["-other"]})[1]["versionAliases"] == ["default", "golden"]
    assert refusal(emulator.api("POST", merge, {"versionAliases": ["-default"]}))[1] == "INVALID_ARGUMENT"
    assert refusal(emulator.api("POST", merge, {"versionAliases": ["9"]}))[1] == "INVALID_ARGUMENT"

    assert refusal(emulator.api("DELETE", f"{model}@2:deleteVersion"))[1] == "FAILED_PRECONDITION"
    emulator.wait(emulator.api("DELETE", f"{model}@3:deleteVersion")[1])
    assert set(aliases(emulator, model)) == {"1", "2"}
    # Ids are not reused.
    assert upload(emulator, under) == f"{model}@4"


def test_only_version_cannot_be_deleted(emulator: EmulatorProcess) -> None:
    version = upload(emulator)
    assert "only version" in refusal(emulator.api("DELETE", f"{version}:deleteVersion"))[2]
    assert refusal(emulator.api("DELETE", version))[1] == "INVALID_ARGUMENT"


def test_list_returns_pages(emulator: EmulatorProcess) -> None:
    for number in range(3):
        upload(emulator, {"modelId": f"m{number}"}, displayName=f"n{3 - number}")
    first = emulator.api("GET", "models?pageSize=2")[1]
    assert [each["name"].rsplit("/", 1)[1] for each in first["models"]] == ["m0", "m1"]
    second = emulator.api("GET", f"models?pageSize=2&pageToken={first['nextPageToken']}")[1]
    assert [each["name"].rsplit("/", 1)[1] for each in second["models"]] == ["m2"]
    assert "nextPageToken" not in second
    ordered = emulator.api("GET", "models?orderBy=display_name%20desc&readMask=displayName", version="v1")[1]["models"]
    assert ordered == [{"displayName": "n3"}, {"displayName": "n2"}, {"displayName": "n1"}]


@pytest.mark.parametrize(
    ("request_body", "words"),
    [
        ({"model": model_body(displayName="")}, "model.display_name; Message: Required field is not set."),
        ({"model": {"displayName": "x"}}, "model.container_spec.image_uri; Message: Required field is not set."),
        ({"model": model_body(uri="/tmp/model")}, "model.artifact_uri"),
        ({"model": model_body(labels={"Team": "a"})}, "labels"),
        ({"model": model_body(versionAliases=["1"])}, "version_aliases"),
        ({"model": model_body(), "modelId": "1model"}, "model_id"),
        ({"model": model_body(), "modelId": "m", "parentModel": f"{NUMBER}/models/m"}, "cannot be set together"),
        ({"model": model_body(nonsense=1)}, "Unknown name \"nonsense\" at 'model': Cannot find field."),
        ({"nonsense": 1}, 'Unknown name "nonsense": Cannot find field.'),
    ],
)
def test_invalid_upload_is_refused(emulator: EmulatorProcess, request_body: dict[str, Any], words: str) -> None:
    status, code, text = refusal(emulator.api("POST", "models:upload", request_body))
    assert (status, code) == (400, "INVALID_ARGUMENT")
    assert words in text
    assert emulator.api("GET", "models")[1] == {}


def test_ids_and_parents(emulator: EmulatorProcess) -> None:
    upload(emulator, {"modelId": "m"})
    again = emulator.api("POST", "models:upload", {"modelId": "m", "model": model_body()})
    assert refusal(again)[:2] == (409, "ALREADY_EXISTS")
    missing = {"parentModel": f"{NUMBER}/models/none", "model": model_body()}
    assert refusal(emulator.api("POST", "models:upload", missing))[:2] == (404, "NOT_FOUND")
    elsewhere = f"projects/{emulator.project}/locations/europe-west4"
    under = {"parentModel": f"{NUMBER}/models/m", "model": model_body()}
    assert "another location" in refusal(emulator.api("POST", f"{elsewhere}/models:upload", under))[2]
    other = emulator.api("GET", "projects/other-project/locations/us-central1/models/m")
    assert refusal(other)[:2] == (403, "PERMISSION_DENIED")


def test_unknown_query_parameters_and_masks_are_refused(emulator: EmulatorProcess) -> None:
    upload(emulator, {"modelId": "m"})
    assert "Cannot bind query parameter" in refusal(emulator.api("GET", "models?colour=red"))[2]
    assert refusal(emulator.api("GET", "models?pageSize=many"))[1] == "INVALID_ARGUMENT"
    assert refusal(emulator.api("PATCH", "models/m", {"displayName": "x"}))[1] == "INVALID_ARGUMENT"
    for mask in ("artifactUri", "displayName.foo", "description.x"):
        assert "is not supported" in refusal(emulator.api("PATCH", f"models/m?updateMask={mask}", {}))[2]


def test_tokens_faults_and_request_log_work_as_for_clusters(emulator: EmulatorProcess) -> None:
    path = f"/v1/projects/{emulator.project}/locations/us-central1/models"
    assert emulator.request("GET", path, token="nonsense")[0] == 401
    with emulator.fault(scope="control_plane", method="UploadModel", action="drop_response"), pytest.raises(OSError):
        emulator.api("POST", "models:upload", {"modelId": "m", "model": model_body()})
    with emulator.fault(scope="control_plane", method="GetModel", status=429):
        assert refusal(emulator.api("GET", "models/m"))[:2] == (429, "RESOURCE_EXHAUSTED")
    # The upload was carried out, although its caller cannot know.
    assert (
        refusal(emulator.api("POST", "models:upload", {"modelId": "m", "model": model_body()}))[1] == "ALREADY_EXISTS"
    )
    create_endpoint(emulator)
    seen = [
        (call["method"], call["resource"], call["status"]) for call in emulator.calls() if call["surface"] == "rest"
    ]
    assert ("ListModels", NUMBER, 401) in seen
    assert ("UploadModel", NUMBER, 409) in seen
    assert ("CreateEndpoint", f"{NUMBER}/endpoints/e1", 200) in seen
