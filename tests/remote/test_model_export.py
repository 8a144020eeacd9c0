"""Models as a training job saves them: the file that a serving container loads, and what made it."""

from __future__ import annotations

import importlib.util
import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from emulator_support.artifacts import booster, iris, sklearn_model
from emulator_support.process import EmulatorProcess
from emulator_support.storage import StorageEmulator

from airflow_provider_vertex_ray.remote.vertex_ray_model_export import ExportError, export_model
from tests.conftest import use
from tests.operators.test_models import deploy, upload
from tests.support.clusters import LOCATION
from tests.support.tasks import run_task


def metadata_of(storage: StorageEmulator, path: str) -> dict[str, str]:
    url = f"http://{storage.host}/storage/v1/b/{storage.bucket}/o/{urllib.parse.quote(path, safe='')}"
    with urllib.request.urlopen(url) as answer:
        return dict(json.load(answer)["metadata"])


@pytest.mark.parametrize(("framework", "file"), [("sklearn", "model.joblib"), ("xgboost", "model.bst")])
def test_the_file_says_what_made_it(storage: StorageEmulator, framework: str, file: str) -> None:
    library = pytest.importorskip(framework)
    model: Any = sklearn_model() if framework == "sklearn" else booster()
    written = export_model(model, f"gs://{storage.bucket}/models/1/")
    version = library.__version__
    assert written == {
        "artifact_uri": f"gs://{storage.bucket}/models/1",
        "framework": framework,
        "framework_version": ".".join(version.split(".")[:2]),
        "file": file,
        "bytes": len(storage.read(f"models/1/{file}")),
    }
    assert metadata_of(storage, f"models/1/{file}") == {
        "vertex-ray-framework": framework,
        "vertex-ray-framework-version": version,
    }


@pytest.mark.parametrize(
    ("model", "uri", "text"),
    [
        (object(), "gs://bucket/models", "framework of builtins.object is unknown"),
        (object(), "/models", "Invalid value for uri"),
        (object(), "gs://", "Invalid value for uri"),
        ("/nowhere", "gs://bucket/models", "the folder does not exist"),
    ],
)
def test_what_cannot_be_exported_is_named(model: Any, uri: str, text: str) -> None:
    with pytest.raises(ExportError, match=text):
        export_model(model, uri)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_pytorch_module_predicts_on_an_endpoint(
    storage: StorageEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from airflow_provider_vertex_ray.operators.prediction import VertexRayPredictOperator

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1))
    written = export_model(module, f"gs://{storage.bucket}/models/torch")
    rows = iris()[0][::50].tolist()
    with EmulatorProcess(tmp_path / "state", ["--backend", "fake", "--deploy-seconds", "0"]) as emulator:
        use(emulator, monkeypatch)
        model = run_task(upload(written["artifact_uri"], framework=written["framework"]))
        deployed = run_task(deploy(model["model_version"]))
        predict = VertexRayPredictOperator(
            task_id="predict", endpoint_id=deployed["endpoint"], instances=rows, location=LOCATION
        )
        found = run_task(predict)["predictions"]
    expected = module(torch.tensor(rows, dtype=torch.float32)).tolist()
    assert found == [pytest.approx(row, rel=1e-6) for row in expected]
