"""``VertexRayClusterHook.connect`` through the unmodified SDK and Ray's client to a real Ray.

In a process of its own: the environment that the SDK needs must be there before anything is imported.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_support.clients.stages import run_client
from emulator_support.process import EmulatorProcess, cluster_body

pytestmark = [pytest.mark.sdk, pytest.mark.ray]

Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("connect")
    with tempfile.TemporaryDirectory(prefix="vre-") as state, EmulatorProcess(Path(state)) as emulator:
        emulator.create("shared", cluster_body())
        emulator.admin("DELETE", "calls")
        connection = {"conn_type": "google_cloud_platform", "extra": {"project": emulator.project}}
        env = emulator.sdk_env(
            AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT=json.dumps(connection),
            AIRFLOW_HOME=os.environ["AIRFLOW_HOME"],
            CLUSTER="shared",
        )
        stages = run_client(Path(__file__).with_name("connect_client.py"), env, folder)
        stages["calls"] = {"calls": emulator.calls()}
        yield stages


def test_code_runs_on_the_cluster(seen: Seen) -> None:
    once = seen["once"]
    assert once["same"] is True
    assert once["words"] == ["sent 0", "sent 1", "sent 2"]
    assert once["namespace"] == "ours"


def test_connected_driver_keeps_the_cluster_in_use(seen: Seen) -> None:
    (reason,) = seen["activity"]["reasons"]
    assert reason.startswith("Ray Client driver ")


def test_credentials_are_those_of_the_connection(seen: Seen) -> None:
    # In this process the Application Default Credentials fail the test when they are asked for.
    assert seen["settings"]["credentials"] is True
    assert seen["settings"]["token"] == "the-connection-s"
    assert seen["settings"]["place"] == ["pays", "us-central1"]


def test_sdk_settings_are_restored(seen: Seen) -> None:
    assert seen["once"]["restored"] is True
    assert seen["once"]["project"] == "someone-elses"
    assert seen["failed"]["restored"] is True


def test_second_connection_is_rejected_and_the_first_continues(seen: Seen) -> None:
    assert "already connected to Ray" in seen["once"]["refused"]
    assert seen["once"]["still"] is True


@pytest.mark.parametrize("stage", ["once", "error", "failed"])
def test_process_is_always_disconnected(seen: Seen, stage: str) -> None:
    assert seen[stage]["after"] is False


def test_exception_of_the_task_is_raised(seen: Seen) -> None:
    assert seen["error"]["during"] is True
    assert seen["error"]["error"] == '"the task\'s own"'


def test_failed_connection_has_a_typed_error(seen: Seen) -> None:
    assert seen["failed"]["kind"] == "ServiceUnavailableError"
    assert "could not reach cluster shared at" in seen["failed"]["error"]
    assert seen["again"]["cpus"] == 16.0


def test_all_calls_were_authorised(seen: Seen) -> None:
    calls = seen["calls"]["calls"]
    assert {call["surface"] for call in calls} >= {"rest", "grpc", "ray_client", "dashboard"}
    assert all(call["authorised"] for call in calls)
