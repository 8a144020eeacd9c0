"""Save a trained model to Cloud Storage, as the file that a prebuilt serving container of Vertex AI loads.

It runs where the model is trained: send it with a job by ``py_modules=[MODEL_EXPORT]`` (``MODEL_EXPORT`` is in
``airflow_provider_vertex_ray.remote``), and use ``from vertex_ray_model_export import export_model`` in the job. It
needs only the model's own framework and google-cloud-storage.
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
"""Names under which Ray Train's callback and users of XGBoost save a booster in a checkpoint."""

FRAMEWORK_KEY, VERSION_KEY = "vertex-ray-framework", "vertex-ray-framework-version"
"""Metadata of the file: ``VertexRayUploadModelOperator`` compares it with the serving container."""

HANDLER = '''
import json

import torch
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    """Predict lists of numbers from lists of numbers."""

    def preprocess(self, data):
        rows = [row.get("data", row.get("body", row)) if isinstance(row, dict) else row for row in data]
        return torch.as_tensor(rows, dtype=torch.float32, device=self.device)

    def postprocess(self, data):
        return data.tolist()
'''


class ExportError(ValueError):
    """The model cannot be exported; the message says why."""


def export_model(model: Any, uri: str, framework: str | None = None) -> dict[str, Any]:
    """Save a model as a file in a Cloud Storage folder.

    The file is one object, which appears in Cloud Storage completely or not at all: a killed job leaves no partial
    model. Its metadata says which version of the framework made it.

    :param model: a fitted scikit-learn estimator or pipeline; an XGBoost booster or estimator; a LightGBM booster or
        estimator; a PyTorch module that ``torch.jit.script`` accepts; or a Ray Train ``Checkpoint`` or its folder.
    :param uri: the folder (``gs://bucket/folder``).
    :param framework: ``sklearn``, ``xgboost``, ``pytorch`` or ``lightgbm``; default: derived from the model.
    :return: ``artifact_uri``, ``framework``, ``framework_version`` (major.minor), ``file``, ``bytes``.
    :raises ExportError: the model or the framework is not supported, or the file could not be written.
    """
    if not uri.startswith("gs://") or not uri.removeprefix("gs://").strip("/"):
        raise ExportError(
            f"Invalid value for uri: {uri!r}. Use a folder in Cloud Storage, such as gs://bucket/models/1."
        )
    model = _of_checkpoint(model)
    framework = framework or _framework_of(model)
    writers = {"sklearn": _sklearn, "xgboost": _xgboost, "pytorch": _pytorch, "lightgbm": _lightgbm}
    if framework not in writers:
        raise ExportError(f"Invalid value for framework: {framework!r}. Use {', '.join(writers)}.")
    name, content, version = writers[framework](model)
    bucket, _, folder = uri.removeprefix("gs://").partition("/")
    made_with = {FRAMEWORK_KEY: framework, VERSION_KEY: version}
    _store(bucket, "/".join(part for part in (folder.strip("/"), name) if part), content, made_with)
    return {
        "artifact_uri": uri.rstrip("/"),
        "framework": framework,
        "framework_version": ".".join(version.split(".")[:2]),
        "file": name,
        "bytes": len(content),
    }


def _framework_of(model: Any) -> str:
    modules = [kind.__module__.partition(".")[0] for kind in type(model).__mro__]
    # Estimators of XGBoost and LightGBM are scikit-learn estimators, too.
    for module, framework in (
        ("xgboost", "xgboost"),
        ("lightgbm", "lightgbm"),
        ("torch", "pytorch"),
        ("sklearn", "sklearn"),
    ):
        if module in modules:
            return framework
    raise ExportError(
        f"The framework of {type(model).__module__}.{type(model).__qualname__} is unknown. Set framework."
    )


def _of_checkpoint(model: Any) -> Any:
    """Return the model in a checkpoint's folder; anything else unchanged."""
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
    there = (
        ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "the folder does not exist"
    )
    raise ExportError(f"The checkpoint {folder} contains no supported model; it contains: {there}.")


def _sklearn(model: Any) -> tuple[str, bytes, str]:
    import joblib
    import sklearn

    if not hasattr(model, "predict"):
        raise ExportError(f"{type(model).__qualname__} does not have a predict method.")
    content = io.BytesIO()
    joblib.dump(model, content)
    return "model.joblib", content.getvalue(), sklearn.__version__


def _xgboost(model: Any) -> tuple[str, bytes, str]:
    import xgboost

    booster = model.get_booster() if hasattr(model, "get_booster") else model
    # The containers load only this name. JSON is the format that all of their versions read.
    return "model.bst", bytes(booster.save_raw(raw_format="json")), xgboost.__version__


def _lightgbm(model: Any) -> tuple[str, bytes, str]:
    import lightgbm

    print("WARNING: Vertex AI has no prebuilt container for LightGBM; use a custom container for the upload")
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
    # The format of torch-model-archiver, which the clusters do not have.
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("model.pt", weights)
        archive.writestr("handler.py", HANDLER)
    return "model.mar", content.getvalue(), torch.__version__


def _store(bucket: str, name: str, content: bytes, metadata: dict[str, str]) -> None:
    import google.cloud.storage as storage

    try:
        blob = storage.Client().bucket(bucket).blob(name)
        blob.metadata = metadata
        blob.upload_from_string(content, "application/octet-stream")
    except Exception as error:
        raise ExportError(f"Could not write gs://{bucket}/{name}: {type(error).__name__}: {error}") from error
