"""Operator that uploads a trained model to the Model Registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration, is_number, is_whole, known_at_run_time, unless_empty
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.job.inputs import check_submission_id
from airflow_provider_vertex_ray.core.serving.containers import (
    FRAMEWORKS,
    container_for_model,
    container_warning,
    serving_container,
)
from airflow_provider_vertex_ray.errors import ArtifactNotFoundError, InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.serving import VertexRayModelLink
from airflow_provider_vertex_ray.operators.arguments import (
    check_carried,
    check_flags,
    check_lists,
    check_mappings,
    check_strings,
    resolve_deferrable,
)
from airflow_provider_vertex_ray.operators.model_base import CLEAR_EPOCH_LABEL, ModelBaseOperator, clear_epoch_hash
from airflow_provider_vertex_ray.operators.owner_labels import label_value, owner_labels
from airflow_provider_vertex_ray.remote.vertex_ray_model_export import FRAMEWORK_KEY, VERSION_KEY
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.serving import VertexRayOperationTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

METRIC_LABEL = "metric-"
"""Prefix of the labels of metrics."""

MOST_LABELS = 64
"""Maximum number of labels of a model."""


class VertexRayUploadModelOperator(ModelBaseOperator):
    """Upload a model from Cloud Storage to the Model Registry, with the matching serving container.

    The task first checks that the folder has the file that the prebuilt container loads, and, for a file of
    ``export_model``, that the container's version fits the one of the framework that made it. A retry finds the model
    that an earlier try uploaded by its labels; a clear uploads a new one.

    Returns ``model`` (the resource name), ``model_id``, ``version_id``, ``model_version`` (``name@version``, which
    ``VertexRayDeployModelOperator`` accepts), ``version_aliases``, ``image_uri``, ``artifact_uri``, ``labels`` and
    ``adopted``.

    :param display_name: display name of the model. (templated)
    :param artifact_uri: Cloud Storage folder with the model file, such as ``gs://bucket/folder``. (templated)
    :param framework: framework of the prebuilt container: ``sklearn``, ``xgboost``, ``pytorch`` or ``tensorflow``.
        (templated)
    :param framework_version: version of the framework, such as ``1.6``; None: the one that made the model if
        ``export_model`` wrote it and there is such a container, else the newest container. (templated)
    :param gpu: whether to choose a container that uses an accelerator.
    :param serving_container_image_uri: image of a custom container, instead of ``framework``. (templated)
    :param container_spec: other fields of the API's ``ModelContainerSpec``, such as ``predictRoute``. (templated)
    :param parent_model: ID or resource name of an existing model, to which this model is added as a version.
        (templated)
    :param model_id: ID of the new model; None: Vertex AI chooses one. (templated)
    :param version_aliases: aliases of the version, such as ``["champion"]``. (templated)
    :param version_description: description of the version. (templated)
    :param is_default_version: whether the version becomes the default version of the model.
    :param labels: labels in addition to those that identify the task. (templated)
    :param metrics: training metrics, numbers by name, which become labels. (templated)
    :param submission_id: submission ID of the Ray job that trained the model, which becomes a label. (templated)
    :param upload_timeout: seconds within which the upload must finish.
    :param deferrable: whether to wait in the triggerer; default: ``[operators] default_deferrable``.
    :raises InvalidArgumentError: an argument is invalid, or the model was made with another framework or a newer
        version than those of the container; nothing was uploaded.
    :raises ArtifactNotFoundError: the folder has no file that the container loads; nothing was uploaded.
    :raises ModelNotFoundError: ``parent_model`` does not exist.
    :raises ResourceExistsError: a model with ``model_id`` exists.
    :raises OperationTimeoutError: the upload did not finish within ``upload_timeout``.
    :raises NotAuthorisedError: the credentials lack a permission.
    """

    template_fields: Sequence[str] = (
        "display_name",
        "artifact_uri",
        "framework",
        "framework_version",
        "serving_container_image_uri",
        "container_spec",
        "parent_model",
        "model_id",
        "version_aliases",
        "version_description",
        "labels",
        "metrics",
        "submission_id",
        *ModelBaseOperator.connection_fields,
    )
    operator_extra_links = (VertexRayModelLink(),)

    def __init__(
        self,
        *,
        display_name: str,
        artifact_uri: str,
        framework: str | None = None,
        framework_version: str | None = None,
        gpu: bool = False,
        serving_container_image_uri: str | None = None,
        container_spec: dict[str, Any] | None = None,
        parent_model: str | None = None,
        model_id: str | None = None,
        version_aliases: Sequence[str] | None = None,
        version_description: str | None = None,
        is_default_version: bool = True,
        labels: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        submission_id: str | None = None,
        upload_timeout: float = 1800.0,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (framework is None) == (serving_container_image_uri is None):
            rule = "Use framework for a prebuilt container, or serving_container_image_uri for a custom one."
            raise InvalidArgumentError("framework", framework, rule)
        check_flags(gpu=gpu, is_default_version=is_default_version)
        check_strings(
            framework=framework,
            framework_version=framework_version,
            serving_container_image_uri=serving_container_image_uri,
        )
        if framework is not None and not known_at_run_time(framework) and not known_at_run_time(framework_version):
            serving_container(framework, framework_version, "us-central1", gpu=gpu)
        if not known_at_run_time(artifact_uri):
            _check_uri(artifact_uri)
        if parent_model is not None and model_id is not None:
            raise InvalidArgumentError("model_id", model_id, "Use either parent_model or model_id.")
        if parent_model is not None:
            self._check_resource("models", parent_model, "parent_model")
        check_duration("upload_timeout", upload_timeout, none_allowed=False)
        self.display_name = display_name
        self.artifact_uri = artifact_uri
        self.framework = framework
        self.framework_version = framework_version
        self.gpu = gpu
        self.serving_container_image_uri = serving_container_image_uri
        self.container_spec = container_spec
        self.parent_model = parent_model
        self.model_id = model_id
        self.version_aliases = version_aliases
        self.version_description = version_description
        self.is_default_version = is_default_version
        self.labels = labels
        self.metrics = metrics
        self.submission_id = submission_id
        self.upload_timeout = upload_timeout
        self.deferrable = resolve_deferrable(deferrable)
        self._check_types()

    def execute(self, context: Context) -> Any:
        """Adopt the model of an earlier try; or check the artifact, upload it, and wait."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        self._check_types()
        _check_uri(self.artifact_uri)
        self.project_id = validate_project(self.project_id or self._connection_project())
        location = validate_location(self.location)
        if not str(self.display_name).strip():
            raise InvalidArgumentError("display_name", self.display_name, "Use a display name that is not empty.")
        if self.framework is not None:
            serving_container(self.framework, self.framework_version, location, gpu=self.gpu)
        if self.parent_model:
            self._resource("models", self.parent_model, "parent_model")
        labels = self._labels(context)

        async def start() -> tuple[dict[str, Any] | None, str]:
            hook = self.model_hook
            async with hook.session():
                found = await hook.find_models({CLEAR_EPOCH_LABEL: labels[CLEAR_EPOCH_LABEL]}, self.parent_model)
                if found:
                    return found[0], ""
                image = self.serving_container_image_uri or self._container(await self._artifact_of(hook), location)
                return None, await hook.upload_model(self._request(image, labels))

        found, operation = run_sync(start)
        if found is not None:
            self.log.info("An earlier try already uploaded model %s", found["name"])
            return self._summary(context, found, adopted=True)
        trigger = VertexRayOperationTrigger(
            name=operation, deadline=deadline_after(self.upload_timeout), **self._connection_arguments()
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the uploaded model and return it."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        response = result_of(event)
        self._set_place(response["model"])
        name = f"{response['model']}@{response.get('modelVersionId', '1')}"
        return self._summary(context, run_sync(lambda: self.model_hook.get_model(name)), adopted=False)

    def _summary(self, context: Context, model: dict[str, Any], *, adopted: bool) -> dict[str, Any]:
        name = str(model["name"]).partition("@")[0]
        version = str(model.get("versionId", "1"))
        persist_link_facts(context, **self._facts(name), version_id=version)
        self.log.info("Model: %s, version %s", name, version)
        return {
            "model": name,
            "model_id": name.rsplit("/", 1)[-1],
            "version_id": version,
            "model_version": f"{name}@{version}",
            "version_aliases": list(model.get("versionAliases") or ()),
            "image_uri": (model.get("containerSpec") or {}).get("imageUri"),
            "artifact_uri": model.get("artifactUri"),
            "labels": dict(model.get("labels") or {}),
            "adopted": adopted,
        }

    def _check_types(self) -> None:
        """Validate types at DAG parse, and again after rendering.

        :raises InvalidArgumentError: an argument has another type.
        """
        check_strings(
            display_name=self.display_name,
            model_id=self.model_id,
            version_description=self.version_description,
            submission_id=self.submission_id,
        )
        if self.submission_id:
            check_submission_id(self.submission_id)
        check_mappings(
            container_spec=unless_empty(self.container_spec),
            labels=unless_empty(self.labels),
            metrics=unless_empty(self.metrics),
        )
        check_lists(version_aliases=unless_empty(self.version_aliases))

    def _labels(self, context: Context) -> dict[str, str]:
        found = {**owner_labels(context), CLEAR_EPOCH_LABEL: clear_epoch_hash(context)}
        if self.submission_id:
            found["ray-job"] = label_value(self.submission_id)
        for name, value in (self.metrics or {}).items():
            check_carried("metrics", name)
            if not is_number(value):
                raise InvalidArgumentError(f"metrics[{name!r}]", value, "Use a finite number.")
            found[label_value(f"{METRIC_LABEL}{name}")] = label_value(_metric_text(value))
        for name, label in (self.labels or {}).items():
            check_carried("labels", name)
            found[name] = str(label) if is_whole(label) else check_carried(f"labels[{name!r}]", label)
        if len(found) > MOST_LABELS:
            raise InvalidArgumentError(
                "labels",
                sorted(found),
                f"Use fewer labels: a model has at most {MOST_LABELS}, including those that identify the task.",
            )
        return found

    def _request(self, image: str, labels: dict[str, str]) -> dict[str, Any]:
        model: dict[str, Any] = {
            "displayName": self.display_name,
            "artifactUri": self.artifact_uri.rstrip("/"),
            "containerSpec": {**(self.container_spec or {}), "imageUri": image},
            "labels": labels,
        }
        if self.version_description:
            model["versionDescription"] = self.version_description
        aliases = list(self.version_aliases or ())
        if self.is_default_version and "default" not in aliases:
            aliases.append("default")
        if aliases:
            model["versionAliases"] = aliases
        request: dict[str, Any] = {"model": model}
        if self.parent_model:
            request["parentModel"] = self._resource("models", self.parent_model, "parent_model")
        if self.model_id:
            request["modelId"] = self.model_id
        return request

    async def _artifact_of(self, hook: Any) -> dict[str, str]:
        """Return the metadata of the file that the prebuilt container loads.

        :raises ArtifactNotFoundError: the folder has no such file.
        """
        files: dict[str, dict[str, str]] = await hook.artifact_files(self.artifact_uri)
        # A TensorFlow model is a folder with more files; this one is enough to recognise it.
        wanted = FRAMEWORKS[str(self.framework)].files
        found = next((name for name in wanted if name in files), None)
        if found is None:
            there = ", ".join(list(files)[:10]) or "no files"
            raise ArtifactNotFoundError(
                f"artifact_uri: the {self.framework} container loads {' or '.join(wanted)}, but "
                f"{self.artifact_uri} contains {there}.",
                {"artifact_uri": self.artifact_uri, "files": list(files)[:100]},
            )
        return files[found]

    def _container(self, made_with: dict[str, str], location: str) -> str:
        """Return the image of the prebuilt container for a model, with warnings in the log.

        :param made_with: metadata of the model's file.
        :param location: region.
        :raises InvalidArgumentError: the container does not fit the model.
        """
        framework, version = str(self.framework), self.framework_version
        made_by = made_with.get(FRAMEWORK_KEY, framework)
        if made_by != framework:
            raise InvalidArgumentError(
                "framework", framework, f"Use {made_by}, which made the model in {self.artifact_uri}."
            )
        version, mismatch = container_for_model(framework, version, made_with.get(VERSION_KEY, ""))
        for warning in (mismatch, container_warning(framework, version, datetime.now(timezone.utc).date())):
            if warning:
                self.log.warning("%s", warning)
        return serving_container(framework, version, location, gpu=self.gpu)


def _check_uri(uri: Any) -> None:
    if not isinstance(uri, str) or not uri.startswith("gs://") or not uri.removeprefix("gs://").strip("/"):
        raise InvalidArgumentError("artifact_uri", uri, "Use a Cloud Storage folder, such as gs://bucket/models/1.")


def _metric_text(value: float) -> str:
    """Return a number as a label can hold it: ``-0.953`` is ``m0_953``, ``1.5e+20`` is ``1_5e20``."""
    size = abs(value)
    text = str(size) if is_whole(size) else f"{size:.6g}"
    if "e+" in text and size < 1e15:
        text = f"{size:.0f}"
    return ("m" if value < 0 else "") + re.sub(r"e\+?(-?)0*", r"e\1", text).replace(".", "_")
