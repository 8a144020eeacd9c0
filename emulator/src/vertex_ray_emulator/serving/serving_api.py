"""RPCs of models, endpoints and predictions, in one table that REST and gRPC share.

The paths are those of the ``google.api.http`` annotations. Both interfaces convert a request to its message.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.api import httpbody_pb2
from google.protobuf import json_format

from vertex_ray_emulator.clusters.rules import snake_case
from vertex_ray_emulator.serving.prediction import MAX_REQUEST
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.operations import LongRunningOperation
from vertex_ray_emulator.wire.protos import V1BETA1, Api, convert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vertex_ray_emulator.serving.endpoints import Endpoints
    from vertex_ray_emulator.serving.model_registry import ModelRegistry
    from vertex_ray_emulator.serving.prediction import Prediction

LOCATION = r"projects/[^/:]+/locations/[^/:]+"
MODEL = LOCATION + r"/models/[^/:]+"
ENDPOINT = LOCATION + r"/endpoints/[^/:]+"
MAX_BODY = 1 << 20
_COMMON = {
    "alt", "key", "fields", "prettyPrint", "quotaUser", "userProject", "access_token", "oauth_token", "callback",
    "xgafv", "uploadType", "upload_protocol",
}  # fmt: skip
"""Query parameters of all methods of Google's REST APIs, which are not fields of a request."""
UNREADABLE = (json_format.ParseError, TypeError, AttributeError, ValueError)
"""What the parser raises for a body that is not such a message: other errors than its own for a wrong ``@type``."""


@dataclass(frozen=True)
class Rpc:
    """An RPC.

    :param service: ``ModelService``, ``EndpointService`` or ``PredictionService``.
    :param name: name of the RPC; the name of its request message is this name and ``Request``.
    :param verb: HTTP method.
    :param path: pattern of the resource in the HTTP path, which is the value of ``field``.
    :param end: rest of the HTTP path, such as ``/models`` or ``:deployModel``.
    :param field: field of the request that is in the path, such as ``model.name``.
    :param body: field of the request that is the HTTP body; ``*`` for the whole request, None for no body.
    :param work: carries out the RPC on v1beta1 messages; lists receive the caller's message.
    :param new_id: field of the request with the id of a new resource, for the request log.
    :param work_json: carries out an HTTP request without messages, from the resource and the body to the answer's body.
    """

    service: str
    name: str
    verb: str
    path: str
    end: str
    field: str
    body: str | None
    work: Callable[[Any, Api], Awaitable[Any]]
    new_id: str = ""
    work_json: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]] | None = None

    @property
    def max_body(self) -> int:
        """Maximum size of a request in bytes."""
        return MAX_REQUEST if self.service == "PredictionService" else MAX_BODY

    def request(self, api: Api) -> Any:
        """Return the class of the request message."""
        return api.message(f"{self.name}Request")

    def resource(self, request: Any) -> str:
        """Return the name of the resource that a request is about."""
        value = request
        for part in self.field.split("."):
            value = getattr(value, part)
        made = getattr(request, self.new_id) if self.new_id else ""
        return f"{value}{self.end}/{made}" if made else str(value)

    async def carry_out(self, request: Any, api: Api) -> Any:
        """Carry out a request and return the answer, both in the caller's version of the API.

        :param request: request message.
        :param api: version of the API that the caller uses.
        """
        # Lists differ between versions in order_by only, which v1beta1 does not have for models and endpoints.
        if not self.name.startswith("List"):
            request = self.request(V1BETA1).FromString(request.SerializeToString())
        answer = await self.work(request, api)
        if isinstance(answer, LongRunningOperation):
            return answer.render()
        return answer if isinstance(answer, httpbody_pb2.HttpBody) else convert(answer, api)

    def from_http(self, api: Api, name: str, query: Mapping[str, str], body: dict[str, Any], data: bytes) -> Any:
        """Return the request message of an HTTP request.

        :param api: version of the API that the caller uses.
        :param name: resource in the path.
        :param query: query parameters.
        :param body: body as a JSON object.
        :param data: body in bytes.
        :raises ApiError: INVALID_ARGUMENT if a field does not exist, as on the service.
        """
        request = self.request(api)()
        if self.name == "RawPredict":
            _raw(data, request.http_body)
        elif self.body == "*":
            _parse(body, request, "")
        elif self.body is not None:
            _parse(body, getattr(request, self.body), self.body)
        for key in check_parameters(request, query, self.body):
            self._parameter(request, key, query[key])
        *parents, last = self.field.split(".")
        target = request
        for part in parents:
            target = getattr(target, part)
        setattr(target, last, name)
        return request

    def _parameter(self, request: Any, key: str, value: str) -> None:
        field = snake_case(key)
        known = request.DESCRIPTOR.fields_by_name[field]
        if field.endswith("_mask"):
            getattr(request, field).paths.extend(snake_case(path) for path in value.split(",") if path)
            return
        try:
            json_format.ParseDict({known.json_name: value}, request)
        except json_format.ParseError as error:
            raise invalid(f"Invalid value at '{field}', {value!r}") from error


def check_parameters(request: Any, query: Mapping[str, str], body: str | None) -> list[str]:
    """Return the query parameters that are fields of a request.

    :param request: request message or its class.
    :param query: all query parameters.
    :param body: field of the request that is the HTTP body.
    :raises ApiError: INVALID_ARGUMENT for one that is neither a field nor common to all methods.
    """
    found = [key for key in query if not key.startswith("$") and key not in _COMMON]
    for key in found:
        field = snake_case(key)
        if field not in request.DESCRIPTOR.fields_by_name or field == body:
            raise invalid(f'Invalid JSON payload received. Unknown name "{key}": Cannot bind query parameter.')
    return found


def _raw(data: bytes, http_body: Any) -> None:
    """Copy the body of a raw request, which generated clients wrap in a message."""
    with contextlib.suppress(ValueError, TypeError, json_format.ParseError):
        wrapped = json.loads(data)
        if set(wrapped) == {"httpBody"}:
            json_format.ParseDict(wrapped["httpBody"], http_body)
            return
    http_body.data, http_body.content_type = data, "application/json"


def _parse(body: dict[str, Any], message: Any, root: str) -> None:
    try:
        json_format.ParseDict(body, message)
    except UNREADABLE as error:
        raise unreadable(error, root) from error


def too_large(limit: int) -> ApiError:
    """Return the error 400 for a request that is larger than a limit in bytes."""
    return invalid(f"Request payload size exceeds the limit: {limit} bytes.")


def unreadable(error: Exception, root: str) -> ApiError:
    """Return the error 400 for a body that cannot be parsed as a message, with the name of an unknown field.

    :param error: error of the parser.
    :param root: field of the request that the body represents; empty for the request itself.
    """
    unknown = re.search(r'has no field named "([^"]*)"(?: at "([^"]*)")?', str(error))
    if not unknown:
        return invalid(f"Invalid JSON payload received. {error}")
    where = ".".join(filter(None, [root, *(unknown.group(2) or "").split(".")[1:]]))
    at = f" at '{where}'" if where else ""
    return invalid(f'Invalid JSON payload received. Unknown name "{unknown.group(1)}"{at}: Cannot find field.')


def rpcs(models: ModelRegistry, endpoints: Endpoints, prediction: Prediction) -> list[Rpc]:
    """Return all RPCs of the three services."""
    m, e, p = "ModelService", "EndpointService", "PredictionService"
    return [
        Rpc(m, "UploadModel", "POST", LOCATION, "/models:upload", "parent", "*", models.upload),
        Rpc(m, "ListModels", "GET", LOCATION, "/models", "parent", None, models.list_page),
        Rpc(m, "GetModel", "GET", MODEL, "", "name", None, models.get),
        Rpc(m, "UpdateModel", "PATCH", MODEL, "", "model.name", "model", models.update),
        Rpc(m, "DeleteModel", "DELETE", MODEL, "", "name", None, models.delete),
        Rpc(m, "ListModelVersions", "GET", MODEL, ":listVersions", "name", None, models.list_versions),
        Rpc(m, "DeleteModelVersion", "DELETE", MODEL, ":deleteVersion", "name", None, models.delete_version),
        Rpc(m, "MergeVersionAliases", "POST", MODEL, ":mergeVersionAliases", "name", "*", models.merge_version_aliases),
        Rpc(e, "CreateEndpoint", "POST", LOCATION, "/endpoints", "parent", "endpoint", endpoints.create, "endpoint_id"),
        Rpc(e, "ListEndpoints", "GET", LOCATION, "/endpoints", "parent", None, endpoints.list_page),
        Rpc(e, "GetEndpoint", "GET", ENDPOINT, "", "name", None, endpoints.get),
        Rpc(e, "UpdateEndpoint", "PATCH", ENDPOINT, "", "endpoint.name", "endpoint", endpoints.update),
        Rpc(e, "DeleteEndpoint", "DELETE", ENDPOINT, "", "name", None, endpoints.delete),
        Rpc(e, "DeployModel", "POST", ENDPOINT, ":deployModel", "endpoint", "*", endpoints.deploy),
        Rpc(e, "UndeployModel", "POST", ENDPOINT, ":undeployModel", "endpoint", "*", endpoints.undeploy),
        Rpc(
            p,
            "Predict",
            "POST",
            ENDPOINT,
            ":predict",
            "endpoint",
            "*",
            prediction.predict,
            work_json=prediction.predict_json,
        ),
        Rpc(p, "RawPredict", "POST", ENDPOINT, ":rawPredict", "endpoint", "*", prediction.raw_predict),
    ]
