from __future__ import annotations

import http.client
import time
import urllib.error
from typing import Any

import pytest
from emulator_support.process import EmulatorProcess, cluster_body, until
from vertex_ray_emulator.faults import Fault, Faults

CREATE = "persistentResources?persistentResourceId=c1"
LIST = "persistentResources"


def test_faults_count_down_in_order() -> None:
    faults = Faults()
    faults.add(Fault(scope="control_plane", method="Get*", times=2, status=500))
    faults.add(Fault(scope="control_plane", times=None, status=503))
    taken = [faults.take("control_plane", "GetOperation", "r") for _ in range(4)]
    assert [fault.status for fault in taken if fault] == [500, 500, 503, 503]
    other = faults.take("control_plane", "ListOperations", "r")
    assert other is not None
    assert other.status == 503
    assert faults.take("dashboard", "GetOperation", "r") is None


def test_fault_with_probability_passes_others_to_next_fault() -> None:
    faults = Faults()
    faults.add(Fault(scope="dashboard", status=429, times=100, probability=0.5))
    faults.add(Fault(scope="dashboard", status=503, times=None))
    taken = [faults.take("dashboard", "GET /", "r") for _ in range(1000)]
    first = [number for number, fault in enumerate(taken) if fault and fault.status == 429]
    assert all(fault and fault.status in (429, 503) for fault in taken)
    # Requests that are passed over do not count: all one hundred faults occur, within about two hundred requests.
    assert len(first) == 100
    assert 130 < first[-1] < 320


def test_resource_matches_by_name_or_id() -> None:
    name = "projects/1/locations/l/persistentResources/c-1"
    for pattern, matches in [(name, True), ("c-1", True), ("c-*", True), ("*/c-1", True), ("c", False)]:
        faults = Faults()
        faults.add(Fault(scope="control_plane", resource=pattern))
        assert (faults.take("control_plane", "Get", name) is not None) is matches


def test_wildcard_fault_is_not_explicit() -> None:
    faults = Faults()
    faults.add(Fault(scope="auth", status=401))
    assert faults.take("auth", "GetToken", "default", explicit=True) is None
    faults.add(Fault(scope="auth", method="GetToken", status=500))
    found = faults.take("auth", "GetToken", "default", explicit=True)
    assert found is not None
    assert found.status == 500


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({}, "Missing value for scope"),
        ({"scope": "all"}, "Invalid value for scope: 'all'. Use one of"),
        ({"scope": "control_plane", "statsu": 1}, "Unknown fields: statsu."),
        ({"scope": "control_plane", "action": "explode"}, "Invalid value for action: 'explode'. Use one of"),
        (
            {"scope": "control_plane", "action": "ws_abort"},
            "Invalid value for action: 'ws_abort'. The actions of scope control_plane are",
        ),
        ({"scope": "control_plane", "outcome": "quota"}, "Invalid value for outcome"),
        ({"scope": "provisioning"}, "Invalid value for outcome"),
        ({"scope": "provisioning", "outcome": "flood"}, "Invalid value for outcome: 'flood'. Use one of"),
        (
            {"scope": "provisioning", "outcome": "quota", "action": "status"},
            "The actions of scope provisioning are outcome.",
        ),
        ({"scope": "auth", "action": "truncate"}, "The actions of scope auth are"),
        ({"scope": "control_plane", "times": 0}, "Invalid value for times: 0. Use at least 1"),
        ({"scope": "control_plane", "status": "503"}, "Invalid value for status: '503'"),
        ({"scope": "control_plane", "status": 999}, "Invalid value for status: 999"),
        ({"scope": "control_plane", "delay": -1}, "Neither must be negative"),
        ({"scope": "control_plane", "probability": 0}, "Invalid value for probability: 0"),
        ({"scope": "control_plane", "probability": 1.5}, "above 0 and at most 1"),
        ({"scope": "control_plane", "probability": "often"}, "Invalid value for probability: 'often'"),
    ],
)
def test_invalid_faults_are_refused(fault: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Fault.from_json(fault)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        ("quota", 8, "The following quotas are exceeded: CustomModelTrainingCPUsPerProjectPerRegion"),
        ("stockout", 8, "Region us-central1 does not have enough resources available"),
        ("internal", 13, "An internal error occurred on your cluster. Please try recreating one in a few"),
        ("ip_ranges", 9, "Couldn't find free blocks in allocated IP ranges"),
    ],
)
def test_create_fails_with_outcome(emulator: EmulatorProcess, outcome: str, code: int, text: str) -> None:
    emulator.admin("POST", "faults", {"scope": "provisioning", "outcome": outcome, "resource": "c1"})
    status, operation = emulator.api("POST", CREATE, cluster_body())
    assert status == 200
    operation = emulator.wait(operation)
    until(lambda: emulator.api("GET", "persistentResources/c1")[1]["state"] == "ERROR")
    resource = emulator.api("GET", "persistentResources/c1")[1]
    assert operation["error"]["code"] == resource["error"]["code"] == code
    assert operation["error"]["message"] == resource["error"]["message"]
    assert resource["error"]["message"].startswith(text)
    assert "response" not in operation
    assert "resourceRuntime" not in resource
    # The fault is used up, so the next create succeeds.
    assert emulator.create("c2")["state"] == "RUNNING"
    assert emulator.api("DELETE", "persistentResources/c1")[0] == 200


def test_quota_error_names_metric(emulator: EmulatorProcess) -> None:
    body = cluster_body()
    body["resourcePools"][1]["machineSpec"] |= {"acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}
    emulator.admin("POST", "faults", [{"scope": "provisioning", "outcome": "quota", "times": 2}])
    message = emulator.create("gpu", body)["error"]["message"]
    assert message.endswith(": CustomModelTrainingT4GPUsPerProjectPerRegion")
    assert emulator.create("cpu")["error"]["message"].endswith(": CustomModelTrainingCPUsPerProjectPerRegion")


def test_outcome_with_custom_text(emulator: EmulatorProcess) -> None:
    fault = {"scope": "provisioning", "outcome": "internal", "message": "It rained.", "code": "UNAVAILABLE"}
    emulator.admin("POST", "faults", fault)
    assert emulator.create("c1")["error"] == {"code": 14, "message": "It rained."}


def test_stuck_create_hangs_unlisted_until_state_is_forced(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "provisioning", "outcome": "stuck"})
    operation = emulator.api("POST", CREATE, cluster_body())[1]
    assert emulator.api("GET", "persistentResources/c1")[1]["state"] == "PROVISIONING"
    assert emulator.api("GET", LIST)[1] == {}
    status, body = emulator.api("DELETE", "persistentResources/c1")
    assert (status, body["error"]["status"]) == (400, "FAILED_PRECONDITION")
    assert "done" not in emulator.api("POST", operation["name"] + ":wait", {"timeout": "0.05s"})[1]
    state = {"state": "ERROR", "error": {"code": 13, "message": "leaked"}}
    emulator.admin("POST", "clusters/c1/state", state)
    assert emulator.wait(operation)["error"]["message"] == "leaked"
    assert emulator.api("GET", "persistentResources/c1")[1]["error"] == {"code": 13, "message": "leaked"}


def test_stuck_create_fails_after_delay(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "provisioning", "outcome": "stuck", "delay": 0.1})
    resource = emulator.create("c1")
    assert resource["state"] == "ERROR"
    assert [each["name"] for each in emulator.api("GET", LIST)[1]["persistentResources"]] == [resource["name"]]


def test_stuck_delete_hangs_in_stopping(emulator: EmulatorProcess) -> None:
    emulator.create("c1")
    emulator.admin("POST", "faults", {"scope": "provisioning", "method": "Delete*", "outcome": "stuck"})
    operation = emulator.api("DELETE", "persistentResources/c1")[1]
    assert emulator.api("GET", "persistentResources/c1")[1]["state"] == "STOPPING"
    assert "done" not in emulator.api("POST", operation["name"] + ":wait?timeout=0.05s")[1]
    assert emulator.api("DELETE", "persistentResources/c1")[1]["error"]["status"] == "FAILED_PRECONDITION"


def test_partial_cluster_lacks_a_worker(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "provisioning", "outcome": "partial"})
    resource = emulator.create("c1", cluster_body(3))
    assert resource["state"] == "RUNNING"
    assert [pool["replicaCount"] for pool in resource["resourcePools"]] == ["1", "3"]
    assert [pool["usedReplicaCount"] for pool in resource["resourcePools"]] == ["1", "2"]
    assert len(emulator.admin("GET", "clusters")["clusters"][0]["nodes"]) == 3


@pytest.mark.parametrize(
    ("fault", "status", "name"),
    [
        ({"status": 503}, 503, "UNAVAILABLE"),
        ({"status": 429}, 429, "RESOURCE_EXHAUSTED"),
        ({"status": 500}, 500, "INTERNAL"),
        ({"status": 404}, 404, "NOT_FOUND"),
        ({"code": "RESOURCE_EXHAUSTED"}, 429, "RESOURCE_EXHAUSTED"),
        ({"code": "ABORTED"}, 409, "ABORTED"),
        ({"status": 502, "code": "UNAVAILABLE"}, 502, "UNAVAILABLE"),
    ],
)
def test_injected_status(emulator: EmulatorProcess, fault: dict[str, Any], status: int, name: str) -> None:
    emulator.admin("POST", "faults", {"scope": "control_plane", "method": "List*", "message": "no", **fault})
    assert emulator.api("GET", "persistentResources/c1")[0] == 404
    found, body = emulator.api("GET", LIST)
    assert found == body["error"]["code"] == status
    assert body["error"] == {"code": status, "status": name, "message": "no"}
    assert emulator.api("GET", LIST)[0] == 200
    assert [call["status"] for call in emulator.calls("List*")] == [status, 200]


def broken(emulator: EmulatorProcess, method: str, path: str, body: Any = None) -> BaseException:
    with pytest.raises((urllib.error.URLError, http.client.HTTPException, OSError)) as caught:
        emulator.api(method, path, body)
    assert not isinstance(caught.value, urllib.error.HTTPError)
    return caught.value


def test_reset_cuts_before_request_is_carried_out(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "control_plane", "method": "Create*", "action": "reset"})
    broken(emulator, "POST", CREATE, cluster_body())
    assert emulator.api("GET", "persistentResources/c1")[0] == 404
    assert [call["status"] for call in emulator.calls("Create*")] == [0]


def test_drop_response_cuts_after_request_is_carried_out(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "control_plane", "method": "Create*", "action": "drop_response"})
    broken(emulator, "POST", CREATE, cluster_body())
    until(lambda: emulator.api("GET", "persistentResources/c1")[1].get("state") == "RUNNING")
    status, body = emulator.api("POST", CREATE, cluster_body())
    assert (status, body["error"]["status"]) == (409, "ALREADY_EXISTS")


def test_truncate_cuts_within_body(emulator: EmulatorProcess) -> None:
    emulator.create("c1")
    fault = {"scope": "control_plane", "method": "Get*", "action": "truncate", "after": 25}
    emulator.admin("POST", "faults", fault)
    error = broken(emulator, "GET", "persistentResources/c1")
    assert isinstance(error, http.client.IncompleteRead)
    assert len(error.partial) == 25


def test_slow_and_hanging_answers(emulator: EmulatorProcess) -> None:
    fault = {"scope": "control_plane", "method": "List*", "delay": 0.2}
    for action, outcome in (("slow", 200), ("status", 503)):
        emulator.admin("POST", "faults", {**fault, "action": action})
        start = time.monotonic()
        assert emulator.api("GET", LIST)[0] == outcome
        assert time.monotonic() - start >= 0.2
    emulator.admin("POST", "faults", {**fault, "action": "hang"})
    broken(emulator, "GET", LIST)


def test_auth_faults_spare_token_server(emulator: EmulatorProcess) -> None:
    for status, name in ((401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED")):
        emulator.admin("POST", "faults", {"scope": "auth", "status": status})
        found, body = emulator.api("GET", LIST)
        assert (found, body["error"]["status"]) == (status, name)
        assert emulator.calls("List*")[-1]["authorised"] is False
        assert emulator.api("GET", LIST)[0] == 200


def test_token_server_fails_on_explicit_fault(emulator: EmulatorProcess) -> None:
    emulator.admin("POST", "faults", {"scope": "auth", "method": "GetToken", "status": 503})
    with pytest.raises(RuntimeError, match="no token: 503"):
        emulator.token()
    assert emulator.token()


def test_faults_can_be_listed_and_removed(emulator: EmulatorProcess) -> None:
    ids = emulator.admin(
        "POST", "faults", [{"scope": "control_plane", "times": None}, {"scope": "auth", "status": 403}]
    )["ids"]
    assert [fault["id"] for fault in emulator.admin("GET", "faults")["faults"]] == ids
    emulator.admin("DELETE", f"faults/{ids[0]}")
    assert [fault["id"] for fault in emulator.admin("GET", "faults")["faults"]] == ids[1:]
    assert emulator.request("DELETE", f"/emulator/faults/{ids[0]}")[0] == 404
    assert emulator.request("POST", "/emulator/faults", {"scope": "no"})[0] == 400
    with emulator.fault(scope="control_plane", method="List*", times=None):
        assert emulator.api("GET", LIST)[0] == 403
        assert emulator.api("GET", LIST)[0] == 503
    assert emulator.api("GET", LIST)[0] == 200
