"""The SDK and Ray's own clients, unmodified, against real Ray, which tests the fidelity of the emulator.

Their imports take most of the time, so one process does all; each test looks at one stage of it.
"""

from __future__ import annotations

from typing import Any

import pytest
from emulator_support.clients.stages import run_client
from emulator_support.process import AT_ONCE, EmulatorProcess

pytestmark = [pytest.mark.sdk, pytest.mark.ray]

NAME = "projects/123456789012/locations/us-central1/persistentResources/from-sdk"
Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("sdk")
    with EmulatorProcess(folder / "state", [*AT_ONCE, "--without", "no-websockets"]) as emulator:
        stages = run_client("vertex_sdk.py", emulator.sdk_env(), folder)
        stages["calls"] = {"surfaces": sorted({call["surface"] for call in emulator.calls()})}
        return stages


def test_create(seen: Seen) -> None:
    assert seen["create"]["name"] == NAME
    # The SDK sleeps for 150 s if its first Get finds the cluster PROVISIONING.
    assert seen["create"]["longest_sleep"] < 30


def test_get(seen: Seen) -> None:
    cluster = seen["get"]
    assert cluster["state"] == "RUNNING"
    assert cluster["versions"] == ["2.47", "3.11"]
    assert cluster["labels"] == {"team": "a"}
    assert cluster["head"] == "n1-standard-16"
    assert cluster["workers"] == [["n1-standard-8", 1]]
    assert cluster["dashboard"].endswith(".aiplatform-training.googleusercontent.com")


def test_list(seen: Seen) -> None:
    assert seen["list"]["names"] == [NAME]


def test_job_submission_client(seen: Seen) -> None:
    assert seen["job"]["status"] == "SUCCEEDED"
    assert "hello from a job" in seen["job"]["logs"]
    assert "hello from a job" in seen["job"]["tail"]


def test_ray_client(seen: Seen) -> None:
    assert seen["client"]["squares"] == [0, 1, 4, 9]
    # The CPUs of the worker; the head has none.
    assert seen["client"]["cpus"] == 8.0


def test_update(seen: Seen) -> None:
    assert seen["update"]["name"] == NAME
    assert seen["update"]["counts"] == [2]


def test_client_keeps_token_until_it_is_refused(seen: Seen) -> None:
    assert "401" in seen["tokens"]["refused"]
    assert seen["tokens"]["job"] in seen["tokens"]["renewed"]


def test_taken_name_is_refused(seen: Seen) -> None:
    assert "existing PersistentResource with the same ID" in seen["again"]["error"]


def test_delete(seen: Seen) -> None:
    assert "delete" in seen


def test_requests_used_every_surface(seen: Seen) -> None:
    # aiplatform.init without a project, as before the renewed client, makes the SDK use REST instead of gRPC.
    assert seen["calls"]["surfaces"] == ["dashboard", "grpc", "metadata", "ray_client", "rest"]
