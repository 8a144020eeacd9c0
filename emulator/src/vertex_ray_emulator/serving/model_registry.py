"""ModelService: models with their versions and aliases, over the v1beta1 messages."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.clusters.lifecycle import now
from vertex_ray_emulator.google.filters import parse
from vertex_ray_emulator.serving import model_rules as rules
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.names import PARENT, Names, pattern
from vertex_ray_emulator.wire.paging import page
from vertex_ray_emulator.wire.protos import V1BETA1, Api

if TYPE_CHECKING:
    from collections.abc import Callable

    from vertex_ray_emulator.wire.background import Background
    from vertex_ray_emulator.wire.operations import LongRunningOperation, Operations

NAME = pattern("models")
Model: Any = V1BETA1.message("Model")
WRITE_SECONDS = 0.05
"""Duration of operations that only write a record, which take some seconds on the service."""
_FIELDS: dict[str, Callable[[Any], str]] = {
    "model": lambda model: str(model.name).rsplit("/", 1)[1].split("@")[0],
    "display_name": lambda model: str(model.display_name),
    "version_id": lambda model: str(model.version_id),
}
_OUTPUT_ONLY = (
    "name", "version_id", "version_create_time", "version_update_time", "supported_export_formats", "training_pipeline",
    "supported_deployment_resources_types", "supported_input_storage_formats", "supported_output_storage_formats",
    "create_time", "update_time", "deployed_models", "etag", "model_source_info", "original_model_info",
)  # fmt: skip


@dataclass
class Entry:
    """A model.

    :param name: name of the model, without a version.
    :param versions: versions by id, oldest first.
    :param count: number of versions that were ever uploaded; ids are not reused.
    :param pending: ids of versions that are being uploaded.
    """

    name: str
    versions: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    pending: set[str] = field(default_factory=set)

    def default(self) -> Any:
        """Return the default version."""
        return next(v for v in self.versions.values() if rules.DEFAULT_ALIAS in v.version_aliases)

    def find(self, version: str) -> Any | None:
        """Return the version with an id or an alias (an empty string means the default); None if it does not exist."""
        if not version:
            return self.default() if self.versions else None
        if version in self.versions:
            return self.versions[version]
        return next((v for v in self.versions.values() if version in v.version_aliases), None)

    def move_aliases(self, wanted: Any, aliases: list[str]) -> None:
        """Add aliases to a version and remove them from all others."""
        for version in self.versions.values():
            if version is not wanted:
                kept = [alias for alias in version.version_aliases if alias not in aliases]
                version.version_aliases[:] = kept
        wanted.version_aliases[:] = sorted({*wanted.version_aliases, *aliases})


class ModelRegistry:
    """The models of one project, in all locations.

    :param names: checks the resource names that callers send.
    :param operations: long-running operations.
    :param background: completes the operations.
    """

    def __init__(self, names: Names, operations: Operations, background: Background) -> None:
        self._names = names
        self._operations = operations
        self._background = background
        self._models: dict[str, Entry] = {}

    def find(self, name: str, permission: str = "models.get") -> tuple[Entry, Any]:
        """Return a model and the version that a name refers to: by id, by alias, or the default version.

        :param name: name that the caller sent, with or without ``@VERSION``.
        :param permission: permission that the caller needs.
        :raises ApiError: NOT_FOUND if the model or the version does not exist.
        """
        name = self._names.check(NAME, name, permission)
        base, _, version = name.partition("@")
        entry = self._models.get(base)
        found = entry.find(version) if entry is not None else None
        if entry is None or found is None:
            raise ApiError("NOT_FOUND", f"The Model does not exist: {name!r}.")
        return entry, found

    # The API -------------------------------------------------------------------------------------------

    async def upload(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to upload a model or a version of one."""
        parent = self._names.check(PARENT, request.parent, "models.upload")
        model = Model()
        model.CopyFrom(request.model)
        rules.check_upload(model)
        rules.check_model_id(request.model_id)
        entry = self._entry(parent, request)
        entry.count += 1
        version_id = str(entry.count)
        entry.pending.add(version_id)
        operation = self._operations.begin(entry.name, "UploadModel", api)

        def done() -> Any:
            entry.pending.discard(version_id)
            if self._models.get(entry.name) is not entry:
                raise ApiError("CANCELLED", "The Model was deleted in the meantime.")
            self._add(entry, version_id, model)
            return V1BETA1.message("UploadModelResponse")(model=entry.name, model_version_id=version_id)

        return self._background.finish(operation, WRITE_SECONDS, done)

    def _entry(self, parent: str, request: Any) -> Entry:
        if request.parent_model:
            if request.model_id:
                raise invalid("parent_model and model_id cannot be set together.")
            entry = self.find(request.parent_model, "models.upload")[0]
            if not entry.name.startswith(parent + "/"):
                raise rules.found_errors("parent_model", f"The Model {entry.name!r} is in another location.")
            return entry
        name = f"{parent}/models/{request.model_id or _new_id()}"
        if name in self._models:
            raise ApiError("ALREADY_EXISTS", f"The Model already exists: {name!r}.")
        self._models[name] = Entry(name)
        return self._models[name]

    def _add(self, entry: Entry, version_id: str, given: Any) -> None:
        model = Model()
        model.CopyFrom(given)
        for name in _OUTPUT_ONLY:
            model.ClearField(name)
        model.name, model.version_id = entry.name, version_id
        aliases = list(model.version_aliases)
        model.ClearField("version_aliases")
        if not entry.versions:
            aliases.append(rules.DEFAULT_ALIAS)
        created = next(iter(entry.versions.values())).create_time if entry.versions else now()
        model.create_time.CopyFrom(created)
        model.version_create_time.CopyFrom(now())
        model.predict_schemata.SetInParent()
        model.supported_deployment_resources_types.append(Model.DeploymentResourcesType.Value("DEDICATED_RESOURCES"))
        model.supported_input_storage_formats.extend(
            ["jsonl", "bigquery", "csv", "tf-record", "tf-record-gzip", "file-list"]
        )
        model.supported_output_storage_formats.extend(["jsonl", "bigquery"])
        model.supported_export_formats.add(
            id="custom-trained", exportable_contents=[Model.ExportFormat.ExportableContent.Value("ARTIFACT")]
        )
        entry.versions[version_id] = model
        entry.move_aliases(model, aliases)
        touch(model)

    async def get(self, request: Any, api: Api) -> Any:
        """Return the version that a name refers to."""
        return self.find(request.name)[1]

    async def list_page(self, request: Any, api: Api) -> Any:
        """Return a page of a location's models, each as its default version."""
        parent = self._names.check(PARENT, request.parent, "models.list")
        test = parse(request.filter, _FIELDS, "a Model")
        found = [entry.default() for name, entry in sorted(self._models.items()) if entry.versions]
        found = [model for model in found if model.name.startswith(parent + "/") and test(model)]
        return _answer("ListModelsResponse", found, request)

    async def list_versions(self, request: Any, api: Api) -> Any:
        """Return a page of a model's versions, whose names include the version."""
        entry = self.find(request.name.split("@")[0], "models.list")[0]
        test = parse(request.filter, _FIELDS, "a Model version")
        found = []
        for version in entry.versions.values():
            if test(version):
                found.append(Model())
                found[-1].CopyFrom(version)
                found[-1].name = f"{version.name}@{version.version_id}"
        return _answer("ListModelVersionsResponse", found, request)

    async def update(self, request: Any, api: Api) -> Any:
        """Update the fields of a version that are in a mask."""
        model = self.find(request.model.name, "models.update")[1]
        paths = rules.check_update(list(request.update_mask.paths), rules.UPDATABLE)
        wanted = Model()
        wanted.CopyFrom(model)
        rules.merge(wanted, request.model, paths)
        rules.check_upload(wanted)
        model.CopyFrom(wanted)
        touch(model)
        return model

    async def merge_version_aliases(self, request: Any, api: Api) -> Any:
        """Add aliases to a version, and remove those that start with a minus sign."""
        entry, model = self.find(request.name, "models.update")
        if not request.version_aliases:
            raise rules.required("version_aliases")
        for alias in request.version_aliases:
            rules.check_alias(alias.removeprefix("-"))
        removed = {alias[1:] for alias in request.version_aliases if alias.startswith("-")}
        added = {alias for alias in request.version_aliases if not alias.startswith("-")}
        if rules.DEFAULT_ALIAS in removed - added and rules.DEFAULT_ALIAS in model.version_aliases:
            raise rules.found_errors("version_aliases", "A Model must have exactly one default version.")
        model.version_aliases[:] = [each for each in model.version_aliases if each not in removed - added]
        entry.move_aliases(model, sorted(added - removed))
        touch(model)
        return model

    async def delete(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to delete a model with all its versions."""
        name = self._names.check(NAME, request.name, "models.delete")
        if "@" in name:
            raise invalid(f"Invalid resource name: {name!r}; use DeleteModelVersion for a version.")
        entry = self.find(name, "models.delete")[0]
        for version in entry.versions.values():
            refuse_deployed(version)
        del self._models[entry.name]
        operation = self._operations.begin(entry.name, "Delete", api)
        return self._background.finish(operation, WRITE_SECONDS, lambda: None)

    async def delete_version(self, request: Any, api: Api) -> LongRunningOperation:
        """Start to delete a version that is not the default version."""
        if "@" not in request.name:
            raise invalid(f"Invalid resource name: {request.name!r}; a version is required, as in models/ID@2.")
        entry, model = self.find(request.name, "models.delete")
        if len(entry.versions) == 1:
            raise ApiError(
                "FAILED_PRECONDITION", "The only version of a Model cannot be deleted; use DeleteModel instead."
            )
        if rules.DEFAULT_ALIAS in model.version_aliases:
            raise ApiError(
                "FAILED_PRECONDITION",
                f"The default version {model.version_id} of the Model {entry.name!r} cannot be deleted; make another "
                "version the default first.",
            )
        refuse_deployed(model)
        del entry.versions[model.version_id]
        operation = self._operations.begin(entry.name, "Delete", api)
        return self._background.finish(operation, WRITE_SECONDS, lambda: None)

    def purge(self) -> None:
        """Remove every model, including those that are deployed."""
        self._models.clear()


def refuse_deployed(model: Any) -> None:
    """Raise an error for a version that is deployed.

    :raises ApiError: FAILED_PRECONDITION with the names of the endpoints.
    """
    if model.deployed_models:
        where = ", ".join(sorted({each.endpoint for each in model.deployed_models}))
        raise ApiError(
            "FAILED_PRECONDITION",
            f'The Model "{model.name}@{model.version_id}" is deployed or being deployed at the following Endpoint(s): '
            f"{where}.",
        )


def touch(model: Any) -> None:
    """Update the time of a version's last change and its etag."""
    model.version_update_time.CopyFrom(now())
    model.update_time.CopyFrom(now())
    model.etag = secrets.token_urlsafe(12)


def _new_id() -> str:
    return str(secrets.randbelow(9 * 10**18) + 10**18)


def _answer(kind: str, found: list[Any], request: Any) -> Any:
    found = ordered(found, getattr(request, "order_by", ""), ("create_time", "update_time", "display_name"))
    shown, token = page(found, request.page_size, request.page_token)
    return V1BETA1.message(kind)(models=masked(shown, request.read_mask), next_page_token=token)


def ordered(found: list[Any], order_by: str, allowed: tuple[str, ...]) -> list[Any]:
    """Return resources sorted by an ``order_by`` clause, such as ``create_time desc, display_name``."""
    for part in reversed([each for each in order_by.split(",") if each.strip()]):
        name, *direction = part.split()
        if name not in allowed or direction not in ([], ["asc"], ["desc"]):
            raise invalid(f"Invalid order_by: {order_by!r}.")
        found = sorted(found, key=lambda each: _key(getattr(each, name)), reverse=direction == ["desc"])
    return found


def _key(value: Any) -> Any:
    return value if isinstance(value, str) else (value.seconds, value.nanos)


def masked(found: list[Any], mask: Any) -> list[Any]:
    """Return copies of resources with the fields of a read mask only; the resources themselves for an empty mask."""
    if not mask.paths:
        return found
    shown = []
    for each in found:
        shown.append(type(each)())
        mask.MergeMessage(each, shown[-1])
    return shown
