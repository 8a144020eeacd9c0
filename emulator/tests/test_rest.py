from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from emulator_support.process import PATIENCE, EmulatorProcess, cluster_body, until

CREATE = "persistentResources?persistentResourceId=c1"
ONE = "persistentResources/c1"
NUMBER = "projects/123456789012/locations/us-central1"
TYPE = "type.googleapis.com/google.cloud.aiplatform."


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_cluster_from_create_to_delete(emulator: EmulatorProcess, version: str) -> None:
    status, operation = emulator.api("POST", CREATE, cluster_body(2, labels={"team": "a"}), version=version)
    assert status == 200
    assert operation["name"].startswith(f"{NUMBER}/persistentResources/c1/operations/")
    assert operation["metadata"]["@type"] == f"{TYPE}{version}.CreatePersistentResourceOperationMetadata"
    assert set(operation["metadata"]["genericMetadata"]) == {"createTime", "updateTime"}
    done = emulator.api("POST", operation["name"] + ":wait?timeout=200s", version=version)[1]
    assert done["done"] is True
    assert done["response"].pop("@type") == f"{TYPE}{version}.PersistentResource"

    status, resource = emulator.api("GET", ONE, version=version)
    assert status == 200
    assert resource == done["response"]
    assert resource["name"] == f"{NUMBER}/persistentResources/c1"
    assert resource["state"] == "RUNNING"
    assert resource["labels"] == {"team": "a"}
    # A 64-bit number is a string in Google's JSON.
    assert [pool["replicaCount"] for pool in resource["resourcePools"]] == ["1", "2"]
    assert {"createTime", "startTime", "updateTime"} <= set(resource)
    host = resource["resourceRuntime"]["accessUris"]["RAY_DASHBOARD_URI"].rsplit("/", 1)[1]
    assert host.endswith("-dot-us-central1.aiplatform-training.googleusercontent.com")
    assert emulator.request("GET", f"/{host}/api/version")[0] == 401
    token = emulator.token()
    until(lambda: emulator.request("GET", f"/{host}/api/version", token=token)[0] == 200)
    status, about = emulator.request("GET", f"/{host}/api/version", token=token)
    assert (status, about["ray_version"]) == (200, "2.47.1")

    assert emulator.api("GET", "persistentResources", version=version)[1] == {"persistentResources": [resource]}

    mask = "?updateMask=resourcePools.replicaCount"
    status, operation = emulator.api("PATCH", ONE + mask, cluster_body(4), version=version)
    assert operation["metadata"]["@type"] == f"{TYPE}{version}.UpdatePersistentResourceOperationMetadata"
    done = emulator.wait(operation)
    assert [pool["replicaCount"] for pool in done["response"]["resourcePools"]] == ["1", "4"]
    assert len(emulator.admin("GET", "clusters")["clusters"][0]["nodes"]) == 5

    status, operation = emulator.api("DELETE", ONE, version=version)
    assert operation["metadata"]["@type"] == f"{TYPE}{version}.DeleteOperationMetadata"
    done = emulator.wait(operation)
    assert done["response"] == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    status, body = emulator.api("GET", ONE, version=version)
    assert (status, body["error"]["status"]) == (404, "NOT_FOUND")
    assert emulator.request("GET", f"/{host}/api/version", token=emulator.token())[0] == 404


def test_operation_is_answered_in_the_version_of_the_request(emulator: EmulatorProcess) -> None:
    operation = emulator.api("POST", CREATE, cluster_body(), version="v1")[1]
    emulator.wait(operation)
    for version, expected in (("v1", "v1"), ("v1beta1", "v1beta1"), ("ui", "v1")):
        found = emulator.api("GET", operation["name"], version=version)[1]
        assert found["response"]["@type"] == f"{TYPE}{expected}.PersistentResource"


def test_operations_are_listed_and_deleted(emulator: EmulatorProcess) -> None:
    operation = emulator.api("POST", CREATE, cluster_body())[1]
    emulator.wait(operation)
    for parent in (ONE + "/operations", "operations"):
        names = [each["name"] for each in emulator.api("GET", parent)[1]["operations"]]
        assert operation["name"] in names
    assert emulator.api("POST", operation["name"] + ":cancel") == (200, {})
    assert emulator.api("DELETE", operation["name"]) == (200, {})
    assert emulator.api("GET", operation["name"])[0] == 404


def test_v1_rejects_fields_of_v1beta1(emulator: EmulatorProcess) -> None:
    body = cluster_body()
    mounts = [{"server": "10.0.0.2", "path": "/share", "mountPoint": "share"}]
    body["resourceRuntimeSpec"]["raySpec"]["nfsMounts"] = mounts
    status, answer = emulator.api("POST", CREATE, body, version="v1")
    assert status == 400
    assert 'Unknown name "nfsMounts"' in answer["error"]["message"]
    resource = emulator.create("c1", body)
    assert resource["resourceRuntimeSpec"]["raySpec"]["nfsMounts"] == mounts
    in_v1 = emulator.api("GET", ONE, version="v1")[1]
    assert "nfsMounts" not in in_v1["resourceRuntimeSpec"]["raySpec"]


def test_unknown_fields_and_values_are_rejected_by_name(emulator: EmulatorProcess) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (cluster_body(colour="red"), "Unknown name \"colour\" at 'persistent_resource': Cannot find field."),
        (cluster_body(labels=["a"]), "Invalid JSON payload received."),
    ]
    body = cluster_body()
    body["resourcePools"][0]["machineSpec"]["acceleratorType"] = "NVIDIA_TESLA_T5"
    cases.append((body, "NVIDIA_TESLA_T5"))
    for wrong, words in cases:
        status, answer = emulator.api("POST", CREATE, wrong)
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert words in answer["error"]["message"]


def test_body_that_is_not_json_is_rejected(emulator: EmulatorProcess) -> None:
    host, port = emulator.host.split(":")
    path = f"/v1/projects/{emulator.project}/locations/us-central1/{CREATE}"
    for data in (b"{", b"[]", b"\xff"):
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        connection.request("POST", path, data, {"Authorization": f"Bearer {emulator.token()}"})
        answer = connection.getresponse()
        assert answer.status == 400
        assert "Invalid JSON payload received" in json.load(answer)["error"]["message"]
        connection.close()


def test_body_that_is_too_large_is_rejected(emulator: EmulatorProcess) -> None:
    status, answer = emulator.api("POST", CREATE, cluster_body(displayName="x" * (1 << 20)))
    assert status == 400
    assert "Request payload size exceeds the limit" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "Invalid persistent_resource_id: ''"),
        ("?persistentResourceId=Big", "Invalid persistent_resource_id: 'Big'"),
        ("?persistentResourceId=" + "a" * 64, "at most 63 characters"),
        ("?persistent_resource_id=a-", "Invalid persistent_resource_id: 'a-'"),
    ],
)
def test_invalid_ids_are_rejected(emulator: EmulatorProcess, query: str, words: str) -> None:
    status, answer = emulator.api("POST", "persistentResources" + query, cluster_body())
    assert status == 400
    assert words in answer["error"]["message"]


def test_rule_violations_are_reported_to_the_caller(emulator: EmulatorProcess) -> None:
    status, answer = emulator.api("POST", CREATE, cluster_body(machine="n9-standard-1"))
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "resource_pools[0].machine_spec: machine type 'n9-standard-1'" in answer["error"]["message"]
    emulator.create("c1")
    assert emulator.api("POST", CREATE, cluster_body())[1]["error"]["status"] == "ALREADY_EXISTS"
    for path, words in [
        (ONE, "update_mask is required"),
        (ONE + "?updateMask=labels", "'labels'"),
        (ONE + "?updateMask=resource_pools.replica_count,network", "'network'"),
    ]:
        status, answer = emulator.api("PATCH", path, cluster_body(3))
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert words in answer["error"]["message"]
    status, answer = emulator.api("POST", ONE + ":reboot")
    assert (status, answer["error"]["status"]) == (404, "NOT_FOUND")


def test_peered_cluster_has_an_internal_address_and_no_public_endpoint(emulator: EmulatorProcess) -> None:
    network = "projects/123456789012/global/networks/vpc"
    uris = emulator.create("c1", cluster_body(network=network))["resourceRuntime"]["accessUris"]
    assert set(uris) == {
        "RAY_DASHBOARD_URI",
        "RAY_HEAD_NODE_INTERACTIVE_SHELL_URI",
        "RAY_HEAD_NODE_INTERNAL_IP",
    }
    uris = emulator.create("c2")["resourceRuntime"]["accessUris"]
    assert set(uris) == {"RAY_DASHBOARD_URI", "RAY_HEAD_NODE_INTERACTIVE_SHELL_URI", "RAY_CLIENT_ENDPOINT"}


def test_cluster_without_workers_starts(emulator: EmulatorProcess) -> None:
    assert emulator.create("c1", cluster_body(0))["state"] == "RUNNING"
    nodes = emulator.admin("GET", "clusters")["clusters"][0]["nodes"]
    assert [node["node_id"] for node in nodes] == ["head"]


def test_locations_and_projects_are_checked(emulator: EmulatorProcess) -> None:
    elsewhere = f"projects/{emulator.project}/locations/europe-west4/"
    assert emulator.api("POST", elsewhere + CREATE, cluster_body())[0] == 200
    emulator.create("c1")
    found = emulator.api("GET", elsewhere + "persistentResources")[1]["persistentResources"]
    assert [each["name"] for each in found] == [
        f"{NUMBER.replace('us-central1', 'europe-west4')}/persistentResources/c1"
    ]
    assert emulator.api("GET", f"{NUMBER}/{ONE}")[1]["state"] == "RUNNING"
    status, answer = emulator.api("GET", NUMBER.replace("123456789012", "other-project") + "/" + ONE)
    assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert "aiplatform.persistentResources.get" in answer["error"]["message"]
    calls = emulator.calls("GetPersistentResource")
    assert calls[-2]["resource"] == f"{NUMBER}/persistentResources/c1"


def test_list_is_paged(emulator: EmulatorProcess) -> None:
    for i in range(3):
        emulator.create(f"c{i}")
    first = emulator.api("GET", "persistentResources?pageSize=2")[1]
    assert len(first["persistentResources"]) == 2
    token = first["nextPageToken"]
    second = emulator.api("GET", f"persistentResources?pageSize=2&pageToken={token}")[1]
    assert [each["name"][-2:] for each in second["persistentResources"]] == ["c2"]
    assert "nextPageToken" not in second
    assert emulator.api("GET", "persistentResources?pageSize=x")[0] == 400


def test_enum_values_are_numbers_for_gapic(emulator: EmulatorProcess) -> None:
    emulator.create("c1")
    assert emulator.api("GET", ONE + "?$alt=json;enum-encoding=int")[1]["state"] == 3


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", ONE), ("GET", "customJobs"), ("POST", ONE + ":explode"), ("DELETE", CREATE)]
)
def test_unknown_methods_are_404(emulator: EmulatorProcess, method: str, path: str) -> None:
    status, answer = emulator.api(method, path)
    assert (status, answer["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("version", ["v2", "v3", "compute", "ui"])
def test_unknown_versions_are_404(emulator: EmulatorProcess, version: str) -> None:
    operation = emulator.api("POST", CREATE, cluster_body())[1]
    assert emulator.api("GET", "persistentResources", version=version)[0] == 404
    assert emulator.api("POST", CREATE.replace("c1", "c2"), cluster_body(), version=version)[0] == 404
    assert emulator.api("GET", "models", version=version)[0] == 404
    assert emulator.api("GET", operation["name"], version=version)[0] == (200 if version == "ui" else 404)


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "persistentResources", "?pageSize=5&page_token=&$alt=json&alt=json&key=k&prettyPrint=true&fields=*"),
        ("GET", ONE, "?name=x&$prettyPrint=false&quotaUser=me"),
        ("GET", ONE + "/operations", "?pageSize=5&filter="),
    ],
)
def test_unknown_query_parameters_are_refused(emulator: EmulatorProcess, method: str, path: str, known: str) -> None:
    emulator.create("c1")
    assert emulator.api(method, path + known)[0] == 200
    status, answer = emulator.api(method, f"{path}?bogus=1")
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert 'Unknown name "bogus": Cannot bind query parameter' in answer["error"]["message"]


def test_resource_is_not_a_query_parameter(emulator: EmulatorProcess) -> None:
    status, answer = emulator.api("POST", CREATE + "&persistentResource=x", cluster_body())
    assert status == 400
    assert "persistentResource" in answer["error"]["message"]


def test_unknown_paths_are_404(emulator: EmulatorProcess) -> None:
    assert emulator.request("GET", "/v2/projects")[0] == 404
    assert emulator.request("GET", "/favicon.ico")[0] == 404
    assert emulator.request("GET", "/emulator/nothing")[0] == 404
    assert emulator.admin("GET", "health") == {"status": "ok"}


def test_admin_api_rejects_requests_from_browsers(emulator: EmulatorProcess) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://127.0.0.1"}):
        assert emulator.request("DELETE", "/emulator/clusters", headers=headers)[0] == 403


def test_admin_api_sets_states_and_kills_parts(emulator: EmulatorProcess) -> None:
    resource = emulator.create("c1")
    described = emulator.admin("GET", "clusters")["clusters"][0]
    assert described["name"] == resource["name"]
    assert described["accessUris"] == resource["resourceRuntime"]["accessUris"]
    assert described["dashboard_url"].startswith("http://127.0.0.1:")
    emulator.admin("POST", "clusters/c1/kill", {"part": "raylet", "node": "worker-pool1-0", "signal": "KILL"})

    def dead() -> bool:
        nodes = emulator.admin("GET", "clusters")["clusters"][0]["nodes"]
        return [node["alive"] for node in nodes if node["node_id"] == "worker-pool1-0"] in ([], [False])

    assert until(dead)
    for body in ({}, {"part": "roof"}, {"part": "head", "signal": "HUP"}, {"part": "driver"}):
        assert emulator.request("POST", "/emulator/clusters/c1/kill", body)[0] == 400
    assert emulator.request("POST", "/emulator/clusters/c9/kill", {"part": "head"})[0] == 404
    assert emulator.request("POST", "/emulator/clusters/c1/state", {"state": "ODD"})[0] == 400
    assert emulator.request("POST", "/emulator/clusters/c1/state", {"state": "ERROR", "error": {"code": 99}})[0] == 400
    emulator.admin("POST", "clusters/c1/state", {"state": "ERROR"})
    assert emulator.api("GET", ONE)[1]["error"]["code"] == 13
    emulator.admin("DELETE", "clusters/c1")
    assert emulator.api("GET", ONE)[0] == 404


def test_request_log_is_listed(emulator: EmulatorProcess) -> None:
    emulator.create("c1")
    calls = emulator.calls("CreatePersistentResource")
    assert len(calls) == 1
    assert calls[0] | {"time": 0} == {
        "surface": "rest",
        "method": "CreatePersistentResource",
        "resource": f"{NUMBER}/persistentResources/c1",
        "time": 0,
        "authorised": True,
        "status": 200,
    }
    assert emulator.calls("Create*", since=calls[0]["time"]) == []
    assert emulator.request("GET", "/emulator/calls?since=now")[0] == 400
    emulator.admin("DELETE", "calls")
    assert emulator.calls() == []
