"""A deployment is undone also while it is in progress, and the endpoint's other models keep their traffic."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from emulator_support.artifacts import put_quick
from emulator_support.process import PATIENCE, EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.core.serving.client import ServingApi
from airflow_provider_vertex_ray.errors import (
    InvalidArgumentError,
    OperationTimeoutError,
    RateLimitedError,
    ServiceUnavailableError,
)
from airflow_provider_vertex_ray.hooks.calls import undeployment
from airflow_provider_vertex_ray.hooks.calls.undeployment import Undo
from airflow_provider_vertex_ray.hooks.model import VertexRayModelHook
from airflow_provider_vertex_ray.operators import endpoint as endpoint_operators
from airflow_provider_vertex_ray.operators.endpoint import VertexRayDeployModelOperator, VertexRayUndeployModelOperator
from airflow_provider_vertex_ray.operators.model import VertexRayUploadModelOperator
from airflow_provider_vertex_ray.triggers import serving
from tests.support.clusters import LOCATION
from tests.support.tasks import deferral_of, round_trip, run_task

SLOW: dict[str, Any] = {"scope": "deployment", "outcome": "slow", "delay": 2.0}
"""A deployment that goes on while it is undone."""

STUCK: dict[str, Any] = {"scope": "deployment", "outcome": "stuck"}
"""A deployment that does not end."""


@pytest.fixture
def emulator(serving_emulator: EmulatorProcess) -> EmulatorProcess:
    return serving_emulator


@pytest.fixture
def model(emulator: EmulatorProcess, storage: StorageEmulator) -> str:
    """An uploaded model, and an endpoint ``e`` without any."""
    made = run_task(
        VertexRayUploadModelOperator(
            task_id="upload",
            display_name="iris",
            artifact_uri=put_quick(storage, "quick"),
            framework="sklearn",
            location=LOCATION,
        )
    )
    emulator.wait(emulator.api("POST", "endpoints?endpointId=e", {"displayName": "mine"})[1])
    return str(made["model_version"])


def deploy(model: str, task_id: str = "deploy", **more: Any) -> VertexRayDeployModelOperator:
    given = {"endpoint_id": "e", "poll_interval": 0.05, "deferrable": True, **more}
    return VertexRayDeployModelOperator(task_id=task_id, model=model, location=LOCATION, **given)


@pytest.fixture
def old(model: str) -> str:
    """Id of a model that has all the traffic of ``e``."""
    return str(run_task(deploy(model, "old"))["deployed_model_id"])


def served(emulator: EmulatorProcess) -> tuple[list[str], dict[str, int]]:
    """The deployed models of ``e``, and those with traffic."""
    found = emulator.api("GET", "endpoints/e")[1]
    models = [each["id"] for each in found.get("deployedModels") or ()]
    return models, {key: share for key, share in (found.get("trafficSplit") or {}).items() if share}


def deployments(emulator: EmulatorProcess) -> list[bool]:
    """For each deployment to ``e``, of earlier tests as well, whether it has ended."""
    found = emulator.api("GET", "endpoints/e/operations")[1]["operations"]
    return [
        bool(each.get("done")) for each in found if each["metadata"]["@type"].endswith("DeployModelOperationMetadata")
    ]


@pytest.fixture
def served_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """No deployment is seen to serve before its timeout, however long the looks take."""
    monkeypatch.setattr(serving, "serves", lambda *_: False)


def test_timed_out_deployment_is_undeployed_once_it_has_ended(
    emulator: EmulatorProcess, model: str, old: str, served_too_late: None
) -> None:
    with emulator.fault(**SLOW), pytest.raises(OperationTimeoutError, match="to serve predictions"):
        run_task(deploy(model, deploy_timeout=0.3))
    assert all(deployments(emulator))
    assert served(emulator) == ([old], {old: 100})


def test_killed_deployment_is_undeployed_once_it_has_ended(emulator: EmulatorProcess, model: str, old: str) -> None:
    with emulator.fault(**SLOW):
        waiting = deferral_of(deploy(model))
    asyncio.run(round_trip(waiting.trigger).killed())  # type: ignore[attr-defined]
    assert all(deployments(emulator))
    assert served(emulator) == ([old], {old: 100})


def test_kill_that_cannot_wait_for_the_deployment_says_so(
    emulator: EmulatorProcess, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "KILL_SECONDS", 0.2)
    with emulator.fault(**STUCK):
        waiting = deferral_of(deploy(model))
    with pytest.raises(OperationTimeoutError, match="may still be deployed, and then incurs charges"):
        asyncio.run(round_trip(waiting.trigger).killed())  # type: ignore[attr-defined]


def test_deployment_of_an_unknown_operation_is_undone(emulator: EmulatorProcess, model: str, old: str) -> None:
    with emulator.fault(**SLOW):
        waiting = deferral_of(deploy(model))
    deployed = waiting.trigger.serialize()[1]["deployed_model_id"]
    hook = VertexRayModelHook(location=LOCATION)
    undo = Undo(previous_split={old: 100})
    assert hook.undeploy("e", [deployed], time.time() + PATIENCE, undo=undo)["undeployed"] == [deployed]
    assert served(emulator) == ([old], {old: 100})


def test_teardown_waits_for_a_deployment_in_progress(emulator: EmulatorProcess, model: str, old: str) -> None:
    with emulator.fault(**SLOW):
        waiting = deferral_of(deploy(model, traffic_percentage=0))
    deployed = waiting.trigger.serialize()[1]["deployed_model_id"]
    teardown = VertexRayUndeployModelOperator(
        task_id="away", endpoint_id="e", deployed_model_id=deployed, location=LOCATION, deferrable=True
    )
    assert run_task(teardown) == {"undeployed": [deployed], "endpoint_deleted": False}
    assert served(emulator) == ([old], {old: 100})
    # The model no longer exists, and nothing is in progress.
    assert run_task(teardown) == {"undeployed": [], "endpoint_deleted": False}


@pytest.mark.parametrize("accepted", [True, False])
def test_deployment_whose_answer_was_lost_is_undone(
    emulator: EmulatorProcess, model: str, old: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = ServingApi.deploy_model

    async def lost(self: ServingApi, *arguments: Any) -> str:
        if accepted:
            await send(self, *arguments)
        raise ServiceUnavailableError("The connection was closed")

    monkeypatch.setattr(ServingApi, "deploy_model", lost)
    monkeypatch.setattr(undeployment, "SETTLE_SECONDS", 0.2)
    with emulator.fault(**SLOW), pytest.raises(ServiceUnavailableError, match="connection was closed"):
        run_task(deploy(model))
    assert all(deployments(emulator))
    assert served(emulator) == ([old], {old: 100})


def test_undo_that_never_sees_the_deployment_fails(emulator: EmulatorProcess, model: str) -> None:
    hook = VertexRayModelHook(location=LOCATION)
    with pytest.raises(OperationTimeoutError, match="the model 77 may still be deployed, and then incurs charges"):
        hook.undeploy("e", ["77"], time.time() + 0.3, undo=Undo())


def test_undo_leaves_no_traffic_where_there_was_none(
    emulator: EmulatorProcess, model: str, request: pytest.FixtureRequest
) -> None:
    idle = run_task(deploy(model, "idle", traffic_percentage=0))["deployed_model_id"]
    assert served(emulator) == ([idle], {})
    request.getfixturevalue("served_too_late")
    with emulator.fault(**SLOW), pytest.raises(OperationTimeoutError):
        run_task(deploy(model, deploy_timeout=0.3))
    assert served(emulator) == ([idle], {})


def test_share_that_leaves_traffic_to_nobody_is_refused(emulator: EmulatorProcess, model: str) -> None:
    with pytest.raises(InvalidArgumentError, match="^Invalid value for traffic_percentage: 30. .* add up to 100"):
        run_task(deploy(model, traffic_percentage=30))
    assert served(emulator) == ([], {})


def test_creation_of_the_endpoint_ends_with_deploy_timeout(
    emulator: EmulatorProcess, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def limited(self: ServingApi, name: str) -> dict[str, Any]:
        raise RateLimitedError("429")

    monkeypatch.setattr(ServingApi, "operation", limited)
    begin = time.monotonic()
    with pytest.raises(OperationTimeoutError, match="Timed out waiting for operation .*/endpoints/af-"):
        run_task(deploy(model, endpoint_id=None, deploy_timeout=0.5))
    assert time.monotonic() - begin < 300


def test_kill_in_the_worker_undoes(emulator: EmulatorProcess, model: str, old: str) -> None:
    operator = deploy(model, deferrable=True)
    with emulator.fault(**SLOW):
        deferral_of(operator)
    operator.on_kill()
    assert served(emulator) == ([old], {old: 100})


def test_kill_in_the_worker_warns(
    emulator: EmulatorProcess,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    operator = deploy(model, deferrable=True)
    with emulator.fault(**STUCK):
        deferral_of(operator)
    monkeypatch.setattr(endpoint_operators, "CLEAN_UP_SECONDS", 0.2)
    operator.on_kill()
    # Airflow 3 writes a task's log to the standard output here.
    said = caplog.text + capsys.readouterr().out
    assert "deployed model" in said
    assert "Could not undo the deployment; it may still incur charges" in said
