"""Outcomes of a failed create or resize, with the service's own texts (from reports of live runs)."""

from __future__ import annotations

from typing import Any

from vertex_ray_emulator.faults import DEFAULT_MESSAGE, Fault
from vertex_ray_emulator.project.quota_metrics import cpu_metric, gpu_metric
from vertex_ray_emulator.wire.errors import CODES, UNAUTHENTICATED_MESSAGE, ApiError, code_for_status
from vertex_ray_emulator.wire.protos import accelerator_name

INTERNAL_TEXT = (
    "An internal error occurred on your cluster. Please try recreating one in a few minutes. "
    "If you still experience errors, contact Cloud AI."
)


def internal() -> ApiError:
    """Return the error of a cluster that did not start because of an internal error of the service."""
    return ApiError("INTERNAL", INTERNAL_TEXT)


def quota_metric(resource: Any) -> str:
    """Return the training quota that a resource's last pool uses: ``…/custom_model_training_nvidia_t4_gpus``."""
    spec = resource.resource_pools[-1].machine_spec
    accelerator = accelerator_name(spec)
    metric = gpu_metric(accelerator) if accelerator else cpu_metric(spec.machine_type)
    return f"aiplatform.googleapis.com/{metric}"


def failure(fault: Fault, resource: Any, region: str) -> ApiError | None:
    """Return the error of a provisioning fault; None for an outcome that is not a failure by itself."""
    known = {
        "quota": (
            "RESOURCE_EXHAUSTED",
            f"The following quota metrics exceed quota limits: {quota_metric(resource)}",
        ),
        "stockout": (
            "RESOURCE_EXHAUSTED",
            f"Resources are insufficient in region: {region}. Please try a different region. If you use "
            "GPUs, please also try different accelerator types or fewer accelerators.",
        ),
        "internal": ("INTERNAL", INTERNAL_TEXT),
        "ip_ranges": (
            "FAILED_PRECONDITION",
            "Couldn't find free blocks in allocated IP ranges. Please allocate new ranges for this service provider.",
        ),
    }
    if fault.outcome not in known:
        return None
    code, text = known[fault.outcome]
    if fault.code in CODES:
        code = fault.code
    return ApiError(code, text if fault.message == DEFAULT_MESSAGE else fault.message)


def as_error(fault: Fault) -> ApiError:
    """Return the error of a fault with the action ``status``."""
    code = fault.code if fault.code in CODES else code_for_status(fault.status)
    # A code alone ("code": "NOT_FOUND") implies its own status, which the default of 503 would contradict.
    status = CODES[code][1] if fault.code in CODES and fault.status == 503 else fault.status
    message = fault.message
    if message == DEFAULT_MESSAGE and code == "UNAUTHENTICATED":
        message = UNAUTHENTICATED_MESSAGE
    return ApiError(code, message, http_status=status)
