"""A model from Cloud Storage to predictions and away again, by our operators, with a real predictor behind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator_support.artifacts import iris, put_quick, put_sklearn, sklearn_model
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.errors import (
    ArtifactNotFoundError,
    DeployFailedError,
    EndpointNotFoundError,
    EndpointNotServingError,
    InvalidArgumentError,
    ModelNotFoundError,
    PredictionError,
)
from airflow_provider_vertex_ray.operators.endpoint import VertexRayDeployModelOperator, VertexRayUndeployModelOperator
from airflow_provider_vertex_ray.operators.model import VertexRayUploadModelOperator
from airflow_provider_vertex_ray.operators.prediction import VertexRayPredictOperator
from airflow_provider_vertex_ray.sensors.endpoint import VertexRayEndpointSensor
from tests.support.clusters import LOCATION
from tests.support.tasks import TaskInstance, context_of, deferral_of, round_trip, run_task

COMMON: dict[str, Any] = {"location": LOCATION}


@pytest.fixture
def emulator(serving_emulator: EmulatorProcess) -> EmulatorProcess:
    return serving_emulator


def upload(uri: str, **more: Any) -> VertexRayUploadModelOperator:
    given = {"display_name": "iris", "artifact_uri": uri, "framework": "sklearn", "deferrable": False}
    return VertexRayUploadModelOperator(**{"task_id": "upload", **COMMON, **given, **more})


def deploy(model: str, **more: Any) -> VertexRayDeployModelOperator:
    given = {"model": model, "poll_interval": 0.05, "deferrable": False}
    return VertexRayDeployModelOperator(**{"task_id": "deploy", **COMMON, **given, **more})


def endpoints(emulator: EmulatorProcess) -> list[dict[str, Any]]:
    return list(emulator.api("GET", "endpoints")[1].get("endpoints") or [])


def retry_of(operator: Any, number: int = 1, **more: Any) -> Any:
    return context_of(operator, TaskInstance(operator.task_id, max_tries=3, try_number=number, **more))


def test_from_the_artifact_to_predictions_and_away_again(
    emulator: EmulatorProcess, storage: StorageEmulator, deferrable: bool
) -> None:
    # Once with scikit-learn, which takes seconds to load.
    artifact, predict = (
        (put_quick(storage, "quick"), partial(np.argmax, axis=1))
        if deferrable
        else (put_sklearn(storage, "iris"), sklearn_model().predict)
    )
    model = run_task(
        upload(
            artifact,
            metrics={"accuracy": 0.953, "neg_mse": -12.5, "rows": 1234567, "tiny": 1.5e-7, "huge": -2e20, "zero": -0.0},
            submission_id="af-train-1",
            version_aliases=["champion"],
            deferrable=deferrable,
        )
    )
    assert model["image_uri"].endswith("/sklearn-cpu.1-6:latest")
    metrics = {name: label for name, label in model["labels"].items() if name.startswith("metric-")}
    assert metrics == {
        "metric-accuracy": "0_953",
        "metric-neg_mse": "m12_5",
        "metric-rows": "1234567",
        "metric-tiny": "1_5e-7",
        "metric-huge": "m2e20",
        "metric-zero": "0",
    }
    assert model["labels"]["ray-job"] == "af-train-1"
    assert set(model["version_aliases"]) == {"champion", "default"}
    served = run_task(deploy(model["model_version"], deferrable=deferrable))
    assert served["endpoint_created"] is True
    assert served["adopted"] is False
    assert list(served["deployed_models"]) == [served["deployed_model_id"]]
    common = {**COMMON, "endpoint_id": served["endpoint_id"]}
    seen = run_task(VertexRayEndpointSensor(task_id="wait", deferrable=deferrable, **common))
    assert seen["traffic_split"] == {served["deployed_model_id"]: 100}
    rows = iris()[0].tolist()
    found = run_task(VertexRayPredictOperator(task_id="ask", instances=rows, instances_per_request=40, **common))
    assert found["predictions"] == predict(iris()[0]).tolist()
    assert found["count"] == len(rows)
    assert found["deployed_model_ids"] == [served["deployed_model_id"]]
    away = VertexRayUndeployModelOperator(task_id="away", deferrable=deferrable, **common)
    assert run_task(away) == {"undeployed": [served["deployed_model_id"]], "endpoint_deleted": True}
    assert run_task(away) == {"undeployed": [], "endpoint_deleted": False}
    assert endpoints(emulator) == []


def test_a_retry_finds_what_a_lost_try_has_made(emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    operator = upload(put_quick(storage, "quick"))
    first = run_task(operator, retry_of(operator))
    again = run_task(operator, retry_of(operator, 2))
    assert (first["adopted"], again["adopted"]) == (False, True)
    assert again["model_version"] == first["model_version"]
    # A Clear is another life.
    cleared = context_of(operator, TaskInstance("upload", max_tries=4))
    assert run_task(operator, cleared)["model"] != first["model"]
    serving = deploy(first["model_version"], deferrable=True)
    # The worker is lost after the deployment began; the next try waits for the very same.
    deferral_of(serving, retry_of(serving))
    served = run_task(serving, retry_of(serving, 2))
    assert served["adopted"] is True
    assert len(served["deployed_models"]) == 1
    assert len(endpoints(emulator)) == 1


def test_a_new_version_takes_a_share_of_the_traffic(emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    first = run_task(upload(put_quick(storage, "quick")))
    second = run_task(
        upload(
            put_quick(storage, "boosted"),
            task_id="second",
            framework="xgboost",
            framework_version="2.1",
            parent_model=first["model"],
        )
    )
    assert (second["model"], second["version_id"]) == (first["model"], "2")
    old = run_task(deploy(first["model_version"]))
    new = run_task(
        deploy(second["model_version"], task_id="new", endpoint_id=old["endpoint_id"], traffic_percentage=30)
    )
    assert new["endpoint_created"] is False
    assert new["traffic_split"] == {old["deployed_model_id"]: 70, new["deployed_model_id"]: 30}
    common = {**COMMON, "endpoint_id": old["endpoint_id"]}
    run_task(VertexRayUndeployModelOperator(task_id="one", deployed_model_id=old["deployed_model_id"], **common))
    (left,) = endpoints(emulator)
    assert left["trafficSplit"] == {new["deployed_model_id"]: 100}


def test_dedicated_endpoint_is_asked_at_its_own_host(
    emulator: EmulatorProcess, storage: StorageEmulator, tmp_path: Path
) -> None:
    model = run_task(upload(put_quick(storage, "quick")))
    body = {"displayName": "mine", "dedicatedEndpointEnabled": True}
    emulator.wait(emulator.api("POST", "endpoints?endpointId=mine", body)[1])
    dns = emulator.api("GET", "endpoints/mine")[1]["dedicatedEndpointDns"]
    assert dns.endswith(".prediction.vertexai.goog")
    run_task(deploy(model["model_version"], endpoint_id="mine"))
    # The service's own answer at the host of all regions.
    status, answer = emulator.api("POST", "endpoints/mine:predict", {"instances": [[1, 2, 3, 4]]})
    assert (status, dns in answer["error"]["message"]) == (400, True)
    rows = iris()[0].tolist()
    # About 4 MB: more than a shared endpoint takes.
    many = [[value + 1e-13 for value in row] for row in rows] * 300
    found = run_task(
        VertexRayPredictOperator(
            task_id="ask",
            endpoint_id="mine",
            instances=many,
            instances_per_request=len(many),
            output_uri=f"file://{tmp_path}/predictions.jsonl",
            **COMMON,
        )
    )
    assert found["count"] == len(many)
    assert len(emulator.calls("Predict")) == 2


def test_a_failed_deployment_leaves_nothing(emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    model = run_task(upload(put_quick(storage, "quick")))
    storage.clear()
    with pytest.raises(DeployFailedError, match="not deployed: Model server terminated"):
        run_task(deploy(model["model_version"], deferrable=True))
    assert endpoints(emulator) == []


def test_a_killed_deployment_is_undone(emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    import asyncio

    model = run_task(upload(put_quick(storage, "quick")))
    with emulator.fault(scope="deployment", outcome="slow", delay=0.5):
        waiting = deferral_of(deploy(model["model_version"], deferrable=True))
    asyncio.run(round_trip(waiting.trigger).killed())  # type: ignore[attr-defined]
    assert endpoints(emulator) == []


def test_an_artifact_that_is_not_there_is_said_before_the_upload(
    emulator: EmulatorProcess, storage: StorageEmulator
) -> None:
    storage.put("empty/readme.txt", b"no model")
    uri = f"gs://{storage.bucket}/empty"
    with pytest.raises(ArtifactNotFoundError, match=r"loads model.joblib or model.pkl, but .* contains readme.txt"):
        run_task(upload(uri))
    with pytest.raises(ArtifactNotFoundError, match="Bucket another-bucket of the artifact .* does not exist"):
        run_task(upload("gs://another-bucket/iris"))
    assert emulator.api("GET", "models")[1].get("models") is None


def test_the_container_has_the_version_that_made_the_model(
    emulator: EmulatorProcess,
    storage: StorageEmulator,
    task_log: list[str],
) -> None:
    def made_with(version: str, framework: str = "sklearn") -> str:
        metadata = {"vertex-ray-framework": framework, "vertex-ray-framework-version": version}
        storage.put(f"{framework}-{version}/model.joblib", b"", metadata)
        return f"gs://{storage.bucket}/{framework}-{version}"

    for given, text in (
        (upload(made_with("1.9.1"), framework_version="1.6"), "framework_version: '1.6'.*made with sklearn 1.9.1"),
        (upload(made_with("1.6.0"), framework="xgboost"), "framework: 'xgboost'.*Use sklearn"),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            run_task(given)
    assert emulator.api("GET", "models")[1].get("models") is None
    assert run_task(upload(made_with("1.5.2")))["image_uri"].endswith("/sklearn-cpu.1-5:latest")
    assert not any("made with" in line for line in task_log)
    assert run_task(upload(made_with("1.9.1"), task_id="newest"))["image_uri"].endswith("/sklearn-cpu.1-6:latest")
    (warning,) = [line for line in task_log if "made with" in line]
    assert "made with sklearn 1.9.1, and the container has sklearn 1.6: it may fail to load" in warning


def test_wrong_instances_are_told_in_the_containers_words(emulator: EmulatorProcess, storage: StorageEmulator) -> None:
    model = run_task(upload(put_quick(storage, "quick")))
    served = run_task(deploy(model["model_version"]))
    rows = [*iris()[0].tolist()[:3], [1.0, 2.0]]
    operator = VertexRayPredictOperator(
        task_id="ask", endpoint_id=served["endpoint_id"], instances=rows, instances_per_request=2, **COMMON
    )
    with pytest.raises(PredictionError, match=r"rejected instances 2 to 3: Prediction failed") as caught:
        run_task(operator)
    assert caught.value.details["first_instance"] == 2


def test_files_of_instances_and_predictions(
    emulator: EmulatorProcess, storage: StorageEmulator, tmp_path: Path
) -> None:
    model = run_task(upload(put_quick(storage, "quick")))
    served = run_task(deploy(model["model_version"]))
    rows = iris()[0].tolist()
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    expected = iris()[0].argmax(axis=1).tolist()
    for text in ("".join(json.dumps(row) + "\n" for row in rows), json.dumps(rows)):
        source.write_text(text)
        found = run_task(
            VertexRayPredictOperator(
                task_id="ask",
                endpoint_id=served["endpoint"],
                instances_uri=f"file://{source}",
                output_uri=f"file://{target}",
                **COMMON,
            )
        )
        assert found["count"] == len(rows)
        assert [json.loads(line) for line in target.read_text().splitlines()] == expected


def test_an_endpoint_without_a_model_or_none_at_all(emulator: EmulatorProcess) -> None:
    operation = emulator.api("POST", "endpoints?endpointId=bare", {"displayName": "bare"})[1]
    emulator.wait(operation)
    ask = {"task_id": "ask", "instances": [[1]], **COMMON}
    with pytest.raises(EndpointNotServingError, match="no deployed model with traffic"):
        run_task(VertexRayPredictOperator(endpoint_id="bare", **ask))
    with pytest.raises(EndpointNotFoundError):
        run_task(VertexRayPredictOperator(endpoint_id="nowhere", **ask))
    with pytest.raises(ModelNotFoundError):
        run_task(deploy("nothing"))
    assert [each["displayName"] for each in endpoints(emulator)] == ["bare"]
