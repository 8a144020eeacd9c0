"""PredictionService: chooses a deployed model by the traffic split and calls its predictor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.api import httpbody_pb2
from google.protobuf import json_format

from vertex_ray_emulator.serving.model_rules import required
from vertex_ray_emulator.serving.predictors import PredictorGoneError, Predictors
from vertex_ray_emulator.wire.errors import ApiError, invalid
from vertex_ray_emulator.wire.protos import V1BETA1, Api

if TYPE_CHECKING:
    from vertex_ray_emulator.serving.endpoints import Deployed, Endpoints

MAX_REQUEST = 1_572_864
"""Maximum size of a predict request in bytes, as on the service (1.5 MB)."""


MAX_DEDICATED_REQUEST = 10_485_760
"""Maximum size of a predict request to a dedicated endpoint in bytes (10 MB)."""
_NOT_FINITE = "Invalid JSON payload received. Unexpected token: google.protobuf.Value has no NaN or Infinity."


class Prediction:
    """The prediction methods.

    :param endpoints: endpoints with their deployed models.
    :param predictors: predictor processes.
    """

    def __init__(self, endpoints: Endpoints, predictors: Predictors) -> None:
        self._endpoints = endpoints
        self._predictors = predictors

    async def predict(self, request: Any, api: Api) -> Any:
        """Return the predictions for the instances of a request."""
        body: dict[str, Any] = {"instances": [_plain(each) for each in request.instances]}
        if request.HasField("parameters"):
            body["parameters"] = _plain(request.parameters)
        found = await self.predict_json(request.endpoint, body)
        answer = V1BETA1.message("PredictResponse")()
        json_format.ParseDict(found, answer)
        return answer

    async def predict_json(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return predictions as JSON. Converting a request of the maximum size to messages and back takes a second.

        :param endpoint: name of the endpoint.
        :param body: body of the HTTP request.
        :return: body of the HTTP answer.
        """
        for name in body:
            if name not in ("instances", "parameters", "labels"):
                raise invalid(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
        deployed = self._endpoints.route(endpoint)
        instances = body.get("instances")
        if not isinstance(instances, list):
            # A single value counts as a list of one, as for every repeated field.
            instances = [] if instances is None else [instances]
        if not instances:
            raise required("instances")
        payload = {"instances": instances}
        if body.get("parameters") is not None:
            payload["parameters"] = body["parameters"]
        try:
            data = json.dumps(payload, allow_nan=False).encode()
        except ValueError:
            raise invalid(_NOT_FINITE) from None
        answer = await self._call_predictor(deployed, data)
        try:
            found = json.loads(answer, parse_constant=_no_value)
        except ValueError as error:
            raise ApiError("INTERNAL", f"The model server's answer is not valid: {error}") from error
        message = deployed.message
        return {
            "predictions": found["predictions"],
            "deployedModelId": message.id,
            "model": message.model,
            "modelDisplayName": deployed.model.display_name,
            "modelVersionId": message.model_version_id,
        }

    async def raw_predict(self, request: Any, api: Api) -> Any:
        """Return the container's answer to a request body."""
        deployed = self._endpoints.route(request.endpoint)
        data = await self._call_predictor(deployed, request.http_body.data)
        return httpbody_pb2.HttpBody(content_type="application/json", data=data)

    async def _call_predictor(self, deployed: Deployed, body: bytes) -> bytes:
        try:
            status, answer = await self._predictors.predict(deployed.key or "", body)
        except PredictorGoneError:
            raise ApiError("UNAVAILABLE", "The service is currently unavailable.") from None
        except TimeoutError:
            raise ApiError("DEADLINE_EXCEEDED", "Deadline exceeded: the model server did not answer in time.") from None
        if status == 200:
            return answer
        # The message is the container's own answer, quotes included.
        raise ApiError("FAILED_PRECONDITION" if status == 400 else "INTERNAL", answer.decode(errors="replace"))


def _plain(value: Any) -> Any:
    try:
        return json_format.MessageToDict(value)
    except (ValueError, json_format.SerializeToJsonError):
        raise invalid(_NOT_FINITE) from None


def _no_value(name: str) -> float:
    raise ValueError(f"google.protobuf.Value does not represent {name}.")
