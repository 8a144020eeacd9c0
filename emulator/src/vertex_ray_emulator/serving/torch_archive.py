"""A PyTorch model archive, which acts as TorchServe does in the prebuilt container.

The archive is what ``torch-model-archiver`` writes: a zip file with ``MAR-INF/MANIFEST.json``, the handler's module and
the model's own files. The handler is the user's code, and gets the instances in TorchServe's JSON form.

PyTorch is none of the emulator's requirements, because of its size: the emulator uses the one beside it, if any.

Sources, read in November 2026: ``ts/model_loader.py``, ``ts/torch_handler/base_handler.py`` and
``ts/torch_handler/request_envelope/json.py`` of pytorch/serve.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

from vertex_ray_emulator.serving.model_errors import ArtifactError, PredictionError

_MANIFEST = "MAR-INF/MANIFEST.json"
_HANDLER_MODULE = "ts.torch_handler.base_handler"


class BaseHandler:
    """TorchServe's handler without options: tensors of numbers in and out. Users derive theirs from it."""

    def __init__(self) -> None:
        self.model: Any = None
        self.device: Any = None
        self.context: Any = None
        self.manifest: dict[str, Any] = {}
        self.initialized = False

    def initialize(self, context: Any) -> None:
        """Load the model: TorchScript, or a class in the archive with its weights.

        :param context: ``manifest`` and ``system_properties``.
        """
        import torch

        self.manifest = context.manifest
        self.device = torch.device("cpu")
        model, folder = self.manifest["model"], Path(context.system_properties["model_dir"])
        weights = folder / model["serializedFile"] if model.get("serializedFile") else None
        if model.get("modelFile"):
            module = importlib.import_module(Path(model["modelFile"]).stem)
            (found,) = _own_classes(module)
            self.model = found()
            if weights is not None:
                self.model.load_state_dict(torch.load(weights, map_location=self.device))
        elif weights is not None:
            self.model = torch.jit.load(str(weights), map_location=self.device)
        else:
            raise RuntimeError("No model weights could be loaded")
        self.model.eval()
        self.initialized = True

    def preprocess(self, data: Any) -> Any:
        """Return the instances as a tensor."""
        import torch

        return torch.as_tensor(data, device=self.device)

    def inference(self, data: Any, *arguments: Any, **options: Any) -> Any:
        """Return what the model makes of a tensor."""
        import torch

        with torch.inference_mode():
            return self.model(data.to(self.device), *arguments, **options)

    def postprocess(self, data: Any) -> Any:
        """Return a tensor as a list of predictions."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """Return the predictions for the instances of a request."""
        self.context = context
        return self.postprocess(self.inference(self.preprocess(data)))


class TorchArchive:
    """A loaded archive.

    :param file: the ``.mar`` file, beside which it is unpacked.
    :raises ArtifactError: if it is no archive, or PyTorch is missing.
    """

    def __init__(self, file: Path) -> None:
        folder = file.with_suffix("")
        try:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
            self._manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
            handler = str(self._manifest["model"]["handler"])
        except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{file.name} is not an archive of torch-model-archiver: {type(error).__name__}: {error}"
            ) from error
        self._context = types.SimpleNamespace(
            manifest=self._manifest,
            model_name=self._manifest["model"].get("modelName", "model"),
            system_properties={"model_dir": str(folder), "gpu_id": None, "batch_size": 1},
        )
        sys.path.insert(0, str(folder))
        try:
            self._handle = self._entry_point(folder, handler)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ArtifactError(
                "PyTorch is not installed beside the emulator, which serves PyTorch models with it. Install torch in "
                "the emulator's environment."
            ) from error

    def _entry_point(self, folder: Path, handler: str) -> Any:
        """Return the handler's function, after it has loaded the model."""
        name, _, function = handler.partition(":")
        _offer_base_handler()
        if name == "base_handler":
            found: Any = BaseHandler()
        elif (folder / name).with_suffix(".py").is_file():
            module = importlib.import_module(Path(name).stem)
            entry = getattr(module, function or "handle", None)
            if entry is not None:
                # Such a function is called once without data, to load the model.
                entry(None, self._context)
                return entry
            classes = _own_classes(module)
            if not classes:
                raise ArtifactError(f"{name} has neither a function handle(data, context) nor a class.")
            found = classes[0]()
        else:
            raise ArtifactError(
                f"The archive has no handler {handler!r}. Of TorchServe's own handlers, the emulator has base_handler "
                "only."
            )
        found.initialize(self._context)
        return found.handle

    def predict(self, instances: Any, **parameters: Any) -> Any:
        """Return what the handler makes of the instances; as in TorchServe, parameters do not reach it."""
        rows = [_decoded(each) for each in instances]
        try:
            found = self._handle(rows, self._context)
        except Exception as error:
            raise PredictionError(f"Prediction failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, list) or len(found) != len(rows):
            kind = f"{len(found)} predictions" if isinstance(found, list) else type(found).__name__
            raise PredictionError(f"Prediction failed: the handler returned {kind} for {len(rows)} instances.")
        return found


def _decoded(instance: Any) -> Any:
    """Return an instance with the bytes that ``{"b64": "…"}`` stands for, itself or in its fields."""
    if not isinstance(instance, dict):
        return instance
    if list(instance) == ["b64"]:
        return base64.b64decode(instance["b64"])
    return {
        name: base64.b64decode(value["b64"]) if isinstance(value, dict) and list(value) == ["b64"] else value
        for name, value in instance.items()
    }


def _own_classes(module: Any) -> list[Any]:
    """Return the classes that a module itself defines."""
    return [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]


def _offer_base_handler() -> None:
    """Make ``from ts.torch_handler.base_handler import BaseHandler`` work, as it does in TorchServe."""
    parts = _HANDLER_MODULE.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = []
    sys.modules[_HANDLER_MODULE].BaseHandler = BaseHandler  # type: ignore[attr-defined]
