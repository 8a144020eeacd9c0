"""Puts a trained model into Cloud Storage, as the file that a prebuilt serving container of Vertex AI loads.

It runs where the model is trained: send it with a job by ``py_modules=[MODEL_EXPORT]`` (``MODEL_EXPORT`` is in
``airflow_provider_vertex_ray.remote``), and there ``from vertex_ray_model_export import export_model``. It needs
nothing but the model's own framework and google-cloud-storage.
"""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["ExportError", "export_model"]

XGBOOST_CHECKPOINTS = ("model.ubj", "model.json", "model.bst")
"""Names under which Ray Train's callback and XGBoost's users keep a booster in a checkpoint."""

HANDLER = '''
import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    """Takes lists of numbers, and gives lists of numbers."""

    def preprocess(self, data):
        rows = [row.get("data", row.get("body", row)) if isinstance(row, dict) else row for row in data]
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)

    def postprocess(self, data):
        return data.tolist()
'''


class ExportError(ValueError):
    """The model can not be exported; the text says why."""


def export_model(model: Any, uri: str, framework: str | None = None) -> dict[str, Any]:
    """Write a model's file into a folder of Cloud Storage.

    The file is one object, which Cloud Storage shows whole or not at all: a job that is killed leaves no half model.

    :param model: A fitted scikit-learn estimator or pipeline; an XGBoost booster or estimator; a LightGBM booster or
        estimator; a PyTorch module that ``torch.jit.script`` takes; or a Ray Train ``Checkpoint`` or folder of one.
    :param uri: The folder, ``gs://bucket/folder``.
    :param framework: ``sklearn``, ``xgboost``, ``pytorch`` or ``lightgbm``; default: told by the model.
    :return: ``artifact_uri``, ``framework``, ``framework_version`` (major.minor), ``file``, ``bytes``.
    :raises ExportError: Nothing here can write it.
    """
    if not uri.startswith("gs://") or not uri.removeprefix("gs://").strip("/"):
        raise ExportError(f"{uri!r} is no folder in Cloud Storage, such as gs://bucket/models/1")
    model = _of_checkpoint(model)
    framework = framework or _framework_of(model)
    writers = {"sklearn": _sklearn, "xgboost": _xgboost, "pytorch": _pytorch, "lightgbm": _lightgbm}
    if framework not in writers:
        raise ExportError(f"{framework!r} is none of {', '.join(writers)}")
    name, content, version = writers[framework](model)
    bucket, _, folder = uri.removeprefix("gs://").partition("/")
    _store(bucket, "/".join(part for part in (folder.strip("/"), name) if part), content)
    return {
        "artifact_uri": uri.rstrip("/"),
        "framework": framework,
        "framework_version": ".".join(version.split(".")[:2]),
        "file": name,
        "bytes": len(content),
    }


def _framework_of(model: Any) -> str:
    modules = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    # XGBoost's and LightGBM's estimators are scikit-learn's, too.
    for module, framework in (
        ("xgboost", "xgboost"),
        ("lightgbm", "lightgbm"),
        ("torch", "pytorch"),
        ("sklearn", "sklearn"),
    ):
        if module in modules:
            return framework
    raise ExportError(f"what {type(model).__module__}.{type(model).__qualname__} is can not be told; give framework")


def _of_checkpoint(model: Any) -> Any:
    """The model in a checkpoint's folder; anything else as it is."""
    if hasattr(model, "as_directory"):
        with model.as_directory() as folder:
            return _in_folder(Path(folder))
    if isinstance(model, (str, Path)):
        return _in_folder(Path(model))
    return model


def _in_folder(folder: Path) -> Any:
    for name in XGBOOST_CHECKPOINTS:
        if (folder / name).is_file():
            import xgboost

            booster = xgboost.Booster()
            booster.load_model(folder / name)
            return booster
    if (folder / "model.txt").is_file():
        import lightgbm

        return lightgbm.Booster(model_file=str(folder / "model.txt"))
    if (folder / "model.joblib").is_file():
        import joblib

        return joblib.load(folder / "model.joblib")
    for name in ("model.pkl", "estimator.pkl"):
        if (folder / name).is_file():
            return pickle.loads((folder / name).read_bytes())  # noqa: S301 (the job's own checkpoint)
    if (folder / "model.pt").is_file():
        import torch

        return torch.jit.load(folder / "model.pt", map_location="cpu")
    there = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
    raise ExportError(f"the checkpoint {folder} has no model that is known here; there is: {there}")


def _sklearn(model: Any) -> tuple[str, bytes, str]:
    import joblib
    import sklearn

    if not hasattr(model, "predict"):
        raise ExportError(f"{type(model).__qualname__} has no predict method")
    content = io.BytesIO()
    joblib.dump(model, content)
    return "model.joblib", content.getvalue(), sklearn.__version__


def _xgboost(model: Any) -> tuple[str, bytes, str]:
    import xgboost

    booster = model.get_booster() if hasattr(model, "get_booster") else model
    # The containers know only this name. JSON is the format that all of their versions read.
    return "model.bst", bytes(booster.save_raw(raw_format="json")), xgboost.__version__


def _lightgbm(model: Any) -> tuple[str, bytes, str]:
    import lightgbm

    print("WARNING: Vertex AI has no prebuilt container for LightGBM; give a container of your own to the upload")
    booster = getattr(model, "booster_", model)
    return "model.txt", booster.model_to_string().encode(), lightgbm.__version__


def _pytorch(model: Any) -> tuple[str, bytes, str]:
    import torch

    scripted = model if isinstance(model, torch.jit.ScriptModule) else torch.jit.script(model.eval().cpu())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        scripted.save(str(path))
        weights = path.read_bytes()
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.9.0",
        "model": {"modelName": "model", "serializedFile": "model.pt", "handler": "handler.py", "modelVersion": "1.0"},
    }
    # What torch-model-archiver writes, which the clusters do not have.
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model.pt", weights)
        archive.writestr("handler.py", HANDLER)
    return "model.mar", content.getvalue(), torch.__version__


def _store(bucket: str, name: str, content: bytes) -> None:
    from google.cloud import storage  # type: ignore[attr-defined]

    try:
        storage.Client().bucket(bucket).blob(name).upload_from_string(content, "application/octet-stream")
    except Exception as error:
        raise ExportError(f"gs://{bucket}/{name} can not be written: {type(error).__name__}: {error}") from error
