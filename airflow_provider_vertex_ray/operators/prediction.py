"""Predictions from an endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES
from airflow_provider_vertex_ray.errors import EndpointNotServingError, InvalidArgumentError, VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.serving import VertexRayEndpointLink
from airflow_provider_vertex_ray.operators.model_base import ModelBaseOperator, later
from airflow_provider_vertex_ray.triggers.serving import serves

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LARGEST_REQUEST = 1_500_000
"""Bytes of a request (https://cloud.google.com/vertex-ai/docs/predictions/get-online-predictions)."""

_ROOM = 1000


class VertexRayPredictOperator(ModelBaseOperator):
    """Asks an endpoint for predictions, and returns them in the instances' order.

    Instances are sent in as many requests as the limit of 1.5 MB asks for. Each instance gets one prediction, or the
    task fails and says which instances were refused, in the container's words.

    Returns ``predictions`` or, with ``output_uri``, where they are; ``count`` and ``deployed_model_ids``.

    :param endpoint_id: Id or resource name. (templated)
    :param instances: The instances, as the model's container takes them: for scikit-learn and XGBoost lists of numbers.
        (templated)
    :param instances_uri: Or a file with one JSON value a line, or with one JSON list. (templated)
    :param parameters: Parameters of the prediction, for containers that take some. (templated)
    :param instances_per_request: Instances in one request at most.
    :param output_uri: A file for the predictions, one JSON value a line. Needed where they are larger than 48 KiB.
        (templated)

    Raises InvalidArgumentError and EndpointNotServingError before anything was sent; EndpointNotFoundError, PredictionError.
    """

    template_fields: Sequence[str] = (
        "endpoint_id",
        "instances",
        "instances_uri",
        "parameters",
        "output_uri",
        *ModelBaseOperator.connection_fields,
    )
    operator_extra_links = (VertexRayEndpointLink(),)

    def __init__(
        self,
        *,
        endpoint_id: str,
        instances: Sequence[Any] | None = None,
        instances_uri: str | None = None,
        parameters: dict[str, Any] | None = None,
        instances_per_request: int = 1000,
        output_uri: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check_resource("endpoints", endpoint_id, "endpoint_id")
        if (instances is None) == (instances_uri is None):
            raise InvalidArgumentError("instances", instances, "give instances, or instances_uri")
        if instances is not None and not later(instances):
            _check_instances("instances", instances)
        per = instances_per_request
        if isinstance(per, bool) or not isinstance(per, int) or per < 1:
            raise InvalidArgumentError("instances_per_request", per, "give a whole number above 0")
        self.endpoint_id = endpoint_id
        self.instances = instances
        self.instances_uri = instances_uri
        self.parameters = parameters
        self.instances_per_request = instances_per_request
        self.output_uri = output_uri

    def execute(self, context: Context) -> dict[str, Any]:
        """Cut the instances into requests, send them, and put the answers together."""
        from airflow_provider_vertex_ray.hooks.base import run_sync

        name = self._resource("endpoints", self.endpoint_id, "endpoint_id")
        self._at(name)
        persist_link_facts(context, **self._facts(name))
        field = "instances" if self.instances is not None else "instances_uri"
        instances = self._read()
        _check_instances(field, instances)
        chunks = cut(instances, self.instances_per_request, len(json.dumps(self.parameters or {})))

        async def ask() -> tuple[list[Any], list[str]]:
            hook = self.model_hook
            async with hook.session():
                if not serves(await hook.get_endpoint(name)):
                    raise EndpointNotServingError(f"{name} has no deployed model with traffic.", {"endpoint": name})
                return await hook.predict(name, chunks, self.parameters)

        predictions, deployed = run_sync(ask)
        self.log.info("%d predictions, by %d requests", len(predictions), len(chunks))
        found: dict[str, Any] = {"count": len(predictions), "deployed_model_ids": deployed}
        if self.output_uri:
            from airflow.providers.common.compat.sdk import ObjectStoragePath

            lines = "".join(json.dumps(each) + "\n" for each in predictions)
            ObjectStoragePath(self.output_uri).write_bytes(lines.encode())
            return {**found, "output_uri": self.output_uri}
        if (size := len(json.dumps(predictions))) > MAX_RESULT_BYTES:
            raise VertexRayError(
                f"The predictions have {size:,} bytes as JSON, and up to {MAX_RESULT_BYTES:,} are returned. Give "
                "output_uri, a file for them."
            )
        return {**found, "predictions": predictions}

    def _read(self) -> list[Any]:
        if self.instances is not None:
            # A template that is rendered to a text, such as an XCom within one, holds JSON.
            return json.loads(self.instances) if isinstance(self.instances, str) else list(self.instances)
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        text = ObjectStoragePath(str(self.instances_uri)).read_bytes().decode()
        if text.lstrip().startswith("[") and "\n[" not in text.strip():
            try:
                found = json.loads(text)
            except ValueError:
                pass
            else:
                # A file of one line may hold one instance, which is a list itself.
                return found if found and isinstance(found[0], (list, dict)) else [found]
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    lines.append(json.loads(line))
                except ValueError as error:
                    raise InvalidArgumentError(
                        f"instances_uri, line {number}", line[:100], f"it is no JSON: {error}"
                    ) from None
        return lines


def cut(instances: Sequence[Any], most: int, parameters_size: int = 0) -> list[list[Any]]:
    """The instances in lists for one request each.

    :param most: Instances in a list at most.
    :param parameters_size: Bytes of the parameters, which each request has.
    :raises InvalidArgumentError: One instance alone is too large.
    """
    limit = LARGEST_REQUEST - _ROOM - parameters_size
    chunks: list[list[Any]] = []
    left = 0
    for place, instance in enumerate(instances):
        size = len(json.dumps(instance).encode()) + 2
        if size > limit:
            raise InvalidArgumentError(
                f"instances[{place}]", f"{size:,} bytes", f"a request takes {LARGEST_REQUEST:,} bytes"
            )
        if not chunks or size > left or len(chunks[-1]) >= most:
            chunks.append([])
            left = limit
        chunks[-1].append(instance)
        left -= size
    return chunks


def _check_instances(field: str, instances: Any) -> None:
    if isinstance(instances, str) or not isinstance(instances, Sequence) or not instances:
        raise InvalidArgumentError(field, instances, "give a list of at least one instance")
