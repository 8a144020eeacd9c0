"""Operator that requests predictions from an endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import known_at_run_time, unless_empty
from airflow_provider_vertex_ray.core.job.state import MAX_RESULT_BYTES
from airflow_provider_vertex_ray.core.serving.instances import encode
from airflow_provider_vertex_ray.errors import EndpointNotServingError, InvalidArgumentError, VertexRayError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.serving import VertexRayEndpointLink
from airflow_provider_vertex_ray.operators.arguments import check_counts, check_mappings, check_strings
from airflow_provider_vertex_ray.operators.model_base import ModelBaseOperator
from airflow_provider_vertex_ray.triggers.serving import serves

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

LARGEST_REQUEST = 1_500_000
"""Maximum size of a request to a shared endpoint in bytes.

Source: https://cloud.google.com/vertex-ai/docs/predictions/get-online-predictions
"""

LARGEST_DEDICATED_REQUEST = 10_000_000
"""Maximum size of a request to a dedicated endpoint in bytes.

Source: https://cloud.google.com/vertex-ai/docs/predictions/choose-endpoint-type
"""

_RESERVED_BYTES = 1000


class VertexRayPredictOperator(ModelBaseOperator):
    """Request predictions from an endpoint and return them in the order of the instances.

    The instances are split into requests of at most 1.5 MB, Vertex AI's limit, or 10 MB to a dedicated endpoint, which
    is asked at its own host. Each instance gets one prediction, or
    the task fails and reports the rejected instances with the container's own message.

    Returns ``count``, ``deployed_model_ids``, and ``predictions`` or, if it is set, ``output_uri``.

    :param endpoint_id: endpoint ID or resource name. (templated)
    :param instances: instances in the form that the model's container expects; for scikit-learn and XGBoost, lists of
        numbers. (templated)
    :param instances_uri: URI of a file with one JSON value per line or one JSON list, instead of ``instances``.
        (templated)
    :param parameters: prediction parameters, for containers that support them. (templated)
    :param instances_per_request: maximum number of instances in one request.
    :param output_uri: URI of a file for the predictions, one JSON value per line. Required for predictions larger than
        48 KiB. (templated)
    :raises InvalidArgumentError: an argument or an instance is invalid; nothing was sent to the endpoint.
    :raises EndpointNotFoundError: the endpoint does not exist.
    :raises EndpointNotServingError: the endpoint has no deployed model with traffic; nothing was sent to it.
    :raises PredictionError: the container rejected a request.
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
            raise InvalidArgumentError("instances", instances, "Use either instances or instances_uri.")
        if instances is not None and not known_at_run_time(instances):
            _check_instances("instances", instances)
            encode(instances, "instances", known_at_run_time)
        check_strings(instances_uri=instances_uri, output_uri=output_uri)
        check_mappings(parameters=parameters)
        check_counts(instances_per_request=instances_per_request)
        self.endpoint_id = endpoint_id
        self.instances = instances
        self.instances_uri = instances_uri
        self.parameters = parameters
        self.instances_per_request = instances_per_request
        self.output_uri = output_uri

    def execute(self, context: Context) -> dict[str, Any]:
        """Split the instances into requests, send them, and return the combined predictions."""
        from airflow_provider_vertex_ray.core.threads import run_sync

        check_mappings(parameters=unless_empty(self.parameters))
        parameters = None if self.parameters is None else encode(self.parameters, "parameters")
        name = self._resource("endpoints", self.endpoint_id, "endpoint_id")
        self._set_place(name)
        persist_link_facts(context, **self._facts(name))
        field = "instances" if self.instances is not None else "instances_uri"
        instances = self._read()
        _check_instances(field, instances)
        instances = encode(instances, field)
        parameters_size = len(json.dumps(parameters or {}))
        # No endpoint takes more, so this fails before the first request.
        split_instances(instances, self.instances_per_request, parameters_size, LARGEST_DEDICATED_REQUEST)

        async def ask() -> tuple[list[Any], list[str], int]:
            from airflow_provider_vertex_ray.hooks.calls.model import dedicated_dns

            hook = self.model_hook
            async with hook.session():
                endpoint = await hook.get_endpoint(name)
                if not serves(endpoint):
                    raise EndpointNotServingError(f"{name} has no deployed model with traffic.", {"endpoint": name})
                dns = dedicated_dns(endpoint)
                limit = LARGEST_DEDICATED_REQUEST if dns else LARGEST_REQUEST
                chunks = split_instances(instances, self.instances_per_request, parameters_size, limit)
                return *await hook.predict(name, chunks, parameters, dns=dns), len(chunks)

        predictions, deployed, requests = run_sync(ask)
        self.log.info("Received %d predictions with %d requests", len(predictions), requests)
        found: dict[str, Any] = {"count": len(predictions), "deployed_model_ids": deployed}
        if self.output_uri:
            from airflow.providers.common.compat.sdk import ObjectStoragePath

            lines = "".join(json.dumps(each) + "\n" for each in predictions)
            ObjectStoragePath(self.output_uri).write_bytes(lines.encode())
            return {**found, "output_uri": self.output_uri}
        if (size := len(json.dumps(predictions))) > MAX_RESULT_BYTES:
            raise VertexRayError(
                f"The predictions have {size:,} bytes as JSON; a task can return at most {MAX_RESULT_BYTES:,}. Use "
                "output_uri to write them to a file."
            )
        return {**found, "predictions": predictions}

    def _file(self) -> str:
        """Return the content of the file with the instances.

        :raises InvalidArgumentError: the file cannot be read.
        """
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        try:
            content: bytes = ObjectStoragePath(str(self.instances_uri)).read_bytes()
            return content.decode()
        except Exception as error:  # each kind of storage has its own errors
            rule = f"The file cannot be read: {type(error).__name__}: {error}."
            raise InvalidArgumentError("instances_uri", self.instances_uri, rule) from error

    def _read(self) -> list[Any]:
        if self.instances is not None:
            if not isinstance(self.instances, str):
                _check_instances("instances", self.instances)
                return list(self.instances)
            # A template, such as one that pulls an XCom, renders to a string of JSON.
            try:
                rendered = json.loads(self.instances)
            except ValueError as error:
                raise InvalidArgumentError("instances", self.instances, f"Use a JSON list: {error}.") from None
            if not isinstance(rendered, list):
                raise InvalidArgumentError("instances", self.instances, "Use a JSON list.")
            return rendered
        text = self._file()
        if text.lstrip().startswith("[") and "\n[" not in text.strip():
            try:
                found = json.loads(text)
            except ValueError:
                pass
            else:
                # A file with a single line may hold one instance that is itself a list.
                return found if found and isinstance(found[0], (list, dict)) else [found]
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    lines.append(json.loads(line))
                except ValueError as error:
                    raise InvalidArgumentError(
                        f"instances_uri, line {number}", line[:100], f"The line is not valid JSON: {error}."
                    ) from None
        return lines


def split_instances(
    instances: Sequence[Any], most: int, parameters_size: int = 0, largest: int = LARGEST_REQUEST
) -> list[list[Any]]:
    """Return the instances in lists, one for each request.

    :param instances: the instances.
    :param most: maximum number of instances in a list.
    :param parameters_size: bytes of the parameters, which each request contains.
    :param largest: bytes of a request, at most.
    :raises InvalidArgumentError: a single instance is too large for a request.
    """
    limit = largest - _RESERVED_BYTES - parameters_size
    chunks: list[list[Any]] = []
    left = 0
    for place, instance in enumerate(instances):
        size = len(json.dumps(instance).encode()) + 2
        if size > limit:
            raise InvalidArgumentError(
                f"instances[{place}]", f"{size:,} bytes", f"A request can have at most {largest:,} bytes."
            )
        if not chunks or size > left or len(chunks[-1]) >= most:
            chunks.append([])
            left = limit
        chunks[-1].append(instance)
        left -= size
    return chunks


def _check_instances(field: str, instances: Any) -> None:
    array = getattr(instances, "ndim", 0) and hasattr(instances, "dtype")
    if isinstance(instances, str) or not (array or isinstance(instances, Sequence)) or not len(instances):
        raise InvalidArgumentError(field, instances, "Use a list of at least one instance.")
