"""A trained model into the Model Registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import check_duration
from airflow_provider_vertex_ray.core.cluster.name import validate_location, validate_project
from airflow_provider_vertex_ray.core.deadlines import deadline_after
from airflow_provider_vertex_ray.core.serving.containers import FRAMEWORKS, serving_container
from airflow_provider_vertex_ray.errors import ArtifactNotFoundError, InvalidArgumentError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.serving import VertexRayModelLink
from airflow_provider_vertex_ray.operators.base import deferrable_by_default
from airflow_provider_vertex_ray.operators.cluster_create import label_value, owner_labels
from airflow_provider_vertex_ray.operators.model_base import (
    CLEAR_EPOCH_LABEL,
    ModelBaseOperator,
    clear_epoch_hash,
    later,
)
from airflow_provider_vertex_ray.triggers.base import result_of
from airflow_provider_vertex_ray.triggers.serving import VertexRayOperationTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

METRIC_LABEL = "metric-"
"""How the labels of metrics begin; a label holds no point, so that 0.953 is ``0_953``."""

MOST_LABELS = 64


class VertexRayUploadModelOperator(ModelBaseOperator):
    """Uploads a model from Cloud Storage to the Model Registry, with the serving container that fits it.

    The artifact is looked at first: the folder must have the file that the prebuilt container loads. A retry finds the
    model that an earlier try has uploaded, by its labels; a Clear uploads a new one.

    Returns ``model`` (the resource name), ``model_id``, ``version_id``, ``model_version`` (``name@version``, which
    ``VertexRayDeployModelOperator`` takes), ``image_uri``, ``artifact_uri``, ``labels`` and ``adopted``.

    :param display_name: The name that people see. (templated)
    :param artifact_uri: Folder in Cloud Storage with the model's file, ``gs://bucket/folder``. (templated)
    :param framework: ``sklearn``, ``xgboost``, ``pytorch`` or ``tensorflow``, for the prebuilt container. (templated)
    :param framework_version: Its version, such as ``1.6``; None: the newest container. (templated)
    :param gpu: Whether the container shall use an accelerator.
    :param serving_container_image_uri: A container of your own instead of ``framework``. (templated)
    :param container_spec: Further fields of the API's ``ModelContainerSpec``, such as ``predictRoute``. (templated)
    :param parent_model: A model of which this becomes a new version: id or resource name. (templated)
    :param model_id: An id for a new model; None: the service's choice. (templated)
    :param version_aliases: Aliases of the version, such as ``["champion"]``. (templated)
    :param version_description: A text for the version. (templated)
    :param is_default_version: Whether the version becomes the model's default one.
    :param labels: Labels besides those of the task. (templated)
    :param metrics: Numbers of the training, which become labels. (templated)
    :param submission_id: The Ray job that has trained it, which becomes a label. (templated)
    :param upload_timeout: Seconds that the upload may take.
    :param deferrable: Wait in the triggerer; default: ``[operators] default_deferrable``.

    Raises InvalidArgumentError and ArtifactNotFoundError before anything was started; ModelNotFoundError, ResourceExistsError,
    OperationTimeoutError, NotAuthorisedError.
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
            rule = "give framework for a prebuilt container, or serving_container_image_uri for your own"
            raise InvalidArgumentError("framework", framework, rule)
        if framework is not None and not later(framework) and not later(framework_version):
            serving_container(framework, framework_version, "us-central1", gpu=gpu)
        if not later(artifact_uri):
            _check_uri(artifact_uri)
        if parent_model is not None and model_id is not None:
            raise InvalidArgumentError("model_id", model_id, "parent_model is given too, which has its id already")
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
        self.deferrable = deferrable_by_default() if deferrable is None else deferrable

    def execute(self, context: Context) -> Any:
        """Look at the artifact, adopt what an earlier try has made, else upload, and wait."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        _check_uri(self.artifact_uri)
        self.project_id = validate_project(self.project_id or self._connection_project())
        location = validate_location(self.location)
        if not str(self.display_name).strip():
            raise InvalidArgumentError("display_name", self.display_name, "give the name that people shall see")
        image = self.serving_container_image_uri or serving_container(
            str(self.framework), self.framework_version, location, gpu=self.gpu
        )
        labels = self._labels(context)
        request = self._request(image, labels)

        async def start() -> tuple[dict[str, Any] | None, str]:
            hook = self.model_hook
            async with hook.session():
                found = await hook.find_models({CLEAR_EPOCH_LABEL: labels[CLEAR_EPOCH_LABEL]}, self.parent_model)
                if found:
                    return found[0], ""
                await self._check_artifact(hook)
                return None, await hook.upload_model(request)

        found, operation = run_sync(start)
        if found is not None:
            self.log.info("An earlier try has uploaded %s", found["name"])
            return self._summary(context, found, adopted=True)
        trigger = VertexRayOperationTrigger(
            name=operation, deadline=deadline_after(self.upload_timeout), **self._connection_arguments()
        )
        return self._wait(context, trigger, self.deferrable)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the model back, and return it."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        response = result_of(event)
        self._at(response["model"])
        name = f"{response['model']}@{response.get('modelVersionId', '1')}"
        return self._summary(context, run_sync(lambda: self.model_hook.get_model(name)), adopted=False)

    def _summary(self, context: Context, model: dict[str, Any], *, adopted: bool) -> dict[str, Any]:
        name = str(model["name"]).partition("@")[0]
        version = str(model.get("versionId", "1"))
        persist_link_facts(context, **self._facts(name), version_id=version)
        self.log.info("The model is %s, version %s", name, version)
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

    def _labels(self, context: Context) -> dict[str, str]:
        found = {**owner_labels(context), CLEAR_EPOCH_LABEL: clear_epoch_hash(context)}
        if self.submission_id:
            found["ray-job"] = label_value(self.submission_id)
        metrics = self.metrics or {}
        if not isinstance(metrics, Mapping):
            raise InvalidArgumentError("metrics", metrics, "give a dict of numbers")
        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidArgumentError(f"metrics[{name!r}]", value, "give a number")
            found[label_value(f"{METRIC_LABEL}{name}")] = label_value(f"{value:.6g}".replace(".", "_"))
        found |= {str(key): str(value) for key, value in (self.labels or {}).items()}
        if len(found) > MOST_LABELS:
            raise InvalidArgumentError(
                "labels", sorted(found), f"a model has at most {MOST_LABELS} labels, those of ours included"
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

    async def _check_artifact(self, hook: Any) -> None:
        if self.framework is None:
            return
        files = await hook.artifact_files(self.artifact_uri)
        # TensorFlow's is a folder with more in it; its one file is enough to tell.
        wanted = FRAMEWORKS[self.framework].files
        if not set(files) & set(wanted):
            there = ", ".join(files[:10]) or "nothing"
            raise ArtifactNotFoundError(
                f"artifact_uri: the container of {self.framework} loads {' or '.join(wanted)}, and in "
                f"{self.artifact_uri} there is {there}.",
                {"artifact_uri": self.artifact_uri, "files": files[:100]},
            )


def _check_uri(uri: Any) -> None:
    if not isinstance(uri, str) or not uri.startswith("gs://") or not uri.removeprefix("gs://").strip("/"):
        raise InvalidArgumentError("artifact_uri", uri, "give a folder in Cloud Storage, such as gs://bucket/models/1")
