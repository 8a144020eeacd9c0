"""Work of a deploy and an undeploy request after it was accepted."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from vertex_ray_emulator.faults import DEFAULT_MESSAGE, Fault
from vertex_ray_emulator.serving.predictors import PredictorError, Predictors
from vertex_ray_emulator.wire.errors import CODES, ApiError
from vertex_ray_emulator.wire.protos import accelerator_name

if TYPE_CHECKING:
    from vertex_ray_emulator.serving.prebuilt import Container

log = logging.getLogger(__name__)

_LOGS = (
    "Model server logs can be found at https://console.cloud.google.com/logs/viewer?project={project}"
    "&resource=aiplatform.googleapis.com%2FEndpoint."
)


def _terminated(endpoint: str, reason: str) -> ApiError:
    logs = _LOGS.format(project=endpoint.split("/")[1])
    # The service gives the reason in Cloud Logging only; the emulator has no logs of containers.
    return ApiError(
        "FAILED_PRECONDITION",
        f'Model server terminated: model server container terminated: exit_code: 1 reason: "Error". {logs} '
        f"The emulator's container said: {reason}",
    )


def _never_ready(endpoint: str) -> ApiError:
    return ApiError(
        "FAILED_PRECONDITION",
        "Model server never became ready. Please validate that your model file or container configuration are valid. "
        + _LOGS.format(project=endpoint.split("/")[1]),
    )


def failure(fault: Fault, endpoint: str, deployed: Any) -> ApiError | None:
    """Return the error of a fault of scope ``deployment``; None for an outcome that is not a failure by itself."""
    spec = deployed.dedicated_resources.machine_spec
    accelerator = accelerator_name(spec)
    kind = f"{accelerator.lower().replace('nvidia_tesla_', 'nvidia_')}_gpus" if accelerator else "cpus"
    known = {
        "quota": ApiError(
            "RESOURCE_EXHAUSTED",
            f"The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_serving_{kind}",
        ),
        "stockout": ApiError(
            "RESOURCE_EXHAUSTED",
            "Machine type temporarily unavailable, please deploy with a different machine type or retry.",
        ),
        "unhealthy": _never_ready(endpoint),
        "internal": ApiError("INTERNAL", "Internal error encountered."),
    }
    error = known.get(str(fault.outcome))
    if error is None:
        return None
    code = fault.code if fault.code in CODES else error.code
    return ApiError(code, error.message if fault.message == DEFAULT_MESSAGE else fault.message)


class Deployments:
    """Starts and stops the predictors of deployed models.

    :param predictors: predictor processes.
    :param seconds: minimum duration of a deployment, in seconds.
    """

    def __init__(self, predictors: Predictors, seconds: float) -> None:
        self._predictors = predictors
        self._seconds = seconds

    async def start(
        self, endpoint: str, deployed: Any, container: Container, artifact_uri: str, fault: Fault | None
    ) -> str:
        """Start the predictor of a deployed model and return its key.

        :param endpoint: name of the endpoint, for texts.
        :param deployed: the deployed model as callers see it.
        :param container: container of the model.
        :param artifact_uri: folder of the artifact in Cloud Storage.
        :param fault: fault to apply, if any.
        :raises ApiError: if the deployment fails; no process is left then.
        """
        if fault is not None:
            await self._apply_fault(fault, endpoint, deployed)
        if not container.runs_here:
            raise ApiError(
                "FAILED_PRECONDITION",
                f"The emulator cannot run the image {container.image!r}: it has predictors for the prebuilt "
                "containers of scikit-learn, XGBoost and PyTorch only.",
            )
        try:
            # Not at the same time: a start that is cancelled cleans up after itself, one that has completed could not.
            await asyncio.sleep(self._seconds)
            return await self._predictors.start(container, artifact_uri)
        except PredictorError as error:
            raise _terminated(endpoint, str(error)) from error
        except TimeoutError:
            raise _never_ready(endpoint) from None
        except OSError as error:
            log.exception("The predictor of %s did not start", endpoint)
            raise ApiError("INTERNAL", "Internal error encountered.") from error

    async def _apply_fault(self, fault: Fault, endpoint: str, deployed: Any) -> None:
        if fault.outcome == "stuck":
            await (asyncio.sleep(fault.delay) if fault.delay else asyncio.Event().wait())
            raise _never_ready(endpoint)
        await asyncio.sleep(fault.delay)
        if error := failure(fault, endpoint, deployed):
            await asyncio.sleep(self._seconds)
            raise error

    async def stop(self, key: str) -> None:
        """Stop the predictor of a deployed model; when this returns, no process of it is left."""
        await self._predictors.stop(key)
