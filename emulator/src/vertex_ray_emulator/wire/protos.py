"""Google's message classes, without the seconds that it takes to import the clients of their packages.

``import google.cloud.aiplatform_v1beta1`` builds every client and every message of Vertex AI, which takes 6 s and
hundreds of megabytes, although the emulator needs only a few modules. Therefore the ``__init__`` of these packages runs
only when a name is requested that is not loaded yet, and then fills the same module object.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.wire.names import REGION

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


class _LazyPackage(ModuleType):
    """A package whose ``__init__`` runs when a name is requested that is not loaded yet."""

    def __getattr__(self, name: str) -> Any:
        spec: ModuleSpec | None = self.__dict__.get("__spec__")
        # The import system itself probes dunder names, which must not load everything.
        if (name.startswith("__") and name != "__all__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if any((Path(base) / f"{name}{end}").exists() for base in self.__path__ for end in (".py", "/__init__.py")):
            return importlib.import_module(f"{self.__name__}.{name}")
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on it is an ordinary package
        spec.loader.exec_module(self)
        return getattr(self, name)


def _declare(name: str, folder: Path) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None:
        return
    module = _LazyPackage(name)
    module.__spec__ = spec
    module.__path__ = [str(folder)]
    module.__package__ = name
    module.__file__ = str(folder / "__init__.py")
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)


def _types(package: str, module: str) -> Any:
    """Import a module of ``google.cloud.<package>.types`` without the rest of the package."""
    import google.cloud  # a namespace package, of many distributions

    for base in google.cloud.__path__:
        folder = Path(base) / package
        if (folder / "types" / "__init__.py").is_file():
            _declare(f"google.cloud.{package}", folder)
            _declare(f"google.cloud.{package}.types", folder / "types")
            break
    return importlib.import_module(f"google.cloud.{package}.types.{module}")


_SERVING_MODULES = ("model", "endpoint", "model_service", "endpoint_service", "prediction_service")
"""Modules with the messages of models, endpoints and predictions."""


@dataclass(frozen=True)
class Api:
    """Protobuf classes of one version of the API."""

    version: str
    PersistentResource: Any
    CreateRequest: Any
    GetRequest: Any
    ListRequest: Any
    ListResponse: Any
    UpdateRequest: Any
    DeleteRequest: Any
    CreateMetadata: Any
    UpdateMetadata: Any
    DeleteMetadata: Any

    def message(self, name: str) -> Any:
        """Return the message class with a name, such as ``Model`` or ``PredictRequest``.

        :raises LookupError: if the emulator does not serve such a message.
        """
        return _message(self.version, name)

    def metadata(self, kind: str) -> Any:
        """Return the metadata class of a kind of operation, such as ``Create`` (of a cluster) or ``DeployModel``."""
        return getattr(self, f"{kind}Metadata", None) or self.message(f"{kind}OperationMetadata")


@functools.cache
def _message(version: str, name: str) -> Any:
    if name == "PersistentResource":
        return APIS[version].PersistentResource
    for module in _SERVING_MODULES:
        found = getattr(_types(f"aiplatform_{version}", module), name, None)
        if found is not None:
            return found.pb()
    raise LookupError(f"Version {version} of the API has no message {name!r} that the emulator serves.")


def _api(version: str) -> Api:
    package = f"aiplatform_{version}"
    resource = _types(package, "persistent_resource")
    service = _types(package, "persistent_resource_service")
    operation = _types(package, "operation")
    return Api(
        version=version,
        PersistentResource=resource.PersistentResource.pb(),
        CreateRequest=service.CreatePersistentResourceRequest.pb(),
        GetRequest=service.GetPersistentResourceRequest.pb(),
        ListRequest=service.ListPersistentResourcesRequest.pb(),
        ListResponse=service.ListPersistentResourcesResponse.pb(),
        UpdateRequest=service.UpdatePersistentResourceRequest.pb(),
        DeleteRequest=service.DeletePersistentResourceRequest.pb(),
        CreateMetadata=service.CreatePersistentResourceOperationMetadata.pb(),
        UpdateMetadata=service.UpdatePersistentResourceOperationMetadata.pb(),
        DeleteMetadata=operation.DeleteOperationMetadata.pb(),
    )


V1 = _api("v1")
V1BETA1 = _api("v1beta1")
APIS = {api.version: api for api in (V1, V1BETA1)}

_projects = _types("resourcemanager_v3", "projects")
GetProjectRequest: Any = _projects.GetProjectRequest.pb()
Project: Any = _projects.Project.pb()

PersistentResource: Any = V1BETA1.PersistentResource
State: Any = PersistentResource.State
_pool_fields = PersistentResource.DESCRIPTOR.fields_by_name["resource_pools"].message_type.fields_by_name
_accelerators = _pool_fields["machine_spec"].message_type.fields_by_name["accelerator_type"].enum_type


@functools.cache
def supported_regions() -> tuple[str, ...]:
    """Return the regions of Vertex AI that the installed SDK knows, in alphabetical order."""
    import google.cloud  # a namespace package, of many distributions

    for base in google.cloud.__path__:
        folder = Path(base) / "aiplatform"
        if (folder / "constants" / "base.py").is_file():
            _declare("google.cloud.aiplatform", folder)
            break
    constants = importlib.import_module("google.cloud.aiplatform.constants.base")
    # The SDK also lists "global", which is not a region.
    return tuple(sorted(region for region in constants.SUPPORTED_REGIONS if REGION.fullmatch(region)))


def state_name(resource: Any) -> str:
    """Return the name of a persistent resource's state, such as ``RUNNING``."""
    return str(State.Name(resource.state))


def accelerator_name(machine_spec: Any) -> str | None:
    """Return the name of a machine spec's accelerator type; None without one, the number if it is unknown."""
    number = machine_spec.accelerator_type
    if number == 0:
        return None
    value = _accelerators.values_by_number.get(number)
    return str(value.name) if value else str(number)


def convert(resource: Any, api: Api) -> Any:
    """Return a message in another version of the API, without the fields that this version does not have."""
    message = api.message(resource.DESCRIPTOR.name).FromString(resource.SerializeToString())
    message.DiscardUnknownFields()
    return message
